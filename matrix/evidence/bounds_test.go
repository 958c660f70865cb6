package evidence

import (
	"strings"
	"testing"

	"pfdivert/pfconf"
)

// TestBoundCell: whatever a host shows, what is kept of it is bounded, and what was left out is
// said.
func TestBoundCell(t *testing.T) {
	const many, length = 5000, 1 << 20
	text, data := strings.Repeat("x", length), make([]byte, length)
	c := Record{
		Rules: make([]FilterRule, many), States: make([]pfconf.State, many), Sockets: make([]SocketEntry, many),
		Answers: make([]Answer, many),
		Moved:   make([]Moved, many), Errors: make([]string, many), Packets: make([]Packet, many),
		Missing: make([]string, many),
	}
	for i := range many {
		c.Rules[i] = FilterRule{Label: text, Text: text}
		c.States[i] = pfconf.State{Phase: text, Label: text, ID: text, Interface: text}
		c.Sockets[i] = SocketEntry{Proto: text, State: text, Text: text}
		c.Answers[i] = Answer{text, text}
		c.Moved[i].Name, c.Errors[i], c.Missing[i] = text, text, text
		c.Packets[i] = Packet{Interface: text, Direction: text, Data: data}
	}
	c.Bound()
	size := 0
	count := func(all ...string) {
		for _, s := range all {
			size += len(s)
		}
	}
	for _, r := range c.Rules {
		count(r.Label, r.Text)
	}
	for _, s := range c.States {
		count(s.Phase, s.Label, s.ID, s.Interface)
	}
	for _, s := range c.Sockets {
		count(s.Proto, s.State, s.Text)
	}
	for _, a := range c.Answers {
		count(a.Command, a.Text)
	}
	for _, m := range c.Moved {
		count(m.Name)
	}
	for _, p := range c.Packets {
		count(p.Interface, p.Direction, string(p.Data))
	}
	count(c.Errors...)
	count(c.Missing...)
	if size > 1<<20 {
		t.Errorf("%d bytes are kept", size)
	}
	for _, what := range []string{"rules", "states", "sockets", "answers", "protocol counters", "ICMP errors",
		"packets", "routes and settings"} {
		if !strings.Contains(strings.Join(c.Missing, "\n"), "\n"+what) {
			t.Errorf("that %s were left out is not said", what)
		}
	}
	if !c.Cut {
		t.Error("what was cut is a whole look")
	}
	long := Record{Answers: []Answer{{"c", strings.Repeat("x", maxText+1)}}}
	if long.Bound(); !long.Cut {
		t.Error("an answer that was cut is a whole one")
	}
	small := Record{Rules: []FilterRule{{Label: "l", Text: "r"}},
		Answers: []Answer{{"c", strings.Repeat("x", maxText)}},
		Packets: make([]Packet, MaxPackets)}
	small.Bound()
	if small.Cut || len(small.Missing) > 0 || len(small.Answers[0].Text) != maxText || small.Rules[0].Text != "r" {
		t.Errorf("what is not too much was cut: %q", small.Missing)
	}
}
