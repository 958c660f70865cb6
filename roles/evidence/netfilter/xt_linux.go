package netfilter

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
)

// The matches of xtables that ask something of a packet that is not followed;
// iptables-extensions(8).
var unfollowed = []string{
	"ah", "bpf", "cluster", "connbytes", "connlabel", "connlimit", "cpu", "dccp", "devgroup", "dscp", "ecn", "esp", "eui64", "frag", "hashlimit", "helper",
	"hl", "icmp", "icmp6", "ipcomp", "iprange", "ipv6header", "ipvs", "l2tp", "length", "limit", "mac", "mh", "nfacct", "osf", "physdev", "pkttype", "policy", "quota",
	"rateest", "realm", "recent", "rpfilter", "rt", "sctp", "set", "srh", "statistic", "string", "tcpmss", "time", "tos", "ttl", "u32", "dst", "hbh",
}

// little returns numbers of a structure of the kernel's, which has them in the machine's order;
// what is not there is 0.
type structure []byte

func (s structure) u8(at int) uint64 {
	if at < len(s) {
		return uint64(s[at])
	}
	return 0
}

func (s structure) u16(at int) uint64 {
	if at+2 <= len(s) {
		return uint64(binary.NativeEndian.Uint16(s[at:]))
	}
	return 0
}

func (s structure) u32(at int) uint64 {
	if at+4 <= len(s) {
		return uint64(binary.NativeEndian.Uint32(s[at:]))
	}
	return 0
}

// be16 is one in network order.
func (s structure) be16(at int) uint16 {
	if at+2 <= len(s) {
		return binary.BigEndian.Uint16(s[at:])
	}
	return 0
}

func (s structure) address(at, size int) netip.Addr {
	if at+size > len(s) {
		return netip.Addr{}
	}
	a, _ := netip.AddrFromSlice(s[at : at+size])
	if a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}

// bang is the text of a negation.
func bang(not bool) string {
	if not {
		return "! "
	}
	return ""
}

// ports are those of tcp and udp: a range of sources, one of destinations, and which of them are
// negated.
func portsOf(name string, spts, dpts [2]uint64, notSource, notDest bool) []Cond {
	var all []Cond
	text := func(option string, not bool, p [2]uint64) string {
		if p[0] == p[1] {
			return fmt.Sprintf("%s--%s %d", bang(not), option, p[0])
		}
		return fmt.Sprintf("%s--%s %d:%d", bang(not), option, p[0], p[1])
	}
	if spts != [2]uint64{0, 65535} {
		all = append(all, Cond{Field: Packet, Text: text("sport", notSource, spts)})
	}
	if dpts != [2]uint64{0, 65535} {
		all = append(all, Cond{Field: Port, Not: notDest, Mask: last, In: spans{{dpts[0], dpts[1]}}, Text: text("dport", notDest, dpts)})
	}
	return all
}

