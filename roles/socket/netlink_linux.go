package socket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"pfdivert/matrix/script"
	"syscall"

	"golang.org/x/sys/unix"
)

// netlinkSocket is a non-blocking netlink socket whose requests are answered
// while they are sent: the kernel's answer waits in the socket when send
// returns, so nothing here waits (netlink(7); af_netlink.c,
// netlink_unicast_kernel). A caller locks it. It is opened once, by the first
// that asks, and stays open as long as the process: see queues and sockDiag.
type netlinkSocket struct {
	fd       int
	opened   bool
	sequence uint32
	out, in  []byte
}

// netlinkQueue is the size of the socket's receive buffer, in bytes.
const netlinkQueue = 4 << 20

// netlinkBuffer holds the longest message: a whole packet with its attributes.
const netlinkBuffer = script.MaxPacket + 4096

// open opens the socket, in the network namespace of the calling thread.
func (n *netlinkSocket) open(proto int) error {
	if n.opened {
		return nil
	}
	fd, err := newSocket(unix.AF_NETLINK, unix.SOCK_RAW, proto)
	if err != nil {
		return fmt.Errorf("netlink socket: %w", err)
	}
	// Extended acknowledgements would only repeat the request.
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	// Room for the packets of many cells; a plain user gets less.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, netlinkQueue) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, netlinkQueue)
	}
	n.fd, n.opened, n.in = fd, true, make([]byte, netlinkBuffer)
	return nil
}

// request begins a message in out; attributes are appended to it.
func (n *netlinkSocket) request(typ, flags uint16, body ...byte) {
	n.sequence++
	b := binary.NativeEndian.AppendUint32(n.out[:0], 0) // length, see send
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|flags)
	b = binary.NativeEndian.AppendUint32(b, n.sequence)
	b = binary.NativeEndian.AppendUint32(b, 0) // port: the kernel knows
	n.out = append(b, body...)
}

// attribute appends an attribute (struct nlattr, padded to 4 bytes).
func (n *netlinkSocket) attribute(typ uint16, data []byte) {
	b := binary.NativeEndian.AppendUint16(n.out, uint16(4+len(data)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, data...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	n.out = b
}

func (n *netlinkSocket) send() error {
	binary.NativeEndian.PutUint32(n.out, uint32(len(n.out)))
	for {
		err := unix.Sendto(n.fd, n.out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// netlinkMessage is a received message.
type netlinkMessage struct {
	typ      uint16
	sequence uint32
	body     []byte
}

// acknowledged returns the error in a NLMSG_ERROR message, nil for success.
func (m netlinkMessage) acknowledged() error {
	if len(m.body) < 4 {
		return errShort
	}
	if code := int32(binary.NativeEndian.Uint32(m.body)); code != 0 {
		return syscall.Errno(-code)
	}
	return nil
}

// receive returns each waiting message to f, whose message is valid during the
// call. No message waiting is no error; lost ones are (ENOBUFS), after the others
// were given.
func (n *netlinkSocket) receive(f func(netlinkMessage)) error {
	var lost error
	for {
		size, from, err := unix.Recvfrom(n.fd, n.in, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return lost
		case errors.Is(err, unix.ENOBUFS):
			lost = fmt.Errorf("netlink: messages were lost: %w", err)
			continue
		case err != nil:
			return fmt.Errorf("netlink: %w", err)
		}
		// Any process may send to a netlink socket; port 0 is the kernel.
		if sender, ok := from.(*unix.SockaddrNetlink); ok && sender.Pid == 0 {
			parseNetlink(n.in[:size], f)
		}
	}
}

// parseNetlink returns each message of a datagram to f. A damaged rest is left
// out.
func parseNetlink(b []byte, f func(netlinkMessage)) {
	for len(b) >= unix.NLMSG_HDRLEN {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.NLMSG_HDRLEN || size > len(b) {
			return
		}
		f(netlinkMessage{
			typ:      binary.NativeEndian.Uint16(b[4:]),
			sequence: binary.NativeEndian.Uint32(b[8:]),
			body:     b[unix.NLMSG_HDRLEN:size],
		})
		b = b[min((size+3)&^3, len(b)):]
	}
}

// parseAttributes returns each attribute to f. A damaged rest is left out.
func parseAttributes(b []byte, f func(typ uint16, data []byte)) {
	for len(b) >= 4 {
		size := int(binary.NativeEndian.Uint16(b))
		if size < 4 || size > len(b) {
			return
		}
		f(binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[4:size])
		b = b[min((size+3)&^3, len(b)):]
	}
}
