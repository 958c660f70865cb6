package twin

import (
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// ordinary is the user and the group of a program that no rule names and that takes no diverted
// packets.
func (p *planner) ordinary() (uid, gid uint32) {
	for _, x := range []struct {
		what asked
		id   *uint32
	}{{askUID, &uid}, {askGID, &gid}} {
		for _, id := range []uint32{0, 1000, 64999, 3003} {
			*x.id = id
			if !slices.ContainsFunc(p.hints.all, func(h *hint) bool {
				return slices.ContainsFunc(h.asks, func(a ask) bool {
					return a.what == x.what && slices.ContainsFunc(a.spans,
						func(s span) bool { return id >= s.lo && id <= s.hi })
				})
			}) && !slices.ContainsFunc(p.PolicyRules, func(r PolicyRule) bool {
				return x.what == askUID && r.HasUIDs && id >= r.UIDFirst && id <= r.UIDLast && r.UIDFirst > 0
			}) && !slices.ContainsFunc(p.Sockets, func(s BoundSocket) bool {
				return p.hints.listens(s) && id == map[asked]uint32{askUID: s.UID, askGID: s.GID}[x.what]
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
		if slices.ContainsFunc(p.Addrs, func(a Addr) bool {
			return a.Index != 1 && a.Local.Is6() == six &&
				!a.Local.IsLinkLocalUnicast()
		}) {
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
			if len(a.spans) == 0 || a.what != askMark && a.what != askUID && a.what != askGID || !left &&
				!(diverts && a.what != askMark) {
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
