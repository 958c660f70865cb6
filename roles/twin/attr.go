package twin

import (
	"encoding/binary"
	"errors"
	"math"
	"strings"
)

// attr is a netlink attribute that lies in the message it came with. The kind keeps its flags,
// which a replay needs and netlink.AttributeDecoder takes away.
type attr struct {
	flagged uint16
	data    []byte
}

// Flags of an attribute's kind (NLA_F_NESTED, NLA_F_NET_BYTEORDER).
const (
	nestedFlag   = 0x8000
	netOrderFlag = 0x4000
)

func (a attr) kind() uint16 { return a.flagged &^ (nestedFlag | netOrderFlag) }

var errAttr = errors.New("an attribute is cut")

// maxDepth bounds how deep attributes may be nested in what is parsed here.
const maxDepth = 16

// attrs is a list of attributes.
type attrs []attr

// split returns the attributes of a message behind its fixed head. They share its memory.
func split(b []byte, head int) (attrs, error) {
	if len(b) < head {
		return nil, errAttr
	}
	b = b[head:]
	var all attrs
	for len(b) >= 4 {
		size := int(binary.NativeEndian.Uint16(b))
		if size < 4 || size > len(b) {
			return nil, errAttr
		}
		all = append(all, attr{binary.NativeEndian.Uint16(b[2:]), b[4:size:size]})
		b = b[min((size+3)&^3, len(b)):]
	}
	if len(b) > 0 {
		return nil, errAttr
	}
	return all, nil
}

// get returns the data of the first attribute of a kind, nil if there is none.
func (all attrs) get(kind uint16) []byte {
	for _, a := range all {
		if a.kind() == kind {
			return a.data
		}
	}
	return nil
}

// has reports whether there is an attribute of a kind, which may be empty.
func (all attrs) has(kind uint16) bool {
	for _, a := range all {
		if a.kind() == kind {
			return true
		}
	}
	return false
}

// nest returns the attributes inside of one; of none if it is not there.
func (all attrs) nest(kind uint16) (attrs, error) { return split(all.get(kind), 0) }

// without returns the attributes that are of none of the kinds.
func (all attrs) without(kinds ...uint16) attrs {
	some := make(attrs, 0, len(all))
next:
	for _, a := range all {
		for _, kind := range kinds {
			if a.kind() == kind {
				continue next
			}
		}
		some = append(some, a)
	}
	return some
}

// with returns the attributes with one more at the end.
func (all attrs) with(kind uint16, data []byte) attrs {
	return append(all[:len(all):len(all)], attr{kind, data})
}

// append writes the attributes behind a message. One of more than 64 kB can't be written: its
// message is refused by the kernel, as it ends in the middle of an attribute.
func (all attrs) append(b []byte) []byte {
	for _, a := range all {
		b = appendAttr(b, a.flagged, a.data)
	}
	return b
}

func (all attrs) bytes() []byte { return all.append(nil) }

func appendAttr(b []byte, kind uint16, data []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(min(4+len(data), math.MaxUint16)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, data...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// text is a string up to its zero byte.
func text(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return s
}

// zero is a string with its zero byte.
func zero(s string) []byte { return append([]byte(s), 0) }

func native(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

// host32 is a number in native order: of 1, 2 or 4 bytes, 0 if it is of another size.
func host32(b []byte) uint32 {
	switch len(b) {
	case 1:
		return uint32(b[0])
	case 2:
		return uint32(binary.NativeEndian.Uint16(b))
	case 4:
		return binary.NativeEndian.Uint32(b)
	}
	return 0
}

// net32 is a number in network order, 0 if it is not of 2 or 4 bytes.
func net32(b []byte) uint32 {
	switch len(b) {
	case 2:
		return uint32(binary.BigEndian.Uint16(b))
	case 4:
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func net64(b []byte) uint64 {
	if len(b) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}
