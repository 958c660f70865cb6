package twin

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// hints reads the rules of all tables for what flows are planned from.
func (c *Snapshot) hints() hints {
	var h hints
	for _, t := range c.Tables {
		if t.Family != "ip" && t.Family != "ip6" && t.Family != "inet" || t.Flags&unix.NFT_TABLE_F_DORMANT != 0 {
			continue
		}
		sets := map[string]*Set{}
		for _, s := range t.Sets {
			sets[s.Name] = s
		}
		var chains []*hintChain
		for _, chain := range t.Chains {
			x := &hintChain{name: chain.Name, hook: -1}
			if chain.Base {
				x.hook = chain.Hook
			}
			for i, r := range chain.Rules {
				p := &hinter{c: c, sets: sets, regs: map[uint32]register{}, hint: &hint{
					family: t.Family, where: hintWhere(t, chain, i),
				}}
				for _, e := range r.Exprs {
					p.expr(e.Name, nested{e.Data})
				}
				x.hints = append(append(x.hints, p.hint), p.more...)
			}
			chains = append(chains, x)
		}
		h.follow(chains, c.marksLocal)
	}
	for _, t := range c.Legacy {
		h.follow(c.legacyHints(t), c.marksLocal)
	}
	return h
}

// hintWhere names a rule by its place.
func hintWhere(t *Table, chain *Chain, i int) string {
	return fmt.Sprintf("table %s %s chain %s rule %d", t.Family, t.Name, chain.Name, i+1)
}

// routesLocal reports whether packets with a mark are routed to the host itself, whatever their
// destination: where tproxy's packets have to go.
func (c *Snapshot) routesLocal(mark uint32, six bool) bool {
	for _, r := range c.PolicyRules {
		if r.IPv6 != six || r.Mask == 0 || mark&r.Mask != r.Mark&r.Mask || r.Invert {
			continue
		}
		if slices.ContainsFunc(c.Routes, func(x Route) bool {
			return x.Table == r.Table && x.Type == unix.RTN_LOCAL && x.Dst.Bits() <= 1 && x.Dst.Addr().Is6() == six
		}) {
			return true
		}
	}
	return false
}

// marksLocal reports whether a rule gives packets of a family a mark that is routed to the host
// itself, or may do so, where the mark is not in the rule.
func (c *Snapshot) marksLocal(h *hint, six bool) bool {
	if h.restores {
		return slices.ContainsFunc(c.PolicyRules, func(r PolicyRule) bool {
			return r.IPv6 == six && r.Mark&r.Mask != 0 && c.routesLocal(r.Mark, six)
		})
	}
	return h.marks && h.set != 0 && c.routesLocal(h.set, six)
}

// register is what a register holds: something of the packet, or a number of the rule's.
type register struct {
	what   asked
	size   int
	at     int  // of addresses and ports: how many bytes were left out before
	index  bool // an interface's number instead of its name
	host   bool // its bytes are in the machine's order
	mask   []byte
	xor    []byte
	value  []byte
	varies bool // value is one of several
	mark   bool // the packet's mark, perhaps with mask and xor
}

// hinter goes through the expressions of a rule.
type hinter struct {
	c    *Snapshot
	sets map[string]*Set
	regs map[uint32]register
	six  bool // the rule asked for IPv6
	hint *hint
	more []*hint // for the elements of verdict maps
}

// register is what is in the register that an attribute names.
func (p *hinter) register(n nested, kind uint16) register { return p.regs[reg(n.numberOf(kind))] }

func (p *hinter) setRegister(n nested, kind uint16, s register) { p.regs[reg(n.numberOf(kind))] = s }

