package twin

import (
	"cmp"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// services plans flows of clients, and of the internet, to the host itself: to the services that
// listen there, and to the ports that rules redirect.
func (p *planner) services() {
	for _, proto := range []string{"tcp", "udp"} {
		sockets := slices.DeleteFunc(slices.Clone(p.Sockets), func(s BoundSocket) bool {
			return s.Proto != proto || p.hints.listens(s) || proto == "udp" && s.Local.Port() >= 1024 &&
				!p.namesPort(s.Local.Port())
		})
		sortStable(sockets, func(a, b BoundSocket) int {
			return cmp.Or(cmp.Compare(a.Local.Port(), b.Local.Port()),
				cmp.Compare(a.Local.Addr().BitLen(), b.Local.Addr().BitLen()))
		})
		for _, c := range p.clients {
			n := 0
			var ports []uint16
			for _, s := range sockets {
				if n < maxServices && c.main && p.serves(s, c) && !slices.Contains(ports, s.Local.Port()) {
					n++
					ports = append(ports, s.Local.Port())
					p.toHost(c, proto, netip.AddrPortFrom(c.host, s.Local.Port()), "")
				}
			}
		}
	}
	for _, s := range p.hints.seen {
		d, ok := s.first(askDport)
		if s.hook != unix.NF_INET_PRE_ROUTING || len(s.targets) == 0 || s.tproxy || !ok || len(d.spans) == 0 {
			continue
		}
		for _, c := range p.clients {
			if !c.main || !s.of(c.addr.Is6()) || !s.takesName(askIn, p.holder(c.device).Name) ||
				!s.takesAddr(askSource, c.addr) || !s.takesAddr(askDest, c.host) {
				continue
			}
			proto := "tcp"
			if !s.takes(askProto, unix.IPPROTO_TCP) {
				proto = "udp"
			}
			for _, x := range d.spans[:min(len(d.spans), 2)] {
				if len(p.flows) < 400 {
					p.toHost(c, proto, netip.AddrPortFrom(c.host, uint16(x.lo)), s.where)
				}
			}
		}
	}
}

func (p *planner) toHost(c client, proto string, to netip.AddrPort, why string) {
	p.add(Flow{Kind: Service, Proto: proto, In: c.device.Name, From: netip.AddrPortFrom(c.addr, 0), To: to, Why: why})
}

// namesPort reports whether a rule asks for a destination port.
func (p *planner) namesPort(port uint16) bool {
	return slices.ContainsFunc(p.hints.all, func(h *hint) bool {
		return h.has(askDport, false) &&
			h.takes(askDport, uint32(port))
	})
}

// serves reports whether a socket takes what a client sends to the host's address.
func (p *planner) serves(s BoundSocket, c client) bool {
	a := s.Local.Addr()
	switch {
	case s.Index != 0 && s.Index != p.holder(c.device).Index:
		return false
	case !a.IsUnspecified():
		return a == c.host
	case a.Is6() && !c.host.Is6():
		return !s.V6Only
	}
	return a.Is6() == c.host.Is6()
}

// listeners plans flows of clients straight to the ports of listeners that rules divert to.
func (p *planner) listeners() {
	for _, s := range p.Sockets {
		if s.Proto != "tcp" || !p.hints.listens(s) {
			continue
		}
		for _, c := range p.clients {
			if c.main && p.serves(s, c) {
				p.add(Flow{Kind: Asked, Proto: s.Proto, In: c.device.Name, From: netip.AddrPortFrom(c.addr, 0),
					To: netip.AddrPortFrom(c.host, s.Local.Port())})
			}
		}
	}
}

// borrowed plans flows of a program of the host that has a client's address, to a service of the
// host whose answers rules catch by their source port.
func (p *planner) borrowed() {
	for _, s := range p.hints.seen {
		sport, ok := s.first(askSport)
		if s.hook != unix.NF_INET_LOCAL_OUT || !ok || !s.marks && s.jump == "" || !p.hints.diverts[s.base] {
			continue
		}
		for _, x := range sport.spans[:min(len(sport.spans), 4)] {
			for _, service := range p.Sockets {
				if service.Proto != "tcp" || uint32(service.Local.Port()) != x.lo {
					continue
				}
				for _, c := range p.clients {
					to := service.Local
					if a := service.Local.Addr(); a.IsUnspecified() {
						to = netip.AddrPortFrom(c.host, service.Local.Port())
						if l, ok := s.first(askSource); ok && len(l.addrs) > 0 {
							to = netip.AddrPortFrom(l.addrs[0].lo, service.Local.Port())
						}
					}
					if c.main && s.of(c.addr.Is6()) && to.Addr().Is6() == c.addr.Is6() &&
						s.takesName(askOut, p.holder(c.device).Name) {
						p.add(Flow{Kind: Borrowed, Proto: "tcp", From: netip.AddrPortFrom(c.addr, 0), To: to,
							Why: s.where})
					}
				}
			}
		}
	}
}

// asClients plans flows of a proxy that connects with its clients' addresses, where rules lead
// answers to its sockets by asking for those, and no rule hands it connections: to the clients'
// side and to the internet.
func (p *planner) asClients() {
	uses := func(six bool) bool {
		return slices.ContainsFunc(p.hints.seen, func(s hookSeen) bool {
			return s.hook == unix.NF_INET_PRE_ROUTING && s.of(six) && s.has(askSocket, false) &&
				(s.marks || s.jump != "") && s.takes(askProto, unix.IPPROTO_TCP)
		}) && !slices.ContainsFunc(p.hints.all, func(h *hint) bool { return h.tproxy })
	}
	for _, c := range p.clients {
		if c.public || !c.main || !uses(c.addr.Is6()) {
			continue
		}
		six := c.addr.Is6()
		why := "rules ask for the sockets of answers"
		p.add(Flow{Kind: AsClient, Proto: "tcp", From: netip.AddrPortFrom(p.stranger(six), 0),
			To: netip.AddrPortFrom(c.addr, p.tcp[0]), Why: why})
		if len(p.uplinks) > 0 && !p.uplinks[p.holder(c.device).Index] {
			p.add(Flow{Kind: AsClient, Proto: "tcp", From: netip.AddrPortFrom(c.addr, 0),
				To: netip.AddrPortFrom(p.fake[number(six)], p.tcp[0]), Why: why})
		}
	}
}

// inbound plans flows of the internet to clients whose addresses are routed there: rules for
// clients must leave their answers alone.
func (p *planner) inbound() {
	diverts := func(six bool) bool {
		return slices.ContainsFunc(p.hints.seen, func(s hookSeen) bool {
			return s.hook == unix.NF_INET_PRE_ROUTING && s.of(six) && (s.redirect || p.marksLocal(s.hint, six))
		})
	}
	for _, c := range p.clients {
		if c.public || !c.main || !isRouted(c.addr) || p.uplinks[p.holder(c.device).Index] || !diverts(c.addr.Is6()) {
			continue
		}
		for _, u := range p.clients {
			if !u.public || u.addr.Is6() != c.addr.Is6() {
				continue
			}
			p.toHost(u, "tcp", netip.AddrPortFrom(c.addr, p.tcp[min(2, len(p.tcp)-1)]), "")
			p.toHost(u, "udp", netip.AddrPortFrom(c.addr, p.udp[min(2, len(p.udp)-1)]), "")
		}
	}
}
