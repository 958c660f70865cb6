package twin

import (
	"encoding/binary"
	"strings"

	"github.com/mdlayher/netlink"
)

// nested are the attributes of a message, by number; a list's are told apart by list.
type nested struct{ b []byte }

func (n nested) each(f func(number uint16, value nested)) error {
	if len(n.b) == 0 {
		return nil
	}
	ad, err := netlink.NewAttributeDecoder(n.b)
	if err != nil {
		return err
	}
	for ad.Next() {
		f(ad.Type(), nested{ad.Bytes()})
	}
	return ad.Err()
}

// get returns the last attribute with a number.
func (n nested) get(number uint16) (v nested) {
	_ = n.each(func(k uint16, x nested) { // a message that is cut is found where it is listed
		if k == number {
			v = x
		}
	})
	return v
}

func (n nested) text() string {
	s, _, _ := strings.Cut(string(n.b), "\x00")
	return s
}

// number is of 16 or 32 bits, as netfilter's are: in network order.
func (n nested) number() uint32 {
	switch len(n.b) {
	case 2:
		return uint32(binary.BigEndian.Uint16(n.b))
	case 4:
		return binary.BigEndian.Uint32(n.b)
	}
	return 0
}

func native32(b []byte) uint32 {
	if len(b) != 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(b)
}
