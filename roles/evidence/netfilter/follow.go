package netfilter

import (
	"net/netip"
	"slices"

	"pfdivert/pfconf"
)

// Host is what must be known of a host besides its rules.
type Host struct {
	Interfaces []Interface
	Addresses  []netip.Addr // of all interfaces
	// Leaves is the interface of the default route by family, "" for none.
	Leaves map[pfconf.Family]string
	// Local tells whether a mark leads to where addresses are local, or is meant to.
	Local func(mark uint32, f pfconf.Family) bool
	// Owner gives the user whose socket listens on a port, -1 when nobody knows.
	Owner func(proto uint8, port uint16, f pfconf.Family) int
}

// Interface is one by which packets come.
type Interface struct {
	Name  string
	Nets  []netip.Prefix // of its addresses
	Lower bool           // it has no addresses of its own
}

// Fate is what becomes of packets that a rule diverts, other than meant.
type Fate struct {
	What What
	By   string // the rule or policy that does it
	All  bool   // of all the rule's packets, else of some ports'
}

// What becomes of packets.
type What string

// Fates.
const (
	DroppedBefore What = "dropped-before" // they never come to the rule
	PassedBefore  What = "passed-before"
	DroppedAfter  What = "dropped-after"
	MarkCleared   What = "mark-cleared"
	Translated    What = "translated"  // of tproxy: their destination is changed besides
	Untracked     What = "untracked"   // of redirect: they are not translated
	Looped        What = "looped"      // the proxy's own come to the proxy
	NoInterface   What = "interface"   // there is none by which they could come
	AnswerDropped What = "dropped-out" // what the proxy answers
)

// Diverted is a rule that diverts packets of a family and a protocol to a program.
type Diverted struct {
	Rule   *Rule
	Action *Action
	Family pfconf.Family
	Proto  uint8 // 0 for any
	// Unreached says why no packet comes to the rule, whatever it is.
	Unreached string
	Fates     []Fate
	// Mark is what the packets have when they are routed. Marked: it is known.
	Mark   uint32
	Marked bool
	// Socket: it takes what belongs to a transparent socket, and only marks it. Marks: it only marks what is for some
	// other socket.
	Socket, Marks bool
	// Interfaces are those by which packets come that it takes. Ports: they are to more ports than one.
	Interfaces []string
	Ports      bool
}

// inProtos are those whose packets are followed.
var inProtos = []uint8{6, 17}

// own makes of a translation to an own address one that redirects.
func (r *Ruleset) own(h *Host) {
	for _, c := range r.Chains {
		for _, rule := range c.Rules {
			for _, s := range rule.Steps {
				if a := s.Action; a != nil && a.Does == NATAway && (a.Address.IsLoopback() || slices.Contains(h.Addresses, a.Address) || !a.Address.IsValid()) {
					a.Does = Redirect
				}
			}
		}
	}
}

// callers gives the hooks from which a chain is called.
func (r *Ruleset) callers(c *Chain) []string {
	var all []string
	seen := map[*Chain]bool{}
	var up func(c *Chain)
	up = func(c *Chain) {
		if seen[c] {
			return
		}
		seen[c] = true
		if c.Hook != "" {
			all = append(all, c.Hook)
		}
		for _, o := range r.Chains {
			if o.Table != c.Table || o.Family != c.Family || o.Program != c.Program || seen[o] {
				continue
			}
			if slices.ContainsFunc(o.Rules, func(rule *Rule) bool { return rule.calls(c.Name) }) {
				up(o)
			}
		}
	}
	up(c)
	return all
}

func (r *Rule) calls(chain string) bool {
	is := func(a *Action) bool { return (a.Does == Jump || a.Does == Goto) && a.Chain == chain }
	return slices.ContainsFunc(r.Steps, func(s Step) bool {
		return s.Action != nil && is(s.Action) || slices.ContainsFunc(s.Choice, func(c Chosen) bool { return is(&c.Action) })
	})
}

// diverts gives the rule's action that does.
func (r *Rule) diverts() *Action {
	for _, s := range r.Steps {
		if s.Action != nil && (s.Action.Does == TProxy || s.Action.Does == Redirect || s.Action.Does == Queue) {
			return s.Action
		}
	}
	return nil
}

