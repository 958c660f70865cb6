package netfilter

import (
	"net/netip"
	"slices"
	"strings"

	"pfdivert/pfconf"
)

// Field is what a condition looks at.
type Field int

// The fields. Number fields have Mask and In, addresses Nets, interfaces Names.
const (
	Proto       Field = iota + 1 // number
	NFProto                      // number: unix.NFPROTO_*
	InName                       // interface
	OutName                      // interface
	Mark                         // number
	CTMark                       // number
	Port                         // number: the destination's
	State                        // number: bits of conntrack's state
	Transparent                  // number: 1 of a transparent socket, and no match where there is no socket
	AddrType                     // number: RTN_*, of the destination
	UID                          // number: who owns the sending socket
	Dst                          // addresses
	Src                          // addresses
	Sender                       // something else of the sending socket: group, cgroup
	Packet                       // something of the packet that is not followed: sizes, times, source ports
	Unknown                      // not understood
)

// Cond is what a rule asks of a packet.
type Cond struct {
	Field Field
	Not   bool
	Mask  uint64
	In    spans
	Nets  []netip.Prefix
	Names []string // "eth*" for all that begin so
	Text  string
}

// Conntrack's states, as xt_conntrack and nft's ct state have them (NF_CT_STATE_BIT and
// NF_CT_STATE_INVALID_BIT, linux/netfilter/nf_conntrack_common.h).
const (
	stateInvalid     = 1
	stateEstablished = 2
	stateRelated     = 4
	stateNew         = 8
	stateUntracked   = 64
)

// Types of addresses (linux/rtnetlink.h).
const (
	typeUnicast = 1
	typeLocal   = 2
)

// Answers to whether a packet meets a condition.
type answer int

const (
	no answer = iota
	yes
	perhaps
)

func sure(b bool) answer {
	if b {
		return yes
	}
	return no
}

func (a answer) not() answer {
	if a == perhaps {
		return a
	}
	return yes - a
}

// asks reports whether packets meet the condition, Port's apart.
func (c *Cond) asks(p *Packets, s *state) answer {
	number := func(n uint64) answer { return sure(c.In.has(n & c.Mask)) }
	var a answer
	switch c.Field {
	case Proto:
		a = number(uint64(p.Proto))
	case NFProto:
		n := uint64(2) // NFPROTO_IPV4
		if p.Family == pfconf.Inet6 {
			n = 10
		}
		a = number(n)
	case InName:
		a = sure(named(c.Names, p.In))
	case OutName:
		if p.Own && p.Out == "" {
			a = perhaps
		} else {
			a = sure(named(c.Names, p.Out))
		}
	case Mark:
		if uint64(s.known)&c.Mask != c.Mask {
			return perhaps
		}
		a = number(uint64(s.mark))
	case CTMark:
		if s.ctUnknown {
			return perhaps
		}
		a = number(uint64(s.ctMark))
	case State:
		n := uint64(stateNew)
		switch {
		case s.untracked:
			n = stateUntracked
		case p.Answer:
			n = stateEstablished
		}
		a = number(n)
	case Transparent:
		if !p.Socket {
			return no // the rule ends there, also where it is negated (nft_socket_eval, net/netfilter/nft_socket.c)
		}
		a = number(1)
	case AddrType:
		n := uint64(typeUnicast)
		if s.redirected != nil || p.Local {
			n = typeLocal
		}
		a = number(n)
	case UID:
		switch {
		case !p.Own:
			return no
		case p.UID < 0:
			a = perhaps
		default:
			a = number(uint64(p.UID))
		}
	case Sender:
		if !p.Own {
			return no
		}
		a = perhaps
	case Dst:
		a = p.destined(c.Nets)
		if s.redirected != nil {
			a = perhaps
		}
	case Src:
		a = p.sent(c.Nets)
	default:
		a = perhaps
	}
	if c.Not {
		return a.not()
	}
	return a
}

// identifies reports whether the condition may single out what the proxy itself sends: by its
// socket, by a mark that the socket sets, or by the server that it is for.
func (c *Cond) identifies() bool {
	switch c.Field {
	case UID, Sender, Mark, CTMark, Unknown:
		return true
	case Dst:
		return len(c.Nets) == 0 || slices.ContainsFunc(c.Nets, func(n netip.Prefix) bool { return n.Bits() > 0 && global(n.Addr()) })
	}
	return false
}

func named(names []string, name string) bool {
	return slices.ContainsFunc(names, func(n string) bool {
		if begin, ok := strings.CutSuffix(n, "*"); ok {
			return strings.HasPrefix(name, begin)
		}
		return n == name
	})
}

// destined: packets that are diverted are for other hosts, of whom nothing else is known.
func (p *Packets) destined(nets []netip.Prefix) answer {
	if len(nets) == 0 {
		return perhaps // a set whose elements are not read
	}
	all := no
	for _, n := range nets {
		a := n.Addr()
		switch {
		case n.Bits() == 0:
			return yes
		case a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		case n.IsSingleIP() && slices.Contains(p.Addresses, a):
		default:
			all = perhaps
		}
	}
	return all
}

// sent: the senders are beside the host on the interface, or behind those.
func (p *Packets) sent(nets []netip.Prefix) answer {
	if len(nets) == 0 {
		return perhaps
	}
	all := no
	for _, n := range nets {
		switch {
		case n.Bits() == 0 || slices.ContainsFunc(p.From, func(f netip.Prefix) bool { return n.Bits() <= f.Bits() && n.Contains(f.Addr()) }):
			return yes
		case !p.Own && (n.Addr().IsLoopback() || n.IsSingleIP() && slices.Contains(p.Addresses, n.Addr())):
		default:
			all = perhaps
		}
	}
	return all
}

// global reports whether an address can be that of a server far away; RFC 6890 lists those that
// can't.
func global(a netip.Addr) bool {
	return a.IsGlobalUnicast() && !a.IsPrivate() && !slices.ContainsFunc(special, func(n netip.Prefix) bool { return n.Contains(a) })
}

var special = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"), netip.MustParsePrefix("192.0.2.0/24"),
	netip.MustParsePrefix("192.88.99.0/24"), netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("240.0.0.0/4"), netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("100::/64"), netip.MustParsePrefix("2001:db8::/32"),
}