// matchOf reads a match of xtables, by its name and revision (struct xt_*, linux/netfilter/xt_*.h).
func matchOf(name string, revision uint32, data []byte) ([]Cond, bool) {
	s := structure(data)
	unknown := []Cond{{Field: Unknown, Text: fmt.Sprintf("-m %s (revision %d)", name, revision)}}
	one := func(c Cond) ([]Cond, bool) { return []Cond{c}, true }
	switch name {
	case "comment":
		return nil, true
	case "tcp": // struct xt_tcp
		all := portsOf(name, [2]uint64{s.u16(0), s.u16(2)}, [2]uint64{s.u16(4), s.u16(6)}, s.u8(11)&1 != 0, s.u8(11)&2 != 0)
		if s.u8(8) != 0 || s.u8(9) != 0 && !(s.u8(9)&2 != 0 && s.u8(10) == 2 && s.u8(11)&4 == 0) { // --syn is of a first packet
			all = append(all, Cond{Field: Packet, Text: fmt.Sprintf("--tcp-flags %d %d", s.u8(9), s.u8(10))})
		}
		return all, true
	case "udp", "udplite": // struct xt_udp
		return portsOf(name, [2]uint64{s.u16(0), s.u16(2)}, [2]uint64{s.u16(4), s.u16(6)}, s.u8(8)&1 != 0, s.u8(8)&2 != 0), true
	case "multiport": // struct xt_multiport_v1
		if revision != 1 {
			return unknown, true
		}
		c := Cond{Field: Packet, Not: s.u8(47) != 0, Mask: last, Text: bang(s.u8(47) != 0) + "--ports"}
		if s.u8(0) == 1 { // XT_MULTIPORT_DESTINATION
			c.Field, c.Text = Port, bang(c.Not)+"--dports"
		}
		var list []span
		for i := 0; i < int(s.u8(1)) && i < 15; i++ {
			p := span{s.u16(2 + 2*i), s.u16(2 + 2*i)}
			if s.u8(32+i) != 0 && i+1 < 15 { // the next one is its end
				i++
				p.hi = s.u16(2 + 2*i)
			}
			list = append(list, p)
			c.Text += fmt.Sprintf(" %d-%d", p.lo, p.hi)
		}
		c.In = spansOf(list)
		return one(c)
	case "mark", "connmark": // struct xt_mark_mtinfo1, xt_connmark_mtinfo1
		if revision != 1 {
			return unknown, true
		}
		c := Cond{Field: Mark, Not: s.u8(8) != 0, Mask: s.u32(4), In: just(s.u32(0) & s.u32(4)), Text: fmt.Sprintf("-m %s %s--mark 0x%x/0x%x", name, bang(s.u8(8) != 0), s.u32(0), s.u32(4))}
		if name == "connmark" {
			c.Field = CTMark
		}
		return one(c)
	case "state":
		return one(states(s.u32(0), false))
	case "conntrack": // struct xt_conntrack_mtinfo1 to 3
		flags, inverted, mask := s.u16(146), s.u16(148), s.u16(150)
		if revision == 1 {
			mask = s.u8(150)
		}
		if revision < 1 || revision > 3 {
			return unknown, true
		}
		var all []Cond
		if flags&1 != 0 { // XT_CONNTRACK_STATE
			// Those of translated packets are of no first one.
			all = append(all, states(mask, inverted&1 != 0))
		}
		if flags&^1 != 0 {
			all = append(all, Cond{Field: Packet, Text: fmt.Sprintf("-m conntrack %x", data)})
		}
		return all, true
	case "socket": // struct xt_socket_mtinfo1 to 3
		return one(Cond{Field: Transparent, Mask: last, In: just(1), Text: "-m socket"})
	case "owner": // struct xt_owner_match_info
		if revision != 1 {
			return unknown, true
		}
		var all []Cond
		match, not := s.u8(16), s.u8(17)
		if match&1 != 0 { // XT_OWNER_UID
			all = append(all, Cond{Field: UID, Not: not&1 != 0, Mask: last, In: spans{{s.u32(0), s.u32(4)}}, Text: fmt.Sprintf("%s--uid-owner %d", bang(not&1 != 0), s.u32(0))})
		}
		if match&^1 != 0 {
			all = append(all, Cond{Field: Sender, Text: fmt.Sprintf("--gid-owner %d (%d, %d)", s.u32(8), match, not)})
		}
		return all, true
	case "cgroup":
		return one(Cond{Field: Sender, Text: fmt.Sprintf("-m cgroup %x", data)})
	case "addrtype": // struct xt_addrtype_info_v1: bits of types of the source and of the destination, and flags
		source, dest, flags := s.u16(0), s.u16(2), s.u32(4)
		if revision != 1 {
			return unknown, true
		}
		var all []Cond
		if source != 0 {
			all = append(all, Cond{Field: Packet, Text: fmt.Sprintf("--src-type %#x (%d)", source, flags)})
		}
		if dest != 0 {
			var list []span
			for d := dest; d != 0; d &= d - 1 {
				n := uint64(bits.TrailingZeros64(d))
				list = append(list, span{n, n})
			}
			c := Cond{Field: AddrType, Not: flags&2 != 0, Mask: last, In: spansOf(list)} // XT_ADDRTYPE_INVERT_DEST
			c.Text = fmt.Sprintf("%s--dst-type %#x", bang(c.Not), dest)
			all = append(all, c)
		}
		return all, true
	}
	if slices.Contains(unfollowed, name) {
		return one(Cond{Field: Packet, Text: fmt.Sprintf("-m %s %x", name, data[:min(len(data), 40)])})
	}
	return unknown, true
}

func states(mask uint64, not bool) Cond {
	return Cond{Field: State, Not: !not, Mask: mask & 0x7f, In: just(0), Text: bang(not) + "--ctstate " + stateNames(mask)}
}

// The targets of xtables that do nothing to a packet's way.
var idleTargets = []string{
	"LOG", "NFLOG", "ULOG", "TRACE", "CHECKSUM", "CLASSIFY", "CLUSTERIP", "CONNSECMARK", "DSCP", "ECN", "HL", "IDLETIMER", "LED", "RATEEST", "SECMARK", "SET", "TCPMSS",
	"TCPOPTSTRIP", "TEE", "TOS", "TTL", "AUDIT",
}

