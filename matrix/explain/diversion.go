package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"pfdivert/matrix/evidence"
	"pfdivert/pfconf"
)

// Diverted returns what is wrong with a rule that diverts packets of a family to a program,
// whoever's it is, and with the program's sockets. h is what the host answered when it was asked
// about such packets; what of it is about rules in general (Problems) is not said again.
func Diverted(d evidence.Diversion, f pfconf.Family, h HostFacts, listeners []evidence.Listener,
	firewall string) []Problem {
	if d.Firewall != "" {
		firewall = d.Firewall
	}
	c := Case{Firewall: firewall, Remote: h, Fake: netip.IPv4Unspecified(), Divert: d.DivertsTo(f)}
	if f == pfconf.Inet6 {
		c.Fake = netip.IPv6Unspecified()
	}
	var all []Problem
	add := func(code string, maybe bool) {
		p := c.problem(code, maybe)
		for _, old := range []string{"iptables-legacy", "ip6tables-legacy"} { // whose rules nft does not show
			if strings.HasPrefix(d.Rule, old) {
				p.Check = strings.ReplaceAll(p.Check, listRules, old+"-save")
			}
		}
		all = append(all, p)
	}
	if d.Unreached != "" {
		c.Detail = d.Unreached
		add("not-evaluated", false)
		if d.Fix != "" {
			all[len(all)-1].Mend = d.Fix
		}
	}
	for _, o := range d.Overruled {
		if o.Family != f {
			continue
		}
		c.Detail, c.others = o.Rule, o.Rule
		add(deed(o, firewall), !o.All || o.Does == evidence.LacksNIC || o.Does == evidence.Unowned)
	}
	if d.Table != "" {
		return all // whose sockets are not known
	}
	switch d.Kind {
	case evidence.DivertReply:
		return all // to the socket that sent
	case evidence.RdrTo:
		// A program can ask pf for the original destination: natlook.
	case evidence.Redirect:
		// A program can ask for TCP's original destination, with SO_ORIGINAL_DST; one for a single
		// port needs none.
		if d.Proto == "udp" && d.Ports {
			c.others = d.Rule
			add("destination-translated", true)
		}
	case evidence.Queue, evidence.Divert:
		unheard, dropped := h.queue(d, f)
		c.Detail = unheard
		switch {
		case unheard != "" && d.Bypass:
			add("queue-bypassed", false)
		case unheard != "":
			add("queue-unheard", false)
		case dropped:
			add("queue-full", true)
		}
		return all
	case evidence.Marks:
		return all
	case evidence.OfSocket:
		if d.Mark == 0 && !d.MarkUnknown && d.Unreached == "" {
			add("mark-not-set", false)
		}
		return all
	}
	// What never comes to the rule has no mark.
	if d.Kind == evidence.TProxy && d.Mark == 0 && !d.MarkUnknown && len(d.Interfaces) > 0 {
		add("mark-not-set", false)
	}
	if listeners == nil || d.Port == 0 || d.Proto != "" && d.Proto != "tcp" && d.Proto != "udp" {
		return all // not known, to the packet's own port, or to a raw socket
	}
	var there, elsewhere []evidence.Listener
	for _, l := range listeners {
		switch {
		case d.Proto != "" && l.Proto != d.Proto || !l.Takes(f):
		case l.At.Port() == d.Port && (!d.Address.IsValid() || l.At.Addr() == d.Address ||
			l.At.Addr().IsUnspecified() && d.Kind != evidence.DivertTo):
			// OpenBSD's divert-to finds a socket by the rule's address alone (in_pcblookup_listen).
			there = append(there, l)
		case l.At.Port() == d.Port || l.Transparent:
			elsewhere = append(elsewhere, l)
		}
	}
	// Where the rule says no address, tproxy takes the interface's, and a socket on another is not
	// found.
	loopback := func(l evidence.Listener) bool { return l.At.Addr().IsLoopback() }
	switch {
	case there == nil && elsewhere != nil:
		add("listener-elsewhere", false)
	case there == nil:
		add("no-listener", false)
	case !d.Address.IsValid() && !slices.ContainsFunc(there, func(l evidence.Listener) bool { return !loopback(l) }):
		add("listener-elsewhere", false)
	case d.Kind == evidence.TProxy && !slices.ContainsFunc(there,
		func(l evidence.Listener) bool { return l.Transparent || !l.Known }):
		add("not-transparent", false)
	}
	return all
}

