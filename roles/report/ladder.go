package report

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"strings"
	"time"

	"pfdivert/matrix"
	"pfdivert/matrix/evidence"
	"pfdivert/matrix/explain"
	"pfdivert/pfconf"
)

// lane is one of the places where a cell's packets are seen.
type lane int

const (
	laneLocal  lane = iota
	laneWire        // between the hosts
	laneFilter      // REMOTE's interface, where its packet filter is
	laneSocket      // REMOTE's sockets
)

// laneNames are the lanes' headings.
var laneNames = [...]string{"LOCAL", "wire", "REMOTE's filter", "socket"}

// ladder is what happened to a cell's packets, in the order of time.
type ladder struct {
	rungs    []rung
	more     int           // packets that are not among the rungs, because there are too many
	first    time.Time     // when the first packet was sent, by LOCAL's clock
	shift    time.Duration // by how much REMOTE's clock is ahead; it is taken off the times
	controls bool          // there are packets of controls
}

// rung is a packet on its way from one lane to another, or, when they are the same, what
// happened there.
type rung struct {
	at       time.Duration // since the first packet
	timed    bool          // the time is known: what sockets did has none
	from, to lane
	text     string
	lost     bool // the other host did not capture it, or it was last seen here
	packet   bool
	control  bool // it was sent before the rule was loaded
}

// maxRungs bounds the packets of a ladder: more can't be read.
const maxRungs = 60

// seen is a captured packet with what was made of it.
type seen struct {
	evidence.Packet
	evidence.Decoded
	remote  bool // captured there
	control bool // sent before the rule was loaded, or the answer to that
	pair    *seen
}

// newLadder arranges what was captured on both hosts and what REMOTE's sockets logged.
func newLadder(e *matrix.Evidence, transcripts []matrix.Transcript) *ladder {
	local, remote := decodeAll(e.Local.Packets, false), decodeAll(e.Remote.Packets, true)
	pairUp(local, remote)
	l := &ladder{shift: clockShift(remote)}
	var all []*seen
	for _, p := range remote {
		p.Time = p.Time.Add(-l.shift)
		// Of a packet that both captured, the sender's time counts.
		if p.Pflog != "" || p.pair == nil || p.Direction == "out" {
			all = append(all, p)
		}
	}
	for _, p := range local {
		if p.pair == nil || p.Direction == "out" {
			all = append(all, p)
		}
	}
	sort.SliceStable(all, func(i, j int) bool { return all[i].Time.Before(all[j].Time) })
	markControls(all, e, transcripts)
	if len(all) > maxRungs {
		l.more = len(all) - maxRungs
		all = all[:maxRungs]
	}
	if len(all) > 0 {
		l.first = all[0].Time
	}
	for _, p := range all {
		r := rung{at: p.Time.Sub(l.first), timed: true, text: p.text(), packet: true, control: p.control}
		l.controls = l.controls || p.control
		switch {
		case p.Pflog != "":
			r.from, r.to, r.text, r.packet = laneFilter, laneFilter, "pf: "+p.Pflog, false
		case p.remote && p.Direction == "in":
			r.from, r.to = laneWire, laneFilter
		case p.remote:
			r.from, r.to, r.lost = laneFilter, laneWire, true
		case p.Direction == "in":
			r.from, r.to = laneWire, laneLocal
		default:
			r.from, r.to, r.lost = laneLocal, laneWire, true
		}
		if p.pair != nil {
			r.lost = false
			r.from, r.to = laneLocal, laneFilter
			if p.remote {
				r.from, r.to = laneFilter, laneLocal
			}
		}
		if r.lost {
			other, there := e.Remote, "REMOTE"
			if p.remote {
				other, there = e.Local, "LOCAL"
			}
			if !capturing(other) {
				r.lost = false
			} else {
				r.text += "; not in " + there + "'s capture"
			}
		}
		if p.control {
			r.text = "control: " + r.text
		}
		l.rungs = append(l.rungs, r)
	}
	l.addSockets(all, transcripts)
	l.addCounters(e.Remote.Rules)
	return l
}

// capturing reports whether a host captured, so that what is not there did not come.
func capturing(c evidence.Record) bool {
	return len(c.Packets) > 0 || !slices.ContainsFunc(c.Missing, func(text string) bool {
		return strings.HasPrefix(text, "packets")
	})
}

func decodeAll(packets []evidence.Packet, remote bool) []*seen {
	all := make([]*seen, len(packets))
	for i, p := range packets {
		all[i] = &seen{Packet: p, Decoded: evidence.Decode(p), remote: remote}
	}
	return all
}

// text says what a packet is and carries.
func (p *seen) text() string {
	text := p.Summary
	if p.Source.IsValid() {
		text += "  " + p.From() + " > " + p.To()
	}
	if payload := logged(p.Payload); len(payload) > 0 && len(payload) <= 24 {
		text += fmt.Sprintf("  %q", payload)
	}
	return text
}

// pairUp finds for each packet that one host sent the same one that came in on the other,
// in their order.
func pairUp(local, remote []*seen) {
	waiting := map[string][]*seen{}
	key := func(p *seen, way string) string { return way + p.Same }
	for _, p := range remote {
		if p.Pflog == "" && p.Same != "" {
			k := key(p, p.Direction)
			waiting[k] = append(waiting[k], p)
		}
	}
	other := map[string]string{"out": "in", "in": "out"}
	for _, p := range local {
		k := key(p, other[p.Direction])
		if same := waiting[k]; len(same) > 0 && p.Same != "" && p.Direction != "" {
			p.pair, same[0].pair = same[0], p
			waiting[k] = same[1:]
		}
	}
}

