package matrix

import (
	"net/netip"

	"pfdivert/matrix/explain"
)

// explain says why a target did not pass. p is nil when it was not played.
func (r *runner) explain(t Target, res Result, p *play) *explain.Explanation {
	c := explain.Case{
		Reason: res.Reason, Detail: res.Detail,
		Firewall: r.kernel.Firewall, Proto: t.Proto, Way: way(t.First), StatesFirst: r.kernel.StatesFirst,
	}
	c.Remote.Remote = true
	if t.Claim != nil {
		c.Should, c.Claim = t.Claim.Says, true
		c.Long = p != nil && p.playing != nil && p.playing.big
		c.Way = t.Claim.way()
	}
	if p == nil {
		return explain.Explain(c)
	}
	c.LocalAddr, c.RemoteAddr, c.Fake = p.Local, p.Remote, p.Fake
	if e := res.Evidence; e != nil {
		c.Local.Cell, c.Remote.Cell = e.Local, e.Remote
		for _, rule := range e.Remote.Rules {
			// Where a packet meets several, the one that saw the fewest tells.
			if n := rule.After; n != nil && (!c.CountersKnown || n.Matched+n.States < c.Counters.Matched+c.Counters.States) {
				c.Counters, c.CountersKnown = *n, true
			}
		}
	}
	if t.Claim != nil {
		return explain.Explain(c)
	}
	h := p.playing
	if h == nil {
		h = p.halves()[0]
	}
	if h.counterKnown {
		c.Counters, c.CountersKnown = h.counters, true
	}
	_, server := h.ends()
	c.Way, c.Second, c.Server = way(h.mode), h.part != "", server.Port()
	c.Answered = h.mode == ReplyTo || h.mode == ReplyReuse
	if h.mode == To && h.Proto.HasPorts() {
		c.Divert = h.divertAddr()
	} else if h.mode == To {
		c.Divert = netip.AddrPortFrom(p.Fake, 0)
	} else {
		c.Divert = server
	}
	return explain.Explain(c)
}

// way is what is diverted in the claim's cell, whose flow is that of a mode and whose rules are its
// own.
func (c *Claim) way() explain.Way {
	switch c.Mode {
	case To:
		return explain.Both
	case Reply:
		return explain.PacketOut
	case Redirect:
		return explain.Translated
	}
	return way(c.Mode)
}

// way is what is diverted in a cell of the mode.
func way(m Mode) explain.Way {
	switch m {
	case To:
		return explain.To
	case PacketIn:
		return explain.PacketIn
	case PacketOut:
		return explain.PacketOut
	}
	return explain.Reply
}
