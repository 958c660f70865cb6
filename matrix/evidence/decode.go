package evidence

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
)

// Decoded is what a packet's headers say, as far as they could be read.
type Decoded struct {
	Source, Destination netip.Addr // invalid when it is no IP
	Proto               uint8      // IANA's number, of the innermost header that was read
	// Ports are TCP's and UDP's.
	SourcePort, DestinationPort uint16
	// Payload is what the innermost header carries, as far as it was captured.
	Payload []byte
	// Summary says in a few words what it is: "TCP SYN", "UDP, 7 bytes". It is made of this
	// program's own words and numbers.
	Summary string
	// Same is equal for a packet on its way: it leaves out what changes there (TTL, checksums,
	// the link's header). It is no text.
	Same string
	// Pflog is what pf's log says of the packet, "" for another capture.
	Pflog string
}

// From and To are the packet's ends, with ports where there are some.
func (d Decoded) From() string { return end(d.Source, d.SourcePort, d.hasPorts()) }

// To is the packet's destination.
func (d Decoded) To() string { return end(d.Destination, d.DestinationPort, d.hasPorts()) }

func end(a netip.Addr, port uint16, hasPort bool) string {
	switch {
	case !a.IsValid():
		return ""
	case hasPort:
		return netip.AddrPortFrom(a, port).String()
	}
	return a.String()
}

func (d Decoded) hasPorts() bool { return d.SourcePort|d.DestinationPort != 0 }

// The protocol numbers that are read (RFC 790 and its registry).
const (
	protoICMP   = 1
	ProtoTCP    = 6
	ProtoUDP    = 17
	protoICMPv6 = 58
	protoTest   = 254 // RFC 3692, what the suite's raw sockets send
)

// Decode reads a packet. Whatever the data, it never fails: what is not understood is
// summed up as what it is known to be.
func Decode(p Packet) (d Decoded) {
	data := p.Data
	switch p.Link {
	case LinkEthernet:
		if len(data) < 14 {
			d.Summary = "cut off in the Ethernet header"
			return d
		}
		kind, rest := binary.BigEndian.Uint16(data[12:]), data[14:]
		for kind == 0x8100 && len(rest) >= 4 { // IEEE 802.1Q
			kind, rest = binary.BigEndian.Uint16(rest[2:]), rest[4:]
		}
		switch kind {
		case 0x0800, 0x86dd:
			data = rest
		case 0x0806:
			d.Summary, d.Same = arp(rest), string(rest)
			return d
		default:
			d.Summary, d.Same = fmt.Sprintf("Ethernet type 0x%04x, %d bytes", kind, max(0, p.Length-14)), string(rest)
			return d
		}
	case LinkPflog:
		// struct pfloghdr, OpenBSD sys/net/if_pflog.h: its own length, the family, the
		// action, the reason, the interface, the anchor, the rule's number and
		// that within the anchor; then, from 60 on, the direction. It is padded to four bytes.
		way, ok := PflogDirection(data)
		if !ok || len(data) < pad4(data[0]) {
			d.Summary = "cut off in pflog's header"
			return d
		}
		d.Pflog = pflog(data, way)
		data = data[pad4(data[0]):]
	case LinkRaw:
	default:
		d.Summary = fmt.Sprintf("link type %d, %d bytes", p.Link, p.Length)
		return d
	}
	d.ip(data)
	return d
}

func pad4(n byte) int { return (int(n) + 3) &^ 3 }

// PflogDirection reads the direction, "" for none, and reports whether pflog's header has it.
func PflogDirection(header []byte) (way string, ok bool) {
	const directionAt = 60
	if len(header) <= directionAt || int(header[0]) <= directionAt {
		return "", false
	}
	return map[byte]string{1: "in", 2: "out"}[header[directionAt]], true // PF_IN, PF_OUT
}

