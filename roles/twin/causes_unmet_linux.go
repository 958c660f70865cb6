package twin

import (
	"fmt"
	"slices"
	"strings"
)

// untested is that rules divert and no flow could be run.
type untested struct{}

func (untested) Error() string {
	return "rules divert to a program, and no flow could be run: no device of this host is up, with a carrier and an address"
}

// Hint is the command that shows it.
func (untested) Hint() string { return "ip -br addr" }

// divertsTo reports whether a rule diverts to a program of the host.
func (d *doctor) divertsTo(s hookSeen) bool {
	return s.redirect || s.marks && (d.intends(s.set, false) || d.intends(s.set, true)) ||
		d.c.marksLocal(s.hint, false) || d.c.marksLocal(s.hint, true)
}

// diverts reports whether any rule does.
func (d *doctor) diverts() bool { return slices.ContainsFunc(d.hints.seen, d.divertsTo) }

// unmet warns of rules that divert what comes by a device, where no flow came by it: they are not
// tested.
func (d *doctor) unmet() {
	var order []string
	rules := map[string][]string{}
	checks := map[string]string{}
	for _, s := range d.hints.seen {
		in, ok := s.first(askIn)
		if s.hook != 0 || !ok || len(in.names) == 0 || !d.divertsTo(s) || slices.ContainsFunc(in.names, d.isMet) {
			continue
		}
		why, check := d.noClient(in.names)
		if rules[why] == nil {
			order = append(order, why)
		}
		if !slices.Contains(rules[why], s.where) {
			rules[why] = append(rules[why], s.where)
		}
		checks[why] = check
	}
	for _, why := range order {
		all := rules[why]
		if len(all) > 3 {
			all = append(all[:3:3], "…")
		}
		d.add(Problem{
			Severity: Warn, Cause: "not-met", What: "no flow meets what diverts: " + strings.Join(all, ", "), Why: why,
			Check: checks[why],
		})
	}
	other := slices.ContainsFunc(d.problems, func(p Problem) bool { return p.Cause != "listener-reachable" })
	came := slices.ContainsFunc(d.results, func(r FlowResult) bool {
		return r.Flow.Kind != Asked &&
			r.Reached == AtSocket && d.isProxy(r.Socket)
	})
	if !other && !came && slices.ContainsFunc(d.hints.seen, d.meetable) {
		d.add(Problem{
			Severity: Warn, Cause: "not-met", What: "rules divert to a program, and no flow came to one",
			Why: "no flow meets all that those rules ask for, or none could be sent", Check: "pfdivert doctor -v",
		})
	}
}

// meetable reports whether a rule leads packets to a listener, and asks for no mark that no rule
// sets: such marks are those of programs (eBPF of Cilium), and no flow has them.
func (d *doctor) meetable(s hookSeen) bool {
	return s.redirect && (!s.has(askMark, false) || slices.ContainsFunc(d.hints.all, func(h *hint) bool {
		return h.marks && h.set != 0 && s.takes(askMark, h.set)
	}))
}

// isMet reports whether a flow came by a device with a name, or with one that begins so. Ports of
// bridges are told of elsewhere.
func (d *doctor) isMet(name string) bool {
	if l := d.c.linkNamed(name); l != nil && l.Master != 0 {
		return true
	}
	return slices.ContainsFunc(d.results, func(r FlowResult) bool {
		if r.Flow.Local() {
			return matchName(name, "lo")
		}
		l := d.c.linkNamed(r.Flow.In)
		return matchName(name, r.Flow.In) || l != nil && matchName(name, d.c.holder(*l).Name)
	})
}

// noClient says why no client is behind any of some devices, with the command that shows it.
func (d *doctor) noClient(names []string) (why, check string) {
	for _, name := range names {
		if l := d.c.linkNamed(name); l != nil {
			return d.c.clientless(*l), "ip -d addr show " + name
		}
	}
	return fmt.Sprintf("this host has no device %s", strings.Join(names, ", ")), "ip -br link"
}

// clientless says why no client is behind a device.
func (c *Snapshot) clientless(l Link) string {
	mate := c.mate(l)
	switch {
	case mate != nil:
		return fmt.Sprintf("%s is a veth whose other end, %s, is on this host too: no client is behind it", l.Name, mate.Name)
	case !l.Up():
		return fmt.Sprintf("%s is down", l.Name)
	case !l.Carrier:
		return fmt.Sprintf("%s has no carrier", l.Name)
	case !slices.ContainsFunc(c.Addrs, func(a Addr) bool {
		return a.Index == l.Index &&
			!a.Local.IsLinkLocalUnicast()
	}):
		return fmt.Sprintf("%s has no address", l.Name)
	}
	return fmt.Sprintf("no client was put behind %s", l.Name)
}
