package socket

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"pfdivert/matrix/script"
	"pfdivert/pfconf/need"
	"pfdivert/pfconf/netlink"
)

// kernelFixesChecksums: after a verdict with a new payload the kernel believes the
// packet's checksums as they are.
const kernelFixesChecksums = false

// queues is the process's netfilter queues, all on one socket: closing a
// NETLINK_NETFILTER socket waits for the deletions of earlier rule changes, 11 ms
// in the median, so this one is never closed.
var queues = queueHub{bound: map[uint16]*queue{}}

// queueHub shares the socket among the queues.
type queueHub struct {
	mu     sync.Mutex
	socket *netlink.Socket // nil until the first queue is bound
	bound  map[uint16]*queue
}

// queue is one netfilter queue; its number is the divert port. The kernel
// keeps each packet until its verdict.
type queue struct {
	hub     *queueHub
	number  uint16
	joined  bool     // packets that the kernel has joined are not cut
	length  int      // how many packets may wait for a verdict; the kernel drops what is more
	back    uint32   // the verdict that gives a packet back
	waiting []queued // under hub.mu
	failed  error    // under hub.mu
	taken   uint32   // id of the packet taken last
	// wake is written to when another queue's reader has put something into
	// waiting; -1 until this queue first waits.
	wake int
}

type queued struct {
	id     uint32
	packet []byte
}

// The messages, attributes and commands of netfilter queues
// (uapi/linux/netfilter/nfnetlink_queue.h).
const (
	nfqnlPacket  = unix.NFNL_SUBSYS_QUEUE << 8
	nfqnlVerdict = unix.NFNL_SUBSYS_QUEUE<<8 | 1
	nfqnlConfig  = unix.NFNL_SUBSYS_QUEUE<<8 | 2

	nfqaPacketHdr = 1
	nfqaVerdict   = 2
	nfqaPayload   = 10

	nfqaCfgCmd    = 1
	nfqaCfgParams = 2
	nfqaCfgMaxLen = 3
	nfqaCfgMask   = 4
	nfqaCfgFlags  = 5
	nfqaCfgFGSO   = 1 << 2

	nfqnlBind       = 1
	nfqnlUnbind     = 2
	nfqnlCopyPacket = 2

	nfDrop   = 0
	nfAccept = 1
	nfQueue  = 3
	nfRepeat = 4
)

// divertAbilities: a queue is read by netlink.
var divertAbilities abilities

func newDiverter(s script.Divert) (diverter, error) {
	q := &queue{hub: &queues, number: s.Local.Port(), length: script.QueueLength, back: nfAccept, wake: -1}
	if s.Omits(script.GoOn) {
		q.back = nfRepeat
	}
	if s.Queue > 0 {
		q.length = s.Queue
	}
	q.joined = s.Omits(script.Segments)
	if s.Omits(script.Room) {
		q.length = 0
	}
	queues.mu.Lock()
	defer queues.mu.Unlock()
	if queues.socket == nil {
		socket, err := netlink.Open(unix.NETLINK_NETFILTER)
		if err != nil {
			return nil, err
		}
		queues.socket = socket
	}
	if queues.bound[q.number] != nil {
		return nil, fmt.Errorf("netfilter queue %d: %w", q.number, unix.EADDRINUSE)
	}
	if err := queues.bind(q); err != nil {
		if errors.Is(err, unix.EINVAL) { // nfnetlink_rcv_msg: no such subsystem
			err = &need.MissingError{Feature: need.NFQueue, Err: err}
		}
		return nil, fmt.Errorf("netfilter queue %d: %w", q.number, err)
	}
	return q, nil
}

// Queue is a netfilter queue of the network namespace in which it is opened, on a socket of its
// own.
type Queue struct{ *queue }

