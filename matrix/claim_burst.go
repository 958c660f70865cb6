package matrix

import (
	"context"

	"pfdivert/matrix/explain"
	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// inOrder: "queues raw packets from the kernel stack to userspace applications, and vice versa"
// (OpenBSD divert(4)): a queue keeps the order.
//
//  1. Control: before the rule is there, what a client like the cell's sends arrives.
//  2. The client sends 1,000 datagrams, 40 at a time, which every system's buffers hold. They come
//     to the divert socket in their order, all and each once, and are reinjected rewritten.
//  3. They come to the server in the same order, all and each once, and whole.
//  4. The rule has counted 1,000 packets.
func (x *claimRun) inOrder(ctx context.Context) error { return x.bursts(ctx, 1000, 40, 64) }

// reassembled: "fragments are reassembled before they are diverted" (FreeBSD divert(4),
// in other words; pf.conf(5), set reassemble; nf_defrag on Linux).
//
//  1. Control: before the rule is there, what a client like the cell's sends arrives, and so
//     does a message as long as the cell's.
//  2. The client sends a message of 20,000 bytes, more than any network's frames hold. It
//     comes to the divert socket as one packet, which is reinjected rewritten.
//  3. It comes to the server whole.
//  4. The rule has counted one packet; one for each fragment, where rules meet these (ipfw).
func (x *claimRun) reassembled(ctx context.Context) error { return x.bursts(ctx, 1, 1, 20_000) }

// longest: a divert socket takes the longest datagrams. (IP's 65,535 bytes; a netlink
// attribute has room for 65,531 bytes, so the packet on IPv6 has that many.) On their way in
// they come in fragments and must be put together, on their way out they are diverted
// before they are cut.
//
// The steps are those of reassembled.
func (x *claimRun) longest(ctx context.Context) error { return x.bursts(ctx, 1, 1, 65_531-40-8) }

// oneFrame is more than what an Ethernet frame holds.
const oneFrame = 1500

// bursts runs count messages of the size through the divert socket, batch by batch.
func (x *claimRun) bursts(ctx context.Context, count, batch, size int) error {
	x.big = true
	x.fragmented = x.kernel.MeetsFragments && x.mode.mechanism == explain.PacketIn && size > oneFrame
	var more []func(context.Context) (pfconf.Flow, error)
	if size > oneFrame {
		more = append(more, func(ctx context.Context) (pfconf.Flow, error) { return x.longControl(ctx, size) })
	}
	if err := x.begin(ctx, true, more...); err != nil {
		return err
	}
	for first := 0; first < count; first += batch {
		b := script.Burst{First: first, Count: min(batch, count-first), Size: size, Line: script.ClientLine,
			Swap: x.omit[Order]}
		if err := x.burst(ctx, b); err != nil {
			return err
		}
	}
	return x.judgeMatched(ctx, uint64(count), uint64(count))
}

// burst runs one burst through the divert socket.
func (x *claimRun) burst(ctx context.Context, b script.Burst) error {
	clientSide, serverSide := x.sides()
	there := clientSide.request()
	sending := b
	if x.omit[Whole] && b.Size > 1000 {
		sending.Count, sending.Size = 20, 1000
	}
	sent := there.sendBurst("client", sending)
	there.fence()
	if err := there.run(ctx); err != nil {
		return err
	}
	if sent.Err != nil && sent.Err.Code == script.CodeUnsupported {
		return skipped("LOCAL: %s", sent.Err.Text)
	}
	if err := unanswered(sent); err != nil {
		return err
	}
	divert := x.remote.request()
	seen := divert.relayBurst("packet", b, script.PacketLine)
	divert.fence()
	again := divert.rest("packet")
	if err := divert.run(ctx); err != nil {
		return err
	}
	at := serverSide.request()
	b.Line = script.PacketLine
	received := at.receiveBurst("server", b)
	if err := at.run(ctx); err != nil {
		return err
	}
	if seen.Err != nil && seen.Tally != nil && seen.Tally.Wrong == "" {
		return failed(NotReinjected, "%s: the kernel does not take a packet back: %s", seen.where, seen.Err.Text)
	}
	if b.Joined && seen.Tally != nil && seen.Tally.Count == 0 {
		return failed(NotDelivered, "%s: none of %d datagrams came that %s had joined", seen.where, b.Count, sent.where)
	}
	if err := judgeBurst(seen, b, NotDelivered); err != nil {
		return err
	}
	// Whether it was read with the burst or after it, what came besides is wrong.
	if n := len(again.Messages); n > 0 {
		return failed(WrongData, "%s: behind the last message of %d bytes came %d more", again.where, b.Size, n)
	}
	if err := judgeBurst(received, b, NotReinjected); err != nil {
		return err
	}
	return x.judge(again)
}

// longControl sends a message of the size from another port before the rule is there. That it does
// not arrive is no fault of diverting: the way loses fragments, or the receiver takes only so many
// for one message (FreeBSD's net.inet.ip.maxfragsperpacket is 16).
func (x *claimRun) longControl(ctx context.Context, size int) (pfconf.Flow, error) {
	clientSide, serverSide := x.sides()
	b := script.Burst{Count: 1, Size: size, Line: script.ClientLine}
	spec := x.controlSpec()
	there := clientSide.request()
	opened := []*stepResult{there.open("long-control", spec), there.connect("long-control", spec)}
	sent := there.sendBurst("long-control", b)
	there.fence()
	there.close("long-control")
	if err := there.run(ctx); err != nil {
		return pfconf.Flow{}, err
	}
	if err := x.opened(opened...); err != nil {
		return pfconf.Flow{}, err
	}
	if err := unanswered(sent); err != nil {
		return pfconf.Flow{}, err
	}
	at := serverSide.request()
	received := at.receiveBurst("server", b)
	if err := at.run(ctx); err != nil {
		return pfconf.Flow{}, err
	}
	if t := received.Tally; t == nil || t.Right < 1 {
		return pfconf.Flow{}, broken(ControlLost, "%s: a message of %d bytes does not arrive although no rule diverts it: %s",
			received.where, size, received.found())
	}
	return x.controlFlow(opened[1].Local), nil
}

// judgeBurst judges that exactly the burst was received, in order.
func judgeBurst(a *stepResult, b script.Burst, missing string) error {
	t := a.Tally
	switch {
	case t == nil:
		return broken(QuestionFailed, "%s: %s: %s", a.where, a.step.Name(), a.found())
	case t.Wrong != "":
		return failed(WrongData, "%s: in place of message %d of %d came %s", a.where, b.First+t.Right, b.Size, t.Wrong)
	case t.Right < b.Count:
		return failed(missing, "%s: %d of %d messages arrived: %s", a.where, t.Right, b.Count, a.found())
	case t.Bytes != b.Count*b.Size:
		return failed(WrongData, "%s: %d bytes arrived, not %d", a.where, t.Bytes, b.Count*b.Size)
	}
	return unanswered(a)
}
