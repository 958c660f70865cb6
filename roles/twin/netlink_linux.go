package twin

import (
	"context"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// longest is the room for a datagram of netlink: the kernel fills up to 32 kB of a dump into one.
// Larger datagrams make dumps of big sets faster, whose time is quadratic in their number.
const longest = 1 << 17

// dial opens a netlink socket, in the namespace of a file descriptor or, for 0, of the thread.
func dial(family, fd int) (*netlink.Conn, error) {
	c, err := netlink.Dial(family, &netlink.Config{NetNS: fd, MessageBufferSize: longest})
	if err != nil {
		return nil, fmt.Errorf("netlink socket: %w", err)
	}
	// Without it messages of an error are only less clear.
	_ = c.SetOption(netlink.ExtendedAcknowledge, true)
	return c, nil
}

// dumpTries is how often a dump is asked for that changes while it is read.
const dumpTries = 5

var errChanges = errors.New("it keeps changing while it is read")

// dump returns all messages that answer a request, of one state of the kernel.
func dump(ctx context.Context, c *netlink.Conn, kind uint16, request []byte) ([]NetlinkMessage, error) {
	for range dumpTries {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		answers, err := c.Execute(netlink.Message{
			Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request | netlink.Dump},
			Data:   request,
		})
		if errors.Is(err, unix.EINTR) {
			continue
		} else if err != nil {
			return nil, err
		}
		all := make([]NetlinkMessage, 0, len(answers))
		whole := true
		for _, m := range answers {
			whole = whole && m.Header.Flags&unix.NLM_F_DUMP_INTR == 0
			all = append(all, NetlinkMessage{uint16(m.Header.Type), m.Data})
		}
		if whole {
			return all, nil
		}
	}
	return nil, errChanges
}

// request is a message that changes something.
type request struct {
	kind  uint16
	flags netlink.HeaderFlags // beside netlink.Request
	data  []byte
}

// perform sends the requests in one datagram and returns the errors by the request's index. Those
// of rtnetlink are carried out one by one, whether others fail or not; of a batch, which is
// nf_tables', all or none.
func perform(c *netlink.Conn, requests []request, batch bool) (map[int]error, error) {
	if len(requests) == 0 {
		return nil, nil
	}
	messages := make([]netlink.Message, len(requests))
	for i, r := range requests {
		messages[i] = netlink.Message{
			Header: netlink.Header{Type: netlink.HeaderType(r.kind), Flags: netlink.Request | r.flags}, Data: r.data,
		}
	}
	last := len(messages) - 1
	if batch {
		last-- // older kernels do not acknowledge the end of a batch
	}
	messages[last].Header.Flags |= netlink.Acknowledge
	sent, err := c.SendMessages(messages)
	if err != nil {
		return nil, err
	}
	index := make(map[uint32]int, len(sent))
	for i, m := range sent {
		index[m.Header.Sequence] = i
	}
	failed := map[int]error{}
	// The kernel has answered all when SendMessages returns.
	for {
		answers, err := c.Receive()
		var refused *netlink.OpError
		if errors.As(err, &refused) && refused.Sequence != 0 {
			i, ours := index[refused.Sequence]
			if ours { // else it is of an earlier batch that was refused as a whole
				failed[i] = plain(refused)
			}
			if ours && (i == last || batch && i == 0) {
				return failed, nil
			}
			continue
		} else if err != nil {
			return failed, err
		}
		for _, m := range answers {
			if i, ours := index[m.Header.Sequence]; ours && i == last && m.Header.Type == netlink.Error {
				return failed, nil
			}
		}
	}
}

// plain is an error of the kernel with its own words, where it has some, and without netlink's.
func plain(e *netlink.OpError) error {
	if e.Message != "" {
		return fmt.Errorf("%s: %w", e.Message, e.Err)
	}
	return e.Err
}

// A datagram holds so many requests and bytes at most: its acknowledgements must fit into the
// socket's receive buffer, each with its request if that was refused.
const (
	chunk      = 64
	chunkBytes = 64 << 10
)

// performAll is perform for any number of requests, which are no batch.
func performAll(ctx context.Context, c *netlink.Conn, requests []request) (map[int]error, error) {
	failed := map[int]error{}
	for from := 0; from < len(requests); {
		if err := ctx.Err(); err != nil {
			return failed, err
		}
		to, size := from, 0
		for to < len(requests) && to < from+chunk && (to == from || size+len(requests[to].data) <= chunkBytes) {
			size += len(requests[to].data)
			to++
		}
		some, err := perform(c, requests[from:to], false)
		for i, e := range some {
			failed[from+i] = e
		}
		if err != nil {
			return failed, err
		}
		from = to
	}
	return failed, nil
}

// isTimeout reports whether a read deadline passed.
func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) && timeout.Timeout()
}
