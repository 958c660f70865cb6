package matrix

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// keepsState: "divert-to" and "keep state" of FreeBSD's pf in one rule, or OpenBSD's divert-packet.
// (pf.conf(5): a packet of a state is passed without evaluation of any rules; the divert is the
// state's, as sys/netpfil/pf/pf.c, pf_test, reads it from the rule of the state.)
//
//  1. Control: before the rule is there, what a client like the cell's sends arrives, and the
//     divert socket does not see it.
//  2. The client sends, which makes the state. The packet comes to the divert socket once, is
//     reinjected rewritten, and arrives.
//  3. The same with what the client sends next, which belongs to the state.
//
// FreeBSD 15.0 panics in step 2: of a packet that is reinjected pf_find_state() says that it
// passes and returns no state, and pf_test() reads that state's rule (sys/netpfil/pf/pf.c). 15.1
// does not.
func (x *claimRun) keepsState(ctx context.Context) error {
	x.change = func(r *pfconf.Rule) { r.Keep = r.Action == pfconf.PFDivertTo }
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
	return func(r *pfconf.Rule) {
		to := r.Divert
		r.Divert, r.Keep, r.Match = x.divertPort(), r.Action == pfconf.PFDivertTo, x.matches
		if r.Redirected = to; x.matches && x.omit[MatchRule] {
			r.Redirected, r.Match = netip.AddrPort{}, false
		}
	}
}

