package twin

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// ofAnswer are causes by which an answer does not come to the client.
func (d *doctor) ofAnswer(s suspect) []remedy {
	var all []remedy
	e := s.end
	if e.stage == inRules && e.hop.tproxies() && e.in != "lo" {
		all = append(all, remedy{
			cause: "answer-diverted", check: e.hop.lister(d.c),
			why: fmt.Sprintf("%s takes answers too, for which no listener is", e.hop.name(d.c)),
			fix: d.c.spotOf(e.hop).insert(added{UID: -1, Reply: true, Do: doReturn, IPv6: s.Flow.IPv6()}),
		})
	}
	if d.sourceChanged(s.key) || e.stage == inRules {
		all = append(all, d.ofSource(s)...)
	}
	if h, ok := s.key.marker(e.mark); ok && e.mark != 0 {
		base := h
		base.Chain = d.baseChain(h, 3)
		r := remedy{
			cause: "answer-marked", check: h.lister(d.c),
			why: fmt.Sprintf("%s marks the answer with 0x%x, and it is routed by that mark and not to the client", h.name(d.c), e.mark),
		}
		r.fix = d.c.spotOf(h).insert(added{UID: -1, Reply: true, Do: doReturn, IPv6: s.Flow.IPv6()})
		all = append(all, r)
		spot := d.c.spotOf(h)
		if spot.chain != base.Chain {
			spot.chain, spot.number, spot.handle = base.Chain, 1, d.firstHandle(h, base.Chain)
			r.fix = spot.insert(added{UID: -1, Reply: true, Do: doReturn, IPv6: s.Flow.IPv6()})
			all = append(all, r)
		}
		if s.Flow.Kind == Service || s.Flow.Kind == Borrowed {
			spot = d.c.spotOf(h)
			r.fix = spot.insert(added{UID: -1, To: hostPrefix(s.key.To.Addr()), Do: doReturn, IPv6: s.Flow.IPv6()})
			all = append(all, r)
			all = append(all, d.ofOutside(s, r, h))
		}
	}
	if e.stage == inRules {
		all = append(all, d.ofDrop(s)...)
	}
	if e.stage == inRouting {
		all = append(all, d.ofRouting(s)...)
	}
	return append(all, d.ofPolicy(s)...)
}

// ofOutside tells connections that come by a device from those of a proxy of the host that has its
// clients' addresses: by a mark that the first get, and by which the rule leaves them out.
func (d *doctor) ofOutside(s suspect, r remedy, h Hop) remedy {
	const mark = 0x100
	ipv6 := s.Flow.IPv6()
	in := s.Flow.In
	if l := d.c.linkNamed(in); l != nil {
		in = d.c.holder(*l).Name
	}
	set := d.hookSpot(ipv6, hookPlace{"mangle", "PREROUTING", "filter", unix.NF_INET_PRE_ROUTING, -150, "from-outside",
		"mangle"})
	r.fix = set(added{UID: -1, In: in, Proto: s.Flow.Proto, Port: s.Flow.To.Port(), Do: doCtMark, SetMark: mark,
		IPv6: ipv6}).and(d.c.spotOf(h).insert(added{UID: -1, CtMark: mark, Do: doReturn, IPv6: ipv6}))
	return r
}

