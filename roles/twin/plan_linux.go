package twin

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Bounds of a plan. What is cut is more of the same: further ports, networks and devices.
const (
	maxDevices  = 12 // whose clients ask
	maxPorts    = 12 // each of TCP and UDP, from the rules and the host's listeners
	maxServices = 5  // each of TCP and UDP, asked by clients and from the internet
	maxNamed    = 8  // flows to addresses that rules name, of each family
	maxSenders  = 16 // marks, users and groups
)

// publicAddresses are those that flows go to: the first that no rule names.
var publicAddresses = map[bool][]netip.Addr{
	false: {netip.MustParseAddr("45.33.32.156"), netip.MustParseAddr("151.101.193.69"), netip.MustParseAddr("62.116.130.8"), netip.MustParseAddr("185.15.59.224")},
	true:  {netip.MustParseAddr("2600:3c01::f03c:91ff:fe18:bb2f"), netip.MustParseAddr("2a02:ec80:300:ed1a::1"), netip.MustParseAddr("2606:2800:220:1::1")},
}

// client is someone behind a device.
type client struct {
	device Link       // that the client's packets leave Outside by
	addr   netip.Addr // the client's
	host   netip.Addr // the host's, on the same link
	public bool       // behind an uplink
	main   bool       // the first of the device and family
}

// Plan makes the flows that show what becomes of the host's traffic. They are planned from its
// devices, addresses and sockets, and from the values that its rules ask for.
func Plan(c *Config) []Flow {
	p := &planner{Config: c, hints: c.hints(), uplinks: c.uplinks(), ids: map[string]bool{}}
	p.clients = p.findClients()
	p.findPorts()
	for _, six := range []bool{false, true} {
		p.fake = append(p.fake, p.public(six))
	}
	p.fromClients()
	p.fromHost()
	p.exempt()
	p.services()
	p.listeners()
	p.borrowed()
	return p.flows
}

type planner struct {
	*Config
	hints    hints
	uplinks  map[int]bool
	clients  []client
	fake     []netip.Addr // of IPv4 and IPv6
	tcp, udp []uint16
	flows    []Flow
	ids      map[string]bool
}

func (p *planner) add(f Flow) {
	if !f.To.IsValid() || f.To.Port() == 0 || f.From.Addr().IsValid() && f.From.Addr().Is6() != f.To.Addr().Is6() {
		return
	}
	if f.ID = f.name(); !p.ids[f.ID] {
		p.ids[f.ID] = true
		p.flows = append(p.flows, f)
	}
}

func number(six bool) int {
	if six {
		return 1
	}
	return 0
}

// uplinks are the devices that lead to the internet: those of routes with a gateway, and of routes to
// very large networks.
func (c *Config) uplinks() map[int]bool {
	all := map[int]bool{}
	for _, r := range c.Routes {
		if r.Type != unix.RTN_UNICAST || !r.Dst.IsValid() {
			continue
		}
		for _, h := range r.Hops {
			if h.Index > 1 && (h.Gateway.IsValid() && !r.Dst.IsSingleIP() && !r.Dst.Addr().IsPrivate() || r.Dst.Bits() < 5 && !r.Dst.Addr().IsMulticast()) {
				all[h.Index] = true
			}
		}
	}
	return all
}

