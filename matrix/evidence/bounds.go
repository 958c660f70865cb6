package evidence

import "fmt"

// The most that a cell's evidence has, far above what an honest host shows of a cell.
const (
	maxItems = 128       // of each list but those of packets and counters
	maxMoved = 2048      // protocol counters
	maxData  = 1024      // bytes of a packet
	maxText  = 64 << 10  // bytes of one text: some 250 rules of pf with their counters
	maxTexts = 256 << 10 // bytes of all
)

// MaxPackets is the most packets that the evidence of one cell has: the first and the last ones
// are kept.
const MaxPackets = 256

// Bound cuts what is more than a person would read, as a host with thousands of rules has it, or a
// hostile one sends it. What was left out is said where it was, and makes it half a look: see Cut.
func (c *Record) Bound() {
	left := maxTexts
	texts := func(all ...*string) {
		for _, s := range all {
			n := min(len(*s), maxText, left)
			left -= n
			if n < len(*s) {
				c.Cut = true
				*s = fmt.Sprintf("%s\n(%d bytes more were left out)", (*s)[:n], len(*s)-n)
			}
		}
	}
	var lost []string
	c.Missing = first(&lost, "answers that are missing", c.Missing, maxItems)
	c.Rules = first(&lost, "rules", c.Rules, maxItems)
	c.States = first(&lost, "states", c.States, maxItems)
	c.Sockets = first(&lost, "sockets", c.Sockets, maxItems)
	c.Errors = first(&lost, "ICMP errors", c.Errors, maxItems)
	c.Packets = first(&lost, "packets", c.Packets, MaxPackets)
	c.Trace = first(&lost, "traced packets", c.Trace, maxItems)
	c.Answers = first(&lost, "routes and settings", c.Answers, maxItems)
	c.Moved = first(&lost, "protocol counters", c.Moved, maxMoved)
	for i := range c.Missing {
		texts(&c.Missing[i])
	}
	for i := range c.Rules {
		texts(&c.Rules[i].Label, &c.Rules[i].Text)
	}
	for i := range c.States {
		s := &c.States[i]
		texts(&s.Interface, &s.Phase, &s.ID, &s.Label)
	}
	for i := range c.Sockets {
		s := &c.Sockets[i]
		texts(&s.Proto, &s.State, &s.Text)
	}
	for i := range c.Errors {
		texts(&c.Errors[i])
	}
	for i := range c.Packets {
		p := &c.Packets[i]
		texts(&p.Interface, &p.Direction)
		p.Data = p.Data[:min(len(p.Data), maxData)]
	}
	for i := range c.Trace {
		t := &c.Trace[i]
		t.Hops = first(&lost, "rules that a traced packet met", t.Hops, maxItems)
		texts(&t.Packet, &t.End)
		for k := range t.Hops {
			h := &t.Hops[k]
			texts(&h.Hook, &h.Table, &h.Chain, &h.Rule, &h.Verdict)
		}
	}
	for i := range c.Answers {
		texts(&c.Answers[i].Command, &c.Answers[i].Text)
	}
	for i := range c.Moved {
		texts(&c.Moved[i].Name)
	}
	c.Missing = append(c.Missing, lost...)
	c.Cut = c.Cut || len(lost) > 0
}

// first returns the first ones, and notes how many were left out.
func first[T any](lost *[]string, what string, all []T, most int) []T {
	if n := len(all) - most; n > 0 {
		*lost = append(*lost, fmt.Sprintf("%s: %d more were left out", what, n))
		return all[:most]
	}
	return all
}
