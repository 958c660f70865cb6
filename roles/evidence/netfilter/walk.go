package netfilter

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"pfdivert/pfconf"
)

// Packets are those that are followed: the first ones of flows, to any port.
type Packets struct {
	Family pfconf.Family
	Proto  uint8
	In     string         // the interface by which they come
	From   []netip.Prefix // who sends them
	Own    bool           // the host sends them
	Out    string         // the interface by which they leave, "" when it is not known
	UID    int            // who sends them, -1 for no one knows
	Mark   uint32         // that they have at the beginning
	Answer bool           // of a flow that conntrack knows
	Socket bool           // a transparent socket is theirs
	Local  bool           // they are for an address of the host
	// Addresses are the host's own.
	Addresses []netip.Addr
}

// state is what is known of some of them on their way.
type state struct {
	ports       spans // destination ports
	mark, known uint32
	marked      uint32 // the mark before it became 0
	markedBy    *Rule
	ctMark      uint32
	ctUnknown   bool
	untracked   bool
	untrackedBy *Rule
	taken       *Rule // of tproxy
	redirected  *Rule
	socket      bool // a rule asked for their transparent socket
	// picked: only some are these, by what is not known of packets. passed: a rule of this hook's
	// chain may have taken them out before. guarded: a rule before may have singled out the proxy's
	// own.
	picked, passed, guarded bool
	assumed                 map[string]bool // conditions that can't be known, met or not
}

// event is what a rule or a policy did to packets.
type event struct {
	does  Does
	rule  *Rule  // nil for a policy
	chain *Chain // whose policy it is
	ports spans
	sure  bool // to all of those
	state state
}

// by names the rule or policy, with its text.
func (e *event) by() string {
	if e.rule == nil {
		return e.chain.Where() + ": policy drop"
	}
	return e.rule.Where() + ": " + e.rule.Text()
}

const (
	maxStates  = 200
	maxAssumed = 32
	maxSteps   = 200000
	maxJumps   = 16 // NFT_JUMP_STACK_SIZE, include/net/netfilter/nf_tables.h
)

// walk follows packets.
type walk struct {
	set      *Ruleset
	packets  *Packets
	events   []event
	accepted []state // by the chain of a hook
	notes    map[string]bool
	steps    int      // rules that were looked at
	within   []*Chain // the chain that is followed, behind those that call it
}

func (r *Ruleset) begin(p *Packets) (*walk, []state) {
	s := state{ports: allPorts, mark: p.Mark, known: ^uint32(0)}
	if p.Own && p.Mark == 0 {
		s.known = 0 // a socket can have a mark of its own
	}
	return &walk{set: r, packets: p, notes: map[string]bool{}}, []state{s}
}

// hook sends states through the chains of a hook.
func (w *walk) hook(name string, in []state) []state {
	for _, c := range w.set.hooked(name, w.packets.Family) {
		var here, by []state
		for _, s := range in {
			s.passed = false
			// Address translation is for the first packets of flows that are tracked, once in each
			// direction.
			if c.Type == "nat" && (s.redirected != nil || s.untracked || w.packets.Answer) {
				by = append(by, s)
			} else {
				here = append(here, s)
			}
		}
		w.accepted = nil
		left := w.chain(c, here)
		if c.Drops {
			for _, s := range left {
				w.event(event{does: Drop, chain: c, ports: s.ports, sure: !s.picked && !s.passed, state: s})
			}
			left = nil
		}
		in = merge(slices.Concat(by, left, w.accepted))
	}
	w.accepted = nil
	return in
}

func (w *walk) event(e event) { w.events = append(w.events, e) }

// note says what is not understood.
func (w *walk) note(text string) { w.notes[text] = true }

