package twin

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// intends reports whether packets with a mark are meant for a listener: the mark is routed to the
// host itself, or a rule that asks for it or sets it is a tproxy rule.
func (d *doctor) intends(mark uint32, six bool) bool {
	if mark == 0 {
		return false
	}
	return d.c.routesLocal(mark, six) || slices.ContainsFunc(d.hints.seen, func(s hookSeen) bool {
		return s.tproxy && s.of(six) && (s.marks && s.set == mark || slices.ContainsFunc(s.asks, func(a ask) bool {
			return a.what == askMark && !a.not && slices.ContainsFunc(a.spans,
				func(x span) bool { return mark&a.mask >= x.lo && mark&a.mask <= x.hi })
		}))
	})
}

// leaked are the flows that go out and that no problem is told of, although rules divert such
// packets: a tproxy rule of nftables that finds no socket ends before its verdict and leaves no
// trace.
func (d *doctor) leaked() error {
	groups := map[string][]suspect{}
	var order []string
	for _, r := range d.results {
		if r.Flow.Proxy() && d.complaint(r) == undiverted && !d.told(r.Flow.ID) {
			like := fmt.Sprint(r.Flow.Proto, r.Flow.IPv6(), r.Flow.Local())
			if groups[like] == nil {
				order = append(order, like)
			}
			s := suspect{FlowResult: r, symptom: undiverted, path: d.paths[r.Flow.ID]}
			s.key = d.deciding(r, s.path, undiverted)
			s.end = s.key.end()
			groups[like] = append(groups[like], s)
		}
	}
	for _, like := range order {
		if _, err := d.absent(groups[like]); err != nil {
			return err
		}
	}
	return nil
}

// listenersMissing finds the ports that rules divert to and at which nothing listens: with
// listeners there, flows that failed or went out come to them.
func (d *doctor) listenersMissing() error {
	var missing []unheard
	for _, proto := range []string{"tcp", "udp"} {
		for _, six := range []bool{false, true} {
			missing = append(missing, d.noListener(proto, six)...)
		}
	}
	missing = slices.DeleteFunc(missing, func(u unheard) bool { return u.changed >= 0 })
	var flows []Flow
	for _, r := range d.results {
		if r.Flow.Proxy() && !(r.Reached == AtSocket && r.OK()) {
			flows = append(flows, r.Flow)
		}
	}
	if len(missing) == 0 || len(flows) == 0 {
		return nil
	}
	var changes []change
	for _, m := range missing {
		changes = append(changes, m.fix)
	}
	results, err := d.run(flows, changes...)
	if err != nil {
		return err
	}
	for i, m := range missing {
		var reached []suspect
		for _, r := range results {
			if r.Reached != AtSocket || r.Socket != len(d.c.Sockets)+i {
				continue
			}
			old := d.find(r.Flow.ID)
			s := suspect{FlowResult: old, symptom: lost, path: d.paths[r.Flow.ID]}
			if old.OK() {
				s.symptom = undiverted
			}
			s.key = d.deciding(old, s.path, lost)
			s.end = s.key.end()
			reached = append(reached, s)
		}
		if len(reached) > 0 {
			d.addAbsent(reached, m, remedy{})
		}
	}
	return nil
}

// absent looks for what is absent beside a listener that tproxy finds: with that listener in the
// twin, the trace shows the mark that the rule sets, and then the policy rule or route that the
// mark lacks can be tried. It reports whether flows of the group came to the proxy with what it
// added, and adds that problem.
func (d *doctor) absent(g []suspect) (bool, error) {
	first := g[0]
	missing := d.noListener(first.Flow.Proto, first.Flow.IPv6())
	if len(missing) == 0 {
		return false, nil
	}
	var flows []Flow
	for _, s := range g[:min(len(g), maxTraced)] {
		flows = append(flows, s.Flow)
	}
	listening := missing[0].fix
	for _, m := range missing[1:] {
		listening = listening.and(m.fix)
	}
	c, err := d.c.with(listening)
	if err != nil {
		return false, d.ctx.Err()
	}
	results, paths, err := Trace(d.ctx, c, flows)
	if err != nil {
		return false, fmt.Errorf("trace: %w", err)
	}
	var mark uint32
	for i, p := range paths {
		if len(p.Packets) == 0 || results[i].Reached == AtSocket {
			continue
		}
		h, ok := p.Packets[0].at("prerouting last")
		if !ok {
			h, ok = p.Packets[0].at("output last")
		}
		if ok && mark == 0 {
			mark, first.end.in, first.end.to = h.Mark, h.In, h.To
		}
	}
	tries := []remedy{{}}
	if mark != 0 && !d.c.routesLocal(mark, first.Flow.IPv6()) {
		s := first
		s.end.mark = mark
		tries = append(tries, d.ofPolicy(s)...)
	}
	for _, also := range tries {
		changes := []change{listening}
		if also.fix.do != nil {
			changes = append(changes, also.fix)
		} else if also.cause != "" {
			continue
		}
		results, err := d.run(flows, changes...)
		if err != nil {
			return false, err
		}
		var reached []suspect
		var at unheard
		for i, r := range results {
			if m, ok := r.listener(missing, len(d.c.Sockets)); r.OK() && ok {
				reached, at = append(reached, g[i]), m
			}
		}
		if len(reached) == 0 {
			continue
		}
		d.addAbsent(reached, at, also)
		return true, nil
	}
	return false, nil
}