// pflog says what pf did, by the header's fields.
func pflog(header []byte, way string) string {
	// PF_PASS and so on, OpenBSD sys/net/pfvar.h; those that a packet can have.
	action := map[byte]string{0: "pass", 1: "block", 2: "scrub", 8: "rdr", 11: "defer", 12: "match", 13: "divert",
		14: "route", 15: "af-to"}[header[2]]
	text := cmp.Or(action, fmt.Sprint("action ", header[2])) + " " + cmp.Or(way, "?")
	if nic := pflogName(header[4:20]); nic != "" {
		text += " on " + nic
	}
	text += fmt.Sprintf(", rule %d", binary.BigEndian.Uint32(header[36:]))
	if sub := binary.BigEndian.Uint32(header[40:]); sub != 1<<32-1 { // -1: in no anchor
		if anchor := pflogName(header[20:36]); anchor != "" {
			text += "." + anchor
		}
		text += fmt.Sprintf(".%d", sub)
	}
	// PFRES_MATCH and so on, pfvar.h. Others than a match are why pf dropped it without a rule.
	reasons := []string{"match", "bad-offset", "fragment", "short", "normalize", "memory", "bad-timestamp",
		"congestion", "ip-option",
		"proto-cksum", "state-mismatch", "state-insert", "state-limit", "src-limit", "synproxy"}
	if n := int(header[3]); n > 0 && n < len(reasons) {
		text += " (" + reasons[n] + ")"
	}
	return text
}

// pflogName reads the name of an interface or an anchor. What no such name has is left out: the
// header may be anybody's.
func pflogName(b []byte) string {
	name, _, _ := strings.Cut(string(b), "\x00")
	return strings.Map(func(r rune) rune {
		if r == '_' || r == '-' || r == '.' || r == '/' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r &&
			r <= 'Z' {
			return r
		}
		return -1
	}, name)
}

// ip reads an IPv4 or IPv6 packet.
func (d *Decoded) ip(b []byte) {
	if len(b) == 0 {
		d.Summary = "cut off before the IP header"
		return
	}
	switch b[0] >> 4 {
	case 4:
		d.ip4(b)
	case 6:
		d.ip6(b)
	default:
		d.Summary, d.Same = fmt.Sprintf("IP version %d", b[0]>>4), string(b)
	}
}

func (d *Decoded) ip4(b []byte) {
	size := int(b[0]&15) * 4
	if len(b) < 20 || size < 20 || len(b) < size {
		d.Summary = "cut off in the IPv4 header"
		return
	}
	d.Source, d.Destination = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	d.Proto = b[9]
	body, whole := within(b, int(binary.BigEndian.Uint16(b[2:])))
	d.Same = string(b[4:6]) // the id
	more, offset := b[6]&0x20 != 0, int(binary.BigEndian.Uint16(b[6:])&0x1fff)*8
	if len(body) < size {
		d.Summary = "IPv4 with a wrong length"
		return
	}
	d.carried(body[size:], whole-size, offset, more)
}

func (d *Decoded) ip6(b []byte) {
	if len(b) < 40 {
		d.Summary = "cut off in the IPv6 header"
		return
	}
	d.Source, d.Destination = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	d.Proto = b[6]
	body, whole := within(b[40:], int(binary.BigEndian.Uint16(b[4:])))
	offset, more := 0, false
	// RFC 8200, section 4: hop-by-hop, routing and destination options have their length
	// in units of eight bytes; the fragment header has eight.
	for range 8 {
		size := 8
		switch d.Proto {
		case 0, 43, 60:
			if len(body) >= 2 {
				size += int(body[1]) * 8
			}
		case 44:
		default:
			d.carried(body, whole, offset, more)
			return
		}
		if len(body) < size {
			break
		}
		if d.Proto == 44 {
			field := binary.BigEndian.Uint16(body[2:])
			offset, more = int(field&^7), field&1 != 0
			d.Same += string(body[4:8])
		}
		d.Proto, body, whole = body[0], body[size:], whole-size
	}
	d.Summary = "IPv6 with extension headers that end nowhere"
}

// within is what a length of a header leaves of the bytes, and that length itself;
// Ethernet pads short packets.
func within(b []byte, length int) ([]byte, int) {
	return b[:min(len(b), length)], length
}