// chain returns the states that come to its end, or return before.
func (w *walk) chain(c *Chain, in []state) []state {
	if len(w.within) > maxJumps || slices.Contains(w.within, c) { // the kernel allows neither
		w.note(c.Where() + ": chains call each other too deeply")
		return in
	}
	w.within = append(w.within, c)
	defer func() { w.within = w.within[:len(w.within)-1] }()
	var returned []state
	for _, r := range c.Rules {
		if len(in) == 0 {
			break
		}
		if w.steps += len(in); w.steps > maxSteps {
			w.note(c.Where() + ": there are more rules than are followed")
			break
		}
		var next []state
		for _, s := range in {
			more, back := w.rule(r, s)
			next, returned = append(next, more...), append(returned, back...)
		}
		if in = merge(next); len(in) > maxStates {
			w.note(c.Where() + ": there are too many ways through the rules, and not all are followed")
			in = in[:maxStates]
		}
	}
	return merge(append(in, returned...))
}

// rule returns the states that go on behind it, and those that leave its chain.
func (w *walk) rule(r *Rule, s state) (next, back []state) {
	in := []state{s}
	act := func(a *Action, some []state) (on []state) {
		for _, s := range some {
			if a.Does == TProxy && !w.tproxies(a) {
				next = append(next, s) // the kernel leaves the rule: nft_tproxy_eval, net/netfilter/nft_tproxy.c
				continue
			}
			stay, leave := w.act(r, a, s)
			on, back = append(on, stay...), append(back, leave...)
		}
		return on
	}
	for _, step := range r.Steps {
		switch {
		case step.Cond != nil:
			var met []state
			for _, s := range in {
				m, not := w.split(r, step.Cond, s)
				met, next = append(met, m...), append(next, not...)
			}
			in = met
		case step.Action != nil:
			in = act(step.Action, in)
		default:
			for i := range step.Choice {
				c := &step.Choice[i]
				var not []state
				for _, s := range in {
					m, n := w.split(r, &c.Cond, s)
					not = append(not, n...)
					next = append(next, act(&c.Action, m)...)
				}
				in = not
			}
			next, in = append(next, in...), nil
		}
	}
	return append(next, in...), back
}

// decides reports whether something happens to packets by the rule.
func (r *Rule) decides() bool {
	return slices.ContainsFunc(r.Steps, func(s Step) bool { return len(s.Choice) > 0 || s.Action != nil && s.Action.Does != 0 })
}

// split returns those that meet a condition, and the others.
func (w *walk) split(r *Rule, c *Cond, s state) (met, not []state) {
	if c.Field == Port {
		in := s.ports.and(c.In)
		out := s.ports.without(c.In)
		if c.Not {
			in, out = out, in
		}
		if w.packets.Proto != 6 && w.packets.Proto != 17 {
			in, out = nil, s.ports
		}
		a, b := s, s
		if a.ports = in; len(in) > 0 {
			met = []state{a}
		}
		if b.ports = out; len(out) > 0 {
			not = []state{b}
		}
		return met, not
	}
	if c.Field == Transparent && w.packets.Socket {
		s.socket = true
	}
	a := c.asks(w.packets, &s)
	if was, ok := s.assumed[c.Text]; ok && a == perhaps {
		a = sure(was)
	}
	switch {
	case a == yes:
		return []state{s}, nil
	case a == no:
		return nil, []state{s}
	}
	if c.Field == Unknown && r.decides() {
		w.note(fmt.Sprintf("%s: whether it takes packets that are diverted: %q is not understood", r.Where(), c.Text))
	}
	if c.identifies() {
		s.guarded = true
	}
	on, off := s, s
	on.picked = true
	off.passed = off.passed || r.decides()
	if len(s.assumed) < maxAssumed {
		on.assumed, off.assumed = maps.Clone(s.assumed), maps.Clone(s.assumed)
		if s.assumed == nil {
			on.assumed, off.assumed = map[string]bool{}, map[string]bool{}
		}
		on.assumed[c.Text], off.assumed[c.Text] = true, false
	}
	return []state{on}, []state{off}
}