// OpenQueue binds the number of one.
func OpenQueue(number uint16) (*Queue, error) {
	socket, err := netlink.Open(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	h := &queueHub{socket: socket, bound: map[uint16]*queue{}}
	q := &queue{hub: h, number: number, length: script.QueueLength, back: nfAccept, wake: -1}
	if err := h.bind(q); err != nil {
		return nil, errors.Join(err, socket.Close())
	}
	return &Queue{q}, nil
}

// Take returns the next packet, which waits for Release.
func (q *Queue) Take(ctx context.Context) (packet []byte, err error) {
	err = awaited(ctx, func(until time.Time) (err error) {
		packet, _, err = q.take(until)
		return err
	})
	return packet, err
}

// Release has the packet taken last go on.
func (q *Queue) Release() error { return q.verdict(nfAccept, nil) }

// Close unbinds the queue.
func (q *Queue) Close() error { return errors.Join(q.close(), q.hub.socket.Close()) }

// bind binds the queue's number to the socket. The kernel answers EPERM to one
// who may not, and to one who comes second (nfqnl_recv_config).
func (h *queueHub) bind(q *queue) error {
	h.bound[q.number] = q
	err := h.configure(q.number, nfqaCfgCmd, []byte{nfqnlBind, 0, 0, 0})
	if err == nil {
		err = h.configure(q.number, nfqaCfgMaxLen, binary.BigEndian.AppendUint32(nil, uint32(q.length)))
	}
	if err == nil {
		// struct nfqnl_msg_config_params: the whole packet is copied. Without
		// NFQA_CFG_F_GSO its checksums are complete.
		err = h.configure(q.number, nfqaCfgParams, append(binary.BigEndian.AppendUint32(nil, script.MaxPacket),
			nfqnlCopyPacket))
	}
	if err == nil && q.joined {
		r := h.request(nfqnlConfig, q.number)
		for _, attribute := range []uint16{nfqaCfgMask, nfqaCfgFlags} {
			r.Attr(attribute, binary.BigEndian.AppendUint32(nil, nfqaCfgFGSO))
		}
		err = h.transact(r)
	}
	if err == nil {
		return nil
	}
	delete(h.bound, q.number)
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("in use by another process, or not allowed: %w", err)
	}
	return err
}

func (h *queueHub) configure(number, attribute uint16, data []byte) error {
	r := h.request(nfqnlConfig, number)
	r.Attr(attribute, data)
	return h.transact(r)
}

// request begins a message for a queue (struct nfgenmsg).
func (h *queueHub) request(kind, number uint16) *netlink.Request {
	r := h.socket.Request()
	r.Add(kind, unix.NLM_F_ACK, unix.AF_UNSPEC, unix.NFNETLINK_V0, byte(number>>8), byte(number))
	return r
}

// transact sends the request and reads its acknowledgement, and with it all
// packets that are there.
func (h *queueHub) transact(r *netlink.Request) error {
	if err := h.socket.Send(r); err != nil {
		return err
	}
	answer := errors.New("the kernel did not acknowledge")
	h.collect(func(m netlink.Message) {
		if m.Seq == r.First {
			answer = m.Acknowledged()
		}
	}, nil)
	return answer
}

// collect moves everything that waits on the socket to where it belongs.
// reader is the queue on whose behalf it does so.
func (h *queueHub) collect(acknowledged func(netlink.Message), reader *queue) {
	err := h.socket.Drain(func(m netlink.Message) {
		switch {
		case m.Kind == unix.NLMSG_ERROR && acknowledged != nil:
			acknowledged(m)
		case m.Kind == nfqnlPacket:
			number, p, ok := parseQueued(m.Body)
			if q := h.bound[number]; ok && q != nil && len(q.waiting) < script.QueueLength {
				q.waiting = append(q.waiting, p)
				q.notify(reader)
			}
		}
	})
	if err == nil {
		return
	}
	// Packets were lost, and no one knows whose.
	for _, q := range h.bound {
		q.failed = err
		q.notify(reader)
	}
}

