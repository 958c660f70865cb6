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

// sockets puts what REMOTE's sockets logged to the packets.
type sockets struct {
	packets       []*seen
	before, after map[int][]rung // by the packets' index
	given         []given        // what divert sockets took and reinjected
	diverts       bool           // there is one
}

// given is a packet that passed a divert socket, by the packet that it came as or left as.
type given struct {
	*seen
	at    int
	after bool
}

// addSockets puts what REMOTE's sockets logged to the packets that carried it: "<<< Client" behind
// the packet that came in with that text, ">>> Client" before the one that went out
// with it, an accepted connection behind the ACK that ended its handshake. A divert socket
// stands between: what it took and reinjected is what others received or sent. What has
// no such packet is left to the transcripts.
func (l *ladder) addSockets(packets []*seen, transcripts []matrix.Transcript) {
	s := &sockets{packets: packets, before: map[int][]rung{}, after: map[int][]rung{}}
	var others []matrix.Transcript
	for _, t := range transcripts {
		switch {
		case t.Host != "remote":
		case strings.HasPrefix(t.Text, "divert sock: "):
			s.diverts = true
			s.divert(speak(t))
		default:
			others = append(others, t)
		}
	}
	for _, t := range others {
		s.endpoint(speak(t))
	}
	var all []rung
	for i, r := range l.rungs {
		all = append(append(append(all, s.before[i]...), r), s.after[i]...)
	}
	l.rungs = all
}

// find returns the first packet on its way to REMOTE ("there") or from it ("back") that
// the line is about and that is not among those of its endpoint; -1 for none.
func (s *sockets) find(e spoken, way string, used map[int]bool) int {
	for i, p := range s.packets {
		if !used[i] && p.Pflog == "" && p.goes() == way && e.fits(p) && s.of(e, p) {
			return i
		}
	}
	return -1
}

// of tells the packets of a control from those of the client, also where their addresses are the
// same, as those of raw IP are. What comes to a server before its rule is there was not
// diverted to it, unless the rule's action is a divert socket's.
func (s *sockets) of(e spoken, p *seen) bool {
	switch {
	case e.raw != nil:
		return !p.control // there was no rule yet that diverts
	case p.hasName() || p.control == isControl(e.endpoint):
		return true
	}
	return s.diverts && !e.own.IsValid()
}

// findGiven is find among what divert sockets took from the endpoint or gave it.
func (s *sockets) findGiven(e spoken, used map[int]bool) int {
	for i, g := range s.given {
		if !used[i] && g.after != e.sent && e.fits(g.seen) {
			return i
		}
	}
	return -1
}

func (e spoken) rung() rung {
	r := rung{from: laneFilter, to: laneSocket, text: e.endpoint + ": " + e.line}
	if e.sent {
		r.from, r.to = r.to, r.from
	}
	return r
}

// endpoint puts what one endpoint logged to the packets.
func (s *sockets) endpoint(lines []spoken) {
	used, usedGiven := map[int]bool{}, map[int]bool{}
	for _, e := range lines {
		g := -1
		if !e.accepted && !isControl(e.endpoint) {
			g = s.findGiven(e, usedGiven)
		}
		if g >= 0 {
			usedGiven[g] = true
			if at := s.given[g].at; e.sent {
				s.before[at] = append([]rung{e.rung()}, s.before[at]...)
			} else {
				s.after[at] = append(s.after[at], e.rung())
			}
			continue
		}
		way, beside := "there", s.after
		if e.sent {
			way, beside = "back", s.before
		}
		i := s.find(e, way, used)
		if i < 0 {
			continue
		}
		used[i] = !e.accepted // an ACK may carry data as well
		beside[i] = append(beside[i], e.rung())
	}
}

// divert puts what a divert socket took and reinjected to the packets: behind the packet that
// came in, or before the one that left.
func (s *sockets) divert(lines []spoken) {
	used := map[int]bool{}
	var taken *spoken // and not yet put anywhere
	last := -1        // where the one before was put: behind a packet
	for _, e := range lines {
		if e.raw == nil {
			continue
		}
		if !e.sent {
			taken, last = nil, s.find(e, "there", used)
			if last < 0 {
				taken = &e
				continue
			}
			used[last] = true
			s.after[last] = append(s.after[last], e.rung())
			continue
		}
		if i := s.find(e, "back", used); i >= 0 {
			used[i] = true
			if taken != nil {
				s.before[i] = append(s.before[i], taken.rung())
				s.given = append(s.given, given{taken.raw, i, false})
			}
			s.before[i] = append(s.before[i], e.rung())
		} else if last >= 0 {
			s.after[last] = append(s.after[last], e.rung())
			s.given = append(s.given, given{e.raw, last, true})
		}
		taken, last = nil, -1
	}
}

// goes reports whether a packet is on its way to REMOTE ("there") or from it ("back").
func (p *seen) goes() string {
	if p.remote == (p.Direction == "in") {
		return "there"
	}
	return "back"
}

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
		if what, text, ok := strings.Cut(line, ": "); ok && !strings.HasPrefix(line, "<<<") &&
			!strings.HasPrefix(line, ">>>") {
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
