package matrix

import (
	"context"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// What rules of OpenBSD's pf can say besides divert-packet and divert-to.

// matchRedirected: behind a match rule that translates packets "subsequent rules will see packets
// as they look after any addresses and ports have been translated" (pf.conf(5), Translation).
//
// The steps are those of redirectedThrough: a match rule with rdr-to, and behind it a rule with
// divert-packet, which names the new destination.
func (x *claimRun) matchRedirected(ctx context.Context) error {
	x.matches = true
	return x.redirectedThrough(ctx)
}

// matchTranslated is that with nat-to and what leaves. The steps are those of translatedThrough.
func (x *claimRun) matchTranslated(ctx context.Context) error {
	x.matches = true
	return x.translatedThrough(ctx)
}

// matchTagged: a match rule tags packets ("tag string"), and the rule that diverts is for packets
// that "must already be tagged with the given string in order to match the rule" (pf.conf(5),
// tagged).
//
//  1. Control: before the rules are there, what a client like the cell's sends arrives, and the
//     divert socket does not see it.
//  2. The client sends. The packet comes to the divert socket, is reinjected rewritten, and
//     arrives.
func (x *claimRun) matchTagged(ctx context.Context) error {
	x.change = x.tags
	return x.passesOnce(ctx)
}

// tags has a match rule tag the packets of the cell's rule.
func (x *claimRun) tags(r *pfconf.Rule) { r.Tag, r.Match = r.Label, !x.omit[MatchRule] }

// receivedOn: a rule with received-on is for "packets which were received on the specified
// interface" (pf.conf(5)).
//
// The steps are those of matchTagged. Behind the rule is one like it that names the loopback
// interface and another divert port. It would decide, being the last, and has no packets.
func (x *claimRun) receivedOn(ctx context.Context) error {
	if err := x.knowsInterface(); err != nil {
		return err
	}
	x.change = x.byInterface
	other := x.rule()
	other.Label, other.Received, other.Divert = x.Cell.label("-elsewhere"), loopbackInterface, x.otherDivert()
	x.more = []pfconf.Rule{other}
	return x.passesOnce(ctx)
}

// loopbackInterface is the one of OpenBSD's routing domain 0.
const loopbackInterface = "lo0"

// knowsInterface is the ERROR when REMOTE has not said by which interface it reaches LOCAL: a rule
// that names none is about all of them.
func (x *claimRun) knowsInterface() error {
	if x.nics[x.Family] == "" {
		return broken(QuestionFailed, "remote: by which interface it reaches LOCAL is not known")
	}
	return nil
}

// byInterface has the cell's rule name the interface towards LOCAL.
func (x *claimRun) byInterface(r *pfconf.Rule) {
	if r.Received = x.nics[x.Family]; x.omit[ReceivedOn] {
		r.Received = loopbackInterface
	}
}

// passesOnce begins with the divert socket, and has the client's line go through it.
func (x *claimRun) passesOnce(ctx context.Context) error {
	if err := x.begin(ctx, true); err != nil {
		return err
	}
	return x.passes(ctx, "packet")
}

// oneShot: a rule with once is a "one shot rule. The first matching packet marks the rule as
// expired. Expired rules are skipped" (pf.conf(5), shortened). The state that the packet made
// stays, and diverts.
//
//  1. Control: before the rule is there, what a client like the cell's sends arrives, and the
//     divert socket does not see it.
//  2. The client sends. The packet comes to the divert socket, is reinjected rewritten, and
//     arrives.
//  3. The same with what the client sends next.
//  4. What another client sends arrives as it was sent, and the divert socket does not see it.
func (x *claimRun) oneShot(ctx context.Context) error {
	x.change = x.once
	if err := x.passesOnce(ctx); err != nil {
		return err
	}
	if err := x.passes(ctx, "packet"); err != nil {
		return err
	}
	other, err := x.connects(ctx, "other", x.clientOf(0, 0))
	if err != nil {
		return err
	}
	x.used = append(x.used, usedFlow{x.controlFlow(other), false, x.began})
	at := x.remote.request()
	arrived, unseen := at.rest("server"), at.rest("packet")
	if err := at.run(ctx); err != nil {
		return err
	}
	if err := x.judge(arrived, want{line: script.ClientLine, from: other, missing: NotDelivered}); err != nil {
		return err
	}
	return x.judge(unseen)
}

// once has the cell's rule expire with its first packet.
func (x *claimRun) once(r *pfconf.Rule) { r.Once = !x.omit[OneShot] }

// mostStates: "max number" limits the states that a rule may have made at a time. "When this limit
// is reached, further packets that would create state are dropped until existing states time out"
// (pf.conf(5), Stateful Tracking Options).
//
//  1. Control: before the rule is there, what a client like the cell's sends arrives, and the
//     divert socket does not see it.
//  2. The rule may have one state. The client sends, and the packet comes to the divert socket, is
//     reinjected rewritten, and arrives.
//  3. What another client sends comes neither to the divert socket nor to the server.
//  4. What the first client sends next goes the way of its first packet.
func (x *claimRun) mostStates(ctx context.Context) error {
	x.change = func(r *pfconf.Rule) {
		if !x.omit[Limit] {
			r.Most = 1
		}
	}
	if err := x.passesOnce(ctx); err != nil {
		return err
	}
	other, err := x.connects(ctx, "other", x.clientOf(0, 0))
	if err != nil {
		return err
	}
	x.used = append(x.used, usedFlow{x.controlFlow(other), false, x.began})
	at := x.remote.request()
	unseen := at.rest("packet")
	if err := at.run(ctx); err != nil {
		return err
	}
	const why = "the rule has as many states as it may have"
	if len(unseen.Messages) > 0 {
		return failed(NotLost, "%s: received %q from %v: %s", unseen.where, unseen.Messages[0].Data, other, why)
	}
	if err := x.nothingArrives(ctx, why); err != nil {
		return err
	}
	return x.passes(ctx, "packet")
}

// otherFamily: divert-packet is "used to send matching packets to divert(4) sockets", and
// "translation between different address families … is handled using af-to rules", of which there
// are only inbound ones (pf.conf(5), shortened). Neither pf.conf(5) nor divert(4) of OpenBSD 7.7
// says that one rule can't have both, and pfctl takes such a rule.
//
// The packet is translated to REMOTE's loopback addresses, so that it leaves no host that forwards.
// Where it goes from a divert socket no page says, so none is reinjected.
//
//  1. Control: before the rule is there, what a client like the cell's sends arrives, and the
//     divert socket does not see it.
//  2. The client sends. The packet comes to the divert socket, and the rule has made a state of it.
func (x *claimRun) otherFamily(ctx context.Context) error {
	x.change = func(r *pfconf.Rule) {
		to := r.Family.Other().Loopback()
		r.OtherFrom, r.OtherTo = to, to
	}
	if err := x.begin(ctx, true); err != nil {
		return err
	}
	if err := x.sends(ctx); err != nil {
		return err
	}
	divert := x.remote.request()
	seen := divert.receive("packet")
	if err := divert.run(ctx); err != nil {
		return err
	}
	if err := x.passedBy(ctx, seen); err != nil {
		return err
	}
	// A packet that was lost before the rule is not one that the rule does not divert.
	if err := x.judgeMatched(ctx, 1, 1); err != nil {
		return err
	}
	from, to := x.flowEnds()
	return x.judge(seen, want{line: script.ClientLine, from: from, to: to, missing: NotDelivered})
}

// taggedTo is matchTagged with divert-to.
//
//  1. Control: before the rules are there, what a client like the cell's sends to FAKE does not
//     reach the server.
//  2. The client sends. The line comes to the server, with FAKE as its destination.
//  3. The rule has counted one connection.
func (x *claimRun) taggedTo(ctx context.Context) error {
	x.change = x.tags
	return x.servesOnce(ctx)
}

// receivedOnTo is receivedOn with divert-to: the steps are those of taggedTo, and the rule behind
// diverts to another port.
func (x *claimRun) receivedOnTo(ctx context.Context) error {
	if err := x.knowsInterface(); err != nil {
		return err
	}
	x.change = x.byInterface
	other := x.rule()
	other.Label, other.Received, other.Divert = x.Cell.label("-elsewhere"), loopbackInterface, otherPort(other.Divert)
	x.more = []pfconf.Rule{other}
	return x.servesOnce(ctx)
}

// servesOnce has what the client sends be diverted to the server.
func (x *claimRun) servesOnce(ctx context.Context) error {
	if err := x.servesFirst(ctx); err != nil {
		return err
	}
	return x.judgeServed(ctx, 1)
}

// servesFirst is that, and does not ask for the counters.
func (x *claimRun) servesFirst(ctx context.Context) error {
	from, to := x.flowEnds()
	received, err := x.beginTo(ctx)
	if err != nil {
		return err
	}
	return x.judge(received, want{line: script.ClientLine, from: from, to: to, missing: NotDelivered})
}

// oneShotTo is oneShot with divert-to.
//
//  1. Control: before the rule is there, what a client like the cell's sends to FAKE does not reach
//     the server.
//  2. The client sends. The line comes to the server, with FAKE as its destination.
//  3. The same with what the client sends next.
//  4. What another client sends to FAKE does not reach the server.
func (x *claimRun) oneShotTo(ctx context.Context) error {
	x.change = x.once
	from, to := x.flowEnds()
	if err := x.servesFirst(ctx); err != nil {
		return err
	}
	if err := x.sends(ctx); err != nil {
		return err
	}
	received, err := x.atServer(ctx)
	if err != nil {
		return err
	}
	if err := x.judge(received, want{line: script.ClientLine, from: from, to: to, missing: NotDelivered}); err != nil {
		return err
	}
	other, err := x.connects(ctx, "other", x.clientOf(0, 0))
	if err != nil {
		return err
	}
	x.used = append(x.used, usedFlow{x.controlFlow(other), false, x.began})
	return x.nothingArrives(ctx, "the rule had its packet before")
}
