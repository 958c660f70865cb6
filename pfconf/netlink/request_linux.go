package netlink

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Request is one datagram of Count netlink messages with sequence numbers from First on.
type Request struct {
	First, Count uint32
	b            []byte
	start        int // of the last message
}

// Request returns an empty one, whose numbers were not used before. The caller holds the socket's
// lock until the answers are read.
func (s *Socket) Request() *Request { return &Request{First: s.seq, b: make([]byte, 0, 4096)} }

// Add appends a message, whose body begins with body; the attributes that follow are its. Numbers
// in attributes are in network order, as netfilter has them.
func (r *Request) Add(kind, flags uint16, body ...byte) (seq uint32) {
	r.start = len(r.b)
	seq = r.First + r.Count
	r.Count++
	r.b = binary.NativeEndian.AppendUint32(r.b, 0)
	r.b = binary.NativeEndian.AppendUint16(r.b, kind)
	r.b = binary.NativeEndian.AppendUint16(r.b, flags|unix.NLM_F_REQUEST)
	r.b = binary.NativeEndian.AppendUint32(r.b, seq)
	r.b = binary.NativeEndian.AppendUint32(r.b, 0) // port: the kernel's
	r.b = append(r.b, body...)
	r.grown()
	return seq
}

// Acknowledge has the kernel acknowledge the last message.
func (r *Request) Acknowledge() {
	flags := r.b[r.start+6:]
	binary.NativeEndian.PutUint16(flags, binary.NativeEndian.Uint16(flags)|unix.NLM_F_ACK)
}

// grown sets the last message's length.
func (r *Request) grown() {
	binary.NativeEndian.PutUint32(r.b[r.start:], uint32(len(r.b)-r.start))
}

// Attr appends an attribute.
func (r *Request) Attr(kind uint16, data []byte) {
	n := r.open(kind)
	r.b = append(r.b, data...)
	r.Close(n)
}

// AttrString appends a string that ends with a NUL.
func (r *Request) AttrString(kind uint16, s string) {
	n := r.open(kind)
	r.b = append(append(r.b, s...), 0)
	r.Close(n)
}

// Attr8 appends a number of 8 bits.
func (r *Request) Attr8(kind uint16, v uint8) {
	n := r.open(kind)
	r.b = append(r.b, v)
	r.Close(n)
}

// Attr16 appends a number of 16 bits.
func (r *Request) Attr16(kind uint16, v uint16) {
	n := r.open(kind)
	r.b = binary.BigEndian.AppendUint16(r.b, v)
	r.Close(n)
}

// Attr32 appends a number of 32 bits.
func (r *Request) Attr32(kind uint16, v uint32) {
	n := r.open(kind)
	r.b = binary.BigEndian.AppendUint32(r.b, v)
	r.Close(n)
}

// Attr64 appends a number of 64 bits.
func (r *Request) Attr64(kind uint16, v uint64) {
	n := r.open(kind)
	r.b = binary.BigEndian.AppendUint64(r.b, v)
	r.Close(n)
}

// Nest begins an attribute of attributes, which Close ends.
func (r *Request) Nest(kind uint16) (start int) { return r.open(kind | unix.NLA_F_NESTED) }

func (r *Request) open(kind uint16) int {
	n := len(r.b)
	r.b = binary.NativeEndian.AppendUint16(r.b, 0)
	r.b = binary.NativeEndian.AppendUint16(r.b, kind)
	return n
}

// Close ends the attribute that began at start.
func (r *Request) Close(start int) {
	binary.NativeEndian.PutUint16(r.b[start:], uint16(len(r.b)-start))
	for len(r.b)%unix.NLA_ALIGNTO != 0 {
		r.b = append(r.b, 0)
	}
	r.grown()
}