// wants gives the ports of those packets that meet a rule's own conditions.
func (w *walk) wants(r *Rule, s state) spans {
	in := []state{s}
	for _, step := range r.Steps {
		if step.Cond == nil {
			if step.Action != nil && step.Action == r.diverts() {
				break
			}
			continue
		}
		var met []state
		for _, s := range in {
			m, _ := w.split(r, step.Cond, s)
			met = append(met, m...)
		}
		in = met
	}
	var all spans
	for _, s := range in {
		all = all.or(s.ports)
	}
	return all
}

// way is what was seen of packets that came in by an interface, or that the host sent.
type way struct {
	packets  Packets
	walk     *walk
	routed   []state // behind prerouting
	atSocket []state
}

// come follows packets that come in by an interface, to a socket of the host.
func (r *Ruleset) come(p Packets) *way {
	y := &way{packets: p}
	w, in := r.begin(&y.packets)
	y.walk = w
	y.routed = w.hook("prerouting", in)
	var here []state
	for _, s := range y.routed {
		if s.taken != nil || s.redirected != nil || s.socket {
			here = append(here, s)
		}
	}
	y.atSocket = w.hook("input", here)
	return y
}

// leave follows packets that the host sends.
func (r *Ruleset) leave(p Packets) *way {
	y := &way{packets: p}
	p.Own = true
	y.packets.Own = true
	w, in := r.begin(&y.packets)
	y.walk = w
	y.routed = w.hook("output", in)
	return y
}

// Follow gives the rules that divert to programs, and what becomes of their packets; and what
// could not be understood.
func (r *Ruleset) Follow(h *Host) ([]Diverted, []string) {
	r.own(h)
	notes := map[string]bool{}
	type key struct {
		family pfconf.Family
		proto  uint8
	}
	ways := map[key][]*way{}
	for _, f := range pfconf.Families {
		for _, proto := range inProtos {
			for _, i := range h.Interfaces {
				ways[key{f, proto}] = append(ways[key{f, proto}], r.come(Packets{Family: f, Proto: proto, In: i.Name, From: ofFamily(i.Nets, f), UID: -1, Addresses: h.Addresses}))
			}
		}
	}
	var all []Diverted
	for _, c := range r.Chains {
		if c.Hook == "another" {
			continue
		}
		var callers []string
		for _, rule := range c.Rules {
			a := rule.diverts()
			if a == nil {
				continue
			}
			if callers == nil {
				callers = r.callers(c)
			}
			for _, f := range pfconf.Families {
				if !c.of(f) || a.Family == "ip" && f == pfconf.Inet6 || a.Family == "ip6" && f == pfconf.Inet {
					continue
				}
				if a.Does == Queue {
					if d, ok := r.queues(rule, a, f); ok {
						d.Unreached = unreached(c, callers)
						all = append(all, d)
					}
					continue
				}
				for _, proto := range inProtos {
					d := Diverted{Rule: rule, Action: a, Family: f, Proto: proto, Unreached: unreached(c, callers), Marked: true}
					if !r.takes(rule, f, proto, h) {
						continue
					}
					if d.Unreached == "" {
						d.judge(r, h, ways[key{f, proto}], slices.Contains(callers, "prerouting"), slices.Contains(callers, "output"))
					}
					all = append(all, d)
				}
			}
		}
	}
	for _, some := range ways {
		for _, y := range some {
			for n := range y.walk.notes {
				notes[n] = true
			}
		}
	}
	all = append(all, r.ofSockets(h)...)
	for _, d := range marking(h, slices.Concat(ways[key{pfconf.Inet, 6}], ways[key{pfconf.Inet6, 6}], ways[key{pfconf.Inet, 17}], ways[key{pfconf.Inet6, 17}])) {
		if !slices.ContainsFunc(all, func(o Diverted) bool { return o.Family == d.Family && o.Mark == d.Mark }) {
			all = append(all, d)
		}
	}
	var said []string
	for n := range notes {
		said = append(said, n)
	}
	slices.Sort(said)
	return all, said
}

func ofFamily(nets []netip.Prefix, f pfconf.Family) []netip.Prefix {
	var all []netip.Prefix
	for _, n := range nets {
		if pfconf.FamilyOf(n.Addr()) == f {
			all = append(all, n)
		}
	}
	return all
}

func unreached(c *Chain, callers []string) string {
	switch {
	case c.Dormant:
		return "its table is dormant"
	case len(callers) == 0:
		return "no chain with a hook jumps to its chain"
	}
	return ""
}

