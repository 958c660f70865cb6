package matrix

import (
	"context"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// through: any protocol's packets are diverted ("queues raw packets", OpenBSD divert(4)).
//
//  1. Control: before the rule is there, what a client like the cell's sends arrives, and the
//     divert socket does not see it.
//  2. The client sends. The packet comes to the divert socket, which gives it back rewritten.
//  3. It does not come again, and arrives rewritten, once.
//  4. The rule has counted it.
func (x *claimRun) through(ctx context.Context) error {
	if err := x.begin(ctx, true); err != nil {
		return err
	}
	if err := x.passes(ctx, "packet"); err != nil {
		return err
	}
	return x.judgeMatched(ctx, 1, 1)
}

// otherLength: what is written back need not be as long as what was read: the whole packet is
// (sendto(2) of divert(4); NFQA_PAYLOAD of a verdict, nfqnl_mangle).
//
// As through, with a line that is longer and then with one that is shorter than the client's.
func (x *claimRun) otherLength(ctx context.Context) error {
	if err := x.begin(ctx, true); err != nil {
		return err
	}
	for _, line := range []string{"A line that is longer than the client's was\n", "Px\n"} {
		if err := x.passesAs(ctx, "packet", line); err != nil {
			return err
		}
	}
	return x.judgeMatched(ctx, 2, 2)
}

// checksumsMended: "The packets' checksums are recalculated upon reinjection." (OpenBSD
// divert(4))
//
// As through; and what the divert socket reinjects has wrong checksums, those of the IPv4
// header and of UDP.
func (x *claimRun) checksumsMended(ctx context.Context) error {
	return x.spoilt(ctx, script.CorruptAll)
}

// headerMended: "packets written as outgoing have their IP header checksums overwritten with
// the correct value" (FreeBSD divert(4)).
//
// As through; and what the divert socket reinjects has a wrong checksum in its IPv4 header.
// (IPv6 has none there.)
func (x *claimRun) headerMended(ctx context.Context) error {
	return x.spoilt(ctx, script.CorruptHeader)
}

func (x *claimRun) spoilt(ctx context.Context, which script.Corruption) error {
	x.divertSocket.Corrupt = which
	return x.through(ctx)
}

// checksumsKept: "Packets written as incoming and having incorrect checksums will be dropped."
// (FreeBSD divert(4)) On Linux the receiver drops them: what comes with a verdict is taken as
// it is.
//
//  1. Control: before the rule is there, what a client like the cell's sends arrives.
//  2. The client sends; the divert socket gives the packet back with wrong checksums. It does
//     not arrive.
//  3. Another divert socket gives the next packet back with right checksums. It arrives.
func (x *claimRun) checksumsKept(ctx context.Context) error {
	x.divertSocket.Corrupt = script.CorruptAll
	if x.omit[Spoilt] {
		x.divertSocket.Corrupt = ""
	}
	if err := x.begin(ctx, true); err != nil {
		return err
	}
	if err := x.sends(ctx); err != nil {
		return err
	}
	from, to := x.flowEnds()
	divert := x.remote.request()
	seen := divert.receive("packet")
	sent := divert.relay("packet", script.ClientLine, script.PacketLine)
	divert.fence()
	divert.close("packet")
	if err := divert.run(ctx); err != nil {
		return err
	}
	if err := x.judge(seen, want{line: script.ClientLine, from: from, to: to, missing: NotDelivered}); err != nil {
		return err
	}
	if err := takenBack(sent); err != nil {
		return err
	}
	if err := x.nothingArrives(ctx, "its checksums were wrong when it was reinjected"); err != nil {
		return err
	}
	x.divertSocket.Corrupt = ""
	if err := x.openDivert(ctx, "packet"); err != nil {
		return err
	}
	return x.passes(ctx, "packet")
}

// turned: "After being reinjected, inbound and outbound packets are treated differently. Inbound
// packets are added to the relevant input queue …; outbound ones are processed directly by the
// relevant IP/IPv6 output function." (OpenBSD divert(4)) Which one it is, the address given to
// sendto says.
//
//  1. Control: before the rule is there, what a client like the cell's sends arrives.
//  2. The client sends. The divert socket makes the packet an answer to itself, and writes it the
//     other way: one that came in goes out, one that was to leave comes in.
//  3. The client has that answer, from the server's address; the server has nothing, and the packet
//     does not come again.
//
// What was written to come in must not have gone out instead: a packet for the host itself comes
// back by the loopback interface. OpenBSD tells the interface. On FreeBSD, where IPv6 does not show
// that one, such a packet meets the rules anew, while one that comes in goes on behind those of the
// cell: one of these diverts it to no one.
func (x *claimRun) turned(ctx context.Context) error {
	switch {
	case x.toServer():
	case x.kernel.Firewall == "ipfw":
		back := x.rule()
		back.Label, back.Direction, back.Divert = x.Cell.label("-back"), pfconf.In, x.otherDivert()
		back.From, back.To, back.Port = x.Local, x.Remote, x.client
		x.more = []pfconf.Rule{back}
	default:
		x.arrival = true
	}
	if err := x.begin(ctx, true); err != nil {
		return err
	}
	if err := x.sends(ctx); err != nil {
		return err
	}
	from, to := x.flowEnds()
	in := x.Remote
	if x.toServer() != x.omit[Turned] {
		in = x.Family.Unspecified()
	}
	divert := x.remote.request()
	seen := divert.receive("packet")
	sent := divert.turn("packet", script.ClientLine, x.rewritten(script.PacketLine), in)
	divert.fence()
	again := divert.rest("packet")
	if err := divert.run(ctx); err != nil {
		return err
	}
	clientSide, _ := x.sides()
	there := clientSide.request()
	answered := there.rest("client")
	if err := there.run(ctx); err != nil {
		return err
	}
	if err := x.judge(seen, want{line: script.ClientLine, from: from, to: to, missing: NotDelivered}); err != nil {
		return err
	}
	if err := takenBack(sent); err != nil {
		return err
	}
	if err := x.judge(answered, want{line: script.PacketLine, from: to, missing: NotReinjected}); err != nil {
		return err
	}
	if via := answered.Messages[0].Via.Addr(); via.IsLoopback() {
		return failed(NotReinjected,
			"%s: the packet came by the interface of %v: it went out to its own host, and did not come in by that of %v", answered.where, via, in)
	}
	if err := x.judge(again); err != nil {
		return err
	}
	return x.nothingArrives(ctx, "it was turned round")
}