func (p *hinter) expr(name string, n nested) {
	num := func(k uint16) uint32 { return n.numberOf(k) }
	get := func(k uint16) register { return p.register(n, k) }
	set := func(k uint16, s register) { p.setRegister(n, k, s) }
	switch name {
	case "immediate":
		data := n.get(unix.NFTA_IMMEDIATE_DATA)
		if v := data.get(unix.NFTA_DATA_VERDICT); len(v.b) > 0 {
			p.hint.verdict(v)
			return
		}
		set(unix.NFTA_IMMEDIATE_DREG, register{value: data.get(unix.NFTA_DATA_VALUE).b})
	case "payload":
		if num(unix.NFTA_PAYLOAD_DREG) != 0 {
			set(unix.NFTA_PAYLOAD_DREG, p.payload(num(unix.NFTA_PAYLOAD_BASE), num(unix.NFTA_PAYLOAD_OFFSET),
				num(unix.NFTA_PAYLOAD_LEN)))
		}
	case "meta":
		if num(unix.NFTA_META_DREG) != 0 {
			set(unix.NFTA_META_DREG, metas[num(unix.NFTA_META_KEY)])
		} else if num(unix.NFTA_META_KEY) == unix.NFT_META_MARK {
			p.hint.setMark(get(unix.NFTA_META_SREG))
		}
	case "bitwise":
		s := get(unix.NFTA_BITWISE_SREG)
		s.mask = n.get(unix.NFTA_BITWISE_MASK).get(unix.NFTA_DATA_VALUE).b
		s.xor = n.get(unix.NFTA_BITWISE_XOR).get(unix.NFTA_DATA_VALUE).b
		set(unix.NFTA_BITWISE_DREG, s)
	case "byteorder":
		s := get(1) // NFTA_BYTEORDER_SREG, _DREG
		s.host = !s.host
		set(2, s)
	case "cmp":
		p.compare(get(unix.NFTA_CMP_SREG), num(unix.NFTA_CMP_OP), n.get(unix.NFTA_CMP_DATA).get(unix.NFTA_DATA_VALUE).b)
	case "range":
		from := n.get(unix.NFTA_RANGE_FROM_DATA).get(unix.NFTA_DATA_VALUE).b
		to := n.get(unix.NFTA_RANGE_TO_DATA).get(unix.NFTA_DATA_VALUE).b
		p.ask(get(unix.NFTA_RANGE_SREG), num(unix.NFTA_RANGE_OP) == unix.NFT_RANGE_NEQ, [][2][]byte{{from, to}})
	case "lookup":
		p.lookup(n)
	case "tproxy": // NFTA_TPROXY_FAMILY, _REG_ADDR, _REG_PORT
		p.hint.redirect, p.hint.tproxy = true, true
		switch num(1) { // of the other family it ends the rule
		case unix.NFPROTO_IPV4:
			p.hint.family = "ip"
		case unix.NFPROTO_IPV6:
			p.hint.family = "ip6"
		}
		p.target(get(2), get(3))
	case "redir": // NFTA_REDIR_REG_PROTO_MIN
		p.hint.redirect = true
		p.target(register{}, get(1))
	case "nat":
		if num(unix.NFTA_NAT_TYPE) == unix.NFT_NAT_DNAT {
			p.target(get(unix.NFTA_NAT_REG_ADDR_MIN), get(unix.NFTA_NAT_REG_PROTO_MIN))
			p.hint.toHost(p.c)
		}
	case "match":
		p.hint.asks = append(p.hint.asks, p.c.xtAsks(n.get(1).text(), n.get(2).number(), n.get(3).b,
			p.hint.family == "ip6")...)
	case "target":
		p.hint.xtTarget(p.c, n.get(1).text(), n.get(2).number(), n.get(3).b, p.hint.family == "ip6")
	case "ct": // what is loaded here is asked for as askOther
		set(unix.NFTA_CT_DREG, register{size: 4})
	case "fib": // NFTA_FIB_DREG
		set(1, register{size: 4})
	case "socket": // NFTA_SOCKET_DREG
		set(2, register{size: 4})
		switch num(1) { // NFTA_SOCKET_KEY
		case 0: // NFT_SOCKET_TRANSPARENT
			set(2, register{what: askSocket, size: 1})
		case 3: // NFT_SOCKET_CGROUPV2
			set(2, register{what: askCgroup, size: 8, host: true})
		}
	case "limit", "quota", "connlimit", "numgen", "hash", "osf", "rt", "xfrm":
		p.hint.asks = append(p.hint.asks, ask{})
	}
}