// takes tells whether a rule's conditions let it take packets of a family and a protocol, whatever else
// they are.
func (r *Ruleset) takes(rule *Rule, f pfconf.Family, proto uint8, h *Host) bool {
	p := Packets{Family: f, Proto: proto, UID: -1, Addresses: h.Addresses}
	for _, s := range rule.Steps {
		if s.Cond == nil {
			continue
		}
		switch s.Cond.Field {
		case Proto, NFProto:
			if s.Cond.asks(&p, &state{}) == no {
				return false
			}
		}
	}
	return true
}

// queues gives a rule that hands packets to queues, of whatever protocol.
func (r *Ruleset) queues(rule *Rule, a *Action, f pfconf.Family) (Diverted, bool) {
	d := Diverted{Rule: rule, Action: a, Family: f, Marked: true}
	asked := false
	for _, s := range rule.Steps {
		if s.Cond == nil {
			continue
		}
		switch s.Cond.Field {
		case NFProto:
			if s.Cond.asks(&Packets{Family: f}, &state{}) == no {
				return d, false
			}
		case Proto:
			if !s.Cond.Not && len(s.Cond.In) == 1 && s.Cond.In[0].lo == s.Cond.In[0].hi && !asked {
				d.Proto = uint8(s.Cond.In[0].lo)
			}
			asked = true
		}
	}
	return d, true
}

// judge says what becomes of the packets that a rule is to divert.
func (d *Diverted) judge(r *Ruleset, h *Host, ways []*way, comes, leaves bool) {
	if comes {
		d.arriving(r, ways)
	}
	if leaves && d.Action.Does == Redirect || d.Action.Does == TProxy {
		d.looping(r, h)
	}
	if d.Action.Does == TProxy && len(d.Interfaces) > 0 {
		d.answering(r, h)
	}
}

// arriving looks at packets that come in.
func (d *Diverted) arriving(r *Ruleset, ways []*way) {
	type count struct{ wanted, taken, dropped, after, translated, cleared, untracked spans }
	by := map[What]string{}
	var all []count
	first := func(what What, text string) {
		if by[what] == "" {
			by[what] = text
		}
	}
	marks := map[uint32]bool{}
	wanting := false
	for _, y := range ways {
		var c count
		w, in := y.walk.set.begin(&y.packets)
		in[0].known = 0 // any mark, as rules before may set one
		if c.wanted = w.wants(d.Rule, in[0]); len(c.wanted) == 0 {
			continue
		}
		wanting = true
		d.Ports = d.Ports || len(c.wanted) > 1 || c.wanted[0].lo != c.wanted[0].hi
		for _, e := range y.walk.events {
			switch {
			case e.rule == d.Rule && (e.does == TProxy || e.does == Redirect):
				c.taken = c.taken.or(e.ports)
				if e.does == Redirect && e.state.untracked {
					c.untracked = c.untracked.or(e.ports)
				}
			case e.does == Drop && e.sure && e.state.taken == nil && e.state.redirected == nil && len(c.taken) == 0:
				if lost := e.ports.and(c.wanted); len(lost) > 0 {
					c.dropped = c.dropped.or(lost)
					first(DroppedBefore, e.by())
				}
			case e.does == Drop && e.sure && (e.state.taken == d.Rule || e.state.redirected == d.Rule):
				c.after = c.after.or(e.ports)
				first(DroppedAfter, e.by())
			case (e.does == Redirect || e.does == NATAway) && e.sure && e.state.taken == d.Rule:
				c.translated = c.translated.or(e.ports)
				first(Translated, e.by())
			}
		}
		for _, s := range y.routed {
			if s.untrackedBy != nil && d.Action.Does == Redirect && s.redirected == nil && !s.picked && len(s.ports.and(c.wanted)) > 0 {
				c.untracked = c.untracked.or(s.ports.and(c.wanted))
				first(Untracked, s.untrackedBy.Where()+": "+s.untrackedBy.Text())
			}
			if s.taken != d.Rule {
				continue
			}
			d.Marked = d.Marked && s.known == ^uint32(0)
			if s.mark == 0 && s.marked != 0 && s.known == ^uint32(0) && s.markedBy != nil {
				c.cleared = c.cleared.or(s.ports)
				first(MarkCleared, s.markedBy.Where()+": "+s.markedBy.Text())
				marks[s.marked] = true
			} else {
				marks[s.mark] = true
			}
		}
		if len(c.taken) > 0 {
			d.Interfaces = append(d.Interfaces, y.packets.In)
		} else if len(c.dropped) == 0 && len(c.untracked) == 0 {
			for _, e := range y.walk.events { // who had them
				if (e.does == Accept || e.does == Return || e.does == Redirect || e.does == TProxy) && e.sure && e.rule != d.Rule &&
					e.rule.Chain.Hook+e.rule.Chain.Table != "" && sameTable(e.rule, d.Rule) && len(c.wanted.without(e.ports)) == 0 {
					first(PassedBefore, e.by())
				}
			}
		}
		all = append(all, c)
	}
	for m := range marks {
		if d.Mark == 0 || m != 0 && m < d.Mark {
			d.Mark = m
		}
	}
	if !wanting && !d.own(r) {
		d.Fates = append(d.Fates, Fate{NoInterface, "there is no interface by which they could come", true})
		return
	}
	// Where a rule names no interface, packets may come by one alone, and nobody knows which: something becomes
	// of them when it does on all.
	fate := func(what What, of func(count) spans, from func(count) spans) {
		every, some := true, true
		n := 0
		for _, c := range all {
			if len(from(c)) == 0 {
				continue
			}
			n++
			hit := of(c)
			every = every && len(from(c).without(hit)) == 0
			some = some && len(hit) > 0
		}
		if n > 0 && some {
			d.Fates = append(d.Fates, Fate{what, by[what], every})
		}
	}
	wanted := func(c count) spans { return c.wanted }
	// After a translation the ports are others.
	after := func(c count) spans {
		if d.Action.Does == Redirect && len(d.Action.Ports) > 0 && len(c.taken) > 0 {
			var all spans
			for _, p := range d.Action.Ports {
				all = all.or(just(uint64(p)))
			}
			return all
		}
		return c.taken
	}
	fate(DroppedBefore, func(c count) spans { return c.dropped }, wanted)
	fate(Untracked, func(c count) spans { return c.untracked }, wanted)
	fate(DroppedAfter, func(c count) spans { return c.after }, after)
	fate(Translated, func(c count) spans { return c.translated }, after)
	fate(MarkCleared, func(c count) spans { return c.cleared }, after)
	if len(d.Interfaces) == 0 && len(d.Fates) == 0 && by[PassedBefore] != "" {
		d.Fates = append(d.Fates, Fate{PassedBefore, by[PassedBefore], true})
	}
}

