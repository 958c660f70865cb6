package agent

import (
	"net/netip"

	"pfdivert/matrix/script"
)

// What passes many times for each cell is packed by hand: scripts, changes of rules, and their
// answers. In CBOR they took a fifth of a long run's processor time. A field that is missing here
// fails TestPacked.

// often reports whether the request is packed by hand.
func (r *Request) often() bool { return r.Script != nil || r.Rules != nil }

// often reports whether the answer is: one to Script or Rules, which has nothing else.
func (a *Answer) often() bool { return a.Outcomes != nil || a.Faults != nil }

func (p *packer) request(r *Request) {
	count(p, &r.ID)
	maybe(p, &r.Script, (*packer).script)
	maybe(p, &r.Rules, (*packer).rules)
}

func (p *packer) answer(a *Answer) {
	count(p, &a.ID)
	maybe(p, &a.Fault, (*packer).fault)
	list(p, &a.Outcomes, (*packer).outcome)
	list(p, &a.Faults, (*packer).maybeFault)
}

func (p *packer) script(s *script.Script) {
	text(p, &s.Cell)
	list(p, &s.Steps, (*packer).step)
	p.flag(&s.Hold)
	p.flag(&s.End)
}

func (p *packer) step(s *script.Step) {
	text(p, &s.Do)
	text(p, &s.End)
	maybe(p, &s.Spec, (*packer).spec)
	text(p, &s.Data)
	count(p, &s.Seq)
	choice(p, &s.Family, families)
	text(p, &s.Label)
	maybe(p, &s.Flow, (*packer).flow)
	p.addrPort(&s.Near)
	p.addrPort(&s.Far)
	maybe(p, &s.Want, (*packer).want)
	if p.any(s.Apart != "" || s.New != "" || s.Burst != nil || s.Rewrites != nil || s.NAT != nil) {
		text(p, &s.Apart)
		text(p, &s.New)
		maybe(p, &s.Burst, (*packer).burst)
		list(p, &s.Rewrites, (*packer).rewrite)
		maybe(p, &s.NAT, (*packer).natQuery)
	}
}

func (p *packer) spec(s *script.Spec) {
	text(p, &s.Kind)
	text(p, &s.Role)
	p.addrPort(&s.Local)
	p.addrPort(&s.Remote)
	p.flag(&s.Bindany)
	p.flag(&s.Diverted)
	p.flag(&s.Arrival)
	p.flag(&s.Reuse)
	count(p, &s.EchoID)
	p.addr(&s.Only)
	p.flag(&s.Big)
	text(p, &s.Spoil)
	integer(p, &s.Queue)
	text(p, &s.Call)
	p.flag(&s.Pieces)
	p.addr(&s.WriteTo)
	p.flag(&s.Drop)
	list(p, &s.Omit, text[script.Piece])
}

func (p *packer) burst(b *script.Burst) {
	integer(p, &b.First)
	integer(p, &b.Count)
	integer(p, &b.Size)
	text(p, &b.Line)
	p.flag(&b.Swap)
}

func (p *packer) rewrite(r *script.Rewrite) {
	text(p, &r.Old)
	text(p, &r.New)
}

func (p *packer) want(v *script.Want) {
	integer(p, &v.Messages)
	p.counters(&v.Counters)
}

func (p *packer) outcome(o *script.Outcome) {
	maybe(p, &o.Fault, (*packer).fault)
	if p.any(o.Local != (netip.AddrPort{}) || o.Peer != (netip.AddrPort{})) {
		p.addrPort(&o.Local)
		p.addrPort(&o.Peer)
	}
	list(p, &o.Messages, (*packer).message)
	maybe(p, &o.Counters, (*packer).counters)
	text(p, &o.Text)
	if p.any(o.Tally != nil || o.Drops != nil || o.States != nil || o.Count != 0) {
		maybe(p, &o.Tally, (*packer).tally)
		maybe(p, &o.Drops, (*packer).dropped)
		list(p, &o.States, (*packer).state)
		integer(p, &o.Count)
	}
}

func (p *packer) maybeFault(f **script.Fault) { maybe(p, f, (*packer).fault) }

func (p *packer) fault(f *script.Fault) {
	text(p, &f.Code)
	text(p, &f.Text)
	text(p, &f.Hint)
}

func (p *packer) message(m *script.Message) {
	p.bytes(&m.Data)
	p.addrPort(&m.From)
	p.addrPort(&m.To)
	maybe(p, &m.Echo, (*packer).echo)
	p.addrPort(&m.Via)
	text(p, &m.Interface)
	p.bytes(&m.Sent)
}

func (p *packer) echo(e *script.EchoHeader) {
	count(p, &e.Type)
	count(p, &e.Code)
	count(p, &e.ID)
	count(p, &e.Seq)
	p.flag(&e.Checksum)
}

func (p *packer) tally(t *script.Tally) {
	integer(p, &t.Count)
	integer(p, &t.Bytes)
	integer(p, &t.Right)
	text(p, &t.Wrong)
}

func (p *packer) dropped(d *script.Dropped) {
	count(p, &d.NoSocket)
	count(p, &d.NoRoom)
	integer(p, &d.Room)
}

func (p *packer) rules(r *Rules) { list(p, &r.Changes, (*packer).change) }

func (p *packer) change(c *script.Change) {
	list(p, &c.Kill, (*packer).flow)
	list(p, &c.Add, (*packer).rule)
	list(p, &c.Remove, text[string])
}
