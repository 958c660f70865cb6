package twin

import (
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
	false: {
		netip.MustParseAddr("45.33.32.156"),
		netip.MustParseAddr("151.101.193.69"),
		netip.MustParseAddr("62.116.130.8"),
		netip.MustParseAddr("185.15.59.224"),
	},
	true: {
		netip.MustParseAddr("2600:3c01::f03c:91ff:fe18:bb2f"),
		netip.MustParseAddr("2a02:ec80:300:ed1a::1"),
		netip.MustParseAddr("2606:2800:220:1::1"),
	},
}

// Plan makes the flows that show what happens to the host's traffic. They are planned from its
// devices, addresses and sockets, and from the values that its rules ask for.
func Plan(c *Snapshot) []Flow {
	p := &planner{Snapshot: c, hints: c.hints(), uplinks: c.uplinks(), ids: map[string]bool{}}
	p.clients = p.findClients()
	p.findPorts()
	for _, six := range []bool{false, true} {
		p.fake = append(p.fake, p.public(six))
	}
	p.fromClients()
	p.fromHost()
	p.exempt()
	p.proxys()
	p.services()
	p.listeners()
	p.borrowed()
	p.asClients()
	p.inbound()
	return p.flows
}

type planner struct {
	*Snapshot
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

// public is an address of the internet that no rule names.
func (p *planner) public(six bool) netip.Addr {
	all := publicAddresses[six][:len(publicAddresses[six])-1]
	for _, a := range all {
		if !slices.ContainsFunc(p.hints.all, func(h *hint) bool {
			return slices.ContainsFunc(h.asks, func(x ask) bool {
				return x.what == askDest && slices.ContainsFunc(x.addrs, func(s addrSpan) bool {
					return s.contains(a) && (s.lo != spanOf(netip.PrefixFrom(s.lo, 1)).lo ||
						s.hi != spanOf(netip.PrefixFrom(s.hi, 1)).hi)
				})
			})
		}) {
			return a
		}
	}
	return all[0]
}

// findPorts collects the ports that flows go to: the usual ones, one that no rule names, those of
// rules that divert, of other rules, of policy rules, and of the host's own listeners.
func (p *planner) findPorts() {
	p.tcp, p.udp = []uint16{80, 443}, []uint16{53, 443}
	add := func(proto uint32, port uint32) {
		for _, list := range []struct {
			proto uint32
			ports *[]uint16
		}{{unix.IPPROTO_TCP, &p.tcp}, {unix.IPPROTO_UDP, &p.udp}} {
			if (proto == 0 || proto == list.proto) && port > 0 && port < 65535 && len(*list.ports) < maxPorts &&
				!slices.Contains(*list.ports, uint16(port)) {
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
		}) && !slices.ContainsFunc(p.Sockets, func(s BoundSocket) bool { return uint32(s.Local.Port()) == port })
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

// named are flows to addresses that rules of a hook name, without their senders: first those of
// rules that do something, then those that are left out of it.
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
				atHost := to.IsLoopback() && hook == unix.NF_INET_LOCAL_OUT && len(s.targets) > 0
				if to.Is6() != six || !isRouted(to) && !atHost || p.isOwn(to) || slices.Contains(p.fake, to) {
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
	if proto == "udp" { // 53 last: much is made of it
		usual = append(slices.Clone(p.udp[1:]), p.udp[0])
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

// reserved are networks that are no one's on the internet (RFC 6890), beside those that netip
// knows.
var reserved = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"),
	netip.MustParsePrefix("192.88.99.0/24"), netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"),
	netip.MustParsePrefix("240.0.0.0/4"), netip.MustParsePrefix("::/8"), netip.MustParsePrefix("64:ff9b::/96"),
	netip.MustParsePrefix("100::/64"),
	netip.MustParsePrefix("2001::/23"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("2002::/16"),
}

// isRouted reports whether a network may route an address to others, as it does those of proxies'
// made-up answers of DNS (198.18.0.0/15) and of documents.
func isRouted(a netip.Addr) bool {
	return a.IsGlobalUnicast() && !a.IsPrivate() && !slices.ContainsFunc(local,
		func(n netip.Prefix) bool { return n.Contains(a) })
}

// local are the networks of reserved that no network routes to others.
var local = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("::/8"), netip.MustParsePrefix("100::/64"), netip.MustParsePrefix("2002::/16"),
}

// isPublic reports whether an address may be of the internet.
func isPublic(a netip.Addr) bool {
	return a.IsGlobalUnicast() && !a.IsPrivate() && !slices.ContainsFunc(reserved,
		func(n netip.Prefix) bool { return n.Contains(a) })
}