func hostPrefix(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// ofSource is a rule that translates the answer's source: conntrack does not know its first packet.
func (d *doctor) ofSource(s suspect) []remedy {
	var nat, skip Hop
	var all []remedy
	for _, h := range s.key.rules() {
		for _, word := range []string{"MASQUERADE", "masquerade", "SNAT", "snat "} {
			if h.Hook == "postrouting" && strings.Contains(h.Rule, word) {
				nat = h
			}
		}
	}
	for _, k := range s.path.Packets {
		for _, h := range k.rules() {
			if !k.Answer && h.Hook == "prerouting" && (strings.Contains(strings.ToLower(h.Rule), "notrack")) {
				skip = h
			}
		}
	}
	r := remedy{
		cause: "source-translated", check: nat.lister(d.c), take: d.c.spotOf(nat).remove(),
		why: fmt.Sprintf("%s gives the proxy's answer another source, so the client takes it for a stranger's", nat.name(d.c)),
	}
	switch {
	case nat.Rule == "" && skip.Rule == "":
		return nil
	case nat.Rule == "":
		r.cause, r.check, r.take = "not-tracked", skip.lister(d.c), change{}
		r.why = fmt.Sprintf("%s takes the answer for one of no connection", s.end.hop.name(d.c))
	case skip.Rule == "":
		r.fix = d.c.spotOf(nat).insert(added{UID: -1, From: hostPrefix(s.key.From.Addr()), Do: doReturn})
		return []remedy{r}
	}
	r.why += fmt.Sprintf(": conntrack knows nothing of the connection, because of %s", skip.name(d.c))
	// The same packets are left out on their way back.
	a := added{UID: -1, Do: doNotrack, IPv6: s.Flow.IPv6()}
	for _, option := range []string{"-d ", "daddr "} {
		if _, rest, ok := strings.Cut(skip.Rule, option); ok {
			if p, err := netip.ParsePrefix(strings.Fields(rest)[0]); err == nil {
				a.From = p
			} else if x, err := netip.ParseAddr(strings.Fields(rest)[0]); err == nil {
				a.From = hostPrefix(x)
			}
		}
	}
	spot := d.c.spotOf(skip)
	chain, handle, number := d.outputChain(skip)
	if nat.Rule == "" {
		all = append(all, r)
		all[0].fix = spot.remove()
		all[0].price = "conntrack then has these connections, and its table must have room for them"
	}
	if chain == "" {
		r.fix = d.c.spotOf(nat).insert(added{UID: -1, From: a.From, Do: doReturn, IPv6: a.IPv6})
		return append(all, r)
	}
	spot.chain, spot.handle, spot.number = chain, handle, number
	r.fix = spot.insert(a)
	return append([]remedy{r}, all...)
}

// outputChain is the chain of OUTPUT in a hop's table, before conntrack.
func (d *doctor) outputChain(h Hop) (chain string, handle uint64, number int) {
	if h.Legacy {
		return "OUTPUT", 0, 1
	}
	for _, t := range d.c.Tables {
		if t.Family != h.Family || t.Name != h.Table {
			continue
		}
		for _, c := range t.Chains {
			if c.Base && c.Hook == 3 && c.Priority < -200 {
				if len(c.Rules) > 0 {
					return c.Name, c.Rules[0].Handle, 1
				}
				return c.Name, 0, 0
			}
		}
	}
	return "", 0, 0
}

// ofListener are sockets that do not get what is diverted to them: elsewhere, bound to a device,
// not transparent.
func (d *doctor) ofListener(s suspect) []remedy {
	port := s.end.to.Port()
	h, diverted := s.key.diverter()
	if diverted && !h.redirects() {
		port = targetPort(h.Rule)
	}
	ports := []uint16{port}
	if !diverted { // nft's tproxy without a socket leaves no trace
		for _, x := range d.hints.seen {
			if !x.tproxy {
				continue
			}
			for _, t := range x.targets {
				if !slices.Contains(ports, t.Port()) {
					ports = append(ports, t.Port())
				}
			}
		}
	}
	var all []remedy
	for _, port := range ports {
		for i, x := range d.c.Sockets {
			if x.Proto == s.Flow.Proto && x.Local.Port() == port {
				all = append(all, d.ofOneListener(s, i, h)...)
			}
		}
	}
	return all
}

// tproxyRules are nft's rules that lead to a port, as hops.
func (d *doctor) tproxyRules(port uint16) []Hop {
	var all []Hop
	w := newWriter(d.c)
	for _, t := range d.c.Tables {
		for _, c := range t.Chains {
			for n, r := range c.Rules {
				if !slices.ContainsFunc(r.Exprs, func(e Expr) bool { return e.Name == "tproxy" }) {
					continue
				}
				if text := w.rule(t, r); targetPort(text) == port {
					all = append(all, Hop{Hook: "prerouting", Family: t.Family, Table: t.Name, Chain: c.Name,
						Handle: r.Handle, Number: n + 1, Rule: text, priority: c.Priority})
				}
			}
		}
	}
	return all
}

// targetPort reads the port that a tproxy rule leads to.
func targetPort(rule string) uint16 {
	for _, word := range []string{"--on-port ", "tproxy to ", "tproxy ip to ", "tproxy ip6 to "} {
		_, rest, ok := strings.Cut(rule, word)
		if !ok {
			continue
		}
		f := strings.Fields(rest)[0]
		var n uint16
		if i := strings.LastIndexByte(f, ':'); i >= 0 {
			f = f[i+1:]
		}
		if _, err := fmt.Sscan(f, &n); err == nil {
			return n
		}
	}
	return 0
}

func (d *doctor) ofOneListener(s suspect, i int, h Hop) []remedy {
	x := d.c.Sockets[i]
	ipv6 := s.Flow.IPv6()
	name := cmp.Or(x.Comm, "the program")
	proto := map[string]string{"tcp": "t", "udp": "u"}[x.Proto]
	base := remedy{check: fmt.Sprintf("ss -ln%spe 'sport = :%d'", proto, x.Local.Port())}
	var all []remedy
	if x.Index != 0 {
		r := base
		r.cause, r.why = "listener-device",
			fmt.Sprintf("%s at port %d takes only packets of %s: it is bound to that device", name, x.Local.Port(),
				d.c.linkName(x.Index))
		r.fix = editSocket(i, fmt.Sprintf("have %s listen on port %d without binding to device %s", name,
			x.Local.Port(), d.c.linkName(x.Index)), func(q *BoundSocket) { q.Index = 0 })
		all = append(all, r)
	}
	tproxy := h.Rule != "" && !h.redirects() || h.Rule == ""
	if tproxy && !x.Transparent {
		r := base
		r.cause, r.why = "not-transparent",
			fmt.Sprintf("%s at port %d is not transparent (IP_TRANSPARENT), and tproxy takes only listeners that are", name, x.Local.Port())
		r.fix = editSocket(i, fmt.Sprintf(
			"have %s set IP_TRANSPARENT on its listener of port %d (in its configuration: tproxy and not redirect)",
			name, x.Local.Port()), func(q *BoundSocket) { q.Transparent = true })
		all = append(all, r)
	}
	if !x.Local.Addr().IsUnspecified() || x.V6Only || x.Local.Addr().Is6() != ipv6 {
		r := base
		r.cause = "listener-elsewhere"
		target := s.end.to
		r.why = fmt.Sprintf("%s listens at %v, and packets are led to %v", name, x.Local, target)
		if tproxy {
			r.why = fmt.Sprintf("%s listens at %v, and tproxy leads to another address: without one of its own, that of the device by which a packet comes", name, x.Local)
		}
		rules := []Hop{h}
		if h.Rule == "" { // nft's tproxy without a socket leaves no trace
			rules = d.tproxyRules(x.Local.Port())
		}
		for _, h := range rules {
			if tproxy && x.Local.Addr().Is6() == ipv6 && !x.Local.Addr().IsUnspecified() {
				if fix, ok := d.retarget(h, x.Local.Addr()); ok {
					q := r
					q.fix = fix
					all = append(all, q)
				}
			}
		}
		any := anyAddr(ipv6)
		r.fix = editSocket(i, fmt.Sprintf("have %s listen on %v:%d, not on %v", name, bracket(any), x.Local.Port(),
			x.Local), func(q *BoundSocket) {
			q.Local, q.V6Only = netip.AddrPortFrom(any, q.Local.Port()), false
		})
		all = append(all, r)
		if !tproxy && x.Local.Addr().Is6() == ipv6 {
			if fix, ok := d.redirectTo(h, x.Local); ok {
				q := r
				q.fix = fix
				all = append([]remedy{q}, all...)
			}
		}
	}
	return all
}

func bracket(a netip.Addr) string {
	if a.Is6() {
		return "[" + a.String() + "]"
	}
	return a.String()
}
