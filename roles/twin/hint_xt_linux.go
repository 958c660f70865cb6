package twin

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf/xt"
)

// xtAsks reads a match of xtables for values (struct xt_*, linux/netfilter/xt_*.h).
func (c *Snapshot) xtAsks(name string, revision uint32, data []byte, six bool) []ask {
	s := cstruct(data)
	ports := func(what asked, lo, hi uint32, not bool) []ask {
		if lo == 0 && hi == 65535 {
			return nil
		}
		return []ask{{what: what, not: not, spans: []span{{lo, hi}}}}
	}
	switch name {
	case "comment", "addrtype":
		return nil
	case "tcp", "udp":
		inverted := s.u8(11)
		if name == "udp" {
			inverted = s.u8(8)
		}
		return append(ports(askSport, s.u16(0), s.u16(2), inverted&1 != 0),
			ports(askDport, s.u16(4), s.u16(6), inverted&2 != 0)...)
	case "multiport": // struct xt_multiport_v1
		a := ask{what: askDport, not: s.u8(47) != 0}
		if s.u8(0) == 0 { // XT_MULTIPORT_SOURCE
			a.what = askSport
		}
		for i := 0; i < int(s.u8(1)) && i < 15; i++ {
			p := span{s.u16(2 + 2*i), s.u16(2 + 2*i)}
			if s.u8(32+i) != 0 && i+1 < 15 { // the next one is its end
				i++
				p.hi = s.u16(2 + 2*i)
			}
			a.spans = append(a.spans, p)
		}
		return []ask{a}
	case "mark": // struct xt_mark_mtinfo1
		return []ask{{what: askMark, not: s.u8(8) != 0, mask: s.u32(4), spans: []span{{s.u32(0), s.u32(0)}}}}
	case "owner": // struct xt_owner_match_info
		var all []ask
		if s.u8(16)&1 != 0 { // XT_OWNER_UID
			all = append(all, ask{what: askUID, not: s.u8(17)&1 != 0, spans: []span{{s.u32(0), s.u32(4)}}})
		}
		if s.u8(16)&2 != 0 { // XT_OWNER_GID
			all = append(all, ask{what: askGID, not: s.u8(17)&2 != 0, spans: []span{{s.u32(8), s.u32(12)}}})
		}
		return all
	case "iprange": // struct xt_iprange_mtinfo: four of union nf_inet_addr, and flags
		var all []ask
		for i, what := range []asked{askSource, askDest} {
			if s.u8(64)&(1<<i) == 0 {
				continue
			}
			lo, hi := s.addr(i*32, six), s.addr(i*32+16, six)
			all = append(all, ask{what: what, not: s.u8(64)&(0x10<<i) != 0, addrs: []addrSpan{{lo, hi}}})
		}
		return all
	case "cgroup":
		return []ask{{what: askCgroup}}
	case "mac": // struct xt_mac_info
		return []ask{{what: askMAC, not: s.u32(8) != 0, names: []string{string(data[:min(6, len(data))])}}}
	case "socket":
		return []ask{{what: askSocket}}
	case "set": // struct xt_set_info: index u16, dim u8, flags u8
		return c.setAsks(uint16(s.u16(0)), s.u8(3))
	}
	return []ask{{}}
}

// Attributes of ipset's elements (linux/netfilter/ipset/ip_set.h).
const (
	ipsetCIDR = 3
	ipsetPort = 4
)

