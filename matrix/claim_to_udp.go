package matrix

import (
	"context"
	"net/netip"
	"time"

	"pfdivert/matrix/script"
)

// bindTwice: a socket that answers in FAKE's name can be bound to FAKE and the port there while
// another one is, when both have SO_REUSEADDR (socket(7); udp_lib_lport_inuse, net/ipv4/udp.c), or
// on FreeBSD and OpenBSD SO_REUSEPORT (getsockopt(2): completely duplicate bindings). A proxy for
// UDP has one such socket for each client.
//
//  1. Control: before the rule is there, what a client like the cell's sends to FAKE does not
//     reach the server.
//  2. The client sends. The line comes to the server, with FAKE as its destination.
//  3. REMOTE binds a socket to FAKE and the port there and connects it to another client, then a
//     second one, which is connected to the cell's client and answers. The client has the answer,
//     once, from FAKE.
//  4. A third socket, without the option, is refused the name: it was the option that counted.
//  5. The rule has counted one packet.
func (x *claimRun) bindTwice(ctx context.Context) error {
	from, to := x.flowEnds()
	received, err := x.beginTo(ctx)
	if err != nil {
		return err
	}
	second, third := x.answering(from), x.answering(from)
	third.Reuse, third.ReusePort = false, false
	if x.omit[Reusing] {
		second = third
	}
	at := x.remote.request()
	first := x.answering(otherPort(from))
	ready := []*stepResult{at.open("first", first), at.connect("first", first)}
	again := at.open("second", second)
	connected := at.connect("second", second)
	refused := at.open("third", third)
	answered := at.send("second", script.ServerLine, 0)
	at.fence()
	if err := at.run(ctx); err != nil {
		return err
	}
	there := x.local.request()
	heard := there.rest("client")
	if err := there.run(ctx); err != nil {
		return err
	}
	if err := x.judge(received, want{line: script.ClientLine, from: from, to: to, missing: NotDelivered}); err != nil {
		return err
	}
	if err := x.opened(ready...); err != nil {
		return err
	}
	if again.Err != nil && again.Err.Code == "EADDRINUSE" {
		return failed(NotOpened, "%s: the kernel refuses to bind %v beside another socket, and both have %s: %s",
			again.where, to, x.kernel.sharing(), again.Err.Text)
	}
	if err := x.opened(again, connected); err != nil {
		return err
	}
	switch {
	case refused.Err == nil:
		return failed(NotRefused, "%s: the kernel lets %v be bound without %s beside other sockets, and must say EADDRINUSE",
			refused.where, to, x.kernel.sharing())
	case refused.Err.Code != "EADDRINUSE":
		return x.opened(refused)
	}
	if err := unanswered(answered); err != nil {
		return err
	}
	if err := x.judge(heard, want{line: script.ServerLine, from: to, missing: NoReply}); err != nil {
		return err
	}
	return x.judgeServed(ctx, 1)
}

// otherFIB: "By default, a UDP socket bound to an address can receive datagrams originating from
// any FIB." (FreeBSD's udp(4)) A packet comes with the FIB of its interface.
//
//  1. REMOTE's server is in FIB 1. Control: before the rule is there, what a client like the cell's
//     sends to FAKE does not reach it.
//  2. The client sends. The line comes to the server, with FAKE as its destination.
//  3. The rule has counted one packet.
func (x *claimRun) otherFIB(ctx context.Context) error {
	x.fib = 1
	from, to := x.flowEnds()
	received, err := x.beginTo(ctx)
	if err != nil {
		return err
	}
	if err := x.judge(received, want{line: script.ClientLine, from: from, to: to, missing: NotDelivered}); err != nil {
		return err
	}
	return x.judgeServed(ctx, 1)
}

// udpConnected: what belongs to a connected UDP socket is diverted to it, and what is new to the
// listener (nft_tproxy.c, nft_tproxy_eval_v4 and _v6, look for an established socket first;
// openwrt/openwrt#24340 is about a kernel that did not find it).
//
//  1. Control: before the rule is there, what a client like the cell's sends to FAKE does not
//     reach the server.
//  2. The client sends. The line comes to the server, with FAKE as its destination.
//  3. REMOTE binds a second transparent socket to FAKE and the port there and connects it to the
//     client. What the client sends next comes to that socket, once, and not to the server.
//  4. The second socket answers, and the client has that from FAKE.
//  5. What another client sends to FAKE comes to the server, once, and not to the second socket.
//  6. The rule has counted three packets, or two where it is not asked about those of a connected
//     socket, and its action found a socket for each.
func (x *claimRun) udpConnected(ctx context.Context) error {
	from, to := x.flowEnds()
	received, err := x.beginTo(ctx)
	if err != nil {
		return err
	}
	if err := x.judge(received, want{line: script.ClientLine, from: from, to: to, missing: NotDelivered}); err != nil {
		return err
	}
	second := x.answering(from)
	if x.omit[Connected] {
		second.Remote = otherPort(from)
	}
	at := x.remote.request()
	ready := []*stepResult{at.open("second", second), at.connect("second", second)}
	if err := at.run(ctx); err != nil {
		return err
	}
	if err := x.opened(ready...); err != nil {
		return err
	}
	if err := x.sends(ctx); err != nil {
		return err
	}
	at = x.remote.request()
	passedBy := at.rest("server")
	taken := at.receive("second")
	more := at.rest("second")
	at.send("second", script.ServerLine, 0)
	at.fence()
	if err := at.run(ctx); err != nil {
		return err
	}
	there := x.local.request()
	heard := there.rest("client")
	if err := there.run(ctx); err != nil {
		return err
	}
	if err := x.judge(taken, want{line: script.ClientLine, from: from, missing: NotDelivered}); err != nil {
		return err
	}
	for _, a := range []*stepResult{passedBy, more} {
		if err := x.judge(a); err != nil {
			return err
		}
	}
	if err := x.judge(heard, want{line: script.ServerLine, from: to, missing: NoReply}); err != nil {
		return err
	}
	other, err := x.connects(ctx, "other", x.clientOf(0, 0))
	if err != nil {
		return err
	}
	x.used = append(x.used, usedFlow{x.controlFlow(other), false, time.Now()})
	at = x.remote.request()
	received, taken = at.rest("server"), at.rest("second")
	if err := at.run(ctx); err != nil {
		return err
	}
	if err := x.judge(received, want{line: script.ClientLine, from: other, to: to, missing: NotDelivered}); err != nil {
		return err
	}
	if err := x.judge(taken); err != nil {
		return err
	}
	packets := uint64(3)
	if x.kernel.FirstOnly {
		packets = 2
	}
	return x.judgeServed(ctx, packets)
}

// beginTo opens the ends, runs the control, loads the rule and has the client send. It returns
// what the server has received of that.
func (x *claimRun) beginTo(ctx context.Context) (*stepResult, error) {
	if err := x.openEnds(ctx); err != nil {
		return nil, err
	}
	c, err := datagram{x.exchange}.control(ctx, "server")
	if err != nil {
		return nil, err
	}
	if err := x.loadBehind(ctx, c); err != nil {
		return nil, err
	}
	if err := x.sends(ctx); err != nil {
		return nil, err
	}
	return x.atServer(ctx)
}

// answering specifies a socket of REMOTE that answers a client in FAKE's name.
func (x *claimRun) answering(client netip.AddrPort) script.Datagram {
	_, to := x.flowEnds()
	return script.Datagram{Ends: script.Ends{Role: script.Client, Local: to, Remote: client, Bindany: true,
		Reuse: !x.kernel.SharesPorts, ReusePort: x.kernel.SharesPorts, Omit: x.omitted()}}
}
