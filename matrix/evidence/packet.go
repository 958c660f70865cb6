package evidence

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"pfdivert/pfconf"
)

// EthernetHeader is the length of an Ethernet header without VLAN tags.
const EthernetHeader = 14

// IP returns the packet from its IP header on, nil where there is none.
func (p Packet) IP() []byte {
	switch {
	case p.Link == LinkRaw:
		return p.Data
	case p.Link == LinkEthernet && len(p.Data) > EthernetHeader:
		return p.Data[EthernetHeader:]
	case p.Link == LinkPflog && len(p.Data) > 0:
		// Its first byte is the header's length without padding to 4 bytes (if_pflog.h).
		if n := (int(p.Data[0]) + 3) &^ 3; n < len(p.Data) {
			return p.Data[n:]
		}
	}
	return nil
}

// header is what packets of cells are told apart by.
type header struct {
	proto        int
	source, dest netip.Addr
	data         []byte // behind the IP header
}

// parseHeader reads an IP header, and false where there is none.
func parseHeader(b []byte) (h header, ok bool) {
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		n := int(b[0]&15) * 4
		if n < 20 || n > len(b) {
			return h, false
		}
		h = header{int(b[9]), netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:])), b[n:]}
		if binary.BigEndian.Uint16(b[6:])&0x1fff != 0 {
			h.data = nil // a later fragment: no ports
		}
		return h, true
	case len(b) >= 40 && b[0]>>4 == 6:
		h = header{int(b[6]), netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:])), b[40:]}
		h.skipExtensions()
		return h, true
	}
	return h, false
}

// skipExtensions goes on to what IPv6's extension headers precede (RFC 8200, section 4). Headers
// that are cut off are left as they are.
func (h *header) skipExtensions() {
	for range 8 {
		size := 8
		switch h.proto {
		case 0, 43, 60: // hop-by-hop options, routing, destination options
			if len(h.data) >= 2 {
				size += int(h.data[1]) * 8
			}
		case 44: // fragment
		default:
			return
		}
		if len(h.data) < size {
			return
		}
		later := h.proto == 44 && binary.BigEndian.Uint16(h.data[2:])&^7 != 0
		h.proto, h.data = int(h.data[0]), h.data[size:]
		if later {
			h.data = nil // no ports
			return
		}
	}
}

// Packet reports whether the packet that begins with this IP header belongs to the cell: it has
// an address that is the cell's own, or is one of its flows', or an ICMP error
// about such a packet.
func (a About) Packet(ip []byte) bool {
	h, ok := parseHeader(ip)
	if !ok {
		return false
	}
	if slices.Contains(a.Own, h.source) || slices.Contains(a.Own, h.dest) {
		return true
	}
	family := pfconf.FamilyOf(h.source)
	if h.proto == pfconf.ICMP.Number(family) && icmpError(family, h.data) {
		if quoted, ok := parseHeader(h.data[8:]); ok {
			return a.carries(quoted)
		}
		return false
	}
	return a.carries(h)
}

// icmpError reports whether an ICMP message quotes the packet that it is about: RFC 792,
// RFC 4443.
func icmpError(f pfconf.Family, b []byte) bool {
	if len(b) < 8 {
		return false
	}
	if f == pfconf.Inet6 {
		return b[0] < 128
	}
	return slices.Contains([]byte{3, 4, 5, 11, 12}, b[0])
}

// carries reports whether the packet is one of the cell's flows', or its control's: that has
// another port or id at one end.
func (a About) carries(h header) bool {
	for _, f := range a.Flows {
		near, far := f.Near, f.Far
		if h.source == near.Addr() {
			near, far = far, near
		}
		if h.source != far.Addr() || h.dest != near.Addr() || h.proto != f.Proto.Number(f.Family) {
			continue
		}
		switch {
		case f.Proto == pfconf.Raw:
			return true
		case len(h.data) < 8:
			return len(h.data) == 0 // of a fragment
		case f.Proto == pfconf.ICMP:
			const control = 1 << 15 // the matrix gives controls the upper half of the ids
			if id := binary.BigEndian.Uint16(h.data[4:]); id&^control == f.Echo&^control {
				return true
			}
		default:
			source, dest := binary.BigEndian.Uint16(h.data), binary.BigEndian.Uint16(h.data[2:])
			if source == far.Port() || dest == near.Port() {
				return true
			}
		}
	}
	return false
}
