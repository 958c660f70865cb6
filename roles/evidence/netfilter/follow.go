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
	// Local reports whether a mark leads to where addresses are local, or is meant to.
	Local func(mark uint32, f pfconf.Family) bool
	// Owner returns the user whose socket listens on a port, -1 when no one knows.
	Owner func(proto uint8, port uint16, f pfconf.Family) int
}

// Interface is one by which packets come.
type Interface struct {
	Name  string
	Nets  []netip.Prefix // of its addresses
	Lower bool           // it has no addresses of its own
}

// Fate is what happens to packets that a rule diverts, other than meant.
type Fate struct {
	What What
	By   string // the rule or policy that does it
	All  bool   // of all the rule's packets, else of some ports'
}

// What happens to packets.
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
	// Socket: it takes what belongs to a transparent socket, and only marks it. Marks: it only
	// marks what is for some other socket.
	Socket, Marks bool
	// Interfaces are those by which packets come that it takes. Ports: they are to more ports than
	// one.
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

// callers returns the hooks from which a chain is called.
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

// diverts returns the rule's action that does.
func (r *Rule) diverts() *Action {
	for _, s := range r.Steps {
		if s.Action != nil && (s.Action.Does == TProxy || s.Action.Does == Redirect || s.Action.Does == Queue) {
			return s.Action
		}
	}
	return nil
}

// wants returns the ports of those packets that meet a rule's own conditions.
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

// Follow returns the rules that divert to programs, and what happens to their packets; and what
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

// takes reports whether a rule's conditions let it take packets of a family and a protocol,
// whatever else they are.
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

// queues returns a rule that hands packets to queues, of whatever protocol.
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
