package report

import (
	"strings"

	"pfdivert/matrix"
)

// sockets puts what REMOTE's sockets logged to the packets.
type sockets struct {
	packets       []*seen
	before, after map[int][]rung // by the packets' index
	given         []given        // what divert sockets took and gave back
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
// stands between: what it took and gave back is what others received or sent. What has
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

// divert puts what a divert socket took and gave back to the packets: behind the packet that
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