// own tells whether the rule is for what the host sends itself, and a policy rule sends back by lo.
func (d *Diverted) own(r *Ruleset) bool {
	w, in := r.begin(&Packets{Family: d.Family, Proto: d.Proto, In: "lo", UID: -1})
	in[0].known = 0
	return len(w.wants(d.Rule, in[0])) > 0
}

// sameTable tells whether a rule that accepts keeps packets from another one: those of one
// chain's hook and what it calls.
func sameTable(a, b *Rule) bool {
	return a.Chain.Table == b.Chain.Table && a.Chain.Family == b.Chain.Family && a.Chain.Program == b.Chain.Program
}

// looping looks whether what the proxy itself sends comes to it.
func (d *Diverted) looping(r *Ruleset, h *Host) {
	port := uint16(0)
	if len(d.Action.Ports) > 0 {
		port = d.Action.Ports[0]
	}
	p := Packets{Family: d.Family, Proto: d.Proto, Out: h.Leaves[d.Family], UID: h.Owner(d.Proto, port, d.Family), Addresses: h.Addresses}
	y := r.leave(p)
	if d.Action.Does == Redirect {
		for _, e := range y.walk.events {
			if e.rule == d.Rule && e.does == Redirect && !e.state.picked && !e.state.guarded {
				d.Fates = append(d.Fates, Fate{Looped, e.by(), true})
				return
			}
		}
		return
	}
	for _, s := range y.routed {
		if s.guarded || s.picked || s.mark == 0 || s.mark != d.Mark || s.markedBy == nil {
			continue
		}
		back := r.come(Packets{Family: d.Family, Proto: d.Proto, In: "lo", UID: -1, Mark: s.mark, Addresses: h.Addresses})
		for _, e := range back.walk.events {
			if e.rule == d.Rule && e.does == TProxy && len(e.ports.and(s.ports)) > 0 && !e.state.picked {
				d.Fates = append(d.Fates, Fate{Looped, s.markedBy.Where() + ": " + s.markedBy.Text(), true})
				return
			}
		}
	}
}

