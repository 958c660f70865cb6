package matrix

import (
	"net/netip"

	"pfdivert/matrix/explain"
)

// explain says why a target did not pass. p is nil when it was not run.
func (r *runner) explain(t Target, res Result, p *testCase) *explain.Explanation {
	c := explain.Case{
		Reason: res.Reason, Detail: res.Detail,
		Firewall: r.kernel.Firewall, Proto: t.Proto, Mechanism: t.First.mechanism, StatesFirst: r.kernel.StatesFirst,
	}
	c.Remote.Remote = true
	if t.Claim != nil {
		c.Should, c.Claim = t.Claim.Says, true
		c.Long = p != nil && p.current != nil && p.current.big
		c.Mechanism = t.First.ofClaims
	}
	if p == nil {
		return explain.Explain(c)
	}
	c.PFOn, c.ByPF = r.kernel.PFOn, r.kernel.besides(t)
	c.LocalAddr, c.RemoteAddr, c.Fake = p.Local, p.Remote, p.Fake
	if c.Between = t.Claim != nil && t.Claim.Between; c.Between {
		return explain.Explain(c)
	}
	if e := res.Evidence; e != nil {
		c.Local.Record, c.Remote.Record = e.Local, e.Remote
		for _, rule := range e.Remote.Rules {
			// Where a packet meets several, the one that saw the fewest tells.
			if n := rule.After; n != nil && (!c.CountersKnown ||
				n.Matched+n.States < c.Counters.Matched+c.Counters.States) {
				c.Counters, c.CountersKnown = *n, true
			}
		}
	}
	if p.looped != nil && !c.CountersKnown {
		c.Counters, c.CountersKnown = *p.looped, true
	}
	if t.Claim != nil {
		return explain.Explain(c)
	}
	x := p.current
	if x == nil {
		x = p.exchanges()[0]
	}
	if x.counterKnown {
		c.Counters, c.CountersKnown = x.counters, true
	}
	_, server := x.flowEnds()
	c.Mechanism, c.Second, c.Server = x.mode.mechanism, x.part != "", server.Port()
	c.Answered = x.mode.answers
	if x.mode.IsDivertTo() && x.Proto.HasPorts() {
		c.Divert = x.divertAddr()
	} else if x.mode.IsDivertTo() {
		c.Divert = netip.AddrPortFrom(p.Fake, 0)
	} else {
		c.Divert = server
	}
	return explain.Explain(c)
}