// problem is the first cause with a code for the case's packet filter.
func (c *Case) problem(code string, maybe bool) Problem {
	for _, cause := range causes {
		if cause.Code == code && (cause.Firewalls == nil || slices.Contains(cause.Firewalls, c.Firewall)) {
			return cause.problem(c, maybe)
		}
	}
	panic("explain: there is no cause " + code)
}

// problem is the cause as one of a host.
func (c *Cause) problem(k *Case, maybe bool) Problem {
	a, fill := c.advice(k.Firewall), k.filler(c)
	return Problem{c.Code, maybe, fill.Replace(a.Likely), fill.Replace(a.Check), fill.Replace(a.Mend)}
}

// deed is the cause for what another rule does.
func deed(o evidence.Overruling, firewall string) string {
	switch o.Does {
	case evidence.Drops:
		switch {
		case o.Before:
			return "dropped-before"
		case firewall == nftables:
			return "dropped-after"
		}
		return "overruled" // pf's last rule decides
	case evidence.Clears:
		return "mark-cleared"
	case evidence.Translates:
		return "destination-translated"
	case evidence.Untracks:
		return "not-tracked"
	case evidence.Loops:
		return "own-traffic-diverted"
	case evidence.DropsAnswer:
		return "dropped-out"
	case evidence.Refuses:
		return "dropped-after"
	case evidence.LacksNIC, evidence.Unowned:
		return "not-evaluated"
	case evidence.PFLoops:
		return "pf-spoils-divert"
	case evidence.PFLoses:
		return "lost-by-divert"
	}
	return "overruled"
}

// queueNumbers says which queues a rule leads to.
func queueNumbers(d evidence.Diversion) string {
	switch {
	case d.Kind == evidence.Divert:
		return fmt.Sprintf("divert port %d", d.Queue)
	case d.Last > d.Queue:
		return fmt.Sprintf("queues %d-%d", d.Queue, d.Last)
	}
	return fmt.Sprintf("queue %d", d.Queue)
}

// queue tells which of a rule's queues no one takes, "" for none, and whether packets were dropped
// for want of room.
func (h *HostFacts) queue(d evidence.Diversion, f pfconf.Family) (unheard string, full bool) {
	var deaf []string
	for n := int(d.Queue); n <= int(d.Last); n++ {
		s := h.reader(d.Kind, uint16(n), f)
		switch {
		case s == nil && d.Kind == evidence.Divert:
			deaf = append(deaf, fmt.Sprintf("divert port %d", n))
		case s == nil:
			deaf = append(deaf, fmt.Sprintf("queue %d", n))
		default:
			full = full || queueDropped(*s)
		}
	}
	if len(deaf) > 1 && len(deaf) == int(d.Last-d.Queue)+1 {
		return queueNumbers(d), full
	}
	return strings.Join(deaf, ", "), full
}

// reader is the socket that takes a queue, nil when there is none.
func (h *HostFacts) reader(kind evidence.Kind, number uint16, f pfconf.Family) *evidence.SocketEntry {
	for i, s := range h.Sockets {
		// Netfilter's queues and FreeBSD's divert sockets are for both families, OpenBSD's each for
		// its own. fstat(1), which shows the latter, does not say of which port they are.
		if kind == evidence.Divert && strings.Contains(s.Text, "internet") {
			if pfconf.FamilyOf(s.Local.Addr()) != f {
				continue
			}
			return &h.Sockets[i]
		}
		if s.Proto == "divert" && s.Local.Port() == number {
			return &h.Sockets[i]
		}
	}
	return nil
}

// queueDropped reports whether packets were dropped for want of room.
func queueDropped(s evidence.SocketEntry) bool {
	return s.Proto == "divert" && strings.Contains(s.Text, "dropped ") &&
		!strings.Contains(s.Text, "dropped 0 by the full queue and 0 ")
}
