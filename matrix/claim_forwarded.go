package matrix

import (
	"context"
	"errors"
	"slices"
	"strings"

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
	x.twice = true
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
	due := []leastOf{{in.Label, 3}, {out.Label, 3}, {replyIn.Label, 2}, {replyOut.Label, 2}}
	if err := x.streamRewritten(ctx, in.Label); err != nil {
		return x.unlessAside(ctx, err, due)
	}
	counted, err := x.matched(ctx, due)
	if err != nil {
		return err
	}
	for i, d := range due {
		if counted[i] < d.packets {
			return failed(NotCounted, "remote: rule %s matched %s, and at least %d were due", d.label,
				pfconf.Count(counted[i], "packet"), d.packets)
		}
	}
	return nil
}

// leastOf is how many packets a rule must have matched at least.
type leastOf struct {
	label   string
	packets uint64
}

// matched returns how many packets each of the rules has matched.
func (x *claimRun) matched(ctx context.Context, rules []leastOf) ([]uint64, error) {
	at := x.remote.request()
	var counted []*stepResult
	for _, r := range rules {
		counted = append(counted, at.counters(r.label))
	}
	if err := at.run(ctx); err != nil {
		return nil, err
	}
	var all []uint64
	for _, c := range counted {
		all = append(all, c.Counters.Matched)
	}
	return all, nil
}

// unlessAside returns err, or that the third host's answers do not seem to come through REMOTE,
// which is its routes' fault: the client has heard the third host, the rules about the client's
// packets, the first two, have matched all that a connection has, and the rules about the answers
// none.
func (x *claimRun) unlessAside(ctx context.Context, err error, due []leastOf) error {
	var f *finding
	if !errors.As(err, &f) || f.verdict != Fail || !x.answered {
		return err
	}
	counted, asked := x.matched(ctx, due)
	if asked != nil || counted[0] < due[0].packets || counted[1] < due[1].packets || counted[2]+counted[3] > 0 {
		return err
	}
	return broken(SetupFailed, "local: the third host %v answers, and none of its answers met REMOTE's rules about them: does "+
		"it send what is for LOCAL through REMOTE? What was seen then: %s", x.second.Mirror, f.detail)
}

// forwardedIn: REMOTE is a router, and a rule of OpenBSD's pf diverts what it forwards when it
// comes in. A rule of divert-packet queues the packets "as well as the return traffic"
// (divert(4)): that belongs to the rule's state, and leaves by the same interface.
//
//  1. LOCAL's client connects to a server on a third host behind REMOTE. Control: before the rule
//     is there a client like the cell's connects, and the divert socket does not see it.
//  2. The client connects: each packet of the handshake comes to the divert socket, is reinjected,
//     and is forwarded.
//  3. The client sends its line, and the server reads it as it was rewritten, once.
//  4. The server answers and closes, and the client reads the answer as that was rewritten, once,
//     then the end.
//  5. The rule has made one state.
func (x *claimRun) forwardedIn(ctx context.Context) error {
	return x.forwardedBehind(ctx, nil)
}

// forwardedOut is forwardedIn with a rule about what leaves by the interface towards the third
// host. What answers is diverted when it comes in there.
func (x *claimRun) forwardedOut(ctx context.Context) error {
	x.change = func(r *pfconf.Rule) { r.Direction, r.On = pfconf.Out, x.beyond.Mirror }
	return x.forwardedBehind(ctx, nil)
}

// forwardedOnce: "a reinjected inbound packet will also not run through the pf out rules after
// being forwarded" (divert(4)).
//
//  1. Another rule lets pass what leaves of the flow by the interface towards the third host.
//     Control: where the cell's rule does not divert, that rule makes a state of a connection.
//  2. The steps are those of forwardedIn.
//  3. The other rule has made no state.
func (x *claimRun) forwardedOnce(ctx context.Context) error {
	out := x.rule()
	out.Label, out.Direction, out.On, out.Undiverted = x.Cell.label("-out"), pfconf.Out, x.beyond.Mirror, true
	states := func(label string) (uint64, error) {
		at := x.remote.request()
		counted := at.counters(label)
		if err := at.run(ctx); err != nil {
			return 0, err
		}
		return counted.Counters.States, nil
	}
	x.more = []pfconf.Rule{out}
	if err := x.forwardedBehind(ctx, func(ctx context.Context) (flow pfconf.Flow, err error) {
		alone := out
		alone.Label += "-alone"
		x.more = []pfconf.Rule{alone}
		defer func() { x.more = []pfconf.Rule{out} }()
		if err := x.loadUndiverted(ctx); err != nil {
			return flow, err
		}
		c, err := x.streamPacketControl(ctx)
		if err != nil {
			return flow, err
		}
		n, err := states(alone.Label)
		if err == nil && n == 0 {
			err = broken(ControlLost, "remote: without divert-packet too rule %s has made no state of what was forwarded",
				alone.Label)
		}
		return c.kill[0], err
	}); err != nil {
		return err
	}
	n, err := states(out.Label)
	if err == nil && n > 0 {
		err = failed(NotCounted, "remote: what was reinjected when it came in met rule %s when it was forwarded, which made %s",
			out.Label, pfconf.Count(n, "state"))
	}
	return err
}

// forwardedBehind runs what is forwarded and diverted once, and alone before it.
func (x *claimRun) forwardedBehind(ctx context.Context, alone func(context.Context) (pfconf.Flow, error)) error {
	if err := x.knowsInterface(); err != nil {
		return err
	}
	if err := x.openStream(ctx); err != nil {
		return err
	}
	c, err := x.streamPacketControl(ctx)
	if err != nil {
		return err
	}
	if err := x.loadBehindUndiverted(ctx, c, alone); err != nil {
		return err
	}
	return x.unlessUnseen(ctx, x.streamRewritten(ctx, x.label()))
}

// unlessUnseen is unlessAside for OpenBSD's pf, whose rule counts both ways of a connection alike:
// the client was answered, and by its state pf has seen no packet of who answers. In a lab the
// third host has no other way.
func (x *claimRun) unlessUnseen(ctx context.Context, err error) error {
	var f *finding
	if !errors.As(err, &f) || f.verdict != Fail || !x.answered || x.second.Domain != 0 {
		return err
	}
	at := x.remote.request()
	in := x.flow()
	out := in // a state of what leaves begins with who sent
	out.Near, out.Far = in.Far, in.Near
	found := []*stepResult{at.lookup(in), at.lookup(out)}
	if asked := at.run(ctx); asked != nil {
		return err
	}
	for _, s := range slices.Concat(found[0].States, found[1].States) {
		if strings.HasPrefix(s.Phase, "CLOSED:") || strings.HasSuffix(s.Phase, ":CLOSED") {
			return broken(SetupFailed, "local: the third host %v answers, and REMOTE's pf has seen none of its answers (%s): does "+
				"it send what is for LOCAL through REMOTE? What was seen then: %s", x.second.Mirror, s.Phase, f.detail)
		}
	}
	return err
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