// act does what an action does, and gives those that stay in the rule and those that leave
// its chain.
func (w *walk) act(r *Rule, a *Action, s state) (stay, leave []state) {
	switch a.Does {
	case Accept:
		w.event(event{does: Accept, rule: r, ports: s.ports, sure: !s.picked && !s.passed, state: s})
		w.accepted = append(w.accepted, s)
		return nil, nil
	case Drop:
		w.event(event{does: Drop, rule: r, ports: s.ports, sure: !s.picked && !s.passed, state: s})
		return nil, nil
	case Return:
		w.event(event{does: Return, rule: r, ports: s.ports, sure: !s.picked && !s.passed, state: s})
		return nil, []state{s}
	case Jump, Goto:
		c := w.set.called(r.Chain, a.Chain)
		if c == nil {
			w.note(r.Where() + ": the chain that it calls is not known")
			break
		}
		left := w.chain(c, []state{s})
		if a.Does == Jump {
			return left, nil
		}
		return nil, left
	case SetMark:
		old := s.mark
		s.mark, s.known = s.mark&a.And^a.Xor, s.known|^a.And
		if a.MarkUnknown {
			s.mark, s.known = 0, 0
		}
		s.remark(old, r)
	case SaveMark:
		s.ctMark, s.ctUnknown = s.mark, s.known != ^uint32(0)
		if a.MarkUnknown {
			s.ctUnknown = true
		}
	case RestoreMark:
		old := s.mark
		s.mark, s.known = s.mark&a.And|s.ctMark&^a.And, s.known|^a.And
		if s.ctUnknown {
			s.known &= a.And
		}
		s.remark(old, r)
	case TProxy:
		w.event(event{does: TProxy, rule: r, ports: s.ports, sure: true, state: s})
		s.taken, s.picked, s.passed = r, false, false
	case Redirect, NATAway:
		w.event(event{does: a.Does, rule: r, ports: s.ports, sure: !s.picked && !s.passed, state: s})
		if a.Does == NATAway && s.taken == nil {
			return nil, nil
		}
		s.redirected, s.picked = r, false
		if len(a.Ports) > 0 {
			s.ports = nil
			for _, p := range a.Ports {
				s.ports = s.ports.or(just(uint64(p)))
			}
		}
		w.accepted = append(w.accepted, s)
		return nil, nil
	case Queue:
		w.event(event{does: Queue, rule: r, ports: s.ports, sure: true, state: s})
		w.accepted = append(w.accepted, s)
		return nil, nil
	case Notrack:
		s.untracked, s.untrackedBy = true, r
	case Ends:
		return nil, nil
	default:
		if a.Unknown != "" {
			w.note(fmt.Sprintf("%s: what happens to packets: %q", r.Where(), a.Text))
		}
	}
	return []state{s}, nil
}

// tproxies reports whether tproxy is for the packets.
func (w *walk) tproxies(a *Action) bool {
	v6 := w.packets.Family == pfconf.Inet6
	return (a.Family == "" || (a.Family == "ip6") == v6) && slices.Contains(inProtos, w.packets.Proto)
}

// remark notes who changed the mark.
func (s *state) remark(old uint32, r *Rule) {
	if s.mark == 0 && old != 0 {
		s.marked = old
	}
	if s.mark != old {
		s.markedBy = r
	}
}

// merge joins states that differ in nothing but ports and how they came there.
func merge(all []state) []state {
	var some []state
next:
	for _, s := range all {
		for i := range some {
			if o := &some[i]; o.alike(s) {
				o.ports = o.ports.or(s.ports)
				o.picked, o.passed, o.guarded = o.picked && s.picked, o.passed || s.passed, o.guarded || s.guarded
				o.assumed = maps.Clone(o.assumed)
				maps.DeleteFunc(o.assumed, func(text string, met bool) bool {
					was, ok := s.assumed[text]
					return !ok || was != met
				})
				continue next
			}
		}
		some = append(some, s)
	}
	return some
}

// alike reports whether the same happens to both.
func (s *state) alike(o state) bool {
	return s.mark == o.mark && s.known == o.known && s.marked == o.marked && s.ctMark == o.ctMark && s.ctUnknown == o.ctUnknown &&
		s.untracked == o.untracked && s.taken == o.taken && s.redirected == o.redirected && s.socket == o.socket
}