// setAsks are the addresses and ports of an ipset. flags are those of a match: bit 0 negates, and
// bit 1 is set where the first part of the key is the source.
func (c *Snapshot) setAsks(index uint16, flags uint32) []ask {
	i := slices.IndexFunc(c.IPSets, func(s *IPSet) bool { return s.Index == index })
	if i < 0 {
		return []ask{{}}
	}
	a := ask{what: askDest, not: flags&1 != 0}
	if flags&2 != 0 {
		a.what = askSource
	}
	p := ask{what: askDport, not: a.not}
	for _, m := range c.Sets {
		all, err := split(m.Data, 4)
		if err != nil || text(all.get(ipsetAttrSetName)) != c.IPSets[i].Name {
			continue
		}
		list, _ := all.nest(ipsetAttrADT)
		for _, e := range list {
			if len(a.addrs) >= maxSpans || e.kind() != ipsetAttrData {
				continue
			}
			about, _ := split(e.data, 0)
			address := func(kind uint16) netip.Addr {
				ip, _ := about.nest(kind)
				for _, x := range ip { // IPSET_ATTR_IPADDR_IPV4 1, _IPV6 2
					if a, ok := netip.AddrFromSlice(x.data); ok {
						return a
					}
				}
				return netip.Addr{}
			}
			if lo := address(ipsetIP); lo.IsValid() {
				x := addrSpan{lo, lo}
				if to := address(ipsetIPTo); to.IsValid() {
					x.hi = to
				} else if b := about.get(ipsetCIDR); len(b) == 1 && int(b[0]) <= lo.BitLen() {
					x = spanOf(netip.PrefixFrom(lo, int(b[0])))
				}
				a.addrs = append(a.addrs, x)
			}
			if b := about.get(ipsetPort); len(b) == 2 && len(p.spans) < maxSpans {
				p.spans = append(p.spans, span{net32(b), net32(b)})
			}
		}
	}
	asks := []ask{a}
	if len(a.addrs) == 0 {
		asks = []ask{{}}
	}
	if len(p.spans) > 0 {
		asks = append(asks, p)
	}
	return asks
}

// spanOf has the addresses of a prefix.
func spanOf(p netip.Prefix) addrSpan {
	p = p.Masked()
	hi := p.Addr().AsSlice()
	for i := p.Bits(); i < len(hi)*8; i++ {
		hi[i/8] |= 0x80 >> (i % 8)
	}
	last, _ := netip.AddrFromSlice(hi)
	return addrSpan{p.Addr(), last}
}

// xtTarget notes what a target of xtables does.
func (h *hint) xtTarget(c *Snapshot, name string, revision uint32, data []byte, six bool) {
	s := cstruct(data)
	to := func(a netip.Addr, port uint32) {
		if a.IsValid() && a.IsUnspecified() {
			a = netip.Addr{}
		}
		h.targets = append(h.targets, netip.AddrPortFrom(a, uint16(port)))
	}
	switch name {
	// struct xt_tproxy_target_info: mark_mask, mark_value u32, laddr, lport; _v1 has an address of
	// 16 bytes
	case "TPROXY":
		h.redirect, h.tproxy = true, true
		h.marks, h.set = s.u32(4) != 0, s.u32(4)
		port := s.be16(12)
		if revision >= 1 {
			port = s.be16(24)
		}
		to(s.addr(8, six), port)
	case "MARK": // struct xt_mark_tginfo2
		h.marks, h.set = true, s.u32(0)
	// struct xt_connmark_tginfo1: ctmark, ctmask, nfmask u32, mode u8; _2 has two bytes of a shift
	// before the mode
	case "CONNMARK":
		mode := 12
		if revision >= 2 {
			mode = 14
		}
		h.restores = len(data) > mode && data[mode] == 2 // XT_CONNMARK_RESTORE
	case "REDIRECT", "DNAT":
		// struct nf_nat_ipv4_multi_range_compat: rangesize, flags u32, min, max, ports; struct
		// nf_nat_range: flags u32, addresses of 16 bytes, ports. Flag 2 is
		// NF_NAT_RANGE_PROTO_SPECIFIED.
		flags, a, port := s.u32(4), s.addr(8, false), s.be16(16)
		if six || name == "DNAT" && revision >= 1 {
			flags, a, port = s.u32(0), s.addr(4, six), s.be16(36)
		}
		if flags&2 == 0 {
			port = 0
		}
		if name == "REDIRECT" {
			a, h.redirect = netip.Addr{}, true
		}
		to(a, port)
		h.toHost(c)
	}
}

