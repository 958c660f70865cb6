package agent

import (
	"net/netip"
	"slices"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
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

// A kind is one of the types of an interface, with the function that packs it. Its number on the
// wire is its place in the list.
type kind[I any] struct {
	zero I
	is   func(I) bool
	pack func(*packer, I) I
}

func kindOf[T any, I any](pack func(*packer, *T)) kind[I] {
	var zero T
	return kind[I]{
		zero: any(zero).(I),
		is:   func(v I) bool { _, ok := any(v).(T); return ok },
		pack: func(p *packer, v I) I {
			t, _ := any(v).(T) // zero when unpacking
			pack(p, &t)
			return any(t).(I)
		},
	}
}

func stepOf[T any](pack func(*packer, *T)) kind[script.Step] { return kindOf[T, script.Step](pack) }

func socketOf[T any](pack func(*packer, *T)) kind[script.Socket] {
	return kindOf[T, script.Socket](pack)
}

// oneOf packs a value of one of the kinds; nil is an error.
func oneOf[I any](p *packer, v *I, kinds []kind[I]) {
	number := uint8(len(kinds))
	if !p.unpack {
		number = uint8(slices.IndexFunc(kinds, func(k kind[I]) bool { return k.is(*v) }))
	}
	count(p, &number)
	if int(number) >= len(kinds) {
		p.fail(errChoice)
		return
	}
	*v = kinds[number].pack(p, *v)
}

func (p *packer) step(s *script.Step) { oneOf(p, s, stepKinds) }

var stepKinds = []kind[script.Step]{
	stepOf(func(p *packer, s *script.Open) {
		text(p, &s.Socket)
		oneOf(p, &s.Spec, socketKinds)
		text(p, &s.Process)
	}),
	stepOf(func(p *packer, s *script.Connect) { text(p, &s.Socket) }),
	stepOf(func(p *packer, s *script.Connected) { text(p, &s.Socket) }),
	stepOf(func(p *packer, s *script.Accept) { text(p, &s.Socket) }),
	stepOf(func(p *packer, s *script.Send) {
		text(p, &s.Socket)
		text(p, &s.Data)
		count(p, &s.Seq)
	}),
	stepOf(func(p *packer, s *script.Receive) { text(p, &s.Socket) }),
	stepOf(func(p *packer, s *script.Relay) {
		text(p, &s.Socket)
		text(p, &s.Old)
		text(p, &s.New)
	}),
	stepOf(func(p *packer, s *script.RelayAll) {
		text(p, &s.Socket)
		list(p, &s.Rewrites, (*packer).rewrite)
	}),
	stepOf(func(p *packer, s *script.SendBurst) {
		text(p, &s.Socket)
		p.burst(&s.Burst)
	}),
	stepOf(func(p *packer, s *script.ReceiveBurst) {
		text(p, &s.Socket)
		p.burst(&s.Burst)
	}),
	stepOf(func(p *packer, s *script.RelayBurst) {
		text(p, &s.Socket)
		p.burst(&s.Burst)
		text(p, &s.Line)
	}),
	stepOf(func(p *packer, s *script.Turn) {
		text(p, &s.Socket)
		text(p, &s.Old)
		text(p, &s.New)
		p.addr(&s.In)
	}),
	stepOf(func(p *packer, s *script.Rest) {
		text(p, &s.Socket)
		maybe(p, &s.Want, integer[int])
	}),
	stepOf(func(p *packer, s *script.CloseConn) { text(p, &s.Socket) }),
	stepOf(func(p *packer, s *script.Close) { text(p, &s.Socket) }),
	stepOf(func(p *packer, s *script.Fence) { choice(p, &s.Family, families) }),
	stepOf(func(p *packer, s *script.Counters) {
		text(p, &s.Label)
		maybe(p, &s.Want, (*packer).counters)
	}),
	stepOf(func(p *packer, s *script.Lookup) { p.flow(&s.Flow) }),
	stepOf(func(p *packer, s *script.Kill) { p.flow(&s.Flow) }),
	stepOf(func(p *packer, s *script.DropTCP) {
		p.addrPort(&s.Near)
		p.addrPort(&s.Far)
		p.flag(&s.Expected)
	}),
	stepOf(func(p *packer, s *script.TCPState) {
		p.addrPort(&s.Near)
		p.addrPort(&s.Far)
		text(p, &s.State)
	}),
	stepOf(func(p *packer, s *script.Undelivered) {
		choice(p, &s.Family, families)
		count(p, &s.Port)
	}),
	stepOf(func(p *packer, s *script.Natlook) { p.natQuery(&s.Query) }),
}

var socketKinds = []kind[script.Socket]{
	socketOf(func(p *packer, s *script.Stream) { p.ends(&s.Ends) }),
	socketOf(func(p *packer, s *script.Datagram) {
		p.ends(&s.Ends)
		p.flag(&s.Arrival)
	}),
	socketOf(func(p *packer, s *script.RawIP) {
		p.ends(&s.Ends)
		p.addr(&s.Only)
	}),
	socketOf(func(p *packer, s *script.Echo) {
		p.ends(&s.Ends)
		p.addr(&s.Only)
		count(p, &s.ID)
	}),
	socketOf(func(p *packer, s *script.Divert) {
		p.addrPort(&s.Local)
		p.flag(&s.Big)
		text(p, &s.Spoil)
		text(p, &s.Call)
		p.flag(&s.Fragments)
		p.addr(&s.WriteTo)
		p.flag(&s.Unprivileged)
		integer(p, &s.Queue)
		list(p, &s.Omit, text[script.Piece])
	}),
}

func (p *packer) ends(e *script.Ends) {
	text(p, &e.Role)
	p.addrPort(&e.Local)
	p.addrPort(&e.Remote)
	p.flag(&e.Bindany)
	p.flag(&e.Diverted)
	p.flag(&e.Reuse)
	p.flag(&e.Big)
	list(p, &e.Omit, text[script.Piece])
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
