package agent

import "pfdivert/pfconf"

// The packet filter's values, as packed by hand.

var (
	families   = pfconf.Families
	protos     = []pfconf.Proto{pfconf.TCP, pfconf.UDP, pfconf.Raw, pfconf.ICMP}
	directions = []pfconf.Direction{pfconf.In, pfconf.Out}
	actions    = []pfconf.Action{pfconf.DivertTo, pfconf.DivertReply, pfconf.DivertPacket, pfconf.RdrTo, pfconf.PFDivertTo}
)

func (p *packer) rule(r *pfconf.Rule) {
	text(p, &r.Label)
	choice(p, &r.Direction, directions)
	choice(p, &r.Family, families)
	choice(p, &r.Proto, protos)
	p.addr(&r.From)
	p.addr(&r.To)
	count(p, &r.Port)
	choice(p, &r.Action, actions)
	p.addrPort(&r.Divert)
	p.flag(&r.Both)
	p.flag(&r.Bypass)
	p.flag(&r.Tee)
	count(p, &r.Number)
}

func (p *packer) flow(f *pfconf.Flow) {
	choice(p, &f.Family, families)
	choice(p, &f.Proto, protos)
	p.addrPort(&f.Near)
	p.addrPort(&f.Far)
	count(p, &f.Echo)
}

func (p *packer) natQuery(q *pfconf.NATQuery) {
	choice(p, &q.Proto, protos)
	choice(p, &q.Direction, directions)
	p.addrPort(&q.Src)
	p.addrPort(&q.Dst)
	integer(p, &q.Domain)
}

func (p *packer) counters(c *pfconf.Counters) {
	count(p, &c.Matched)
	count(p, &c.Done)
	count(p, &c.Replies)
	count(p, &c.Kernel)
	count(p, &c.States)
}

func (p *packer) state(s *pfconf.State) {
	choice(p, &s.Family, families)
	integer(p, &s.Number)
	p.addrPort(&s.Near)
	p.addrPort(&s.Far)
	choice(p, &s.Direction, directions)
	p.addrPort(&s.NearWas)
	p.addrPort(&s.FarWas)
	text(p, &s.Interface)
	integer(p, &s.Domain)
	text(p, &s.Phase)
	integer(p, &s.Age)
	integer(p, &s.Expires)
	text(p, &s.ID)
	text(p, &s.Label)
	count(p, &s.Mark)
}