// listener is the one, out of those that were missing, that a flow came to.
func (r FlowResult) listener(missing []unheard, added int) (unheard, bool) {
	for _, m := range missing {
		at := m.changed
		if at < 0 {
			at, added = added, added+1
		}
		if r.Reached == AtSocket && r.Socket == at {
			return m, true
		}
	}
	return unheard{}, false
}

// addAbsent adds the problem of flows that come to a listener that was missing, and perhaps with
// another fix.
func (d *doctor) addAbsent(reached []suspect, m unheard, also remedy) {
	p := Problem{
		Severity: Bad, Cause: m.cause, Confirmed: true, What: d.what(reached), stage: int(atSocket),
		Why: m.why, Check: m.check, Fix: m.fix.command,
	}
	if also.fix.do != nil {
		p.Why = "two things are absent, and neither fixes it alone\n" + m.why + "\n" + also.why
		p.Check += "; " + also.check
		p.Fix += "\n" + also.fix.command
	}
	for _, s := range reached {
		p.Flows = append(p.Flows, s.Flow.ID)
		if p.Seen == nil && len(s.key.Hops) > 0 {
			p.Seen = d.c.story(s.key)
		}
	}
	d.add(p)
}

// unheard is a port that rules divert to and where they find no socket.
type unheard struct {
	remedy
	port    uint16
	changed int // the socket that is there and is changed, -1 for one that is added
}

// noListener are the ports that rules divert to, where no socket is one that they find.
func (d *doctor) noListener(proto string, six bool) []unheard {
	var all []unheard
	for _, x := range d.hints.seen {
		if !x.redirect || !x.of(six) || !x.takes(askProto, protoNumber(proto)) {
			continue
		}
		for _, t := range x.targets {
			to := t.Addr()
			if t.Port() == 0 || to.IsValid() && (to.Is6() != six || !to.IsUnspecified() && !d.ownAddr(to)) ||
				slices.ContainsFunc(all, func(u unheard) bool { return u.port == t.Port() }) {
				continue
			}
			u := unheard{port: t.Port(), changed: -1, remedy: remedy{
				cause: "no-listener",
				why: fmt.Sprintf("rules divert it to %s port %d, and nothing listens there for %s", proto, t.Port(),
					map[bool]string{false: "IPv4", true: "IPv6"}[six]),
				check: fmt.Sprintf("ss -ln%sp 'sport = :%d'", proto[:1], t.Port()),
			}}
			found := false
			for i, s := range d.c.Sockets {
				a := s.Local.Addr()
				if s.Proto != proto || s.Local.Port() != t.Port() || a.Is6() != six &&
					(a != netip.IPv6Unspecified() || s.V6Only) {
					continue
				}
				here := a.IsUnspecified() || a == to || (!to.IsValid() || to.IsUnspecified()) && !a.IsLoopback()
				if found = (s.Transparent || !x.tproxy) && s.Index == 0 && here; found {
					break
				}
				u.changed = i
			}
			if found || len(all) == maxPorts {
				continue
			}
			if u.changed < 0 {
				s := BoundSocket{Proto: proto, Local: netip.AddrPortFrom(anyAddr(six), t.Port()), V6Only: six,
					Transparent: true, ReuseAddr: true, OptionsKnown: true, OrigDst: proto == "udp"}
				kind := "listener"
				if x.tproxy {
					kind = "transparent listener"
				}
				u.fix = addSocket(s, fmt.Sprintf("start the proxy, with a %s at %s %s:%d%s", kind, proto,
					bracket(anyAddr(six)), t.Port(), d.otherListener(proto)))
				all = append(all, u)
				continue
			}
			s := d.c.Sockets[u.changed]
			var wrong, wanted []string
			if !s.Transparent && x.tproxy {
				u.cause = "not-transparent"
				wrong, wanted = append(wrong, "is not transparent (IP_TRANSPARENT)"),
					append(wanted, "set IP_TRANSPARENT")
			}
			if s.Index != 0 {
				u.cause = "listener-device"
				wrong, wanted = append(wrong, "is bound to device "+d.c.linkName(s.Index)),
					append(wanted, "not bind to a device")
			}
			a := s.Local.Addr()
			if !a.IsUnspecified() && a != to {
				u.cause = "listener-elsewhere"
				wrong, wanted = append(wrong, "has that address alone"),
					append(wanted, "listen on "+anyAddr(six).String())
				a = anyAddr(six)
			}
			u.why = fmt.Sprintf("the listener %s %s, and a rule that diverts does not find it", d.socketName(u.changed),
				strings.Join(wrong, " and "))
			u.fix = editSocket(u.changed, fmt.Sprintf("have %s at port %d %s", cmp.Or(s.Comm, "the program"), t.Port(),
				strings.Join(wanted, " and ")), func(q *BoundSocket) {
				q.Transparent, q.Index, q.Local = q.Transparent || x.tproxy, 0, netip.AddrPortFrom(a, q.Local.Port())
			})
			all = append(all, u)
		}
	}
	return all
}

// otherListener names a transparent listener at a port that no rule diverts to.
func (d *doctor) otherListener(proto string) string {
	for i, s := range d.c.Sockets {
		if s.Proto == proto && s.Transparent && !d.hints.listens(s) {
			return fmt.Sprintf(" (a transparent listener is %s)", d.socketName(i))
		}
	}
	return ""
}
