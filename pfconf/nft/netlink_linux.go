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

// request is one datagram of netlink messages with sequence numbers from first
// on.
type request struct {
	b            []byte
	first, count uint32
	start        int // of the last message
}

// request makes an empty one, whose numbers were not used before. The caller
// holds the socket's lock until the answers are read.
func (s *socket) request() *request { return &request{first: s.seq, b: make([]byte, 0, 4096)} }

// add begins a message; the attributes that follow are its.
func (r *request) add(kind, flags uint16, family uint8, resource uint16) (seq uint32) {
	r.start = len(r.b)
	seq = r.first + r.count
	r.count++
	r.b = binary.NativeEndian.AppendUint32(r.b, 0) // the length: finish
	r.b = binary.NativeEndian.AppendUint16(r.b, kind)
	r.b = binary.NativeEndian.AppendUint16(r.b, flags|unix.NLM_F_REQUEST)
	r.b = binary.NativeEndian.AppendUint32(r.b, seq)
	r.b = binary.NativeEndian.AppendUint32(r.b, 0)
	r.b = append(r.b, family, unix.NFNETLINK_V0)
	r.b = binary.BigEndian.AppendUint16(r.b, resource)
	return seq
}

// finish sets the last message's length.
func (r *request) finish() {
	binary.NativeEndian.PutUint32(r.b[r.start:], uint32(len(r.b)-r.start))
}

func (r *request) attr(kind uint16, data []byte) {
	n := r.open(kind)
	r.b = append(r.b, data...)
	r.close(n)
}

func (r *request) attrString(kind uint16, s string) {
	n := r.open(kind)
	r.b = append(append(r.b, s...), 0)
	r.close(n)
}

func (r *request) attr8(kind uint16, v uint8) {
	n := r.open(kind)
	r.b = append(r.b, v)
	r.close(n)
}

func (r *request) attr16(kind uint16, v uint16) {
	n := r.open(kind)
	r.b = binary.BigEndian.AppendUint16(r.b, v)
	r.close(n)
}

func (r *request) attr32(kind uint16, v uint32) {
	n := r.open(kind)
	r.b = binary.BigEndian.AppendUint32(r.b, v)
	r.close(n)
}

func (r *request) attr64(kind uint16, v uint64) {
	n := r.open(kind)
	r.b = binary.BigEndian.AppendUint64(r.b, v)
	r.close(n)
}

// nest begins an attribute of attributes; close ends it.
func (r *request) nest(kind uint16) int { return r.open(kind | unix.NLA_F_NESTED) }

func (r *request) open(kind uint16) int {
	n := len(r.b)
	r.b = binary.NativeEndian.AppendUint16(r.b, 0)
	r.b = binary.NativeEndian.AppendUint16(r.b, kind)
	return n
}

func (r *request) close(n int) {
	binary.NativeEndian.PutUint16(r.b[n:], uint16(len(r.b)-n))
	for len(r.b)%unix.NLA_ALIGNTO != 0 {
		r.b = append(r.b, 0)
	}
}

func align(n int) int { return (n + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1) }

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
