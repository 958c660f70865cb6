package matrix

import (
	"context"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// keepsState: "divert-to" and "keep state" of FreeBSD's pf in one rule. (pf.conf(5): a packet of a
// state is passed without evaluation of any rules; the divert is the state's, as
// sys/netpfil/pf/pf.c, pf_test, reads it from the rule of the state.)
//
//  1. Control: before the rule is there, what a client like the cell's sends arrives, and
//     the divert socket does not see it.
//  2. The client sends, which makes the state. The packet comes to the divert socket once, is
//     reinjected rewritten, and arrives.
//  3. The same with what the client sends next, which belongs to the state.
//
// FreeBSD 15.0 panics in step 2: of a packet that is reinjected pf_find_state() says that it passes
// and returns no state, and pf_test() reads that state's rule (sys/netpfil/pf/pf.c). 15.1 does not.
func (x *claimRun) keepsState(ctx context.Context) error {
	x.change = func(r *pfconf.Rule) { r.Keep = true }
	if err := x.begin(ctx, true); err != nil {
		return err
	}
	for range 2 {
		if err := x.passes(ctx, "packet"); err != nil {
			return err
		}
	}
	return nil
}

// redirectsAndDiverts makes the cell's rule one that redirects, keeps the state and diverts.
func redirectsAndDiverts(x *claimRun) func(*pfconf.Rule) {
	return func(r *pfconf.Rule) { r.Redirected, r.Divert, r.Keep = r.Divert, x.divertPort(), true }
}

// redirectedThrough: a rule of FreeBSD's pf lets pass, with keep state and divert-to, what an rdr
// rule has translated. This is how a firewall has an intrusion prevention system look at what it
// forwards to a server behind it (opnsense/src issues 302 and 303).
//
//  1. A server of REMOTE has an address and port of REMOTE's own. Control: before the rules are
//     there, what a client like the cell's sends to FAKE does not reach it, nor the divert socket.
//  2. The client sends to FAKE. The packet comes to the divert socket with its new destination, and
//     is reinjected rewritten.
//  3. It comes to the server, from the client.
//  4. The server answers. Whether answers are diverted, no manual says: those that come to the
//     divert socket are reinjected. The client hears the answer, from FAKE.
func (x *claimRun) redirectedThrough(ctx context.Context) error {
	x.change = redirectsAndDiverts(x)
	from, to := x.flowEnds()
	if err := x.openStream(ctx); err != nil {
		return err
	}
	c, err := x.redirectControl(ctx)
	if err != nil {
		return err
	}
	unheard, unseen := c.judge, x.silentAt(x.remote, "packet", "the divert socket saw it before the rule was there")
	c.judge = func(ctx context.Context) error { return both(ctx, unheard, unseen) }
	if err := x.loadBehind(ctx, c); err != nil {
		return err
	}
	if _, err := x.connects(ctx, "client", x.clientSpec()); err != nil {
		return err
	}
	divert := x.remote.request()
	seen := divert.receive("packet")
	sent := divert.relay("packet", script.ClientLine, x.rewritten(script.PacketLine))
	divert.fence()
	if err := divert.run(ctx); err != nil {
		return err
	}
	if err := x.passedBy(ctx, seen); err != nil {
		return err
	}
	if err := x.judge(seen, want{line: script.ClientLine, from: from, to: x.redirected(),
		missing: NotDelivered}); err != nil {
		return err
	}
	if sent.Err != nil {
		return failed(NotReinjected, "%s: the kernel does not take the packet back: %s", sent.where, sent.Err.Text)
	}
	divert = x.remote.request()
	read := divert.receive("server")
	divert.send("server", script.ServerLine, 0)
	divert.fence()
	divert.relayAll("packet", nil)
	divert.fence()
	if err := divert.run(ctx); err != nil {
		return err
	}
	if err := x.judge(read, want{line: script.PacketLine, from: from, missing: NotReinjected}); err != nil {
		return err
	}
	there := x.local.request()
	heard := there.rest("client")
	if err := there.run(ctx); err != nil {
		return err
	}
	return x.judge(heard, want{line: script.ServerLine, from: to, missing: NoReply})
}

// redirectedThroughStream is redirectedThrough with a connection.
func (x *claimRun) redirectedThroughStream(ctx context.Context) error {
	x.change = redirectsAndDiverts(x)
	if err := x.openStream(ctx); err != nil {
		return err
	}
	c, err := stream{x.exchange}.control(ctx, "server")
	if err != nil {
		return err
	}
	if err := x.loadBehind(ctx, c); err != nil {
		return err
	}
	return x.streamRewritten(ctx, x.label())
}
