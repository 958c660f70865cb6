package nft

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

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
