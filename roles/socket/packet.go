package socket

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"pfdivert/matrix/script"
)

// The protocols of which a packet's header is understood.
const (
	protoICMP   = 1
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58
)

// packet is a whole packet, from the IP header on.
type packet struct {
	raw       []byte // the packet's own bytes: nothing behind its IP length
	proto     uint8
	transport int // where the transport header begins
	data      int // where the payload begins
	from, to  netip.AddrPort
}

// parsePacket reads a diverted packet. It must be whole, and on IPv6 have no extension
// headers. Of a protocol that is not known, all is payload.
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
		if h.fragment {
			return nil, fmt.Errorf("protocol %d from %v to %v: a fragment, not a whole packet", h.proto, h.from, h.to)
		}
		p.raw, p.proto, p.transport, from, to = b[:h.total], h.proto, h.size, h.from, h.to
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
		switch b[6] {
		case 0, 43, 44, 60: // hop-by-hop, routing, fragment, destination options (RFC 8200, 4)
			return nil, fmt.Errorf("extension header %d from %v to %v", b[6], from, to)
		}
		p.raw, p.proto, p.transport = b[:total], b[6], size
	default:
		return nil, fmt.Errorf("IP version %d", b[0]>>4)
	}
	header, ports, err := transportHeader(p.proto, p.raw[p.transport:])
	if err != nil {
		return nil, fmt.Errorf("protocol %d from %v to %v: %w", p.proto, from, to, err)
	}
	p.data = p.transport + header
	p.from, p.to = netip.AddrPortFrom(from, ports[0]), netip.AddrPortFrom(to, ports[1])
	return p, nil
}

// parsePiece reads a packet that may be a fragment. All behind the IP header, and IPv6's fragment
// header, is payload.
func parsePiece(b []byte) (*packet, error) {
	if len(b) > 0 && b[0]>>4 == 4 {
		h, err := parseIPv4(b)
		if err != nil {
			return nil, err
		}
		return &packet{
			raw: b[:h.total], proto: h.proto, transport: h.size, data: h.size,
			from: netip.AddrPortFrom(h.from, 0), to: netip.AddrPortFrom(h.to, 0),
		}, nil
	}
	const header, fragment = 40, 44 // RFC 8200, 3 and 4.5
	if len(b) < header || b[0]>>4 != 6 {
		return nil, fmt.Errorf("IPv6: %w", errShort)
	}
	total, proto, data := header+int(binary.BigEndian.Uint16(b[4:])), b[6], header
	if proto == fragment {
		data += 8
	}
	if total < data || len(b) < total {
		return nil, fmt.Errorf("IPv6: %d bytes of %d: %w", len(b), total, errShort)
	}
	if proto == fragment {
		proto = b[header]
	}
	return &packet{
		raw: b[:total], proto: proto, transport: data, data: data,
		from: netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[8:])), 0),
		to:   netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[24:])), 0),
	}, nil
}

// transportHeader returns the length of a transport header and its two ports, 0 for protocols
// without.
func transportHeader(proto uint8, b []byte) (size int, ports [2]uint16, err error) {
	switch proto {
	case protoUDP, protoICMP, protoICMPv6:
		size = 8
	case protoTCP:
		size = 20 // RFC 9293, 3.1
		if len(b) >= size {
			size = int(b[12]>>4) * 4
		}
	}
	if len(b) < size || proto == protoTCP && size < 20 {
		return 0, ports, errShort
	}
	if proto == protoUDP && int(binary.BigEndian.Uint16(b[4:])) != len(b) {
		return 0, ports, fmt.Errorf("UDP's length does not fit the %d bytes", len(b))
	}
	if proto == protoUDP || proto == protoTCP {
		ports = [2]uint16{binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])}
	}
	return size, ports, nil
}

func (p *packet) payload() []byte { return p.raw[p.data:] }

