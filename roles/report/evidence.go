package report

import (
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"pfdivert/matrix"
	"pfdivert/matrix/evidence"
	"pfdivert/pfconf"
)

// WriteEvidence writes what the hosts showed of a target as text for people.
func WriteEvidence(w io.Writer, r matrix.Result) error {
	var t evidenceText
	t.line(0, "%s %s", r.Verdict, r.Name)
	if r.Reason != "" {
		t.line(0, "%s: %s", r.Reason, r.Detail)
	}
	if x := r.Explanation; x != nil {
		for _, l := range [][2]string{{"cause", x.Cause}, {"expected", x.Expected}, {"last seen", x.LastSeen},
			{"likely", x.Likely}, {"check", x.Check}, {"fix", x.Mend}} {
			if l[1] != "" {
				t.line(1, "%s: %s", l[0], l[1])
			}
		}
	}
	if r.Evidence != nil {
		t.host("LOCAL", r.Evidence.Local)
		t.host("REMOTE", r.Evidence.Remote)
	}
	_, err := io.WriteString(w, t.String())
	return err
}

type evidenceText struct{ strings.Builder }

// line writes a line. What came from a host is made printable.
func (t *evidenceText) line(depth int, format string, args ...any) {
	for text := range strings.SplitSeq(fmt.Sprintf(format, args...), "\n") {
		t.WriteString(strings.Repeat("    ", depth))
		t.WriteString(printable(strings.ReplaceAll(text, "\t", " ")))
		t.WriteByte('\n')
	}
}

// head begins a section that is not empty.
func (t *evidenceText) head(name string, n int) {
	if n > 0 {
		t.line(0, "\n%s:", name)
	}
}

// headOf begins a section that says so when the host has none. That is not known of a host that was
// not asked, or that could not tell.
func (t *evidenceText) headOf(name string, n int, c evidence.Record) {
	untold := func(m string) bool { return strings.HasPrefix(m, strings.ToLower(name)) }
	switch {
	case n > 0:
		t.head(name, n)
	case len(c.Answers) > 0 && !slices.ContainsFunc(c.Missing, untold):
		t.line(0, "\n%s: none", name)
	}
}

func (t *evidenceText) host(name string, c evidence.Record) {
	t.line(0, "\n== %s", name)
	t.head("Rules", len(c.Rules))
	for _, r := range c.Rules {
		t.line(1, "%s", r.Text)
		if r.Before != nil && r.After != nil {
			t.line(2, "before: %s", countersText(*r.Before))
			t.line(2, "after:  %s", countersText(*r.After))
		}
	}
	if len(c.Rules) > 0 { // else no one filters there for the cell
		t.headOf("States", len(c.States), c)
	} else {
		t.head("States", len(c.States))
	}
	for _, s := range c.States {
		t.line(1, "%s", stateText(s))
	}
	t.headOf("Sockets", len(c.Sockets), c)
	for _, s := range c.Sockets {
		remote := "*"
		if s.Remote.IsValid() {
			remote = s.Remote.String()
		}
		t.line(1, "%s", strings.TrimRight(fmt.Sprintf("%s %v %s  %s  %s", s.Proto, s.Local, remote, s.State, s.Text),
			" "))
	}
	t.head("ICMP errors of its sockets", len(c.Errors))
	for _, e := range c.Errors {
		t.line(1, "%s", e)
	}
	t.headOf("Packets", len(c.Packets), c)
	for i, p := range c.Packets {
		t.line(1, "%s", packetText(p, c.Packets[0].Time))
		if i == maxPacketLines {
			t.line(1, "and %d more", len(c.Packets)-i-1)
			break
		}
	}
	t.head("Trace by the kernel, of a second run", len(c.Trace))
	t.trace(1, c.Trace)
	t.head("Routes and settings", len(c.Answers))
	for _, a := range c.Answers {
		t.line(1, "# %s", a.Command)
		t.line(1, "%s", a.Text)
	}
	t.head("Protocol counters of the whole host that moved since the run began", len(c.Moved))
	for _, m := range c.Moved {
		t.line(1, "%s %+d", m.Name, m.By)
	}
	t.head("Not known", len(c.Missing))
	for _, m := range c.Missing {
		t.line(1, "%s", m)
	}
}

// WriteTraces writes the kernel's traces of targets that failed as text for people.
func WriteTraces(w io.Writer, results []matrix.Result) error {
	var t evidenceText
	for _, r := range results {
		if len(r.Trace) > 0 {
			t.line(0, "trace of %s, by REMOTE's kernel in a second run:", r.Name)
			t.trace(1, r.Trace)
		}
	}
	_, err := io.WriteString(w, t.String())
	return err
}

// trace writes which rules each packet met.
func (t *evidenceText) trace(depth int, all []evidence.Traced) {
	for _, p := range all {
		t.line(depth, "%s", p.Packet)
		for _, h := range p.Hops {
			t.line(depth+1, "%s", hopText(h))
		}
		t.line(depth+1, "%s", p.End)
	}
}

func hopText(h evidence.Hop) string {
	text := fmt.Sprintf("%s: table %s chain %s: %s", h.Hook, h.Table, h.Chain, h.Rule)
	if !h.Policy() {
		text += ": " + h.Verdict
	}
	if h.Mark != 0 {
		text += fmt.Sprintf(" (mark 0x%x)", h.Mark)
	}
	return text
}

// maxPacketLines is how many packets are shown; the capture has them all.
const maxPacketLines = 64

func countersText(c pfconf.Counters) string {
	text := fmt.Sprintf("matched %d, done %d", c.Matched, c.Done)
	for _, x := range []struct {
		name string
		n    uint64
	}{{"replies", c.Replies}, {"stopped of the kernel's own", c.Kernel}, {"states", c.States}} {
		if x.n > 0 {
			text += fmt.Sprintf(", %s %d", x.name, x.n)
		}
	}
	return text
}

func stateText(s pfconf.State) string {
	arrow := "->"
	if s.Direction == pfconf.In {
		arrow = "<-"
	}
	was := func(a netip.AddrPort) string {
		if !a.IsValid() {
			return ""
		}
		return fmt.Sprintf(" (%v)", a) // before translation, as pfctl shows it
	}
	text := fmt.Sprintf("protocol %d %v%s %s %v%s", s.Number, s.Near, was(s.NearWas), arrow, s.Far, was(s.FarWas))
	if s.Phase != "" {
		text += " " + s.Phase
	}
	if s.Interface != "" {
		text += " on " + s.Interface
	}
	if s.Mark != 0 {
		text += fmt.Sprintf(" mark 0x%x", s.Mark)
	}
	if s.Label != "" {
		text += " label " + s.Label
	}
	return text
}

// packetText is a packet on one line: its time since the first, and what it is.
func packetText(p evidence.Packet, first time.Time) string {
	text := fmt.Sprintf("%+10.6f %-3s", p.Time.Sub(first).Seconds(), p.Direction)
	d := evidence.Decode(p)
	if d.Pflog != "" {
		text += " pf: " + d.Pflog + ":"
	}
	text += fmt.Sprintf(" %s %s", p.Interface, d.Summary)
	if d.Source.IsValid() {
		text += fmt.Sprintf("  %s > %s", d.From(), d.To())
	}
	return text
}
