package twin

import (
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// client is someone behind a device.
type client struct {
	device Link       // that the client's packets leave Outside by
	addr   netip.Addr // the client's
	host   netip.Addr // the host's, on the same link
	public bool       // behind an uplink
	main   bool       // the first of the device and family
}

// uplinks are the devices that lead to the internet: those of routes with a gateway, and of routes
// to very large networks.
func (c *Snapshot) uplinks() map[int]bool {
	all := map[int]bool{}
	for _, r := range c.Routes {
		if r.Type != unix.RTN_UNICAST || !r.Dst.IsValid() {
			continue
		}
		for _, h := range r.Hops {
			if h.Index > 1 && (h.Gateway.IsValid() && !r.Dst.IsSingleIP() && !r.Dst.Addr().IsPrivate() ||
				r.Dst.Bits() < 5 && !r.Dst.Addr().IsMulticast()) {
				all[h.Index] = true
			}
		}
	}
	return all
}

// findClients gives each device a client of each of its networks: the rules' own addresses, those
// of policy rules, and one that no rule names. The host's neighbors are not among them: a
// snapshot does not have them, and the same flows are planned from it.
func (p *planner) findClients() []client {
	var all []client
	devices := 0
	for _, l := range p.Links {
		if l.Loopback || !l.Up() {
			continue
		}
		at := p.holder(l)
		// Of a bridge's ports one stands for all; the bridge has no other end of its own.
		if !l.Carrier || l.Kind == "bridge" || at.Index != l.Index &&
			slices.ContainsFunc(all, func(c client) bool { return p.holder(c.device).Index == at.Index }) {
			continue
		}
		if _, outside := p.wired(l); !outside {
			continue
		}
		n := len(all)
		for _, six := range []bool{false, true} {
			main := true
			for _, a := range p.Addrs {
				if a.Index != at.Index || a.Local.Is6() != six || a.Local.IsLinkLocalUnicast() || len(all)-n > 8 {
					continue
				}
				if p.uplinks[at.Index] {
					if main {
						all = append(all, client{device: l, addr: p.stranger(six), host: a.Local, public: true,
							main: true})
						main = false
					}
				}
				for _, x := range p.neighborsOf(at.Index, a) {
					all = append(all, client{device: l, addr: x, host: a.Local, main: main})
					main = false
				}
			}
		}
		if len(all) > n {
			if devices++; devices == maxDevices {
				break
			}
		}
	}
	return all
}

// stranger is someone on the internet, other than whom flows go to.
func (p *planner) stranger(six bool) netip.Addr {
	all := publicAddresses[six]
	return all[len(all)-1]
}

// neighborsOf are clients in the network of an address of a device: at most three.
func (p *planner) neighborsOf(index int, a Addr) []netip.Addr {
	networks := []netip.Prefix{a.Prefix.Masked()}
	if a.Prefix.Addr() != a.Local && a.Prefix.IsSingleIP() {
		return []netip.Addr{a.Prefix.Addr()} // the other end of a point-to-point device
	}
	if a.Prefix.Bits() >= a.Local.BitLen() { // no room: those that routes lead to
		networks = nil
		for _, r := range p.Routes {
			if r.Type == unix.RTN_UNICAST && r.Dst.IsValid() && r.Dst.Addr().Is6() == a.Local.Is6() &&
				r.Dst.Bits() > 4 && !r.Dst.Addr().IsMulticast() &&
				!r.Dst.Addr().IsLinkLocalUnicast() && slices.ContainsFunc(r.Hops,
				func(h NextHop) bool { return h.Index == index && !h.Gateway.IsValid() }) {
				networks = append(networks, r.Dst.Masked())
			}
		}
	}
	free := func(x netip.Addr) bool {
		return x.IsValid() && !slices.ContainsFunc(p.Addrs, func(o Addr) bool { return o.Local == x })
	}
	var all []netip.Addr
	add := func(x netip.Addr) {
		if free(x) && len(all) < 3 && !slices.Contains(all, x) {
			all = append(all, x)
		}
	}
	for _, n := range networks {
		within := func(x netip.Addr) bool { return n.Contains(x) && x != n.Addr() && x != spanOf(n).hi }
		for _, r := range p.PolicyRules {
			if r.Src.IsValid() && r.Src.Bits() >= n.Bits() && n.Contains(r.Src.Addr()) {
				if x := r.Src.Addr(); r.Src.IsSingleIP() {
					add(x)
				} else {
					add(x.Next())
				}
			}
		}
		for _, h := range p.hints.all {
			for _, x := range h.asks {
				if x.what != askSource {
					continue
				}
				for _, s := range x.addrs[:min(len(x.addrs), 8)] {
					switch {
					case s.lo == s.hi && within(s.lo):
						add(s.lo)
					case n.Contains(s.lo) && n.Contains(s.hi) && free(s.lo.Next()) && s.contains(s.lo.Next()):
						add(s.lo.Next())
					}
				}
			}
		}
		x := n.Addr()
		if n.Bits() <= x.BitLen()-8 { // somewhere that is seldom given away
			b := x.AsSlice()
			b[len(b)-1] |= 0xe7
			x, _ = netip.AddrFromSlice(b)
		} else if !n.IsSingleIP() {
			x = x.Next()
		}
		for range 16 {
			if free(x) && (within(x) || n.Bits() >= x.BitLen()-1) {
				if len(all) < 3 {
					add(x)
				}
				break
			}
			x = x.Next()
		}
	}
	return all
}

// fromClients plans flows of clients to the internet.
func (p *planner) fromClients() {
	behind := slices.ContainsFunc(p.clients, func(c client) bool { return !p.uplinks[p.holder(c.device).Index] })
	for _, c := range p.clients {
		if c.public || behind && p.uplinks[p.holder(c.device).Index] && !p.clientsAt(c) {
			continue
		}
		to := p.fake[number(c.addr.Is6())]
		ask := func(proto string, port uint16) {
			p.add(Flow{Kind: Client, Proto: proto, In: c.device.Name, From: netip.AddrPortFrom(c.addr, 0),
				To: netip.AddrPortFrom(to, port)})
		}
		if !c.main || behind && p.uplinks[p.holder(c.device).Index] {
			ask("tcp", p.tcp[0])
			ask("udp", p.udp[0])
			continue
		}
		for _, port := range p.tcp {
			ask("tcp", port)
		}
		for _, port := range p.udp {
			ask("udp", port)
		}
		for _, to = range p.beside(c.addr.Is6()) {
			ask("tcp", p.tcp[0])
			ask("udp", p.udp[0])
		}
		for _, n := range p.named(c.addr.Is6(), unix.NF_INET_PRE_ROUTING) {
			n.Kind, n.In, n.From = Client, c.device.Name, netip.AddrPortFrom(c.addr, 0)
			p.add(n)
		}
	}
}

// beside are addresses of the internet next to the networks that a table of the host's own routes
// to itself: of two routes that together stand for a default one, the other may lack. Also those
// that another route of such a table leads elsewhere.
func (p *planner) beside(six bool) []netip.Addr {
	var all []netip.Addr
	add := func(to netip.Addr) {
		if len(all) < maxNamed && !slices.Contains(all, to) && !slices.Contains(p.fake, to) {
			all = append(all, to)
		}
	}
	for _, r := range p.Routes {
		if r.Table == unix.RT_TABLE_LOCAL || !r.Dst.IsValid() || r.Dst.Addr().Is6() != six || r.Dst.Bits() < 1 {
			continue
		}
		if r.Type != unix.RTN_LOCAL && r.Table != unix.RT_TABLE_MAIN && p.localTable(r.Table, six) {
			to := r.Dst.Masked().Addr()
			if !r.Dst.IsSingleIP() {
				to = to.Next()
			}
			if isRouted(to) && !p.isOwn(to) {
				add(to)
			}
		}
		if r.Type != unix.RTN_LOCAL || r.Dst.Bits() > 8 {
			continue
		}
		b := r.Dst.Masked().Addr().AsSlice()
		b[0] ^= 1 << (8 - r.Dst.Bits())
		b[1], b[len(b)-1] = 77, 9
		to, _ := netip.AddrFromSlice(b)
		other := netip.PrefixFrom(to, r.Dst.Bits()).Masked()
		if i := slices.IndexFunc(publicAddresses[six], other.Contains); i >= 0 {
			to = publicAddresses[six][i]
		}
		if isPublic(to) {
			add(to)
		}
	}
	return all
}

// clientsAt reports whether a rule that diverts names the uplink or the network that a client is
// behind: else those on a router's uplink are not its clients.
func (p *planner) clientsAt(c client) bool {
	return slices.ContainsFunc(p.hints.seen, func(s hookSeen) bool {
		return s.hook == unix.NF_INET_PRE_ROUTING && (s.redirect || s.marks || s.jump != "") &&
			(s.has(askIn, false) && s.takesName(askIn, p.holder(c.device).Name) || s.has(askSource, false) &&
				s.takesAddr(askSource, c.addr))
	})
}
