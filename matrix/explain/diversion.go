package explain

import (
	"net/netip"
	"slices"
	"strings"

	"pfdivert/pfconf"
	"pfdivert/roles/evidence"
)

// Diverted gives what is wrong with a rule that diverts packets of a family to a program, whoever's it is,
// and with the program's sockets. h is what the host answered when it was asked about such packets;
// what of it is about rules in general (Problems) is not said again.
func Diverted(d evidence.Diversion, f pfconf.Family, h Host, listeners []evidence.Listener, firewall string) []Problem {
	c := Case{Firewall: firewall, Remote: h, Fake: netip.IPv4Unspecified(), Divert: d.DivertsTo(f)}
	if f == pfconf.Inet6 {
		c.Fake = netip.IPv6Unspecified()
	}
	var all []Problem
	add := func(code string, maybe bool) { all = append(all, c.problem(code, maybe)) }
	if d.Unreached != "" {
		c.Detail = d.Unreached
		add("not-evaluated", false)
	}
	for _, o := range d.Overruled {
		if o.Family != f {
			continue
		}
		c.Detail = o.Rule
		if o.Drops && o.Before {
			add("dropped-before", !o.All)
		} else {
			add("overruled", !o.All)
		}
	}
	switch d.Kind {
	case evidence.DivertReply:
		return all // to the socket that sent
	case evidence.Redirect, evidence.RdrTo:
		// A program can ask for TCP's original destination, with SO_ORIGINAL_DST.
		add("destination-translated", d.Proto == "tcp")
	case evidence.Queue, evidence.Divert:
		switch queue := h.queue(d, f); {
		case queue == nil && d.Bypass:
			add("queue-bypassed", false)
		case queue == nil:
			add("queue-unheard", false)
		case queueDropped(*queue):
			add("queue-full", true)
		}
		return all
	}
	if d.Kind == evidence.TProxy && d.Mark == 0 {
		add("mark-not-set", false)
	}
	if listeners == nil || d.Port == 0 || d.Proto != "" && d.Proto != "tcp" && d.Proto != "udp" {
		return all // not known, to the packet's own port, or to a raw socket
	}
	var there, elsewhere []evidence.Listener
	for _, l := range listeners {
		switch {
		case d.Proto != "" && l.Proto != d.Proto || !l.Takes(f):
		case l.At.Port() == d.Port && (!d.Address.IsValid() || l.At.Addr() == d.Address || l.At.Addr().IsUnspecified()):
			there = append(there, l)
		case l.At.Port() == d.Port || l.Transparent:
			elsewhere = append(elsewhere, l)
		}
	}
	// Where the rule says no address, tproxy takes the interface's, and a socket on another is not found.
	loopback := func(l evidence.Listener) bool { return l.At.Addr().IsLoopback() }
	switch {
	case there == nil && elsewhere != nil:
		add("listener-elsewhere", false)
	case there == nil:
		add("no-listener", false)
	case !d.Address.IsValid() && !slices.ContainsFunc(there, func(l evidence.Listener) bool { return !loopback(l) }):
		add("listener-elsewhere", false)
	case d.Kind == evidence.TProxy && !slices.ContainsFunc(there, func(l evidence.Listener) bool { return l.Transparent || !l.Known }):
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

// queue is the socket that takes a rule's queue, nil when there is none.
func (h *Host) queue(d evidence.Diversion, f pfconf.Family) *evidence.Socket {
	for i, s := range h.Sockets {
		// Netfilter's queues are for both families, and OpenBSD's divert sockets each for its own.
		if d.Kind == evidence.Divert && strings.HasPrefix(s.Text, "divert") && pfconf.FamilyOf(s.Local.Addr()) != f {
			continue
		}
		if d.Kind == evidence.Divert && s.Proto == "divert" && s.Local.Port() == 0 {
			return &h.Sockets[i] // of which port is not known
		}
		if s.Proto == "divert" && d.Queue <= s.Local.Port() && s.Local.Port() <= d.Last {
			return &h.Sockets[i]
		}
	}
	return nil
}

// queueDropped tells whether packets were dropped for want of room.
func queueDropped(s evidence.Socket) bool {
	return s.Proto == "divert" && strings.Contains(s.Text, "dropped ") && !strings.Contains(s.Text, "dropped 0 by the full queue and 0 ")
}
