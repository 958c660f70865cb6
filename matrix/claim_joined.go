package matrix

import (
	"context"
	"fmt"

	"pfdivert/matrix/script"
)

// joinedDatagrams: packets that came joined into one (GRO, or UDP_SEGMENT of a sender behind a
// veth) come to a queue without NFQA_CFG_F_GSO one by one, and each goes on once, those of a new
// flow too (nfqnl_enqueue_packet, net/netfilter/nfnetlink_queue.c). Kernels with 7d8dc1c7be8d and
// without its fix drop all of a new flow's: they take the pieces of one packet for packets that
// share an unconfirmed conntrack entry (CVE-2026-45859).
//
//  1. Control: before the rule is there, what a client like the cell's sends arrives, and the
//     divert socket does not see it.
//  2. The client sends 8 datagrams in one call, the first of their flow. All come to the divert
//     socket, in their order and each once, and are reinjected rewritten.
//  3. They come to the server in the same order, each once and whole.
//  4. The rule has counted fewer packets than went on behind it: they did come joined. Where they
//     did not, the target is a SKIP.
func (x *claimRun) joinedDatagrams(ctx context.Context) error {
	if err := x.begin(ctx, true); err != nil {
		return err
	}
	const count = 8
	if err := x.burst(ctx, script.Burst{Count: count, Size: 64, Line: script.ClientLine, Joined: true}); err != nil {
		return err
	}
	return x.judgeJoined(ctx, count)
}

// judgeJoined judges that so many packets went on behind the rule, and that it had matched fewer.
func (x *claimRun) judgeJoined(ctx context.Context, behind uint64) error {
	at := x.remote.request()
	counters := at.counters(x.label())
	if err := at.run(ctx); err != nil {
		return err
	}
	switch c := counters.Counters; {
	case c.Done != behind || c.Matched > behind:
		return failed(NotCounted, "remote: rule %s matched %d packets, and %d went on behind it, not %d", x.label(),
			c.Matched, c.Done, behind)
	case c.Matched == behind:
		return &finding{Skip, NotJoined, fmt.Sprintf("remote: rule %s matched %d packets, each as it was sent: the way "+
			"from LOCAL joins none, so there was nothing to cut", x.label(), c.Matched)}
	}
	return nil
}

// joinedSegment is the length of the segments of joinedStream, which every network takes.
const joinedSegment = 1220

// joinedStream: segments of a TCP connection that came joined into one packet (GRO, or a sender's
// TSO behind a veth) come to a queue without NFQA_CFG_F_GSO one by one, and each goes on once
// (nfqnl_enqueue_packet, net/netfilter/nfnetlink_queue.c).
//
//  1. Control: before the rule is there, a client like the cell's connects, and the divert socket
//     does not see it.
//  2. The client connects through the divert socket, in segments of 1,220 bytes at most, and sends
//     8 KiB at once, which fit into the first window: what is written in pieces is joined only if
//     no acknowledgement comes between. No packet that comes to the divert socket is longer
//     than a segment.
//  3. The server reads the 8 KiB as they were sent.
//  4. The rule has counted fewer packets than went on behind it: they did come joined. Where they
//     did not, the target is a SKIP.
func (x *claimRun) joinedStream(ctx context.Context) error {
	x.big = true
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
	from, to := x.flowEnds()
	client := script.Stream{Ends: script.Ends{Role: script.Client, Local: from, Remote: to, Big: true},
		Segment: joinedSegment}
	b := script.Burst{Count: 1, Size: 8192, Line: script.ClientLine}
	there := x.local.request()
	ready := []*stepResult{there.open("client", client), there.connect("client", client)}
	there.fence()
	if err := there.run(ctx); err != nil {
		return err
	}
	if err := x.opened(ready...); err != nil {
		return err
	}
	if _, err := x.relayed(ctx); err != nil {
		return err
	}
	there = x.local.request()
	connected := there.connected("client")
	sent := there.sendBurst("client", b)
	there.fence()
	if err := there.run(ctx); err != nil {
		return err
	}
	if connected.Err != nil {
		return failed(NotDelivered, "%s: the connection to %v was not answered (%s)", connected.where, to,
			connected.Err.Text)
	}
	if err := unanswered(sent); err != nil {
		return err
	}
	longest, err := x.relayed(ctx)
	if err != nil {
		return err
	}
	at := x.remote.request()
	accepted := at.accept("server")
	received := at.receiveBurst("server", b)
	counters := at.counters(x.label())
	if err := at.run(ctx); err != nil {
		return err
	}
	switch {
	case longest == 0:
		return failed(NotDelivered, "remote packet: no packet with data came")
	case longest > joinedSegment:
		return failed(WrongData, "remote packet: a packet with %d bytes of data came, and segments have at most %d: "+
			"it came joined", longest, joinedSegment)
	case accepted.Err != nil:
		return failed(NotDelivered, "%s: the client is connected to %v, and not with the server (%s)", accepted.where,
			to, accepted.Err.Text)
	}
	if err := judgeBurst(received, b, NotReinjected); err != nil {
		return err
	}
	return x.judgeJoined(ctx, counters.Counters.Done)
}

// relayed reinjects what waits at the divert socket, and what that brings forth, as it came. It
// returns the length of the longest payload.
func (x *claimRun) relayed(ctx context.Context) (longest int, err error) {
	divert := x.remote.request()
	var given []*stepResult
	for range rounds {
		given = append(given, divert.relayAll("packet", nil))
		divert.fence()
	}
	if err := divert.run(ctx); err != nil {
		return 0, err
	}
	for _, g := range given {
		if g.Err != nil {
			return 0, failed(NotReinjected, "%s: the kernel does not take a packet back: %s", g.where, g.Err.Text)
		}
		for _, m := range g.Messages {
			longest = max(longest, len(m.Data))
		}
	}
	return longest, nil
}
