package endpoint

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// ipv4Header is what is used of an IPv4 header (RFC 791, 3.1).
type ipv4Header struct {
	size, total int // bytes of the header and of the whole packet
	proto       uint8
	fragment    bool // one of several
	from, to    netip.Addr
}

var errShort = errors.New("packet is cut short")

// parseIPv4 reads the header of a packet. Bytes after the packet's own length
// are left to the caller to cut off.
func parseIPv4(b []byte) (ipv4Header, error) {
	if len(b) < 20 {
		return ipv4Header{}, fmt.Errorf("IPv4: %w", errShort)
	}
	if b[0]>>4 != 4 {
		return ipv4Header{}, fmt.Errorf("IP version %d in place of 4", b[0]>>4)
	}
	h := ipv4Header{
		size:     int(b[0]&0xf) * 4,
		total:    int(binary.BigEndian.Uint16(b[2:])),
		proto:    b[9],
		fragment: binary.BigEndian.Uint16(b[6:])&0x3fff != 0, // more fragments, offset
		from:     netip.AddrFrom4([4]byte(b[12:])),
		to:       netip.AddrFrom4([4]byte(b[16:])),
	}
	if rawLengthIsPayload {
		h.total = len(b)
	}
	if h.size < 20 || h.total < h.size {
		return ipv4Header{}, fmt.Errorf("IPv4: header of %d bytes in a packet of %d", h.size, h.total)
	}
	if len(b) < h.total {
		return ipv4Header{}, fmt.Errorf("IPv4: %d bytes of %d: %w", len(b), h.total, errShort)
	}
	return h, nil
}

// sum adds b to a ones' complement sum of 16 bit words (RFC 1071). The sum of
// a packet fits a uint32.
func sum(s uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	return s
}

// checksum folds a sum to the Internet checksum. Over data that contain their
// right checksum it is 0.
func checksum(s uint32) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}

// pseudoSum is the sum of the pseudo header of a protocol's n bytes between the
// addresses (RFC 768; RFC 8200, 8.1).
func pseudoSum(from, to netip.Addr, proto uint8, n int) uint32 {
	s := sum(sum(0, from.AsSlice()), to.AsSlice())
	return s + uint32(proto) + uint32(n>>16) + uint32(n&0xffff)
}
