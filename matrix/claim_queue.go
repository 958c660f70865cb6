package matrix

import (
	"context"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// The packets of outOfOrder: so many wait in a queue at once, and so many at a socket.
const (
	orderPackets = 1000
	orderBatch   = 40
)

// outOfOrder: a verdict releases the packet whose id it names, whatever the order in which the
// packets came (find_dequeue_entry, net/netfilter/nfnetlink_queue.c).
//
//  1. Control: before the rule is there, what a client like the cell's sends arrives, and the
//     divert socket does not see it.
//  2. The client sends 1,000 datagrams, 40 at a time. They come to the divert socket in their
//     order, all and each once, and wait there.
//  3. The divert socket reinjects them rewritten, the last one first, 40 at a time. After each 40
//     the server has exactly these, whole and in the order in which they were reinjected.
//  4. The rule has counted 1,000 packets, before and behind.
func (x *claimRun) outOfOrder(ctx context.Context) error {
	x.divertSocket.Queue = orderPackets
	if err := x.begin(ctx, true); err != nil {
		return err
	}
	b := script.Burst{Count: orderBatch, Size: 64, Line: script.ClientLine}
	for b.First = 0; b.First < orderPackets; b.First += orderBatch {
		there := x.local.request()
		sent := there.sendBurst("client", b)
		there.fence()
		if err := there.run(ctx); err != nil {
			return err
		}
		if err := unanswered(sent); err != nil {
			return err
		}
		divert := x.remote.request()
		seen := divert.keepBurst("packet", b)
		if err := divert.run(ctx); err != nil {
			return err
		}
		if err := judgeBurst(seen, b, NotDelivered); err != nil {
			return err
		}
	}
	b.Line, b.Backwards = script.PacketLine, true
	for b.First = orderPackets - orderBatch; b.First >= 0; b.First -= orderBatch {
		at := x.remote.request()
		freed := at.freeBurst("packet", orderBatch, !x.omit[Backwards])
		at.fence()
		received := at.receiveBurst("server", b)
		if err := at.run(ctx); err != nil {
			return err
		}
		if freed.Err != nil {
			return failed(NotReinjected, "%s: the kernel does not take a packet back: %s", freed.where, freed.Err.Text)
		}
		if err := judgeBurst(received, b, NotReinjected); err != nil {
			return err
		}
	}
	return x.judgeMatched(ctx, orderPackets, orderPackets)
}

// unbindBusy: a reader that ends while packets wait for its verdicts takes them with it, and its
// queue can be bound again at once (instance_destroy and nfqnl_rcv_nl_event,
// net/netfilter/nfnetlink_queue.c).
//
//  1. Control: before the rule is there, what a client like the cell's sends arrives, and the
//     divert socket does not see it.
//  2. The client sends three datagrams. The reader takes one, and unbinds the queue.
//  3. A reader in another process binds it. Nothing of the three has arrived; what the client
//     sends now does, rewritten by the new reader.
//  4. The client sends again. That reader takes it, and its process ends without a verdict.
//  5. A third one binds the queue, and all is as in step 3.
//  6. The rule has matched six packets, of which two went on.
func (x *claimRun) unbindBusy(ctx context.Context) error {
	if err := x.begin(ctx, true); err != nil {
		return err
	}
	for range 2 {
		if err := x.sends(ctx); err != nil {
			return err
		}
	}
	if err := x.leavesWaiting(ctx, "packet", "second", script.OtherProcess); err != nil {
		return err
	}
	if err := x.leavesWaiting(ctx, "second", "third", ""); err != nil {
		return err
	}
	return x.judgeMatched(ctx, 6, 2)
}

// leavesWaiting has the client send, a reader take that and end, and another reader bind the
// queue.
func (x *claimRun) leavesWaiting(ctx context.Context, reader, next string, process script.Process) error {
	if err := x.sends(ctx); err != nil {
		return err
	}
	from, to := x.flowEnds()
	at := x.remote.request()
	taken := at.receive(reader)
	if x.omit[Keep] {
		at.relay(reader, script.ClientLine, script.PacketLine)
	}
	if !x.omit[Ended] {
		at.close(reader)
	}
	bound := at.openOther(next, x.divertSpec(), process)
	if err := at.run(ctx); err != nil {
		return err
	}
	if err := x.judge(taken, want{line: script.ClientLine, from: from, to: to, missing: NotDelivered}); err != nil {
		return err
	}
	if bound.Err != nil {
		return failed(NotOpened, "%s: a queue whose reader has ended can't be bound: %s", bound.where, bound.Err.Text)
	}
	if err := x.nothingArrives(ctx, "the reader ended while the packet waited"); err != nil {
		return err
	}
	return x.passes(ctx, next)
}

// requeue: a packet that user space hands to another queue comes there and does not meet the rule
// again (NF_QUEUE), and one that it has repeated meets the rule once more (NF_REPEAT; nf_reinject,
// net/netfilter/nfnetlink_queue.c).
//
//  1. REMOTE has two divert sockets, one on the rule's port. Control: before the rule is there,
//     what a client like the cell's sends arrives, and that one does not see it.
//  2. The client sends. The packet comes to the socket on the rule's port, which has it repeated:
//     it comes there a second time.
//  3. That socket hands it to the other's queue: it comes there, once, and not to the first.
//  4. The other socket reinjects it rewritten, and it arrives.
//  5. The rule has matched two packets, and one went on behind it.
func (x *claimRun) requeue(ctx context.Context) error {
	other := x.divertSpec()
	other.Local = x.otherDivert()
	at := x.remote.request()
	opened := at.open("other", other)
	if err := at.run(ctx); err != nil {
		return err
	}
	if err := x.opened(opened); err != nil {
		return err
	}
	if err := x.begin(ctx, true); err != nil {
		return err
	}
	if err := x.sends(ctx); err != nil {
		return err
	}
	repeat, to := script.HandOn{Socket: "packet"}, script.HandOn{Socket: "packet", Port: other.Local.Port()}
	if x.omit[Repeated] {
		repeat = to
	}
	if x.omit[Requeued] {
		to = script.HandOn{Socket: "packet"}
	}
	divert := x.remote.request()
	seen := divert.receive("packet")
	divert.handOn(repeat)
	again := divert.receive("packet")
	divert.handOn(to)
	moved := divert.receive("other")
	divert.relay("other", script.ClientLine, x.rewritten(script.PacketLine))
	divert.fence()
	more := []*stepResult{divert.rest("packet"), divert.rest("other")}
	if err := divert.run(ctx); err != nil {
		return err
	}
	from, meant := x.flowEnds()
	for _, a := range []*stepResult{seen, again, moved} {
		if err := x.judge(a, want{line: script.ClientLine, from: from, to: meant, missing: NotDelivered}); err != nil {
			return err
		}
	}
	if err := x.arrives(ctx, script.PacketLine, NotReinjected); err != nil {
		return err
	}
	for _, a := range more {
		if err := x.judge(a); err != nil {
			return err
		}
	}
	return x.judgeMatched(ctx, 2, 1)
}

// dnatTwo: two packets of a new flow that wait in a queue at the same time, and whose destination
// a rule translates, both arrive (nf_ct_resolve_clash, net/netfilter/nf_conntrack_core.c: each has
// a conntrack entry of its own until the first is released; 8af79d3edb5f lets the second take the
// first's).
//
//  1. A server of REMOTE has an address and port of REMOTE's own. Control: before the rules are
//     there, a client like the cell's, which talks to FAKE, does not reach it.
//  2. One rule redirects what the client sends to FAKE to the server, the other hands it to a
//     divert socket. The client sends two datagrams. Both are at the divert socket before one is
//     reinjected.
//  3. Both are reinjected. They come to the server, each once, with the server's own name as their
//     destination.
//  4. The server's answer comes back to the client from FAKE.
func (x *claimRun) dnatTwo(ctx context.Context) error {
	from, to := x.flowEnds()
	own := x.redirected()
	packets := x.rule()
	packets.Label, packets.Action, packets.Divert = x.Cell.label("-packet"), pfconf.DivertPacket, x.divertPort()
	packets.To, packets.Port = own.Addr(), own.Port()
	x.more = []pfconf.Rule{packets}
	at := x.remote.request()
	opened := at.open("packet", x.divertSpec())
	if err := at.run(ctx); err != nil {
		return err
	}
	if err := x.opened(opened); err != nil {
		return err
	}
	server := script.Datagram{Ends: script.Ends{Role: script.Server, Local: own, Diverted: true, Omit: x.omitted()}}
	if err := x.beginRedirect(ctx, server); err != nil {
		return err
	}
	spec := x.redirectedClient()
	there := x.local.request()
	ready := []*stepResult{there.open("client", spec), there.connect("client", spec)}
	sent := []*stepResult{there.send("client", script.ClientLine, 0), there.send("client", script.ClientLine, 0)}
	there.fence()
	if err := there.run(ctx); err != nil {
		return err
	}
	if err := x.opened(ready...); err != nil {
		return err
	}
	for _, s := range sent {
		if err := unanswered(s); err != nil {
			return err
		}
	}
	divert := x.remote.request()
	seen := divert.relayAll("packet", nil)
	divert.fence()
	received := []*stepResult{divert.receive("server"), divert.receive("server")}
	divert.send("server", script.ServerLine, 0)
	divert.fence()
	more := []*stepResult{divert.rest("server"), divert.rest("packet")}
	if err := divert.run(ctx); err != nil {
		return err
	}
	there = x.local.request()
	heard := there.rest("client")
	if err := there.run(ctx); err != nil {
		return err
	}
	one := want{line: script.ClientLine, from: from, to: own, missing: NotDelivered}
	if err := x.judge(seen, one, one); err != nil {
		return err
	}
	for _, r := range received {
		if err := x.judge(r, want{line: script.ClientLine, from: from, to: own, missing: NotReinjected}); err != nil {
			return err
		}
	}
	for _, a := range more {
		if err := x.judge(a); err != nil {
			return err
		}
	}
	return x.judge(heard, want{line: script.ServerLine, from: to, missing: NoReply})
}

// keepBurst has the packet role take a burst and keep its packets.
func (s *request) keepBurst(end string, b script.Burst) *stepResult {
	return s.add(script.KeepBurst{Socket: end, Burst: b}, lost)
}

// freeBurst has the packet role reinject so many of the packets that it keeps.
func (s *request) freeBurst(end string, count int, newestFirst bool) *stepResult {
	return s.add(script.FreeBurst{Socket: end, Count: count, NewestFirst: newestFirst,
		Rewrite: script.Rewrite{Old: script.ClientLine, New: script.PacketLine}}, lost)
}

// handOn has the packet role hand the packet that it holds to another queue, or have it repeated.
func (s *request) handOn(h script.HandOn) *stepResult { return s.add(h, lost) }