// carried reads what an IP header carries; whole is its length on the wire.
func (d *Decoded) carried(b []byte, whole, offset int, more bool) {
	whole = max(whole, len(b))
	same := append([]byte{d.Proto}, b...)
	blank := func(at int) { // a checksum, which a network card may not have filled in yet
		if len(same) >= at+3 {
			same[at+1], same[at+2] = 0, 0
		}
	}
	switch {
	case offset > 0:
		d.Summary, d.Payload = fmt.Sprintf("fragment of protocol %d at %d, %d bytes", d.Proto, offset, whole), b
	case d.Proto == ProtoTCP && len(b) >= 20:
		blank(16)
		d.SourcePort, d.DestinationPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		size := max(20, int(b[12]>>4)*4)
		d.Payload = b[min(size, len(b)):]
		d.Summary = "TCP " + tcpFlags(b[13]) + carries(whole-size)
	case d.Proto == ProtoUDP && len(b) >= 8:
		blank(6)
		d.SourcePort, d.DestinationPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		d.Payload = b[8:]
		d.Summary = fmt.Sprintf("UDP, %d bytes", whole-8)
	case (d.Proto == protoICMP || d.Proto == protoICMPv6) && len(b) >= 8:
		blank(2)
		d.Payload = b[8:]
		d.Summary = icmp(d.Proto, b)
	case d.Proto == protoTest:
		d.Payload = b
		d.Summary = fmt.Sprintf("IP protocol 254, %d bytes", whole)
	default:
		d.Payload = b
		d.Summary = fmt.Sprintf("IP protocol %d, %d bytes", d.Proto, whole)
	}
	if more {
		d.Summary += ", the first fragment"
		if offset > 0 {
			d.Summary = strings.TrimSuffix(d.Summary, "the first fragment") + "more follow"
		}
	}
	d.Same += string(d.Source.AsSlice()) + string(d.Destination.AsSlice()) + string(same)
}

// tcpFlags are the flags' names (RFC 9293), most telling first.
func tcpFlags(flags byte) string {
	var names []string
	for _, f := range []struct {
		bit  byte
		name string
	}{{0x02, "SYN"}, {0x01, "FIN"}, {0x04, "RST"}, {0x08, "PSH"}, {0x10, "ACK"}, {0x20, "URG"}} {
		if flags&f.bit != 0 {
			names = append(names, f.name)
		}
	}
	if names == nil {
		return "without flags"
	}
	return strings.Join(names, " ")
}

func carries(n int) string {
	if n <= 0 {
		return ""
	}
	return fmt.Sprintf(", %d bytes", n)
}

// icmp names the types that a test can meet (RFC 792, RFC 4443, RFC 4861).
func icmp(proto uint8, b []byte) string {
	kind, code := b[0], b[1]
	if proto == protoICMP {
		switch kind {
		case 8, 0:
			return echo("ICMP", kind == 8, b)
		case 3:
			return "ICMP " + cmp.Or(map[byte]string{
				0: "net unreachable", 1: "host unreachable", 2: "protocol unreachable", 3: "port unreachable",
				4: "needs fragmenting",
				9: "net prohibited", 10: "host prohibited", 13: "prohibited",
			}[code], fmt.Sprintf("unreachable, code %d", code))
		case 5:
			return "ICMP redirect"
		case 11:
			return "ICMP time exceeded"
		}
		return fmt.Sprintf("ICMP type %d, code %d", kind, code)
	}
	switch kind {
	case 128, 129:
		return echo("ICMPv6", kind == 128, b)
	case 1:
		return "ICMPv6 " + cmp.Or(map[byte]string{
			0: "no route", 1: "prohibited", 2: "beyond scope", 3: "address unreachable", 4: "port unreachable",
			5: "source policy", 6: "reject route",
		}[code], fmt.Sprintf("unreachable, code %d", code))
	}
	if name := map[byte]string{
		2: "packet too big", 3: "time exceeded", 4: "parameter problem", 133: "router solicitation",
		134: "router advertisement",
		135: "neighbour solicitation", 136: "neighbour advertisement", 137: "redirect",
		143: "multicast listener report",
	}[kind]; name != "" {
		return "ICMPv6 " + name
	}
	return fmt.Sprintf("ICMPv6 type %d, code %d", kind, code)
}

func echo(name string, request bool, b []byte) string {
	what := "reply"
	if request {
		what = "request"
	}
	return fmt.Sprintf("%s echo %s, id %d, seq %d", name, what, binary.BigEndian.Uint16(b[4:]),
		binary.BigEndian.Uint16(b[6:]))
}

// arp says who asks for whom (RFC 826).
func arp(b []byte) string {
	if len(b) < 28 || b[4] != 6 || b[5] != 4 {
		return "ARP"
	}
	who, whom := netip.AddrFrom4([4]byte(b[14:18])), netip.AddrFrom4([4]byte(b[24:28]))
	switch binary.BigEndian.Uint16(b[6:]) {
	case 1:
		return fmt.Sprintf("ARP: who has %v? tell %v", whom, who)
	case 2:
		return fmt.Sprintf("ARP: %v is here", who)
	}
	return "ARP"
}
