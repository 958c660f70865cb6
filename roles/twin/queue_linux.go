package twin

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// readQueues reads the numbers of the queues of NFQUEUE that a program takes packets from.
func (d *Dump) readQueues() {
	table, err := procNet("netfilter/nfnetlink_queue")
	if err != nil {
		return // the kernel has none
	}
	for line := range strings.Lines(string(table)) {
		if words := strings.Fields(line); len(words) > 0 {
			if n, err := strconv.ParseUint(words[0], 10, 16); err == nil && len(d.Queues) < maxQueues {
				d.Queues = append(d.Queues, uint16(n))
			}
		}
	}
}

const maxQueues = 1024

// queues stands in for the programs of NFQUEUE: it accepts all packets. A queue that has no program
// on the host has none in the twin, and its packets are dropped, or pass where the rule says
// bypass.
type queues struct{ fd int }

// Messages and attributes of linux/netfilter/nfnetlink_queue.h.
const (
	nfqnlPacket    = 0
	nfqnlVerdict   = 1
	nfqnlConfig    = 2
	nfqaPacketHdr  = 1
	nfqaVerdictHdr = 2
	nfqaCfgCmd     = 1
	nfqaCfgParams  = 2
	nfqnlCmdBind   = 1
	nfqnlCopyMeta  = 1
)

// newQueues binds the queues, in the calling thread's namespace.
func newQueues(numbers []uint16) (*queues, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("netfilter socket: %w", err)
	}
	q := &queues{fd}
	for _, n := range slices.Compact(slices.Sorted(slices.Values(numbers))) {
		// struct nfqnl_msg_config_cmd: command, pad, pf be16; nfqnl_msg_config_params: copy_range
		// be32, copy_mode
		b := appendAttr(nil, nfqaCfgCmd, []byte{nfqnlCmdBind, 0, 0, 0})
		b = appendAttr(b, nfqaCfgParams, []byte{0, 0, 0, 0, nfqnlCopyMeta})
		if err := q.send(nfqnlConfig, unix.NLM_F_ACK, n, b); err != nil {
			q.close()
			return nil, fmt.Errorf("queue %d: %w", n, err)
		}
		if err := q.acknowledged(); err != nil {
			q.close()
			return nil, fmt.Errorf("queue %d: %w", n, err)
		}
	}
	return q, nil
}

func (q *queues) close() { _ = unix.Close(q.fd) }

// send sends a message to a queue.
func (q *queues) send(kind byte, flags uint16, number uint16, attributes []byte) error {
	b := make([]byte, unix.SizeofNlMsghdr+4)
	binary.NativeEndian.PutUint32(b, uint32(len(b)+len(attributes)))
	binary.NativeEndian.PutUint16(b[4:], unix.NFNL_SUBSYS_QUEUE<<8|uint16(kind))
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST|flags)
	binary.BigEndian.PutUint16(b[unix.SizeofNlMsghdr+2:], number) // struct nfgenmsg: family, version, res_id
	return unix.Sendto(q.fd, append(b, attributes...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// acknowledged reads the answer to a request, which is there as soon as the request was sent.
func (q *queues) acknowledged() error {
	var failed error
	n, err := q.each(func(kind uint16, data []byte) {
		if kind == unix.NLMSG_ERROR && len(data) >= 4 && host32(data[:4]) != 0 {
			failed = unix.Errno(-int32(host32(data[:4])))
		}
	})
	if err == nil && n == 0 {
		err = errors.New("no answer of the kernel")
	}
	return errors.Join(err, failed)
}

// each calls f for the messages that wait.
func (q *queues) each(f func(kind uint16, data []byte)) (count int, err error) {
	b := make([]byte, 1<<16)
	for {
		n, _, err := unix.Recvfrom(q.fd, b, 0)
		if errors.Is(err, unix.EAGAIN) {
			return count, nil
		} else if err != nil {
			return count, err
		}
		for some := b[:n]; len(some) >= unix.SizeofNlMsghdr; {
			size := int(host32(some[:4]))
			if size < unix.SizeofNlMsghdr || size > len(some) {
				return count, errAttr
			}
			count++
			f(uint16(host32(some[4:6])), some[unix.SizeofNlMsghdr:size])
			some = some[min((size+3)&^3, len(some)):]
		}
	}
}

// accept lets the packets that wait go on.
func (q *queues) accept() error {
	var failed error
	_, err := q.each(func(kind uint16, data []byte) {
		if kind != unix.NFNL_SUBSYS_QUEUE<<8|nfqnlPacket || len(data) < 4 {
			return
		}
		all, err := split(data, 4)
		header := all.get(nfqaPacketHdr) // struct nfqnl_msg_packet_hdr: packet_id be32, …
		if err != nil || len(header) < 4 {
			failed = errAttr
			return
		}
		// struct nfqnl_msg_verdict_hdr: verdict be32 (NF_ACCEPT 1), id be32
		verdict := append([]byte{0, 0, 0, 1}, header[:4]...)
		if err := q.send(nfqnlVerdict, 0, binary.BigEndian.Uint16(data[2:]),
			appendAttr(nil, nfqaVerdictHdr, verdict)); err != nil {
			failed = err
		}
	})
	return errors.Join(err, failed)
}
