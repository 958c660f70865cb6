package netlink

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Attributes yields the attributes in b, without the flags of their types. It stops at the first
// that does not fit.
func Attributes(b []byte) func(yield func(kind uint16, data []byte) bool) {
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

// Attribute returns the data of the first attribute of the kind in b, nil when there is none.
func Attribute(b []byte, kind uint16) []byte {
	for k, data := range Attributes(b) {
		if k == kind {
			return data
		}
	}
	return nil
}

func align(n int) int { return (n + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1) }