// replace puts new in the place of the first old in the payload. A payload
// without it stays as it is.
func (p *packet) replace(old, new []byte) error {
	at := bytes.Index(p.payload(), old)
	if at < 0 {
		return nil
	}
	if len(old) == len(new) {
		copy(p.payload()[at:], new)
		return nil
	}
	if p.proto == protoTCP {
		return fmt.Errorf("%q and %q differ in length: TCP's sequence numbers would not fit", old, new)
	}
	at += p.data
	raw := append(append(append(make([]byte, 0, len(p.raw)+len(new)), p.raw[:at]...), new...), p.raw[at+len(old):]...)
	if len(raw) > script.MaxPacket {
		return fmt.Errorf("a packet of %d bytes is too long", len(raw))
	}
	p.raw = raw
	if p.to.Addr().Is4() {
		binary.BigEndian.PutUint16(raw[2:], uint16(len(raw)))
	} else {
		binary.BigEndian.PutUint16(raw[4:], uint16(len(raw)-p.transport))
	}
	if p.proto == protoUDP {
		binary.BigEndian.PutUint16(raw[p.transport+4:], uint16(len(raw)-p.transport))
	}
	return nil
}

// turn exchanges the two ends: the packet becomes an answer to itself.
func (p *packet) turn() {
	swap := func(a, b []byte) {
		for i := range a {
			a[i], b[i] = b[i], a[i]
		}
	}
	if p.to.Addr().Is4() {
		swap(p.raw[12:16], p.raw[16:20])
	} else {
		swap(p.raw[8:24], p.raw[24:40])
	}
	if p.proto == protoUDP || p.proto == protoTCP {
		t := p.raw[p.transport:]
		swap(t[:2], t[2:4])
	}
	p.from, p.to = p.to, p.from
}

// checksumAt says where the transport header has its checksum, and whether a pseudo header
// counts for it; -1 for a protocol whose checksum is not known.
func (p *packet) checksumAt() (at int, pseudo bool) {
	switch p.proto {
	case protoUDP:
		return p.transport + 6, true
	case protoTCP:
		return p.transport + 16, true
	case protoICMP:
		return p.transport + 2, false
	case protoICMPv6:
		return p.transport + 2, true
	}
	return -1, false
}

// fixChecksums computes the checksums of the IPv4 header and of the transport header anew.
func (p *packet) fixChecksums() {
	if p.to.Addr().Is4() {
		h := p.raw[:p.transport]
		h[10], h[11] = 0, 0
		binary.BigEndian.PutUint16(h[10:], checksum(sum(0, h)))
	}
	at, pseudo := p.checksumAt()
	if at < 0 {
		return
	}
	p.raw[at], p.raw[at+1] = 0, 0
	var start uint32
	if pseudo {
		start = pseudoSum(p.from.Addr(), p.to.Addr(), p.proto, len(p.raw)-p.transport)
	}
	s := checksum(sum(start, p.raw[p.transport:]))
	if s == 0 && p.proto == protoUDP {
		s = 0xffff // 0 means that there is none (RFC 768)
	}
	binary.BigEndian.PutUint16(p.raw[at:], s)
}

// spoil makes something wrong, and all else right.
func (p *packet) spoil(which script.Corruption) {
	switch which {
	case script.CorruptVersion:
		p.raw[0] = 5<<4 | p.raw[0]&0xf
	case script.CorruptLength:
		at := 4 // IPv6: of what is behind the header
		if p.to.Addr().Is4() {
			at = 2
		}
		binary.BigEndian.PutUint16(p.raw[at:], uint16(len(p.raw)+1000))
	}
	p.fixChecksums()
	switch which {
	case script.CorruptVersion, script.CorruptLength:
		return
	case script.CorruptBeyond:
		p.raw[0] |= 0xf
		return
	case script.CorruptShort:
		p.raw = p.raw[:19] // an IPv4 header has 20 bytes (RFC 791, 3.1)
		return
	}
	if p.to.Addr().Is4() {
		p.raw[10] ^= 0x55
	}
	if at, _ := p.checksumAt(); at >= 0 && which == script.CorruptAll {
		p.raw[at] ^= 0x55
		if p.proto == protoUDP && p.raw[at] == 0 && p.raw[at+1] == 0 {
			p.raw[at] = 0xaa // 0 would be none (RFC 768), which is not wrong
		}
	}
}

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