// metas are what meta loads, by NFT_META_*.
var metas = map[uint32]register{
	unix.NFT_META_L4PROTO: {what: askProto, size: 1},
	unix.NFT_META_MARK:    {what: askMark, size: 4, host: true, mark: true},
	unix.NFT_META_SKUID:   {what: askUID, size: 4, host: true},
	unix.NFT_META_SKGID:   {what: askGID, size: 4, host: true},
	unix.NFT_META_IIFNAME: {what: askIn, size: 16},
	unix.NFT_META_OIFNAME: {what: askOut, size: 16},
	unix.NFT_META_IIF:     {what: askIn, size: 4, host: true, index: true},
	unix.NFT_META_OIF:     {what: askOut, size: 4, host: true, index: true},
	unix.NFT_META_CGROUP:  {what: askCgroup, size: 4, host: true},
	unix.NFT_META_NFPROTO: {size: 1, at: nfproto},
}

// nfproto, as a register's at, is the family of the packet.
const nfproto = -1

// payload is what is at an offset of a header (struct iphdr, ipv6hdr, tcphdr).
func (p *hinter) payload(base, offset, size uint32) register {
	six := p.hint.family == "ip6" || p.hint.family == "inet" && p.six
	switch {
	case base == unix.NFT_PAYLOAD_TRANSPORT_HEADER && offset == 0 && (size == 2 || size == 4):
		return register{what: askSport, size: int(size)}
	case base == unix.NFT_PAYLOAD_LL_HEADER && offset == 6 && size == 6: // struct ethhdr
		return register{what: askMAC, size: 6}
	case base == unix.NFT_PAYLOAD_TRANSPORT_HEADER && offset == 2 && size == 2:
		return register{what: askDport, size: 2}
	case base != unix.NFT_PAYLOAD_NETWORK_HEADER:
	case !six && offset == 12 && size <= 4, six && offset == 8 && size <= 16:
		return register{what: askSource, size: int(size)}
	case !six && offset == 16 && size <= 4, six && offset == 24 && size <= 16:
		return register{what: askDest, size: int(size)}
	case !six && offset == 9 && size == 1, six && offset == 6 && size == 1:
		return register{what: askProto, size: 1}
	}
	return register{size: int(size)}
}

func (p *hinter) compare(s register, op uint32, data []byte) {
	if s.at == nfproto && op == unix.NFT_CMP_EQ && len(data) == 1 {
		p.six = data[0] == unix.NFPROTO_IPV6
		if p.hint.family == "inet" {
			p.hint.family = families[data[0]]
		}
		return
	}
	if s.what == askSport && len(data) == 4 { // both ports
		p.ask(register{what: askSport, size: 2}, op == unix.NFT_CMP_NEQ, [][2][]byte{{data[:2], data[:2]}})
		s, data = register{what: askDport, size: 2}, data[2:]
	}
	least, most := make([]byte, len(data)), bytes.Repeat([]byte{0xff}, len(data))
	switch op {
	case unix.NFT_CMP_EQ, unix.NFT_CMP_NEQ:
		p.ask(s, op == unix.NFT_CMP_NEQ, [][2][]byte{{data, data}})
	case unix.NFT_CMP_LT:
		p.ask(s, true, [][2][]byte{{data, most}})
	case unix.NFT_CMP_GTE:
		p.ask(s, false, [][2][]byte{{data, most}})
	case unix.NFT_CMP_LTE:
		p.ask(s, false, [][2][]byte{{least, data}})
	case unix.NFT_CMP_GT:
		p.ask(s, true, [][2][]byte{{least, data}})
	}
}

