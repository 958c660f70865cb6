package twin

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// elsewhere are addresses that a proxy may connect to, in networks that are no one's on the
// internet.
var elsewhere = map[bool][]netip.Addr{
	false: {
		netip.MustParseAddr("192.168.231.77"), netip.MustParseAddr("10.231.77.77"),
		netip.MustParseAddr("172.29.231.77"),
	},
	true: {netip.MustParseAddr("fdce:5ca1:ab1e::77")},
}

// proxys plans flows of the programs that take diverted packets, which rules for the host's own
// packets must leave out: to the internet and, where no rule asks for an owner, also to each
// private network. A program's packets loop for certain where all of its flows come back.
func (p *planner) proxys() {
	for _, s := range p.Sockets {
		if !p.hints.listens(s) {
			continue
		}
		for _, six := range p.families() {
			byOwner, otherwise := p.leftOut(s.Proto, six)
			if s.Proto == "udp" && !p.outputNames(p.udp[0]) {
				continue
			}
			if otherwise || !byOwner && len(p.Upstreams) > 0 {
				continue
			}
			to := []netip.Addr{p.fake[number(six)]}
			if !byOwner {
				to = append(to, slices.DeleteFunc(slices.Clone(elsewhere[six]), func(x netip.Addr) bool {
					return slices.ContainsFunc(p.Addrs, func(a Addr) bool { return a.Prefix.Contains(x) })
				})...)
			}
			for _, x := range to {
				port := p.tcp[0]
				switch {
				case s.Proto == "udp":
					port = p.udp[0]
				case !byOwner:
					port = p.tcp[min(2, len(p.tcp)-1)] // which no rule names
				}
				p.add(Flow{
					Kind: Guessed, Proto: s.Proto, To: netip.AddrPortFrom(x, port), UID: s.UID, GID: s.GID,
					Why: fmt.Sprintf("%s listens at %v as this user and group", cmp.Or(s.Comm, "the proxy"), s.Local),
				})
			}
		}
	}
}

// leftOut reports whether rules for the host's own packets leave some out by their owner, and
// whether they may know the proxy's own by anything else: a mark, a cgroup, or the address of its
// server.
func (p *planner) leftOut(proto string, six bool) (byOwner, otherwise bool) {
	diverts, network := false, false
	for _, h := range p.hints.seen {
		if h.hook != unix.NF_INET_LOCAL_OUT || !p.hints.diverts[h.base] || !h.of(six) || p.toLoopback(h.hint) ||
			!h.takes(askProto, protoNumber(proto)) {
			continue
		}
		does := h.redirect || h.marks || h.jump != ""
		diverts = diverts || h.redirect || p.marksLocal(h.hint, six)
		for _, a := range h.asks {
			if !(h.leaves && !a.not || does && (a.not || a.what != askDest)) {
				continue
			}
			switch a.what {
			case askUID, askGID:
				byOwner = true
			case askMark, askCgroup:
				otherwise = true
			case askDest:
				for _, x := range a.addrs {
					network = network || isPublic(x.lo) || isPublic(x.hi)
					otherwise = otherwise || x.lo == x.hi && x.lo.IsGlobalUnicast() && !p.isOwn(x.lo)
				}
			}
		}
	}
	return byOwner, otherwise || !diverts || network && !byOwner
}
