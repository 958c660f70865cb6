package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// socket is a NETLINK_NETFILTER socket. The kernel does what it is asked
// within the send and queues the answers on the socket before that returns
// (netlink_unicast_kernel, net/netlink/af_netlink.c), so an answer is there at
// once or was lost: nothing waits.
//
// Such sockets stay open from Open to Close: after a transaction that deleted
// something, closing one waits for the kernel's garbage (nft_rcv_nl_event,
// net/netfilter/nf_tables_api.c), some 11 ms.
type socket struct {
	mu  sync.Mutex // held from a request to its last answer
	fd  int        // -1 when closed
	seq uint32
	buf []byte
}

const (
	// socketBuffer is asked for in both directions: a transaction is one
	// datagram, some 1 KB per rule. Without privilege in the first user
	// namespace the kernel gives net.core.wmem_max.
	socketBuffer = 4 << 20
	// readBuffer holds the largest part of a dump that the kernel makes
	// (32 KB, netlink_recvmsg).
	readBuffer = 64 << 10
)

// errLost says that the kernel could not queue all its answers.
var errLost = errors.New("the kernel's answers overran the socket's buffer")

func openSocket() (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, os.NewSyscallError("socket NETLINK_NETFILTER", err)
	}
	// Bare error messages, not the request again with each. Old kernels send
	// it, which does no harm.
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	for _, o := range [][2]int{{unix.SO_SNDBUFFORCE, unix.SO_SNDBUF}, {unix.SO_RCVBUFFORCE, unix.SO_RCVBUF}} {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, o[0], socketBuffer) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, o[1], socketBuffer)
		}
	}
	return &socket{fd: fd, seq: 1, buf: make([]byte, readBuffer)}, nil
}

func (s *socket) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	fd := s.fd
	s.fd = -1
	return os.NewSyscallError("close", unix.Close(fd))
}

// message is one that the kernel sent.
type message struct {
	kind, flags uint16
	seq         uint32
	errno       unix.Errno // of an NLMSG_ERROR; 0 is an acknowledgement
	family      uint8      // of the nfgenmsg
	data        []byte     // behind the nfgenmsg; valid until the next read
}

// exchange sends the request and gives each answer to take, until that returns
// false. Answers to earlier requests are passed over.
func (s *socket) exchange(r *request, take func(message) bool) error {
	if err := s.send(r); err != nil {
		return err
	}
	return s.receive(r, take)
}

func (s *socket) send(r *request) error {
	if s.fd < 0 {
		return ErrClosed
	}
	s.seq = r.first + r.count
	for {
		_, err := unix.Write(s.fd, r.b)
		if err != unix.EINTR {
			return os.NewSyscallError("netlink send", err)
		}
	}
}

func (s *socket) receive(r *request, take func(message) bool) error {
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
			return errLost
		case err == unix.EAGAIN:
			return errors.New("netlink: the kernel did not answer")
		case err != nil:
			return os.NewSyscallError("netlink receive", err)
		}
		for b := s.buf[:n]; len(b) >= unix.NLMSG_HDRLEN; {
			size := int(binary.NativeEndian.Uint32(b))
			if size < unix.NLMSG_HDRLEN || size > len(b) {
				return fmt.Errorf("netlink: message of %d bytes in %d", size, len(b))
			}
			m, err := parseMessage(b[:size])
			if err != nil {
				return err
			}
			b = b[min(align(size), len(b)):]
			if m.seq-r.first >= r.count { // also those below first: unsigned
				continue
			}
			if !take(m) {
				return nil
			}
		}
	}
}

func parseMessage(b []byte) (message, error) {
	m := message{
		kind:  binary.NativeEndian.Uint16(b[4:]),
		flags: binary.NativeEndian.Uint16(b[6:]),
		seq:   binary.NativeEndian.Uint32(b[8:]),
		data:  b[unix.NLMSG_HDRLEN:],
	}
	if len(m.data) < 4 {
		return m, errors.New("netlink: truncated message")
	}
	if m.kind == unix.NLMSG_ERROR {
		m.errno = unix.Errno(-int32(binary.NativeEndian.Uint32(m.data)))
	}
	m.family = m.data[0]
	m.data = m.data[4:] // struct nfgenmsg, or the error number
	return m, nil
}

// attributes yields the attributes in b, without the flags of their types. It
// stops at the first that does not fit.
func attributes(b []byte) func(yield func(kind uint16, data []byte) bool) {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofNlAttr {
			size := int(binary.NativeEndian.Uint16(b))
			if size < unix.SizeofNlAttr || size > len(b) {
				return
			}
			kind := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
			if !yield(kind, b[unix.SizeofNlAttr:size]) {
				return
			}
			b = b[min(align(size), len(b)):]
		}
	}
}

// attribute is the first of the kind in b, nil when there is none.
func attribute(b []byte, kind uint16) []byte {
	for k, data := range attributes(b) {
		if k == kind {
			return data
		}
	}
	return nil
}