// legacyHints reads the entries of a table. An entry whose target is ERROR begins a chain of the
// user's, and jumps lead to entries by their offset.
func (c *Snapshot) legacyHints(t LegacyTable) []*hintChain {
	info, b, at := cstruct(t.Info), t.Entries, xt.LayoutOf(t.IPv6)
	family := map[bool]string{false: "ip", true: "ip6"}[t.IPv6]
	hooks := map[int]int{}
	for i := range 5 {
		if info.u32(32)&(1<<i) != 0 {
			hooks[int(info.u32(36+4*i))] = i
		}
	}
	var all []*hintChain
	var chain *hintChain
	starts := map[int]string{}
	type jump struct {
		hint *hint
		to   int
	}
	var jumps []jump
	for offset := 0; offset+at.Size <= len(b); {
		e := cstruct(b[offset:])
		targetAt, next := int(e.u16(at.Target)), int(e.u16(at.Target+2))
		if targetAt < at.Size || next < targetAt+32 || next > len(e) {
			break // Replay says that the table is cut
		}
		e = e[:next]
		// struct xt_entry_target: size u16, name[29], revision u8, data
		name, data := e.text(targetAt+2, 29), []byte(e[targetAt+32:])
		if i, ok := hooks[offset]; ok {
			chain = &hintChain{name: xt.Hooks[i], hook: i}
			all = append(all, chain)
		}
		if name == "ERROR" {
			chain = &hintChain{name: text(data), hook: -1}
			all = append(all, chain)
			starts[offset+next] = chain.name
		} else if chain != nil {
			h := &hint{family: family, where: fmt.Sprintf("%s-legacy table %s chain %s rule %d", tools[t.IPv6], t.Name,
				chain.name, len(chain.hints)+1)}
			h.asks = entryAsks(e, at)
			for m := at.Size; m+32 <= targetAt; {
				size := int(e.u16(m))
				if size < 32 || m+size > targetAt {
					break
				}
				h.asks = append(h.asks, c.xtAsks(e.text(m+2, 29), e.u8(m+31), e[m+32:m+size], t.IPv6)...)
				m += size
			}
			if name != "" {
				h.xtTarget(c, name, e.u8(targetAt+31), data, t.IPv6)
			} else {
				switch v := int(int32(cstruct(data).u32(0))); {
				case v == -2, v == -5: // -NF_ACCEPT - 1, XT_RETURN
					h.leaves = true
				case v >= 0 && v != offset+next:
					jumps = append(jumps, jump{h, v})
				}
			}
			chain.hints = append(chain.hints, h)
		}
		offset += next
	}
	for _, j := range jumps {
		j.hint.jump = starts[j.to]
	}
	return all
}

// entryAsks are what an entry asks for itself: struct ipt_ip and ip6t_ip6.
func entryAsks(e cstruct, at xt.Layout) []ask {
	var all []ask
	inverted := e.u8(at.Inverted)
	for i, what := range []asked{askSource, askDest} {
		a, _ := netip.AddrFromSlice(e[i*at.Address : (i+1)*at.Address])
		bits, ok := ones(e[(2+i)*at.Address : (3+i)*at.Address])
		if ok && bits > 0 {
			all = append(all, ask{what: what, not: inverted&(8<<i) != 0,
				addrs: []addrSpan{spanOf(netip.PrefixFrom(a, bits))}})
		}
	}
	for i, what := range []asked{askIn, askOut} {
		name := e.text(at.NICs+16*i, unix.IFNAMSIZ)
		mask := e[at.NICs+32+16*i : at.NICs+48+16*i]
		asked := strings.IndexByte(string(mask)+"\x00", 0) // the name's end is among them where it has no wildcard
		if asked == 0 {
			continue
		}
		if asked <= len(name) {
			name = name[:asked] + "*"
		}
		all = append(all, ask{what: what, not: inverted&(1<<i) != 0, names: []string{name}})
	}
	if proto := e.u16(at.Proto); proto != 0 {
		all = append(all, ask{what: askProto, not: inverted&0x40 != 0, spans: []span{{proto, proto}}})
	}
	return all
}
