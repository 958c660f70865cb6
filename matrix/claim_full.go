package matrix

import (
	"context"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// fullQueue is the room that the divert socket of full asks for, in packets; on the
// BSDs it is the socket's buffer.
const fullQueue = 32

// full: "net.inet.divert.recvspace" bounds what waits at a divert socket, and what finds no
// room is dropped and counted (OpenBSD divert(4), netstat(1): "dropped due to full socket
// buffers"); on Linux NFQA_CFG_QUEUE_MAXLEN does, and the queue counts.
//
//  1. Control: before the rule is there, what a client like the cell's sends arrives.
//  2. The client sends 100 datagrams of 1,400 bytes, which is more than there is room for,
//     and no one takes one.
//  3. Of these, the first so many as there is room for wait at the divert socket, in order, and
//     arrive when they are reinjected; the rest was dropped, and the kernel has counted them.
//  4. There is room again: what the client sends now passes.
func (x *claimRun) full(ctx context.Context) error {
	x.big, x.divertSocket.Queue = true, fullQueue
	if err := x.begin(ctx, true); err != nil {
		return err
	}
	before, err := x.dropped(ctx)
	if err != nil {
		return err
	}
	b := script.Burst{Count: 100, Size: 1400, Line: script.ClientLine}
	if x.omit[Many] {
		b.Count = fullQueue
	}
	clientSide, serverSide := x.sides()
	there := clientSide.request()
	sent := there.sendBurst("client", b)
	there.fence()
	if err := there.run(ctx); err != nil {
		return err
	}
	if err := unanswered(sent); err != nil {
		return err
	}
	after, err := x.dropped(ctx)
	if err != nil {
		return err
	}
	divert := x.remote.request()
	seen := divert.relayBurst("packet", b, script.PacketLine)
	divert.fence()
	if err := divert.run(ctx); err != nil {
		return err
	}
	waited := seen.Tally
	switch {
	case waited == nil:
		return broken(QuestionFailed, "%s: %s", seen.where, seen.found())
	case waited.Right == 0:
		return failed(NotDelivered, "%s: none of %d packets waits", seen.where, b.Count)
	case waited.Count != waited.Right:
		return failed(WrongData, "%s: in place of message %d came %s", seen.where, waited.Right, waited.Wrong)
	case waited.Count == b.Count:
		return failed(NotLost, "%s: all %d packets wait, and there is no room for so many", seen.where, b.Count)
	case after.Room == 0 && waited.Count != fullQueue:
		return failed(WrongData, "%s: waiting are %s, not %d", seen.where, pfconf.Count(waited.Count, "packet"),
			fullQueue)
	case after.Room > 0 && waited.Bytes > after.Room:
		return failed(NotLost, "%s: %d bytes wait, and there is room for %d", seen.where, waited.Bytes, after.Room)
	}
	lost := uint64(b.Count - waited.Count)
	if n := after.NoRoom - before.NoRoom; n < lost || after.Room == 0 && n > lost {
		return failed(NotCounted, "remote: no room was for %s, and the kernel has counted %d", pfconf.Count(lost,
			"packet"), n)
	}
	at := serverSide.request()
	b.Count, b.Line = waited.Count, script.PacketLine
	received := at.receiveBurst("server", b)
	if err := at.run(ctx); err != nil {
		return err
	}
	if err := judgeBurst(received, b, NotReinjected); err != nil {
		return err
	}
	return x.passes(ctx, "packet")
}

// counted: the counter of packets for which there was no socket (netstat(1), -s -p divert: "dropped
// due to no socket").
//
//  1. Control: before the rule is there, what a client like the cell's sends arrives.
//  2. No one listens, and the client sends 20 datagrams. None arrives, and the kernel has counted
//     20 at least: other programs of the host may have lost packets as well.
//  3. A divert socket is opened, and what the client sends now passes.
func (x *claimRun) counted20(ctx context.Context) error {
	if err := x.begin(ctx, false); err != nil {
		return err
	}
	before, err := x.dropped(ctx)
	if err != nil {
		return err
	}
	b := script.Burst{Count: 20, Size: 40, Line: script.ClientLine}
	clientSide, _ := x.sides()
	there := clientSide.request()
	sent := there.sendBurst("client", b)
	there.fence()
	if err := there.run(ctx); err != nil {
		return err
	}
	if err := unanswered(sent); err != nil {
		return err
	}
	if err := x.nothingArrives(ctx, "no process listened on its divert port"); err != nil {
		return err
	}
	after, err := x.dropped(ctx)
	if err != nil {
		return err
	}
	if n := after.NoSocket - before.NoSocket; n < 20 {
		return failed(NotCounted, "remote: 20 packets found no socket, and the kernel has counted %d", n)
	}
	if err := x.openDivert(ctx, "packet"); err != nil {
		return err
	}
	return x.passes(ctx, "packet")
}

// dropped asks REMOTE what was dropped for the cell's divert port.
func (x *claimRun) dropped(ctx context.Context) (script.Dropped, error) {
	at := x.remote.request()
	drops := at.undelivered(x.Divert)
	if err := at.run(ctx); err != nil {
		return script.Dropped{}, err
	}
	return *drops.Drops, nil
}