// ask adds a condition that a value is in one of some intervals, or in none.
func (p *hinter) ask(s register, not bool, intervals [][2][]byte) {
	p.hint.asks = append(p.hint.asks, p.condition(s, not, intervals))
}

func (p *hinter) condition(s register, not bool, intervals [][2][]byte) ask {
	a := ask{what: s.what, not: not, mask: ^uint32(0)}
	for _, i := range intervals[:min(len(intervals), maxSpans)] {
		switch s.what {
		case askSource, askDest:
			if x, ok := p.addresses(s, i[0], i[1]); ok {
				a.addrs = append(a.addrs, x)
			}
		case askIn, askOut:
			a.names = append(a.names, p.device(s, i[0]))
		case askMAC:
			a.names = append(a.names, string(i[0]))
		case askOther:
			return a
		default:
			if s.mask != nil {
				a.mask = s.number(s.mask)
			}
			a.spans = append(a.spans, span{s.number(i[0]), s.number(i[1])})
		}
	}
	return a
}

func (s register) number(b []byte) uint32 {
	if len(b) > 4 {
		b = b[:4]
	}
	if s.host {
		return host32(b)
	}
	var n uint32
	for _, x := range b {
		n = n<<8 | uint32(x)
	}
	return n
}

// addresses are those between two keys. A mask, or fewer bytes than an address has, is a prefix.
func (p *hinter) addresses(s register, from, to []byte) (addrSpan, bool) {
	long := 4
	if p.hint.family == "ip6" || p.hint.family == "inet" && p.six {
		long = 16
	}
	low, high := make([]byte, long), bytes.Repeat([]byte{0xff}, long)
	copy(low, from)
	copy(high, to)
	for i := range s.mask {
		if i < long {
			high[i] |= ^s.mask[i]
		}
	}
	a, _ := netip.AddrFromSlice(low)
	b, _ := netip.AddrFromSlice(high)
	return addrSpan{a, b}, len(from) <= long
}

func (p *hinter) device(s register, b []byte) string {
	if s.index {
		for _, l := range p.c.Links {
			if l.Index == int(host32(b)) {
				return l.Name
			}
		}
		return ""
	}
	name := text(b)
	if len(b) < unix.IFNAMSIZ && !bytes.Contains(b, []byte{0}) {
		name += "*"
	}
	return name
}

// verdict notes what a rule does in the end.
func (h *hint) verdict(n nested) {
	switch code := int32(n.numberOf(unix.NFTA_VERDICT_CODE)); code {
	case unix.NFT_JUMP, unix.NFT_GOTO:
		h.jump = n.get(unix.NFTA_VERDICT_CHAIN).text()
	case unix.NFT_RETURN, 1: // NF_ACCEPT
		// What accept ends is nothing for a rule that diverted.
		h.leaves = !h.redirect && !h.marks && !h.restores
	}
}

// setMark notes what a rule makes of the mark 0.
func (h *hint) setMark(s register) {
	switch {
	case len(s.value) == 4:
		h.marks, h.set, h.restores = true, host32(s.value), s.varies
	case s.mark:
		h.marks, h.set = true, host32(s.xor)
	default:
		h.restores = true
	}
}

// target notes where a rule leads packets.
func (p *hinter) target(addr, port register) {
	var a netip.Addr
	if len(addr.value) == 4 || len(addr.value) == 16 {
		a, _ = netip.AddrFromSlice(addr.value)
	}
	var n uint16
	if len(port.value) >= 2 {
		n = binary.BigEndian.Uint16(port.value)
	}
	if a.IsValid() && a.IsUnspecified() {
		a = netip.Addr{}
	}
	p.hint.targets = append(p.hint.targets, netip.AddrPortFrom(a, n))
}

// toHost notes whether a rule of dnat leads to the host itself.
func (h *hint) toHost(c *Snapshot) {
	for _, t := range h.targets {
		h.redirect = h.redirect || t.Addr().IsLoopback() || slices.ContainsFunc(c.Addrs,
			func(a Addr) bool { return a.Local == t.Addr() })
	}
}