// targetOf reads a target of xtables. What ends the rule ends in a verdict.
func targetOf(name string, revision uint32, data []byte, six bool) []Action {
	s := structure(data)
	ends := Action{Does: Accept}
	unknown := []Action{{MarkUnknown: true, Text: fmt.Sprintf("-j %s (revision %d, not understood)", name, revision), Unknown: "not understood"}}
	switch name {
	case "REJECT":
		return []Action{{Does: Drop, Text: "-j REJECT"}}
	case "MARK": // struct xt_mark_tginfo2
		if revision != 2 {
			return unknown
		}
		mark, mask := uint32(s.u32(0)), uint32(s.u32(4))
		return []Action{{Does: SetMark, And: ^mask, Xor: mark, Text: fmt.Sprintf("-j MARK --set-xmark 0x%x/0x%x", mark, mask)}}
	case "CONNMARK": // struct xt_connmark_tginfo1, and _tginfo2 with a shift before the mode
		ct, ctMask, mask, mode := uint32(s.u32(0)), uint32(s.u32(4)), uint32(s.u32(8)), s.u8(12)
		if revision == 2 {
			mode = s.u8(14)
		}
		if revision == 2 && s.u8(13) != 0 {
			return []Action{{Does: SetMark, MarkUnknown: true, Text: "-j CONNMARK"}, {Does: SaveMark, MarkUnknown: true}}
		}
		switch mode {
		case 0: // XT_CONNMARK_SET
			return []Action{{Does: setCTMark, And: ^ctMask, Xor: ct, Text: fmt.Sprintf("-j CONNMARK --set-xmark 0x%x/0x%x", ct, ctMask)}}
		case 1:
			return []Action{{Does: SaveMark, Text: "-j CONNMARK --save-mark"}}
		}
		return []Action{{Does: RestoreMark, And: ^mask, Text: "-j CONNMARK --restore-mark"}}
	case "TPROXY": // struct xt_tproxy_target_info, and _v1
		a := Action{Does: TProxy, Text: "-j TPROXY"}
		mask, mark, port := uint32(s.u32(0)), uint32(s.u32(4)), s.be16(12)
		if a.Address = s.address(8, 4); revision >= 1 {
			port = s.be16(24)
			if a.Address = s.address(8, 4); six {
				a.Address = s.address(8, 16)
			}
		}
		if port != 0 {
			a.Ports = []uint16{port}
		}
		a.Text += " --on-port " + a.to() + fmt.Sprintf(" --tproxy-mark 0x%x/0x%x", mark, mask)
		return []Action{a, {Does: SetMark, And: ^mask, Xor: mark}, ends}
	case "NFQUEUE": // struct xt_NFQ_info to xt_NFQ_info_v3
		a := Action{Does: Queue, First: uint16(s.u16(0)), Last: uint16(s.u16(0))}
		if revision >= 1 {
			a.Last += uint16(max(s.u16(2), 1)) - 1
		}
		a.Bypass = revision >= 2 && s.u16(4)&1 != 0
		a.Text = fmt.Sprintf("-j NFQUEUE %d:%d", a.First, a.Last)
		return []Action{a}
	case "REDIRECT", "DNAT":
		// struct nf_nat_ipv4_multi_range_compat; struct nf_nat_range and nf_nat_range2 with
		// addresses of 16 bytes
		flags, address, low, high := s.u32(4), s.address(8, 4), s.be16(16), s.be16(18)
		if six || name == "DNAT" && revision >= 1 {
			flags, low, high = s.u32(0), s.be16(36), s.be16(38)
			if address = s.address(4, 4); six {
				address = s.address(4, 16)
			}
		}
		a := Action{Does: Redirect, Text: "-j " + name}
		if name == "DNAT" {
			a.Does = NATAway
			a.Address = address
		}
		if flags&2 != 0 { // NF_NAT_RANGE_PROTO_SPECIFIED
			if high >= low && high-low <= 64 {
				for p := int(low); p <= int(high); p++ {
					a.Ports = append(a.Ports, uint16(p))
				}
			} else {
				a.Unknown = "a port of a range is chosen"
			}
		}
		a.Text += " to " + a.to()
		return []Action{a}
	case "CT": // struct xt_ct_target_info: XT_CT_NOTRACK
		if s.u16(0)&1 != 0 {
			return []Action{{Does: Notrack, Text: "-j CT --notrack"}}
		}
		return nil
	case "NOTRACK":
		return []Action{{Does: Notrack, Text: "-j NOTRACK"}}
	case "MASQUERADE", "SNAT", "NETMAP":
		return []Action{{Does: Accept, Text: "-j " + name}}
	case "SYNPROXY":
		return []Action{{Does: Ends, Text: "-j " + name}}
	}
	if slices.Contains(idleTargets, name) {
		return []Action{{Text: "-j " + name}}
	}
	return unknown
}
