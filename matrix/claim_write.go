package matrix

import (
	"cmp"
	"context"
	"net/netip"

	"pfdivert/matrix/explain"
	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// nowhere is an address that no interface of any host has: of TEST-NET-1 (RFC 5737).
var nowhere = netip.AddrFrom4([4]byte{192, 0, 2, 1})

// namedInterface: "the IP address specified must match the address of some local interface, or an
// interface name must be found after the IP address. If an interface name is found, that interface
// will be used and the value of the IP address will be ignored (other than the fact that it is not
// INADDR_ANY)." (FreeBSD divert(4))
//
//  1. Control: before the rule is there, what a client like the cell's sends arrives.
//  2. The client sends. The divert socket writes the packet, rewritten, to the address of no
//     interface, with the name of its interface behind it as it came. It comes in and arrives.
//  3. What the client sends next is written to the same address without a name, and the kernel
//     refuses it (EADDRNOTAVAIL): the name it was that counted. Nothing more arrives.
//  4. The rule has counted both.
func (x *claimRun) namedInterface(ctx context.Context) error {
	x.divertSocket.WriteTo = x.nobodys(nowhere)
	if err := x.begin(ctx, true); err != nil {
		return err
	}
	if err := x.passes(ctx, "packet"); err != nil {
		return err
	}
	if err := x.refusedNowhere(ctx, nowhere); err != nil {
		return err
	}
	return x.judgeMatched(ctx, 2, 2)
}

// nobodys is an address that no interface has, unless that is left out.
func (x *claimRun) nobodys(a netip.Addr) netip.Addr {
	if x.omit[Nowhere] {
		return pfconf.FamilyOf(a).Loopback()
	}
	return a
}

// refusedNowhere has the client send, and the divert socket write the packet to an address that no
// interface has, with no name behind it. The kernel must refuse it, and nothing must arrive.
func (x *claimRun) refusedNowhere(ctx context.Context, address netip.Addr) error {
	if _, err := x.diverted(ctx); err != nil {
		return err
	}
	address = x.nobodys(address)
	divert := x.remote.request()
	sent := divert.turn("packet", script.ClientLine, script.PacketLine, address)
	sent.may = map[string]bool{"EADDRNOTAVAIL": true}
	divert.fence()
	divert.close("packet")
	if err := divert.run(ctx); err != nil {
		return err
	}
	if sent.Err == nil {
		return failed(NotRefused, "%s: the kernel takes a packet for %v, which is no interface's address, and must say EADDRNOTAVAIL", sent.where, address)
	}
	return x.nothingArrives(ctx, "it was written to the address of no interface")
}

// badHeader: EINVAL, "the packet had an invalid header" (FreeBSD divert(4)), is what a write is
// answered with.
//
//  1. Control: before the rule is there, what a client like the cell's sends arrives.
//  2. The client sends, and the divert socket writes the packet back with another IP version. The
//     kernel refuses it with EINVAL, and nothing arrives. (A refusal with another number is told
//     at the end, when all else is as it must be.) The same with 19 bytes of it, which hold
//     no header; and of a packet that is to leave, with a length in its header that it does not
//     have.
//  3. What the client sends at last is written back as it must be, and arrives.
//  4. The rule has counted all.
func (x *claimRun) badHeader(ctx context.Context) error {
	spoils := []script.Corruption{script.CorruptVersion, script.CorruptShort}
	if x.mode.mechanism == explain.PacketOut {
		spoils = append(spoils, script.CorruptLength)
	}
	return x.refusesSpoilt(ctx, spoils...)
}

// badLength is badHeader about a packet that comes in and has a length in its header that it does
// not have.
func (x *claimRun) badLength(ctx context.Context) error {
	return x.refusesSpoilt(ctx, script.CorruptLength)
}

// headerBeyond is badHeader about a packet that leaves and whose IPv4 header says that it is
// longer than the whole packet. With ipfw switched off FreeBSD 15.1 panics (in_cksum_skip under
// ip_output).
func (x *claimRun) headerBeyond(ctx context.Context) error {
	if x.Family != pfconf.Inet {
		return skipped("IPv6: all headers have one length")
	}
	return x.refusesSpoilt(ctx, script.CorruptBeyond)
}

// spoilt says what was made wrong.
var spoilt = map[script.Corruption]string{
	script.CorruptVersion: "of IP version 5",
	script.CorruptShort:   "of 19 bytes",
	script.CorruptLength:  "whose header says that it is longer",
	script.CorruptBeyond:  "whose header is longer than itself",
}

func (x *claimRun) refusesSpoilt(ctx context.Context, spoils ...script.Corruption) error {
	if err := x.begin(ctx, false); err != nil {
		return err
	}
	var otherwise error // the first refusal with another number
	for _, s := range spoils {
		if !x.omit[Spoilt] {
			x.divertSocket.Corrupt = s
		}
		if err := x.openDivert(ctx, "packet"); err != nil {
			return err
		}
		if _, err := x.diverted(ctx); err != nil {
			return err
		}
		divert := x.remote.request()
		sent := divert.relay("packet", script.ClientLine, script.PacketLine)
		divert.fence()
		divert.close("packet")
		if err := divert.run(ctx); err != nil {
			return err
		}
		switch {
		case sent.Err == nil:
			return failed(NotRefused, "%s: the kernel takes a packet %s, and must say EINVAL", sent.where, spoilt[s])
		case sent.Err.Code != "EINVAL" && otherwise == nil:
			otherwise = failed(RefusedOtherwise, "%s: the kernel must refuse a packet %s with EINVAL, and says %s",
				sent.where, spoilt[s], sent.Err.Text)
		}
		if err := x.nothingArrives(ctx, "it was written back "+spoilt[s]+", and refused"); err != nil {
			return err
		}
	}
	x.divertSocket.Corrupt = ""
	if err := x.openDivert(ctx, "packet"); err != nil {
		return err
	}
	if err := x.passes(ctx, "packet"); err != nil {
		return err
	}
	n := uint64(len(spoils) + 1)
	return cmp.Or(x.judgeMatched(ctx, n, n), otherwise)
}

// ruleNumber: with a diverted packet recvfrom(2) gives an address whose port is "usually the ipfw
// rule number". Packets that are written "re-enter the packet filter at the rule number following
// the tag given in the port part …, which is usually already set at the rule number that caused the
// diversion (not the next rule if there are several at the same number)." (FreeBSD divert(4))
//
//  1. REMOTE has three divert sockets, for three rules about the cell's packets: two with the
//     number 1, one with 2. Control: before the rules are there, what a client like the cell's
//     sends arrives.
//  2. The client sends. The packet comes to the socket of the first rule, with 1 as the port of its
//     address. It is reinjected as it is.
//  3. It comes to the socket of the rule with number 2, with that as the port, and is reinjected
//     rewritten.
//  4. It arrives. The socket of the second rule with number 1 has seen nothing, and the rules have
//     counted 1, 0 and 1 packets.
func (x *claimRun) ruleNumber(ctx context.Context) error {
	same, next := x.rule(), x.rule()
	same.Label, next.Label = x.Cell.label("-same"), x.Cell.label("-next")
	same.Number, next.Number = 1, 2
	same.Divert = netip.AddrPortFrom(same.Divert.Addr(), x.Divert+divertPortsEach)
	next.Divert = netip.AddrPortFrom(next.Divert.Addr(), x.Divert+2*divertPortsEach)
	if x.omit[RuleNumber] {
		next.Number = 1
	}
	x.change = func(r *pfconf.Rule) { r.Number = 1 }
	x.more = []pfconf.Rule{same, next}

	at := x.remote.request()
	var opened []*stepResult
	for i, end := range []string{"same", "next"} {
		spec := x.divertSpec()
		spec.Local = x.more[i].Divert
		opened = append(opened, at.open(end, spec))
	}
	if err := at.run(ctx); err != nil {
		return err
	}
	if err := x.opened(opened...); err != nil {
		return err
	}
	if err := x.begin(ctx, true); err != nil {
		return err
	}
	seen, err := x.diverted(ctx)
	if err != nil {
		return err
	}
	if via := seen.Messages[0].Via; via.Port() != 1 {
		return failed(WrongAddress, "%s: the packet came with the address %v, and its rule has the number 1", seen.where, via)
	}
	divert := x.remote.request()
	first := divert.relay("packet", "", "")
	divert.fence()
	twice := divert.rest("same")
	again := divert.receive("next")
	second := divert.relay("next", script.ClientLine, x.rewritten(script.PacketLine))
	divert.fence()
	if err := divert.run(ctx); err != nil {
		return err
	}
	if err := takenBack(first); err != nil {
		return err
	}
	if len(twice.Messages) > 0 {
		return failed(Looped, "%s: the packet that was reinjected met another rule with its number", twice.where)
	}
	if err := unanswered(twice); err != nil {
		return err
	}
	from, to := x.flowEnds()
	if err := x.judge(again, want{line: script.ClientLine, from: from, to: to, missing: NotReinjected}); err != nil {
		return err
	}
	if via := again.Messages[0].Via; via.Port() != 2 {
		return failed(WrongAddress, "%s: the packet came with the address %v, and its rule has the number 2", again.where, via)
	}
	if err := takenBack(second); err != nil {
		return err
	}
	if err := x.arrives(ctx, script.PacketLine, NotReinjected); err != nil {
		return err
	}
	at = x.remote.request()
	counted := []*stepResult{at.counters(x.label()), at.counters(same.Label), at.counters(next.Label)}
	if err := at.run(ctx); err != nil {
		return err
	}
	for i, due := range []uint64{1, 0, 1} {
		if got := counted[i].Counters.Matched; got != due {
			return failed(NotCounted, "remote: of the three rules number %d has matched %s, not %d", i+1,
				pfconf.Count(got, "packet"), due)
		}
	}
	return nil
}