// answering looks whether what the proxy answers, from the original destination, leaves.
func (d *Diverted) answering(r *Ruleset, h *Host) {
	var by string
	for _, i := range d.Interfaces {
		y := r.leave(Packets{Family: d.Family, Proto: d.Proto, Out: i, UID: -1, Answer: true, Addresses: h.Addresses})
		in := y.routed
		y.walk.hook("postrouting", in)
		lost := false
		for _, e := range y.walk.events {
			if e.does == Drop && e.sure && len(allPorts.without(e.ports)) == 0 {
				lost, by = true, e.by()
			}
		}
		if !lost {
			return
		}
	}
	if by != "" {
		d.Fates = append(d.Fates, Fate{AnswerDropped, by, true})
	}
}

// ofSockets gives the rules that mark what belongs to a transparent socket.
func (r *Ruleset) ofSockets(h *Host) []Diverted {
	var all []Diverted
	for _, c := range r.Chains {
		if c.Hook == "another" {
			continue
		}
		var callers []string
		for _, rule := range c.Rules {
			if !slices.ContainsFunc(rule.Steps, func(s Step) bool { return s.Cond != nil && s.Cond.Field == Transparent }) || rule.diverts() != nil {
				continue
			}
			callers = r.callers(c)
			for _, f := range pfconf.Families {
				if !c.of(f) || !r.takes(rule, f, 6, h) && !r.takes(rule, f, 17, h) {
					continue
				}
				d := Diverted{Rule: rule, Family: f, Proto: 6, Socket: true, Marked: true, Unreached: unreached(c, callers)}
				if !r.takes(rule, f, 6, h) {
					d.Proto = 17
				}
				if d.Unreached == "" {
					if !slices.Contains(callers, "prerouting") || !d.markOf(r, h) {
						continue
					}
				}
				all = append(all, d)
			}
		}
	}
	return all
}

// markOf finds what mark packets of a transparent socket have when they are routed, and false
// when none comes to the rule.
func (d *Diverted) markOf(r *Ruleset, h *Host) bool {
	found := false
	for _, i := range h.Interfaces {
		y := r.come(Packets{Family: d.Family, Proto: d.Proto, In: i.Name, From: ofFamily(i.Nets, d.Family), UID: -1, Addresses: h.Addresses, Answer: true, Socket: true})
		w, in := r.begin(&y.packets)
		in[0].known = 0
		if len(w.wants(d.Rule, in[0])) == 0 {
			continue
		}
		for _, s := range y.routed {
			if !s.socket {
				continue
			}
			found = true
			d.Marked = d.Marked && s.known == ^uint32(0)
			d.Mark = max(d.Mark, s.mark)
			if d.Marked && s.mark == 0 && s.marked != 0 && s.markedBy != nil && len(d.Fates) == 0 {
				d.Fates = append(d.Fates, Fate{MarkCleared, s.markedBy.Where() + ": " + s.markedBy.Text(), true})
				d.Mark = s.marked
			}
			if !slices.Contains(d.Interfaces, i.Name) {
				d.Interfaces = append(d.Interfaces, i.Name)
			}
		}
	}
	return found
}

// marking gives the rules whose mark makes packets local, without tproxy: those back to a proxy that
// uses its clients' addresses.
func marking(h *Host, ways []*way) []Diverted {
	var all []Diverted
	for _, y := range ways {
		for _, s := range y.routed {
			if s.mark == 0 || s.known != ^uint32(0) || s.markedBy == nil || s.taken != nil || s.redirected != nil || !h.Local(s.mark, y.packets.Family) {
				continue
			}
			d := Diverted{Rule: s.markedBy, Family: y.packets.Family, Proto: y.packets.Proto, Marks: true, Mark: s.mark, Marked: true, Interfaces: []string{y.packets.In}}
			i := slices.IndexFunc(all, func(o Diverted) bool {
				return o.Rule == d.Rule && o.Family == d.Family && o.Proto == d.Proto && o.Mark == d.Mark
			})
			if i >= 0 {
				all[i].Interfaces = append(all[i].Interfaces, y.packets.In)
			} else {
				all = append(all, d)
			}
		}
	}
	return all
}
