package matrix

import (
	"context"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// forwarded: REMOTE is a router, and hands what it forwards to a divert socket twice: when it comes
// in and when it leaves. (FreeBSD's divert(4): "Incoming packets are diverted after reception on an
// IP interface, whereas outgoing packets are diverted before next hop forwarding.")
//
//  1. LOCAL's client connects to a third host behind REMOTE, which has the connection come back to
//     a server of LOCAL's. Control: before the rules are there a client like the cell's connects,
//     and the divert socket does not see it.
//  2. There are four rules, for the client's packets and for those that answer: in and out. The
//     client connects: each packet of the handshake comes to the divert socket, is reinjected, is
//     forwarded, comes to the divert socket again, is reinjected and leaves.
//  3. The client sends its line. The packet role writes another line in its place when it gets the
//     packet, and a third one when it gets that: the server reads the third.
//  4. The server answers and closes, and the client reads the answer as that was rewritten twice,
//     then the end.
//  5. Each rule has counted at least its packets of the handshake and of the data.
func (x *claimRun) forwarded(ctx context.Context) error {
	in := x.rule()
	out, replyIn := in, in
	out.Label, out.Direction = x.Cell.label("-out"), pfconf.Out
	replyIn.Label, replyIn.From, replyIn.To, replyIn.Port = x.Cell.label("-reply-in"), in.To, in.From, x.client
	replyOut := replyIn
	replyOut.Label, replyOut.Direction = x.Cell.label("-reply-out"), pfconf.Out
	x.more = []pfconf.Rule{out, replyIn, replyOut}
	if err := x.openStream(ctx); err != nil {
		return err
	}
	c, err := x.streamPacketControl(ctx)
	if err != nil {
		return err
	}
	if err := x.loadBehind(ctx, c); err != nil {
		return err
	}
	if err := x.streamRewritten(ctx, in.Label); err != nil {
		return err
	}
	at := x.remote.request()
	counted := []*stepResult{at.counters(in.Label), at.counters(out.Label), at.counters(replyIn.Label),
		at.counters(replyOut.Label)}
	if err := at.run(ctx); err != nil {
		return err
	}
	for i, least := range []uint64{3, 3, 2, 2} {
		if c := counted[i]; c.Counters.Matched < least {
			return failed(NotCounted, "remote: rule %s matched %s, and at least %d were due",
				c.step.(script.Counters).Label, pfconf.Count(c.Counters.Matched, "packet"), least)
		}
	}
	return nil
}

// giveOn is the part of giveBack where the packets are forwarded: each comes to the divert socket
// twice before it is with LOCAL, whose fence tells that it is.
func (x *claimRun) giveOn(ctx context.Context, rewrites []script.Rewrite) (given []*stepResult, err error) {
	for range 2 * rounds {
		divert, there := x.remote.request(), x.local.request()
		given = append(given, divert.relayAll("packet", rewrites))
		there.fence()
		if err := divert.run(ctx); err != nil {
			return nil, err
		}
		if err := there.run(ctx); err != nil {
			return nil, err
		}
	}
	return given, nil
}
