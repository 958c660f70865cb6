package report

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"pfdivert/matrix"
	"pfdivert/matrix/evidence"
)

// spoken is a line of a transcript, with what is known of the packet that carried it.
type spoken struct {
	endpoint string
	line     string // without the endpoint
	sent     bool
	// own and peer are the endpoint's address and the other one; what is not known is invalid,
	// a port that is not known 0.
	own, peer netip.AddrPort
	accepted  bool
	payload   string // as it is logged
	echo      string // how an echo's Decoded.Summary ends; "" when it is none
	// A divert socket logs packets from their IP header on.
	raw *seen
	cut bool // what was logged of it is its beginning
}

// speak reads the lines of a transcript that are about a packet.
func speak(t matrix.Transcript) (all []spoken) {
	now := spoken{endpoint: t.Name}
	divert := false
	for line := range strings.Lines(t.Text) {
		line = strings.TrimSuffix(line, "\n")
		if what, text, ok := strings.Cut(line, ": "); ok && !strings.HasPrefix(line, "<<<") && !strings.HasPrefix(line, ">>>") {
			switch address := loggedAddress(text); what {
			case "connect sock":
				now.own = address
			case "connect peer", "recv from":
				now.peer = address
			case "accept from":
				now.peer = address
				e := now
				e.line, e.accepted = line, true
				all = append(all, e)
			case "divert sock":
				divert = true
			}
			continue
		}
		what, text, _ := strings.Cut(line, " ")
		if what != "<<<" && what != ">>>" {
			continue
		}
		e := now
		e.line, e.payload, e.sent = line, text, what == ">>>"
		if divert {
			e.readPacket()
		} else {
			e.readEcho()
		}
		all = append(all, e)
	}
	return all
}

// loggedAddress reads "10.1.1.1 4000"; it is invalid when it is not that, or any address.
func loggedAddress(text string) netip.AddrPort {
	a, p, _ := strings.Cut(text, " ")
	address, err := netip.ParseAddr(a)
	port, portErr := strconv.ParseUint(p, 10, 16)
	if err != nil || portErr != nil || address.IsUnspecified() {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(address.WithZone(""), uint16(port))
}

// readEcho reads "icmp type 8 code 0 id 1 seq 1 Client", as endpoints log echoes.
func (e *spoken) readEcho() {
	var kind, code, id, seq int
	if n, _ := fmt.Sscanf(e.payload, "icmp type %d code %d id %d seq %d", &kind, &code, &id, &seq); n < 4 {
		return
	}
	what := map[int]string{8: "request", 128: "request", 0: "reply", 129: "reply"}[kind]
	e.echo = fmt.Sprintf("echo %s, id %d, seq %d", what, id, seq)
	_, e.payload, _ = strings.Cut(e.payload, fmt.Sprintf(" seq %d ", seq))
}

// readPacket reads a packet in hexadecimal, as divert sockets are logged.
func (e *spoken) readPacket() {
	text, cut := strings.CutSuffix(e.payload, "...")
	data, err := hex.DecodeString(text)
	if err != nil || len(data) == 0 {
		return
	}
	p := evidence.Packet{Link: evidence.LinkRaw, Data: data, Length: len(data)}
	e.raw, e.cut = &seen{Packet: p, Decoded: evidence.Decode(p)}, cut
	e.line = strings.TrimSuffix(e.line, e.payload) + e.raw.text()
}

// fits reports whether the packet is the one that the line is about.
func (e spoken) fits(p *seen) bool {
	if e.raw != nil {
		return e.raw.Same != "" && (e.raw.Same == p.Same || e.cut && strings.HasPrefix(p.Same, e.raw.Same))
	}
	from, to := e.peer, e.own
	if e.sent {
		from, to = to, from
	}
	switch {
	case !fitsEnd(from, p.Source, p.SourcePort) || !fitsEnd(to, p.Destination, p.DestinationPort):
		return false
	case e.accepted:
		return strings.HasPrefix(p.Summary, "TCP ACK")
	}
	return strings.HasSuffix(p.Summary, e.echo) && len(p.Payload) > 0 && logged(p.Payload) == e.payload
}

func fitsEnd(known netip.AddrPort, a netip.Addr, port uint16) bool {
	return !known.IsValid() || known.Addr() == a && (known.Port() == 0 || known.Port() == port)
}

// hasName reports whether a packet has more than its addresses to tell its sender by.
func (p *seen) hasName() bool {
	return p.SourcePort|p.DestinationPort != 0 || strings.Contains(p.Summary, " echo ")
}