// redirectedThrough: a rule of FreeBSD's pf lets pass, with keep state and divert-to, what an rdr
// rule has translated; one of OpenBSD's has rdr-to and divert-packet. This is how a firewall has an
// intrusion prevention system look at what it forwards to a server behind it (opnsense/src issues
// 302 and 303).
//
//  1. A server of REMOTE has an address and port of REMOTE's own. Control: before the rules are
//     there, what a client like the cell's sends to FAKE does not reach it, nor the divert socket.
//  2. The client sends to FAKE. The packet comes to the divert socket with its new destination,
//     and is reinjected rewritten.
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
	if err := takenBack(sent); err != nil {
		return err
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

// redirectedFragments is redirectedThrough with a message of 4,000 bytes, which comes in fragments.
// "Fragments can be reassembled by normalization. In this case, fragments are buffered until they
// form a complete packet, and only the completed packet is passed on to the filter." (FreeBSD's
// pf.conf(5), fragment reassemble)
//
//  1. REMOTE's pf redirects, and does not divert. What a client like the cell's sends to FAKE, as
//     long as the cell's, comes to the server whole: pf puts fragments together, which its main
//     ruleset says. Where it does not come there is nothing to be tested.
//  2. The rule diverts too. What the client sends comes to the divert socket in one packet, and is
//     reinjected rewritten.
//  3. It comes to the server whole.
func (x *claimRun) redirectedFragments(ctx context.Context) error {
	const size = 4000
	x.big = true
	x.change = func(r *pfconf.Rule) { r.Action = pfconf.RdrTo }
	if err := x.openStream(ctx); err != nil {
		return err
	}
	c, err := x.redirectControl(ctx)
	if err != nil {
		return err
	}
	if err := x.loadBehind(ctx, c); err != nil {
		return err
	}
	direct, err := x.longControl(ctx, size)
	var lost *finding
	if errors.As(err, &lost) && lost.reason == ControlLost {
		return skipped("REMOTE: pf puts no fragments together before it redirects them (scrub in all fragment reassemble): %s",
			lost.detail)
	}
	if err != nil {
		return err
	}
	x.change = redirectsAndDiverts(x)
	if err := x.load(ctx, append(c.kill, direct)...); err != nil {
		return err
	}
	spec := x.clientSpec()
	there := x.local.request()
	opened := []*stepResult{there.open("client", spec), there.connect("client", spec)}
	if err := there.run(ctx); err != nil {
		return err
	}
	if err := x.opened(opened...); err != nil {
		return err
	}
	return x.burst(ctx, script.Burst{Count: 1, Size: size, Line: script.ClientLine})
}

// redirectedThroughStream is redirectedThrough with a connection.
func (x *claimRun) redirectedThroughStream(ctx context.Context) error {
	x.change = redirectsAndDiverts(x)
	if err := x.openStream(ctx); err != nil {
		return err
	}
	if err := x.loadBehindStream(ctx); err != nil {
		return err
	}
	return x.streamRewritten(ctx, x.label())
}

// keepsTag: "Packets matching this rule will be tagged with the specified string. … Tags are
// sticky" (FreeBSD's pf.conf(5), shortened). A firewall whose rules block by such a tag what must
// not leave lets it go when the tag is lost (opnsense/src issue 308, opnsense/core 10699).
//
//  1. Control: before the rules are there, the divert socket does not see what a client like the
//     cell's sends to FAKE.
//  2. The client sends to FAKE. The packet comes to the divert socket, and is reinjected as it is.
//  3. REMOTE forwards it by its routing table, to the third host. Of the rules about what leaves
//     the one that asks for the tag has counted it, not the one that does not.
func (x *claimRun) keepsTag(ctx context.Context) error {
	x.change = func(r *pfconf.Rule) { r.Keep, r.Tag = true, r.Label }
	due, other := x.leaving("-tagged", x.beyond.Mirror), x.leaving("-untagged", x.beyond.Mirror)
	due.Tag = x.label()
	return x.forwards(ctx, due, other, "without its tag")
}

// keepsRoute: route-to "routes the packet to the specified interface with an optional address for
// the next hop" (FreeBSD's pf.conf(5)), or "to the specified destination address instead of the
// destination address in the packet header", which "is also applied to all packets matching the
// same connection" (OpenBSD's, Routing). It is keepsTag with a gateway in REMOTE's second network
// in place of a tag, and the rules about what leaves are those of its two interfaces. On OpenBSD
// there is another control: by the same rule without its divert a packet leaves by the gateway.
func (x *claimRun) keepsRoute(ctx context.Context) error {
	x.change = x.bySecond(pfconf.RouteTo)
	return x.forwards(ctx, x.leaving("-gateway", x.beyond.Gateway), x.leaving("-table", x.beyond.Mirror),
		"by the routing table")
}

// bySecond makes the cell's rule one that keeps the state, diverts, and sends packets on by the
// gateway in REMOTE's second network.
func (x *claimRun) bySecond(how pfconf.Routing) func(*pfconf.Rule) {
	return func(r *pfconf.Rule) {
		if r.Keep = r.Action == pfconf.PFDivertTo; x.omit[Gateway] {
			return
		}
		if r.Routing, r.Gateway = how, x.second.Gateway; r.Keep {
			r.Interface = x.beyond.Gateway
		}
	}
}

// otherWay is how long LOCAL waits for what comes by another interface than the fences do.
const otherWay = 5 * time.Second

// repliesByGateway: reply-to "is similar to route-to, but routes packets that pass in the opposite
// direction (replies) to the specified interface" (FreeBSD's pf.conf(5)). This is how a firewall
// with two uplinks has a server behind an intrusion prevention system answer by the uplink that the
// client came by.
//
//  1. Control: before the rule is there, what a client like the cell's sends arrives, and the
//     divert socket does not see it. On OpenBSD there is another: by the same rule without its
//     divert the answer to a client comes by the gateway.
//  2. The client sends. The packet comes to the divert socket, is reinjected rewritten, and
//     arrives.
//  3. The server answers. Whether answers are diverted, no manual says: those that come to the
//     divert socket are reinjected.
//  4. The client hears the answer, from the server's address, by LOCAL's interface in REMOTE's
//     second network: LOCAL is the gateway.
func (x *claimRun) repliesByGateway(ctx context.Context) error {
	x.change, x.arrival, x.alone = x.bySecond(pfconf.ReplyTo), true, x.repliesUndiverted
	_, to := x.flowEnds()
	if err := x.begin(ctx, true); err != nil {
		return err
	}
	if err := x.passes(ctx, "packet"); err != nil {
		return err
	}
	divert := x.remote.request()
	divert.send("server", script.ServerLine, 0)
	divert.fence()
	divert.relayAll("packet", nil)
	divert.fence()
	if err := divert.run(ctx); err != nil {
		return err
	}
	there := x.local.request()
	heard := there.restLater("client")
	if err := there.run(ctx); err != nil {
		return err
	}
	if err := x.judge(heard, want{line: script.ServerLine, from: to, missing: NoReply}); err != nil {
		return err
	}
	if via := heard.Messages[0].Via.Addr(); via != x.viaGateway {
		return failed(WrongWay, "%s: the answer came by the interface of %v: it left by the routing table, not by the gateway %v",
			heard.where, via, x.second.Gateway)
	}
	return nil
}

// duplicates: dup-to "creates a duplicate of the packet and routes it like route-to. The original
// packet gets routed as it normally would." (FreeBSD's pf.conf(5)) The copy goes to the loopback
// interface, by which it comes in again: the server hears it as well.
//
//  1. Control: before the rule is there, what a client like the cell's sends arrives, once, and the
//     divert socket does not see it. On OpenBSD there is another: by the same rule without its
//     divert what a client sends arrives twice.
//  2. The client sends. The packet comes to the divert socket, once, and is reinjected as it is.
//  3. The server hears it twice.
func (x *claimRun) duplicates(ctx context.Context) error {
	if err := x.knowsInterface(); err != nil { // a rule that names none would make copies of the copies
		return err
	}
	x.change = func(r *pfconf.Rule) {
		if r.Keep = r.Action == pfconf.PFDivertTo; x.omit[Gateway] {
			return
		}
		if r.Routing, r.Gateway, r.On = pfconf.DupTo, x.Family.Loopback(), x.nics[x.Family]; r.Keep {
			r.Interface = "lo0"
		}
	}
	x.alone = x.copiesUndiverted
	from, _ := x.flowEnds()
	if err := x.begin(ctx, true); err != nil {
		return err
	}
	if err := x.sends(ctx); err != nil {
		return err
	}
	again, err := x.givesBack(ctx)
	if err != nil {
		return err
	}
	at := x.remote.request()
	arrived, copied := at.receive("server"), at.restLater("server") // the copy comes by lo0
	if err := at.run(ctx); err != nil {
		return err
	}
	if err := x.judge(arrived, want{line: script.ClientLine, from: from, missing: NotReinjected}); err != nil {
		return err
	}
	if err := x.judge(again); err != nil {
		return err
	}
	return x.judge(copied, want{line: script.ClientLine, from: from, missing: NotDuplicated})
}

// translatedThrough: a rule of pf translates the source of what leaves, keeps the state and diverts
// (nat-to with FreeBSD's divert-to, or with OpenBSD's divert-packet): what a firewall does whose
// intrusion prevention system looks at what leaves by its uplink.
//
//  1. Control: before the rule is there, what a client like the cell's sends arrives from the
//     client's own port, and the divert socket does not see it.
//  2. The client, on REMOTE, sends. The packet comes to the divert socket from a port of pf's
//     choice, and is reinjected rewritten.
//  3. It comes to the server, from that port.
//  4. The server answers. Whether answers are diverted, no manual says: those that come to the
//     divert socket are reinjected. The client hears the answer.
func (x *claimRun) translatedThrough(ctx context.Context) error {
	x.change = func(r *pfconf.Rule) {
		r.Keep = r.Action == pfconf.PFDivertTo
		if !x.omit[Translation] && !(x.matches && x.omit[MatchRule]) {
			r.Translated, r.Match = x.Remote, x.matches
		}
	}
	from, to := x.flowEnds()
	if err := x.begin(ctx, true); err != nil {
		return err
	}
	if err := x.sends(ctx); err != nil {
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
	var outside netip.AddrPort
	if len(seen.Messages) > 0 {
		outside = seen.Messages[0].From
	}
	if err := x.judge(seen, want{line: script.ClientLine, from: outside, to: to, missing: NotDelivered}); err != nil {
		return err
	}
	switch {
	case outside.Addr() != from.Addr() || outside.Port() == from.Port():
		return failed(WrongAddress, "%s: the packet comes from %v, and another port of %v was due", seen.where, outside,
			from.Addr())
	case sent.Err != nil:
		return failed(NotReinjected, "%s: the kernel does not take the packet back: %s", sent.where, sent.Err.Text)
	}
	at := x.local.request()
	read := at.receive("server")
	at.send("server", script.ServerLine, 0)
	at.fence()
	if err := at.run(ctx); err != nil {
		return err
	}
	divert = x.remote.request()
	divert.relayAll("packet", nil)
	divert.fence()
	heard := divert.rest("client")
	if err := divert.run(ctx); err != nil {
		return err
	}
	if err := x.judge(read, want{line: script.PacketLine, from: outside, missing: NotReinjected}); err != nil {
		return err
	}
	return x.judge(heard, want{line: script.ServerLine, from: to, missing: NoReply})
}

// leaving is a rule that counts what leaves of the cell's flow by an interface.
func (x *claimRun) leaving(suffix, nic string) pfconf.Rule {
	from, to := x.flowEnds()
	return pfconf.Rule{Label: x.Cell.label(suffix), Direction: pfconf.Out, Family: x.Family, Proto: x.Proto,
		From: from.Addr(), To: to.Addr(), Port: to.Port(), Action: pfconf.PFPass, Interface: nic}
}

// forwards has what the client sends go through the divert socket and be forwarded, and judges that
// the rule that is due has counted it when it left, and not the other, which says how.
func (x *claimRun) forwards(ctx context.Context, due, other pfconf.Rule, how string) error {
	x.more = []pfconf.Rule{due, other}
	spec := x.clientSpec()
	divert, there := x.remote.request(), x.local.request()
	opened := []*stepResult{divert.open("packet", x.divertSpec()), there.open("client", spec),
		there.connect("client", spec)}
	if err := both(ctx, divert.run, there.run); err != nil {
		return err
	}
	if err := x.opened(opened...); err != nil {
		return err
	}
	local, err := x.sendControl(ctx, false)
	if err != nil {
		return err
	}
	c := control{kill: []pfconf.Flow{x.controlFlow(local)},
		judge: x.silentAt(x.remote, "packet", "the divert socket saw it before the rule was there")}
	if err := x.loadBehindUndiverted(ctx, c, func(ctx context.Context) (pfconf.Flow, error) {
		defer func() { x.more = []pfconf.Rule{due, other} }()
		return x.leavesUndiverted(ctx, due, other, how)
	}); err != nil {
		return err
	}
	if err := x.sends(ctx); err != nil {
		return err
	}
	divert = x.remote.request()
	seen := divert.receive("packet")
	sent := divert.relay("packet", "", "")
	divert.fence()
	left, leaked := divert.counters(due.Label), divert.counters(other.Label)
	if err := divert.run(ctx); err != nil {
		return err
	}
	from, to := x.flowEnds()
	n, m := left.Counters.Matched, leaked.Counters.Matched
	if seen.Err != nil && n+m > 0 {
		return failed(NotRewritten, "remote: the packet passed the divert socket by, and left")
	}
	if err := x.judge(seen, want{line: script.ClientLine, from: from, to: to, missing: NotDelivered}); err != nil {
		return err
	}
	switch {
	case sent.Err != nil:
		return failed(NotReinjected, "%s: the kernel does not take the packet back: %s", sent.where, sent.Err.Text)
	case n == 0 && m == 0:
		return failed(NotReinjected, "remote: the packet that was reinjected has not left")
	case n != 1 || m != 0:
		return failed(WrongWay, "remote: the packet that was reinjected left %s: rule %s counted %d packets and rule %s %d",
			how, due.Label, n, other.Label, m)
	}
	return nil
}
