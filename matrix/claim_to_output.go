package matrix

import (
	"context"
	"time"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// output: what the host itself sends is diverted as well, when a rule marks it on its way out: it
// is routed anew, comes in again by the loopback interface, and meets the rule with tproxy there
// (ip_route_me_harder, net/ipv4/netfilter.c, and ip6_route_me_harder, net/ipv6/netfilter.c). What a
// proxy sends itself has a mark by which the rule lets it pass: it would be connected with itself.
//
//  1. LOCAL has a server, and REMOTE a listener on its loopback address. Control: before the rule
//     is there, a client like the cell's, which is REMOTE's, is connected with LOCAL's server.
//  2. The rule diverts what REMOTE sends to the server. The client connects to it, and REMOTE's
//     listener accepts: the socket's own name is the server's. It reads the client's line, and its
//     answer comes back to the client from the server's name.
//  3. Another client of REMOTE's, with a proxy's mark, connects to the server: LOCAL's accepts,
//     reads the client's line and answers. No more has come to either.
//  4. The rule counted at least three packets, and its action found a socket for each.
func (x *claimRun) output(ctx context.Context) error {
	from, to := x.flowEnds()
	at, there := x.remote.request(), x.local.request()
	opened := []*stepResult{
		there.open("server", script.Stream{Ends: script.Ends{Role: script.Server, Local: to}}),
		at.open("listener", x.serverSpec()),
	}
	if err := both(ctx, at.run, there.run); err != nil {
		return err
	}
	if err := x.opened(opened...); err != nil {
		return err
	}
	c, err := x.connectedControl(ctx, "listener", "it was diverted before the rule was there")
	if err != nil {
		return err
	}
	if err := x.loadBehind(ctx, c); err != nil {
		return err
	}
	own := x.controlSpec().(script.Stream)
	own.Proxys = !x.omit[ProxyMarked]
	at = x.remote.request()
	spec := x.clientSpec()
	ready := []*stepResult{at.open("client", spec), at.connect("client", spec), at.open("own", own),
		at.connect("own", own)}
	at.fence()
	connected, passed := at.connected("client"), at.connected("own")
	at.send("client", script.ClientLine, 0)
	at.send("own", script.PacketLine, 0)
	at.fence()
	accepted := at.accept("listener")
	read := at.receive("listener")
	at.send("listener", script.ServerLine, 0)
	if err := at.run(ctx); err != nil {
		return err
	}
	if err := x.opened(ready...); err != nil {
		return err
	}
	x.used = append(x.used, usedFlow{pfconf.Flow{Family: x.Family, Proto: x.Proto, Near: ready[3].Local, Far: to},
		false, time.Now()})
	there = x.local.request()
	acceptedOwn := there.accept("server")
	readOwn := there.receive("server")
	there.send("server", answerLine, 0)
	there.fence()
	more := there.rest("server")
	there.close("server")
	there.fence()
	if err := there.run(ctx); err != nil {
		return err
	}
	at = x.remote.request()
	heard, heardOwn := at.receive("client"), at.receive("own")
	unheard := at.rest("listener")
	at.add(script.Reset{Socket: "client"}, exchangeEnds) // no socket of REMOTE's is to be in TIME_WAIT
	if err := at.run(ctx); err != nil {
		return err
	}
	switch {
	case connected.Err != nil:
		return failed(NotDelivered, "%s: the connection to %v was not answered (%s)", connected.where, to,
			connected.Err.Text)
	case acceptedOwn.Err == nil && acceptedOwn.Peer == from:
		return failed(NotDelivered, "%s: the connection from %v came to LOCAL, and was not diverted", acceptedOwn.where,
			from)
	}
	if err := x.judgeAccepted(accepted, from, to); err != nil {
		return err
	}
	if err := x.judge(read, want{line: script.ClientLine, from: from, missing: NotDelivered}); err != nil {
		return err
	}
	if err := x.judge(heard, want{line: script.ServerLine, from: to, missing: NoReply}); err != nil {
		return err
	}
	if acceptedOwn.Err != nil {
		return failed(Looped, "%s: what the proxy sends itself did not leave, or was diverted (%s)", passed.where,
			acceptedOwn.Err.Text)
	}
	if err := x.judge(readOwn, want{line: script.PacketLine, from: ready[3].Local, missing: Looped}); err != nil {
		return err
	}
	if err := x.judge(heardOwn, want{line: answerLine, from: to, missing: NoReply}); err != nil {
		return err
	}
	for _, rest := range []*stepResult{more, unheard} {
		if err := x.judge(rest); err != nil {
			return err
		}
	}
	return x.judgeServed(ctx, 3)
}
