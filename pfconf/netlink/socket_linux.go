package netlink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Socket is a netlink socket that never waits. The kernel does what it is asked within the send
// and queues the answers on the socket before that returns (netlink_unicast_kernel,
// net/netlink/af_netlink.c), so an answer is there at once or was lost.
//
// A Socket is not safe for concurrent use: the caller locks it from a request to its last answer.
type Socket struct {
	fd  int // -1 when closed
	seq uint32
	buf []byte
}

const (
	// socketBuffer is asked for in both directions: a transaction of nf_tables is one datagram,
	// some 1 KB per rule, and a queue holds the packets of many test cases. Without privilege in
	// the first user namespace the kernel gives net.core.wmem_max and rmem_max.
	socketBuffer = 4 << 20
	// readBuffer holds the longest datagram: a queued packet with its attributes. The parts of a
	// dump have up to 32 KB (netlink_recvmsg).
	readBuffer = 1<<16 + 4096
)

var (
	// ErrLost is the error when the kernel could not queue all its messages.
	ErrLost = errors.New("the kernel's answers overran the socket's buffer")
	// ErrInterrupted is the error of a list that changed while it was read.
	ErrInterrupted = errors.New("the kernel's list changed while it was read")
	// errNoAnswer is a fault of the kernel's: it answers within the send.
	errNoAnswer = errors.New("netlink: the kernel did not answer")
)

// Open opens a socket of the protocol (NETLINK_*) in the calling thread's network namespace. The
// caller closes it. Closing a NETLINK_NETFILTER socket after a transaction that deleted something
// waits some 11 ms for the kernel's garbage (nft_rcv_nl_event, net/netfilter/nf_tables_api.c).
func Open(protocol int) (*Socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return nil, os.NewSyscallError("netlink socket", err)
	}
	// Any process may send to a netlink socket, but only the kernel to one that is connected
	// to it (netlink_getsockbyportid).
	if err := unix.Connect(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("netlink connect", err)
	}
	// Bare error messages, not the request again with each. Old kernels send it, which does no
	// harm.
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	for _, o := range [][2]int{{unix.SO_SNDBUFFORCE, unix.SO_SNDBUF}, {unix.SO_RCVBUFFORCE, unix.SO_RCVBUF}} {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, o[0], socketBuffer) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, o[1], socketBuffer)
		}
	}
	return &Socket{fd: fd, seq: 1, buf: make([]byte, readBuffer)}, nil
}

// Close closes the socket.
func (s *Socket) Close() error {
	fd := s.fd
	s.fd = -1
	return os.NewSyscallError("close", unix.Close(fd))
}

// FD returns the socket's descriptor, for poll(2).
func (s *Socket) FD() int { return s.fd }

// Send sends the request. Its answers can be received when Send has returned.
func (s *Socket) Send(r *Request) error {
	if s.fd < 0 {
		return ErrClosed
	}
	s.seq = r.First + r.Count
	for {
		_, err := unix.Write(s.fd, r.b)
		if err != unix.EINTR {
			return os.NewSyscallError("netlink send", err)
		}
	}
}

// Exchange sends the request and passes each answer to take, until that returns false. Answers to
// earlier requests are passed over.
func (s *Socket) Exchange(r *Request, take func(Message) bool) error {
	if err := s.Send(r); err != nil {
		return err
	}
	done, err := s.read(func(m Message) bool {
		return m.Seq-r.First >= r.Count || take(m) // unsigned: also those below First
	})
	if err == nil && !done {
		err = errNoAnswer
	}
	return err
}

// Dump sends a request with NLM_F_DUMP and passes each message that is listed to take. When the
// list changed meanwhile, what was passed may have gaps, and the error is ErrInterrupted.
func (s *Socket) Dump(r *Request, take func(Message) error) error {
	var failed error
	interrupted := false
	// All is read, whatever fails: the kernel refuses a second dump while the first is under
	// way.
	err := s.Exchange(r, func(m Message) bool {
		interrupted = interrupted || m.Flags&unix.NLM_F_DUMP_INTR != 0
		switch {
		case m.Kind == unix.NLMSG_DONE || m.Kind == unix.NLMSG_ERROR:
			failed = errors.Join(failed, m.Acknowledged())
			return false
		case failed == nil:
			failed = take(m)
		}
		return true
	})
	if err = errors.Join(err, failed); err == nil && interrupted {
		err = ErrInterrupted
	}
	return err
}

// Drain passes each message that waits on the socket to take. That none waits is no error; that
// some were lost is ErrLost, after the others were passed.
func (s *Socket) Drain(take func(Message)) error {
	_, err := s.read(func(m Message) bool {
		take(m)
		return true
	})
	return err
}

// read passes what waits on the socket to take until that returns false: then done is true.
func (s *Socket) read(take func(Message) bool) (done bool, err error) {
	if s.fd < 0 {
		return false, ErrClosed
	}
	lost := false
	for {
		n, err := unix.Read(s.fd, s.buf)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.ENOBUFS:
			lost = true // what was queued before can still be read
			continue
		case err == unix.EAGAIN && lost:
			return false, ErrLost
		case err == unix.EAGAIN:
			return false, nil
		case err != nil:
			return false, os.NewSyscallError("netlink receive", err)
		}
		if done, err := parse(s.buf[:n], take); done || err != nil {
			return done, err
		}
	}
}

// Message is one that the kernel sent.
type Message struct {
	Kind, Flags uint16
	Seq         uint32
	Errno       unix.Errno // of NLMSG_ERROR and NLMSG_DONE; 0 is an acknowledgement
	Body        []byte     // what follows the header; valid until the next read
}

// Acknowledged returns the error that the message is, nil for an acknowledgement.
func (m Message) Acknowledged() error {
	if m.Errno != 0 {
		return m.Errno
	}
	return nil
}

// parse passes each message of a datagram to take until that returns false: then done is true.
func parse(b []byte, take func(Message) bool) (done bool, err error) {
	for len(b) >= unix.NLMSG_HDRLEN {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.NLMSG_HDRLEN || size > len(b) {
			return false, fmt.Errorf("netlink: message of %d bytes in %d", size, len(b))
		}
		m := Message{
			Kind:  binary.NativeEndian.Uint16(b[4:]),
			Flags: binary.NativeEndian.Uint16(b[6:]),
			Seq:   binary.NativeEndian.Uint32(b[8:]),
			Body:  b[unix.NLMSG_HDRLEN:size],
		}
		if m.Kind == unix.NLMSG_ERROR || m.Kind == unix.NLMSG_DONE && len(m.Body) > 0 {
			if len(m.Body) < 4 {
				return false, errors.New("netlink: truncated message")
			}
			if code := int32(binary.NativeEndian.Uint32(m.Body)); code < 0 {
				m.Errno = unix.Errno(-code)
			}
		}
		if !take(m) {
			return true, nil
		}
		b = b[min(align(size), len(b)):]
	}
	return false, nil
}