// findClients gives each device a client of each of its networks: one of the rules' own addresses,
// a neighbor that the host has, and one that nobody names.
func (p *planner) findClients() []client {
	var all []client
	devices := 0
	for _, l := range p.Links {
		if l.Loopback || !l.Up() {
			continue
		}
		at := p.holder(l)
		// Of a bridge's ports one stands for all; the bridge has no other end of its own.
		if !l.Carrier || l.Kind == "bridge" || at.Index != l.Index && slices.ContainsFunc(all, func(c client) bool { return p.holder(c.device).Index == at.Index }) {
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
						all = append(all, client{device: l, addr: p.stranger(six), host: a.Local, public: true, main: true})
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
			if r.Type == unix.RTN_UNICAST && r.Dst.IsValid() && r.Dst.Addr().Is6() == a.Local.Is6() && r.Dst.Bits() > 4 && !r.Dst.Addr().IsMulticast() &&
				!r.Dst.Addr().IsLinkLocalUnicast() && slices.ContainsFunc(r.Hops, func(h NextHop) bool { return h.Index == index && !h.Gateway.IsValid() }) {
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
		for _, o := range p.Neighbors { // NUD_REACHABLE, NUD_STALE, NUD_DELAY, NUD_PROBE, NUD_PERMANENT
			if o.Index == index && o.State&(2|4|8|16|128) != 0 && within(o.Addr) && len(all) < 1 && !p.isGateway(o.Addr) {
				add(o.Addr)
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

func (p *planner) isGateway(a netip.Addr) bool {
	return slices.ContainsFunc(p.Routes, func(r Route) bool {
		return slices.ContainsFunc(r.Hops, func(h NextHop) bool { return h.Gateway == a })
	})
}

// public is an address of the internet that no rule names.
func (p *planner) public(six bool) netip.Addr {
	all := publicAddresses[six][:len(publicAddresses[six])-1]
	for _, a := range all {
		if !slices.ContainsFunc(p.hints.all, func(h *hint) bool {
			return slices.ContainsFunc(h.asks, func(x ask) bool {
				return x.what == askDest && slices.ContainsFunc(x.addrs, func(s addrSpan) bool {
					return s.contains(a) && (s.lo != spanOf(netip.PrefixFrom(s.lo, 1)).lo || s.hi != spanOf(netip.PrefixFrom(s.hi, 1)).hi)
				})
			})
		}) {
			return a
		}
	}
	return all[0]
}

// findPorts collects the ports that flows go to: the usual ones, one that nobody names, those of
// rules that divert, of other rules, of policy rules, and of the host's own listeners.
func (p *planner) findPorts() {
	p.tcp, p.udp = []uint16{80, 443}, []uint16{53, 443}
	add := func(proto uint32, port uint32) {
		for _, list := range []struct {
			proto uint32
			ports *[]uint16
		}{{unix.IPPROTO_TCP, &p.tcp}, {unix.IPPROTO_UDP, &p.udp}} {
			if (proto == 0 || proto == list.proto) && port > 0 && port < 65535 && len(*list.ports) < maxPorts && !slices.Contains(*list.ports, uint16(port)) {
				*list.ports = append(*list.ports, uint16(port))
			}
		}
	}
	unnamed := func(port uint32) bool {
		return !slices.ContainsFunc(p.hints.all, func(h *hint) bool {
			return slices.ContainsFunc(h.asks, func(a ask) bool {
				return a.what == askDport && !(len(a.spans) == 1 && a.spans[0].hi-a.spans[0].lo > 30000) &&
					slices.ContainsFunc(a.spans, func(s span) bool { return port >= s.lo && port <= s.hi })
			})
		}) && !slices.ContainsFunc(p.Sockets, func(s Socket) bool { return uint32(s.Local.Port()) == port })
	}
	for _, port := range []uint32{5555, 7171, 9393, 15151} {
		if unnamed(port) {
			add(0, port)
			break
		}
	}
	for _, m := range p.Rules { // FRA_DPORT_RANGE: two u16
		if all, err := split(m, unix.SizeofRtMsg); err == nil {
			if r := all.get(unix.FRA_DPORT_RANGE); len(r) == 4 {
				add(host32(all.get(unix.FRA_IP_PROTO)), host32(r[:2]))
			}
		}
	}
	for _, wanted := range []func(*hint) bool{
		func(h *hint) bool { return h.redirect || h.marks },
		func(h *hint) bool { return h.jump != "" || len(h.targets) > 0 },
		func(h *hint) bool { return true },
	} {
		for _, s := range p.hints.seen {
			if s.hook != unix.NF_INET_PRE_ROUTING && s.hook != unix.NF_INET_LOCAL_OUT || !wanted(s.hint) {
				continue
			}
			for _, a := range s.asks {
				if a.what != askDport {
					continue
				}
				for _, x := range a.spans[:min(len(a.spans), 4)] {
					for _, proto := range []uint32{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
						if s.takes(askProto, proto) {
							add(proto, x.lo)
						}
					}
				}
			}
		}
	}
	for _, s := range p.Sockets {
		if !p.hints.listens(s) && (s.Proto == "tcp" || s.Local.Port() < 1024) {
			add(protoNumber(s.Proto), uint32(s.Local.Port()))
		}
	}
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
			p.add(Flow{Kind: Client, Proto: proto, In: c.device.Name, From: netip.AddrPortFrom(c.addr, 0), To: netip.AddrPortFrom(to, port)})
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
		for _, n := range p.named(c.addr.Is6(), unix.NF_INET_PRE_ROUTING) {
			n.Kind, n.In, n.From = Client, c.device.Name, netip.AddrPortFrom(c.addr, 0)
			p.add(n)
		}
	}
}

// clientsAt reports whether a rule that diverts names the uplink or the network that a client is
// behind: else those on a router's uplink are not its clients.
func (p *planner) clientsAt(c client) bool {
	return slices.ContainsFunc(p.hints.seen, func(s hookSeen) bool {
		return s.hook == unix.NF_INET_PRE_ROUTING && (s.redirect || s.marks || s.jump != "") &&
			(s.has(askIn, false) && s.takesName(askIn, p.holder(c.device).Name) || s.has(askSource, false) && s.takesAddr(askSource, c.addr))
	})
}

// named are flows to addresses that rules of a hook name, without their senders: first those of rules
// that do something, then those that are left out of it.
func (p *planner) named(six bool, hook int) []Flow {
	var all, left []Flow
	for _, s := range p.hints.seen {
		if s.hook != hook || !s.of(six) {
			continue
		}
		for _, a := range s.asks {
			if a.what != askDest {
				continue
			}
			for _, x := range a.addrs[:min(len(a.addrs), 2*maxNamed)] {
				to := x.lo
				if x.lo != x.hi {
					to = to.Next()
				}
				if to.Is6() != six || !isRouted(to) || p.isOwn(to) || slices.Contains(p.fake, to) {
					continue
				}
				for _, proto := range []string{"tcp", "udp"} {
					if !s.takes(askProto, protoNumber(proto)) {
						continue
					}
					f := Flow{Proto: proto, To: netip.AddrPortFrom(to, p.portFor(s.hint, proto)), Why: s.where}
					if s.leaves || !isPublic(to) && len(a.addrs) > 4 {
						left = append(left, f)
					} else {
						all = append(all, f)
					}
				}
			}
		}
	}
	all = append(all, left...)
	return all[:min(len(all), maxNamed)]
}

// portFor is a port that a rule asks for, or the usual one.
func (p *planner) portFor(h *hint, proto string) uint16 {
	usual := p.tcp
	if proto == "udp" {
		usual = p.udp
	}
	for _, port := range usual {
		if h.takes(askDport, uint32(port)) {
			return port
		}
	}
	if a, ok := h.first(askDport); ok && len(a.spans) > 0 && a.spans[0].lo > 0 {
		return uint16(a.spans[0].lo)
	}
	return usual[0]
}

// reserved are networks that are no one's on the internet (RFC 6890), beside those that netip knows.
var reserved = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"), netip.MustParsePrefix("192.0.2.0/24"),
	netip.MustParsePrefix("192.88.99.0/24"), netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("203.0.113.0/24"),
	netip.MustParsePrefix("240.0.0.0/4"), netip.MustParsePrefix("::/8"), netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("100::/64"),
	netip.MustParsePrefix("2001::/23"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("2002::/16"),
}

// isRouted reports whether a network may route an address to others, as it does those of proxies'
// made-up answers of DNS (198.18.0.0/15) and of documents.
func isRouted(a netip.Addr) bool {
	return a.IsGlobalUnicast() && !a.IsPrivate() && !slices.ContainsFunc(local, func(n netip.Prefix) bool { return n.Contains(a) })
}

// local are the networks of reserved that no network routes to others.
var local = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"), netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("::/8"), netip.MustParsePrefix("100::/64"), netip.MustParsePrefix("2002::/16"),
}

// isPublic reports whether an address may be of the internet.
func isPublic(a netip.Addr) bool {
	return a.IsGlobalUnicast() && !a.IsPrivate() && !slices.ContainsFunc(reserved, func(n netip.Prefix) bool { return n.Contains(a) })
}

// isDocumentation reports whether an address is of a network for examples (RFC 5737, RFC 3849), as
// people use them for others in what they publish.
func isDocumentation(a netip.Addr) bool {
	return slices.ContainsFunc([]string{"192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32"}, func(n string) bool {
		return netip.MustParsePrefix(n).Contains(a)
	})
}

// ordinary is the user and the group of a program that no rule names.
func (p *planner) ordinary() (uid, gid uint32) {
	for _, x := range []struct {
		what asked
		id   *uint32
	}{{askUID, &uid}, {askGID, &gid}} {
		for _, id := range []uint32{0, 1000, 64999, 3003} {
			*x.id = id
			if !slices.ContainsFunc(p.hints.all, func(h *hint) bool {
				return slices.ContainsFunc(h.asks, func(a ask) bool {
					return a.what == x.what && slices.ContainsFunc(a.spans, func(s span) bool { return id >= s.lo && id <= s.hi })
				})
			}) && !slices.ContainsFunc(p.PolicyRules, func(r PolicyRule) bool {
				return x.what == askUID && r.HasUIDs && id >= r.UIDFirst && id <= r.UIDLast && r.UIDFirst > 0
			}) {
				break
			}
		}
	}
	return uid, gid
}

// families are those that the host has addresses of, lo's aside.
func (p *planner) families() []bool {
	var all []bool
	for _, six := range []bool{false, true} {
		if slices.ContainsFunc(p.Addrs, func(a Addr) bool { return a.Index != 1 && a.Local.Is6() == six && !a.Local.IsLinkLocalUnicast() }) {
			all = append(all, six)
		}
	}
	return all
}

// fromHost plans flows of the host's own programs to the internet.
func (p *planner) fromHost() {
	uid, gid := p.ordinary()
	for _, six := range p.families() {
		own := func(proto string, to netip.AddrPort, why string) {
			p.add(Flow{Kind: Own, Proto: proto, To: to, UID: uid, GID: gid, Why: why})
		}
		for i, port := range p.tcp {
			if i < 4 || p.outputNames(port) {
				own("tcp", netip.AddrPortFrom(p.fake[number(six)], port), "")
			}
		}
		for i, port := range p.udp {
			if i < 2 || p.outputNames(port) {
				own("udp", netip.AddrPortFrom(p.fake[number(six)], port), "")
			}
		}
		for _, n := range p.named(six, unix.NF_INET_LOCAL_OUT) {
			own(n.Proto, n.To, n.Why)
		}
	}
}

// outputNames reports whether a rule for the host's own packets asks for a port.
func (p *planner) outputNames(port uint16) bool {
	return slices.ContainsFunc(p.hints.seen, func(s hookSeen) bool {
		return s.hook == unix.NF_INET_LOCAL_OUT && s.has(askDport, false) && s.takes(askDport, uint32(port))
	})
}

// exempt plans flows of programs that the rules leave out of a diversion, by mark, user or group;
// and of those users that they divert alone.
func (p *planner) exempt() {
	uid, gid := p.ordinary()
	var senders []Flow
	add := func(f Flow) {
		if len(senders) < maxSenders {
			senders = append(senders, f)
		}
	}
	for _, s := range p.hints.seen {
		if s.hook != unix.NF_INET_LOCAL_OUT || !p.hints.diverts[s.base] || p.toLoopback(s.hint) {
			continue
		}
		diverts := s.redirect || s.marks || s.jump != ""
		for _, a := range s.asks {
			// What is left out is asked for by a rule that leaves, and negated by one that diverts.
			left := s.leaves && !a.not || diverts && a.not
			if len(a.spans) == 0 || a.what != askMark && a.what != askUID && a.what != askGID || !left && !(diverts && a.what != askMark) {
				continue
			}
			for _, x := range a.spans[:min(len(a.spans), 3)] {
				f := Flow{Kind: Exempt, Proto: "tcp", UID: uid, GID: gid, Why: s.where}
				if !left {
					f.Kind = Own
				}
				if !s.takes(askProto, unix.IPPROTO_TCP) {
					f.Proto = "udp"
				}
				switch a.what {
				case askMark:
					f.Mark = x.lo & a.mask
					if f.Mark == 0 || p.routesLocal(f.Mark, false) || p.routesLocal(f.Mark, true) {
						continue
					}
				case askUID:
					f.UID = x.lo
				case askGID:
					f.GID = x.lo
				}
				for _, six := range p.families() {
					if !s.of(six) {
						continue
					}
					to := p.fake[number(six)]
					if d, ok := s.first(askDest); ok && len(d.addrs) > 0 && d.addrs[0].lo.Is6() == six {
						if to = d.addrs[0].lo; d.addrs[0].lo != d.addrs[0].hi {
							to = to.Next()
						}
					}
					if !isPublic(to) {
						continue
					}
					f.To = netip.AddrPortFrom(to, p.portFor(s.hint, f.Proto))
					add(f)
				}
			}
		}
	}
	// A proxy that runs as a user of its own, beside rules that leave other users out.
	byUser := slices.ContainsFunc(senders, func(f Flow) bool { return f.Kind == Exempt && (f.UID != uid || f.GID != gid) })
	byMark := slices.ContainsFunc(senders, func(f Flow) bool { return f.Kind == Exempt && f.Mark != 0 })
	for _, s := range p.Sockets {
		if !byUser || byMark || s.Proto != "tcp" || !p.hints.listens(s) || s.UID == uid {
			continue
		}
		for _, six := range p.families() {
			add(Flow{
				Kind: Exempt, Proto: "tcp", UID: s.UID, GID: s.GID, To: netip.AddrPortFrom(p.fake[number(six)], p.tcp[0]),
				Why: fmt.Sprintf("%s listens at %v as this user", cmp.Or(s.Comm, "the proxy"), s.Local),
			})
		}
	}
	for _, u := range p.Upstreams {
		to := u.Remote
		if !to.IsValid() {
			if u.Mark == 0 { // it may have been left out by its address
				continue
			}
			to = netip.AddrPortFrom(p.fake[number(u.IPv6)], p.portFor(&hint{}, u.Proto))
		}
		add(Flow{
			Kind: Exempt, Proto: u.Proto, To: to, Mark: u.Mark, UID: u.UID, GID: u.GID,
			Why: fmt.Sprintf("a connection of %s, which takes diverted packets", u.Comm),
		})
	}
	for _, f := range senders {
		p.add(f)
	}
}

// toLoopback reports whether a rule is for what leaves by lo alone.
func (p *planner) toLoopback(h *hint) bool {
	return h.has(askOut, false) && h.takesName(askOut, "lo")
}

// services plans flows of clients, and of the internet, to the host itself: to the services that
// listen there, and to the ports that rules redirect.
func (p *planner) services() {
	for _, proto := range []string{"tcp", "udp"} {
		sockets := slices.DeleteFunc(slices.Clone(p.Sockets), func(s Socket) bool {
			return s.Proto != proto || p.hints.listens(s) || proto == "udp" && s.Local.Port() >= 1024 && !p.named1(s.Local.Port())
		})
		slices.SortStableFunc(sockets, func(a, b Socket) int {
			return cmp.Or(cmp.Compare(a.Local.Port(), b.Local.Port()), cmp.Compare(a.Local.Addr().BitLen(), b.Local.Addr().BitLen()))
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
			if !c.main || !s.of(c.addr.Is6()) || !s.takesName(askIn, p.holder(c.device).Name) || !s.takesAddr(askSource, c.addr) || !s.takesAddr(askDest, c.host) {
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

// named1 reports whether a rule asks for a destination port.
func (p *planner) named1(port uint16) bool {
	return slices.ContainsFunc(p.hints.all, func(h *hint) bool { return h.has(askDport, false) && h.takes(askDport, uint32(port)) })
}

// serves reports whether a socket takes what a client sends to the host's address.
func (p *planner) serves(s Socket, c client) bool {
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
				p.add(Flow{Kind: Asked, Proto: s.Proto, In: c.device.Name, From: netip.AddrPortFrom(c.addr, 0), To: netip.AddrPortFrom(c.host, s.Local.Port())})
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
					if c.main && s.of(c.addr.Is6()) && to.Addr().Is6() == c.addr.Is6() {
						p.add(Flow{Kind: Borrowed, Proto: "tcp", From: netip.AddrPortFrom(c.addr, 0), To: to, Why: s.where})
					}
				}
			}
		}
	}
}

// isListener reports whether rules divert to a socket.
func (p *planner) isListener(s Socket) bool { return p.hints.listens(s) }