// clockShift is by how much REMOTE's clock is ahead of LOCAL's, as far as packets tell: by the
// middle of the fastest ways there and back (as NTP, RFC 5905), and nothing while
// each packet came after it was sent and within a second.
func clockShift(remote []*seen) time.Duration {
	var there, back []time.Duration
	plausible := true
	for _, p := range remote {
		if p.pair == nil {
			continue
		}
		took := p.Time.Sub(p.pair.Time)
		if p.Direction == "out" {
			took = -took
			back = append(back, took)
		} else {
			there = append(there, took)
		}
		plausible = plausible && took >= 0 && took < time.Second
	}
	switch {
	case plausible:
		return 0
	case back == nil:
		return slices.Min(there)
	case there == nil:
		return -slices.Min(back)
	}
	return (slices.Min(there) - slices.Min(back)) / 2
}

// logged is a payload as transcripts have it: without the newline at its end, and with all
// but printable ASCII escaped.
func logged(payload []byte) string {
	if n := len(payload); n > 0 && payload[n-1] == '\n' {
		payload = payload[:n-1]
	}
	var b strings.Builder
	for _, c := range payload[:min(len(payload), maxLogged)] {
		switch {
		case c == '\\':
			b.WriteString(`\\`)
		case c == '\n':
			b.WriteString(`\n`)
		case c < ' ' || c > '~':
			b.WriteString(`\x` + hex.EncodeToString([]byte{c}))
		default:
			b.WriteByte(c)
		}
	}
	if len(payload) > maxLogged {
		b.WriteString("...")
	}
	return b.String()
}

// maxLogged is how much of a message an endpoint logs.
const maxLogged = 256

// addCounters says at the end what the rules counted.
func (l *ladder) addCounters(rules []evidence.FilterRule) {
	for _, r := range rules {
		if r.After == nil {
			continue
		}
		after := *r.After
		if r.Before != nil {
			after.Matched -= min(r.Before.Matched, after.Matched)
			after.Done -= min(r.Before.Done, after.Done)
		}
		rule := "the rule"
		if len(rules) > 1 {
			rule += " " + r.Label
		}
		l.rungs = append(l.rungs, rung{
			from: laneFilter, to: laneFilter,
			text: fmt.Sprintf("%s matched %s, its action served %d", rule, pfconf.Count(int(after.Matched), "packet"),
				after.Done),
		})
	}
}

// addLastSeen marks where the explanation last saw the packet that is missing.
func (l *ladder) addLastSeen(e *explain.Explanation) {
	if e == nil || e.LastSeen == "" || len(l.rungs) == 0 {
		return
	}
	at := laneFilter
	for _, place := range []struct {
		words string
		lane  lane
	}{{"did not come to", laneWire}, {"on neither interface", laneWire}, {"is not at the client",
		laneLocal}, {"REMOTE's client sent it", laneSocket}} {
		if strings.Contains(e.LastSeen, place.words) {
			at = place.lane
			break
		}
	}
	l.rungs = append(l.rungs, rung{from: at, to: at, text: "last seen: " + e.LastSeen, lost: true})
}

// isControl reports whether an endpoint sent before the cell's rule was loaded.
func isControl(endpoint string) bool {
	return endpoint == "control" || strings.HasSuffix(endpoint, "-control")
}

// markControls finds the packets of controls, which are sent before the cell's rule is loaded, and
// the answers to them: by their ports, by an echo's id, and those of raw IP by being the
// first.
func markControls(packets []*seen, e *matrix.Evidence, transcripts []matrix.Transcript) {
	for _, t := range transcripts {
		if !isControl(t.Name) {
			continue
		}
		cell := e.Local
		if t.Host == "remote" {
			cell = e.Remote
		}
		var own netip.AddrPort
		for _, s := range cell.Sockets {
			if s.Text == "the cell's "+t.Name {
				own = s.Local // of a connection that was not made there is no line
			}
		}
		echo := ""
		for _, line := range speak(t) {
			if line.own.IsValid() {
				own = line.own
			}
			if _, id, ok := strings.Cut(line.echo, ", "); ok {
				echo, _, _ = strings.Cut(id, ", ")
			}
		}
		markControl(packets, own, echo)
	}
	for i, p := range packets {
		// A later fragment has neither ports nor id.
		p.control = p.control || i > 0 && strings.HasPrefix(p.Summary, "fragment of") && packets[i-1].control &&
			packets[i-1].Source == p.Source
	}
}

// markControl marks the packets of one control; echo is "id N" of its echo, "" for none.
func markControl(packets []*seen, own netip.AddrPort, echo string) {
	if !own.IsValid() {
		return
	}
	first := -1
	for i, p := range packets {
		switch {
		case p.Pflog != "":
		case own.Port() != 0 && echo == "":
			p.control = p.control || fitsEnd(own, p.Source, p.SourcePort) ||
				fitsEnd(own, p.Destination, p.DestinationPort)
		case echo != "":
			p.control = p.control || strings.Contains(p.Summary+",", ", "+echo+",")
		case p.Source == own.Addr() && first >= 0:
			return // the next of the sender's is the client's
		case p.Source == own.Addr():
			first = i
			p.control = true
		case p.Destination == own.Addr() && first >= 0:
			p.control = true
		}
	}
}
