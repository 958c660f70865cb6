package endpoint

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
)

// maxPacket is the longest IP packet (RFC 791, 3.1).
const maxPacket = 65535

const protoUDP = 17

// packet is a whole UDP packet, from the IP header on.
type packet struct {
	raw      []byte // the packet's own bytes: nothing behind its IP length
	udp      int    // where the UDP header begins
	from, to netip.AddrPort
}

// parsePacket reads a diverted packet. Only what the suite's rules divert is
// taken: a whole UDP packet, on IPv6 without extension headers.
func parsePacket(b []byte) (*packet, error) {
	if len(b) == 0 {
		return nil, errShort
	}
	p := &packet{}
	var from, to netip.Addr
	switch b[0] >> 4 {
	case 4:
		h, err := parseIPv4(b)
		if err != nil {
			return nil, err
		}
		if h.proto != protoUDP || h.fragment {
			return nil, fmt.Errorf("protocol %d (fragment: %t) from %v to %v: not a whole UDP packet", h.proto, h.fragment, h.from, h.to)
		}
		p.raw, p.udp, from, to = b[:h.total], h.size, h.from, h.to
	case 6:
		const size = 40 // RFC 8200, 3
		if len(b) < size {
			return nil, fmt.Errorf("IPv6: %w", errShort)
		}
		total := size + int(binary.BigEndian.Uint16(b[4:]))
		if len(b) < total {
			return nil, fmt.Errorf("IPv6: %d bytes of %d: %w", len(b), total, errShort)
		}
		from, to = netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:]))
		if b[6] != protoUDP {
			return nil, fmt.Errorf("next header %d from %v to %v: not UDP", b[6], from, to)
		}
		p.raw, p.udp = b[:total], size
	default:
		return nil, fmt.Errorf("IP version %d", b[0]>>4)
	}
	u := p.raw[p.udp:]
	if len(u) < 8 || int(binary.BigEndian.Uint16(u[4:])) != len(u) {
		return nil, fmt.Errorf("UDP from %v to %v: length does not fit the %d bytes", from, to, len(u))
	}
	p.from = netip.AddrPortFrom(from, binary.BigEndian.Uint16(u))
	p.to = netip.AddrPortFrom(to, binary.BigEndian.Uint16(u[2:]))
	return p, nil
}

func (p *packet) payload() []byte { return p.raw[p.udp+8:] }

// replace puts new in the place of the first old in the payload. A payload
// without it stays as it is.
func (p *packet) replace(old, new []byte) error {
	if len(old) != len(new) {
		return fmt.Errorf("%q and %q differ in length", old, new)
	}
	if at := bytes.Index(p.payload(), old); at >= 0 {
		copy(p.payload()[at:], new)
	}
	return nil
}

// mend computes the checksums of the IPv4 header and of UDP anew.
func (p *packet) mend() {
	if p.to.Addr().Is4() {
		h := p.raw[:p.udp]
		h[10], h[11] = 0, 0
		binary.BigEndian.PutUint16(h[10:], checksum(sum(0, h)))
	}
	u := p.raw[p.udp:]
	u[6], u[7] = 0, 0
	s := checksum(sum(pseudoSum(p.from.Addr(), p.to.Addr(), protoUDP, len(u)), u))
	if s == 0 {
		s = 0xffff // 0 means that there is none (RFC 768)
	}
	binary.BigEndian.PutUint16(u[6:], s)
}