// notify wakes the queue's endpoint if it waits elsewhere.
func (q *queue) notify(reader *queue) {
	if q != reader && q.wake >= 0 {
		_, _ = unix.Write(q.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}
}

// parseQueued reads a packet message: struct nfgenmsg with the queue's number
// in network order, then attributes, of which the packet header begins with the
// packet's id.
func parseQueued(b []byte) (number uint16, p queued, ok bool) {
	if len(b) < 4 {
		return 0, p, false
	}
	number = binary.BigEndian.Uint16(b[2:])
	for kind, data := range netlink.Attributes(b[4:]) {
		switch {
		case kind == nfqaPacketHdr && len(data) >= 4:
			p.id, ok = binary.BigEndian.Uint32(data), true
		case kind == nfqaPayload:
			p.packet = slices.Clone(data)
		}
	}
	return number, p, ok
}

func (q *queue) take(deadline time.Time) ([]byte, netip.AddrPort, error) {
	for {
		p, ok, err := q.next(time.Until(deadline) > 0)
		if err != nil {
			return nil, netip.AddrPort{}, err
		}
		if ok {
			q.taken = p.id
			return p.packet, netip.AddrPort{}, nil
		}
		if q.wake < 0 {
			return nil, netip.AddrPort{}, ErrNothing
		}
		fds := []unix.PollFd{{Fd: int32(q.hub.socket.FD()), Events: unix.POLLIN},
			{Fd: int32(q.wake), Events: unix.POLLIN}}
		if err := waitAny(fds, deadline); err != nil {
			return nil, netip.AddrPort{}, err
		}
	}
}

// next returns the first packet that waits for this queue. willWait prepares
// the queue for being woken: whoever reads the socket from now on tells it.
func (q *queue) next(willWait bool) (p queued, ok bool, err error) {
	q.hub.mu.Lock()
	defer q.hub.mu.Unlock()
	if q.wake >= 0 {
		var b [8]byte
		_, _ = unix.Read(q.wake, b[:])
	} else if willWait {
		if q.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
			q.wake = -1
			return p, false, fmt.Errorf("eventfd: %w", err)
		}
	}
	q.hub.collect(nil, q)
	if q.failed != nil {
		err, q.failed = q.failed, nil
		return p, false, err
	}
	if len(q.waiting) == 0 {
		return p, false, nil
	}
	p, q.waiting = q.waiting[0], q.waiting[1:]
	return p, true, nil
}

func (q *queue) reinject(b []byte) error { return q.verdict(q.back, b) }

func (q *queue) drop() error { return q.verdict(nfDrop, nil) }

func (q *queue) chosen() uint32   { return q.taken }
func (q *queue) choose(id uint32) { q.taken = id }

// handOn gives the packet taken last to another queue (NF_QUEUE with its number in the upper
// half), or with 0 back to the rules.
func (q *queue) handOn(port uint16) error {
	if port == 0 {
		return q.verdict(nfRepeat, nil)
	}
	return q.verdict(uint32(port)<<16|nfQueue, nil)
}

// verdict decides about the packet taken last, with payload in its place.
func (q *queue) verdict(verdict uint32, payload []byte) error {
	q.hub.mu.Lock()
	defer q.hub.mu.Unlock()
	r := q.hub.request(nfqnlVerdict, q.number)
	r.Attr(nfqaVerdict, binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, verdict), q.taken))
	if payload != nil {
		r.Attr(nfqaPayload, payload)
	}
	if err := q.hub.transact(r); err != nil {
		return fmt.Errorf("verdict on packet %d of queue %d: %w", q.taken, q.number, err)
	}
	return nil
}

// close unbinds the queue; the kernel drops the packets that had no verdict.
func (q *queue) close() error {
	q.hub.mu.Lock()
	defer q.hub.mu.Unlock()
	err := q.hub.configure(q.number, nfqaCfgCmd, []byte{nfqnlUnbind, 0, 0, 0})
	delete(q.hub.bound, q.number)
	if q.wake >= 0 {
		_ = unix.Close(q.wake)
		q.wake = -1
	}
	if err != nil {
		return fmt.Errorf("netfilter queue %d: %w", q.number, err)
	}
	return nil
}

// dropsTries is how often the table of queues is read that lacks one which someone listens on.
const dropsTries = 3

// Drops returns what the netfilter queue with the number has dropped. The kernel shows only queues
// on which a process listens. A queue that is closed meanwhile moves others out of the next piece
// of the table (get_idx, nfnetlink_queue.c), so a queue that is missing is looked for again.
func Drops(_ context.Context, _ bool, number uint16) (script.Dropped, error) {
	for range dropsTries {
		text, err := netlink.ReadTable("/proc/thread-self/net/netfilter/nfnetlink_queue")
		if err != nil {
			return script.Dropped{}, err
		}
		queues, err := netlink.ParseQueues(text)
		if err != nil {
			return script.Dropped{}, err
		}
		for _, q := range queues {
			if q.Number == number {
				return script.Dropped{NoRoom: q.Full + q.Socket}, nil
			}
		}
	}
	return script.Dropped{}, fmt.Errorf("nfnetlink_queue: there is no queue %d", number)
}
