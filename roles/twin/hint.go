package twin

import (
	"net/netip"
	"slices"
)

// asked is what a condition of a rule asks of a packet.
type asked int

const (
	askOther asked = iota // something that no flow is planned from
	askMark
	askUID
	askGID
	askSport
	askDport
	askSource
	askDest
	askProto
	askIn  // name of the device that it came by
	askOut // and of the one that it leaves by
	askCgroup
	askMAC    // hardware address of the sender, as names have it
	askSocket // a transparent socket is the packet's
)

// ask is a condition: one of the values, or none of them.
type ask struct {
	what  asked
	not   bool
	mask  uint32 // of a mark
	spans []span
	addrs []addrSpan
	names []string // with * at the end for any that begins so; of askMAC its bytes
}

// span has both its ends.
type span struct{ lo, hi uint32 }

type addrSpan struct{ lo, hi netip.Addr }

func (s addrSpan) contains(a netip.Addr) bool {
	return a.BitLen() == s.lo.BitLen() && a.Compare(s.lo) >= 0 && a.Compare(s.hi) <= 0
}

// hint is what a rule tells someone who plans flows: which values it asks for, and what it does
// with the packets that have them.
type hint struct {
	family string // of its table: ip, ip6, inet
	where  string // for people
	asks   []ask

	leaves   bool   // its verdict is accept or return
	jump     string // the chain that it jumps or goes to
	redirect bool   // the packet goes to a listener of the host: tproxy, redirect
	tproxy   bool
	marks    bool // it sets a mark, of which set says what 0 becomes
	set      uint32
	// it sets a mark that is not in the rule: the connection's, or one that depends on the packet
	restores bool
	targets  []netip.AddrPort // of tproxy, redirect and dnat; the address or the port may be missing
}

// hintChain is a chain of hints.
type hintChain struct {
	name  string
	hook  int // NF_INET_, -1 for none
	hints []*hint
}

// hookSeen is a hint and what led there.
type hookSeen struct {
	*hint
	base int // number of a base chain
	hook int
}

// hints are the hints of all rules of a host.
type hints struct {
	all     []*hint
	seen    []hookSeen       // each hint once for each base chain that leads to it
	diverts []bool           // by the number of a base chain: a rule there diverts
	targets []netip.AddrPort // of all rules

	listeners map[listener]bool
}

// maxSpans bounds how many values of a set are looked at.
const maxSpans = 4096

// follow adds the rules of a table: base chains with all that they lead to.
func (h *hints) follow(chains []*hintChain, local func(h *hint, six bool) bool) {
	if h.listeners == nil {
		h.listeners = map[listener]bool{}
	}
	byName := make(map[string]*hintChain, len(chains))
	for _, c := range chains {
		byName[c.name] = c
		h.all = append(h.all, c.hints...)
	}
	for _, c := range chains {
		if c.hook < 0 {
			continue
		}
		base := len(h.diverts)
		h.diverts = append(h.diverts, false)
		visited := map[string]bool{c.name: true}
		for queue := []*hintChain{c}; len(queue) > 0; queue = queue[1:] {
			for _, x := range queue[0].hints {
				h.seen = append(h.seen, hookSeen{x, base, c.hook})
				if x.redirect || x.family != "ip6" && local(x, false) || x.family != "ip" && local(x, true) {
					h.diverts[base] = true
				}
				if next := byName[x.jump]; next != nil && !visited[x.jump] {
					visited[x.jump] = true
					queue = append(queue, next)
				}
			}
		}
	}
	for _, c := range chains {
		for _, x := range c.hints {
			for _, t := range x.targets {
				for _, proto := range []uint32{protoTCP, protoUDP} {
					if x.redirect && t.Port() != 0 && x.takes(askProto, proto) {
						h.listeners[listener{proto, t.Port()}] = true
					}
				}
				if !slices.Contains(h.targets, t) && len(h.targets) < maxSpans {
					h.targets = append(h.targets, t)
				}
			}
		}
	}
}

// of reports whether packets of a family come to the rule.
func (h *hint) of(six bool) bool {
	if h.family == map[bool]string{false: "ip6", true: "ip"}[six] {
		return false
	}
	for _, a := range h.asks {
		ofFamily := func(s addrSpan) bool { return s.lo.Is6() == six }
		if (a.what == askSource || a.what == askDest) && len(a.addrs) > 0 && !a.not &&
			!slices.ContainsFunc(a.addrs, ofFamily) {
			return false
		}
	}
	return true
}

// listens reports whether rules divert to a socket.
func (h *hints) listens(s BoundSocket) bool {
	return h.listeners[listener{protoNumber(s.Proto), s.Local.Port()}]
}

// listener is where rules divert to.
type listener struct {
	proto uint32
	port  uint16
}

// protocols of IP.
const (
	protoTCP = 6
	protoUDP = 17
)

func protoNumber(proto string) uint32 {
	if proto == "udp" {
		return protoUDP
	}
	return protoTCP
}

// sender is the hardware address of a sender that rules divert alone, of what comes by a device: ""
// where they do not ask for any.
func (h *hints) sender(device string) string {
	for _, s := range h.seen {
		if a, ok := s.first(askMAC); ok && s.hook == 0 && !s.leaves && s.takesName(askIn, device) {
			for _, mac := range a.names {
				if len(mac) == 6 && mac[0]&1 == 0 {
					return mac
				}
			}
		}
	}
	return ""
}

// has reports whether the rule asks for something in a way.
func (h *hint) has(what asked, not bool) bool {
	return slices.ContainsFunc(h.asks, func(a ask) bool { return a.what == what && a.not == not })
}

// first is the first condition of a kind that is not negated.
func (h *hint) first(what asked) (ask, bool) {
	i := slices.IndexFunc(h.asks, func(a ask) bool { return a.what == what && !a.not })
	if i < 0 {
		return ask{}, false
	}
	return h.asks[i], true
}

// takes reports whether the rule's conditions of a kind allow a number. What it does not ask for it
// allows.
func (h *hint) takes(what asked, n uint32) bool {
	for _, a := range h.asks {
		if a.what == what && a.not == slices.ContainsFunc(a.spans,
			func(s span) bool { return n >= s.lo && n <= s.hi }) {
			return false
		}
	}
	return true
}

// takesAddr is takes for addresses.
func (h *hint) takesAddr(what asked, x netip.Addr) bool {
	for _, a := range h.asks {
		if a.what == what && a.not == slices.ContainsFunc(a.addrs, func(s addrSpan) bool { return s.contains(x) }) {
			return false
		}
	}
	return true
}

// takesName is takes for names of devices.
func (h *hint) takesName(what asked, name string) bool {
	for _, a := range h.asks {
		if a.what == what && a.not == slices.ContainsFunc(a.names, func(n string) bool { return matchName(n, name) }) {
			return false
		}
	}
	return true
}

func matchName(pattern, name string) bool {
	if n := len(pattern); n > 0 && pattern[n-1] == '*' {
		return len(name) >= n-1 && name[:n-1] == pattern[:n-1]
	}
	return pattern == name
}
