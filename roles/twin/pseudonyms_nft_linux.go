package twin

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// nft maps the addresses in messages of nf_tables: those of rules and of elements.
func (p *pseudonyms) nft(c *Snapshot, messages []NetlinkMessage) ([]NetlinkMessage, error) {
	sets := map[SetName]*Set{}
	for _, t := range c.Tables {
		for _, s := range t.Sets {
			for number, name := range families {
				if name == s.Family {
					sets[SetName{number, s.Table, s.Name}] = s
				}
			}
		}
	}
	intervals := map[SetName][]attrs{}
	var mapped []NetlinkMessage
	for _, m := range messages {
		m.Data = bytes.Clone(m.Data)
		all, err := split(m.Data, 4)
		if err != nil {
			return nil, err
		}
		table := text(all.get(unix.NFTA_TABLE_NAME))
		switch m.Type & 0xff {
		case unix.NFT_MSG_NEWOBJ:
			// NFT_OBJECT_: counter, quota, ct helper, limit, connlimit, ct timeout, secmark,
			// synproxy.
			if kind := net32(all.get(unix.NFTA_OBJ_TYPE)); !slices.Contains([]uint32{1, 2, 3, 4, 5, 7, 8, 10}, kind) {
				return nil, fmt.Errorf("object %s of table %s", text(all.get(unix.NFTA_OBJ_NAME)), table)
			}
		case unix.NFT_MSG_NEWRULE:
			r := &ruleMapper{pseudonyms: p, family: m.Data[0], table: table, sets: sets, loaded: map[uint32]field{},
				constants: map[uint32][]byte{}}
			if err := r.rule(all); err != nil {
				return nil, fmt.Errorf("a rule of chain %s of table %s %s: %w", text(all.get(unix.NFTA_RULE_CHAIN)),
					families[m.Data[0]], table, err)
			}
		case unix.NFT_MSG_NEWSETELEM:
			name := SetName{m.Data[0], table, text(all.get(unix.NFTA_SET_ELEM_LIST_SET))}
			s := sets[name]
			if s == nil {
				return nil, errAttr
			}
			list, err := all.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
			if err != nil {
				return nil, err
			}
			ranges := s.Flags&setInterval != 0 && (s.KeyType == typeIPv4 || s.KeyType == typeIPv6)
			for _, e := range list {
				one, err := split(e.data, 0)
				if err == nil {
					err = p.element(s, one, ranges)
				}
				if err != nil {
					return nil, fmt.Errorf("set %s of table %s %s: %w", s.Name, s.Family, s.Table, err)
				}
				if ranges {
					intervals[name] = append(intervals[name], one)
				}
			}
			if ranges {
				continue // made anew from all of the set's elements
			}
		}
		mapped = append(mapped, m)
	}
	for name, elements := range intervals {
		some, err := p.intervals(sets[name], elements)
		if err != nil {
			return nil, fmt.Errorf("set %s of table %s %s: %w", name.Name, families[name.Family], name.Table, err)
		}
		mapped = append(mapped, elementMessages(name, some)...)
	}
	// Elements come behind their sets and before rules, for those who read in order.
	sortStable(mapped, func(a, b NetlinkMessage) int { return nftRank(a) - nftRank(b) })
	return mapped, nil
}

// nftRank is the order in which messages are read.
func nftRank(m NetlinkMessage) int {
	return slices.Index([]uint16{unix.NFT_MSG_NEWTABLE, unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_NEWOBJ,
		unix.NFT_MSG_NEWSET, unix.NFT_MSG_NEWSETELEM,
		unix.NFT_MSG_NEWFLOWTABLE, unix.NFT_MSG_NEWRULE}, m.Type&0xff)
}

// keySizes are the bytes that types of a set's key have, for those that are parts of concatenations
// with addresses.
var keySizes = map[uint32]int{
	// ether_addr, ether_type, mark, iface_index, ifname
	typeIPv4: 4, typeIPv6: 16, 9: 6, 10: 2, typeProto: 1, typeService: 2, 19: 4, 20: 4, 41: 16,
}

// value maps the addresses in a key or in data of a type, in place; end is the other end of a range
// of keys, or nil.
func (p *pseudonyms) value(keyType uint32, b, end []byte) error {
	var parts []uint32
	for t := keyType; t != 0; t >>= 6 {
		parts = append([]uint32{t & 0x3f}, parts...)
	}
	if !slices.Contains(parts, typeIPv4) && !slices.Contains(parts, typeIPv6) {
		return nil
	}
	for _, part := range parts {
		size := keySizes[part]
		if size == 0 || len(b) < size {
			return fmt.Errorf("addresses together with something of type %d", part)
		}
		if part == typeIPv4 || part == typeIPv6 {
			if end == nil || bytes.Equal(b[:size], end[:min(size, len(end))]) {
				p.prefix(b[:size], 8*size, part == typeIPv6)
				if end != nil {
					copy(end[:size], b[:size])
				}
			} else if err := p.span(b[:size], end[:size]); err != nil {
				return err
			}
		}
		step := min((size+3)&^3, len(b))
		b = b[step:]
		if end != nil {
			if len(end) < step {
				return errAttr
			}
			end = end[step:]
		}
	}
	return nil
}

// element maps an element of a set, in place: its data, and its key where that is no interval's
// end.
func (p *pseudonyms) element(s *Set, e attrs, interval bool) error {
	data, err := e.nest(unix.NFTA_SET_ELEM_DATA)
	if err != nil {
		return err
	}
	if v := data.get(unix.NFTA_DATA_VALUE); v != nil {
		if err := p.value(s.DataType, v, nil); err != nil {
			return err
		}
	}
	if interval {
		return nil
	}
	key, err := e.nest(unix.NFTA_SET_ELEM_KEY)
	if err != nil {
		return err
	}
	end, err := e.nest(nftaSetElemKeyEnd)
	if err != nil {
		return err
	}
	return p.value(s.KeyType, key.get(unix.NFTA_DATA_VALUE), end.get(unix.NFTA_DATA_VALUE))
}

// intervals maps the elements of a set of intervals. Each is cut into prefixes, as those stay
// together.
func (p *pseudonyms) intervals(s *Set, elements []attrs) ([]attrs, error) {
	type mark struct {
		key  []byte
		end  bool
		from attrs
	}
	var marks []mark
	for _, e := range elements {
		key, err := e.nest(unix.NFTA_SET_ELEM_KEY)
		if err != nil {
			return nil, err
		}
		value := key.get(unix.NFTA_DATA_VALUE)
		if size := keySizes[s.KeyType]; len(value) != size {
			return nil, fmt.Errorf("a key of %d bytes", len(value))
		}
		marks = append(marks, mark{value, net32(e.get(unix.NFTA_SET_ELEM_FLAGS))&elementEnd != 0, e})
	}
	// Of an end and a start at the same key the end comes first.
	sortStable(marks, func(a, b mark) int {
		if n := bytes.Compare(a.key, b.key); n != 0 {
			return n
		}
		return b2i(b.end) - b2i(a.end)
	})
	var some []mark
	for i, m := range marks {
		if m.end {
			continue
		}
		var end []byte // exclusive; none for an interval up to the last address
		if i+1 < len(marks) {
			if !marks[i+1].end {
				return nil, fmt.Errorf("an interval without an end")
			}
			end = marks[i+1].key
		}
		for _, n := range cut(m.key, end) {
			key := bytes.Clone(n.key)
			p.prefix(key, n.bits, len(key) == 16)
			some = append(some, mark{key, false, m.from})
			if next, ok := after(key, n.bits); ok {
				some = append(some, mark{next, true, nil})
			}
		}
	}
	sortStable(some, func(a, b mark) int {
		if n := bytes.Compare(a.key, b.key); n != 0 {
			return n
		}
		return b2i(b.end) - b2i(a.end)
	})
	var mapped []attrs
	for _, m := range some {
		key := attr{unix.NFTA_SET_ELEM_KEY, appendAttr(nil, unix.NFTA_DATA_VALUE, m.key)}
		e := attrs{key}
		if m.end {
			e = append(e, attr{unix.NFTA_SET_ELEM_FLAGS, binary.BigEndian.AppendUint32(nil, elementEnd)})
		} else {
			e = append(e, m.from.without(unix.NFTA_SET_ELEM_KEY)...)
		}
		mapped = append(mapped, e)
	}
	return mapped, nil
}

// block is a prefix.
type block struct {
	key  []byte
	bits int
}

// cut are the prefixes from an address up to another, which is not in them; nil is one after the
// last.
func cut(from, end []byte) []block {
	var all []block
	for from != nil && (end == nil || bytes.Compare(from, end) < 0) {
		bits := 8 * len(from)
		for bits > 0 && from[(bits-1)/8]>>(7-(bits-1)%8)&1 == 0 {
			next, ok := after(from, bits-1)
			if ok && end != nil && bytes.Compare(next, end) > 0 || !ok && end != nil {
				break
			}
			bits--
		}
		all = append(all, block{from, bits})
		next, ok := after(from, bits)
		if !ok {
			return all
		}
		from = next
	}
	return all
}

// after is the first address behind a prefix, and false if there is none.
func after(key []byte, bits int) ([]byte, bool) {
	next := bytes.Clone(key)
	for i := bits - 1; i >= 0; i-- {
		bit := byte(1) << (7 - i%8)
		if next[i/8]&bit == 0 {
			next[i/8] |= bit
			return next, true
		}
		next[i/8] &^= bit
	}
	return nil, false
}

// elementMessages are messages with the elements of a set, none of them longer than one the kernel
// sends.
func elementMessages(set SetName, elements []attrs) []NetlinkMessage {
	var all []NetlinkMessage
	for list := range slices.Chunk(elements, 256) {
		var b []byte
		for _, e := range list {
			b = appendAttr(b, 1, e.bytes()) // NFTA_LIST_ELEM
		}
		all = append(all, NetlinkMessage{unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWSETELEM, attrs{
			{unix.NFTA_SET_ELEM_LIST_TABLE, zero(set.Table)}, {unix.NFTA_SET_ELEM_LIST_SET, zero(set.Name)},
			{unix.NFTA_SET_ELEM_LIST_ELEMENTS, b},
		}.append([]byte{set.Family, unix.NFNETLINK_V0, 0, 0})})
	}
	return all
}

// field is what a register of nf_tables holds: some bytes of a header, with addresses in them.
type field struct {
	parts []addressPart
	bits  int // how many the rule looks at, counted from the first byte
}

// addressPart is an address, or the first bytes of one, among a register's bytes.
type addressPart struct {
	at, size int
	six      bool
}

// ruleMapper maps the constants of a rule.
type ruleMapper struct {
	*pseudonyms
	family    byte
	table     string
	sets      map[SetName]*Set
	six       bool // the rule asks for IPv6
	loaded    map[uint32]field
	constants map[uint32][]byte // of immediate expressions, by register
	nfproto   uint32            // the register with the protocol of the packet
}

// plainExprs are expressions of nf_tables whose constants are no addresses.
var plainExprs = []string{"connlimit", "counter", "exthdr", "flow_offload", "hash", "last", "limit", "log", "masq",
	"notrack", "numgen", "objref",
	"osf", "queue", "quota", "redir", "reject", "secmark", "socket", "synproxy"}

// word is a register as a number of 4 bytes from the first: NFT_REG_1 to 4 have four of them.
func word(reg []byte) uint32 {
	if n := net32(reg); n >= unix.NFT_REG32_00 {
		return n - unix.NFT_REG32_00
	} else if n > 0 {
		return 4 * (n - 1)
	}
	return 0
}

// rule maps the constants of a rule, in place.
func (r *ruleMapper) rule(all attrs) error {
	list, err := all.nest(unix.NFTA_RULE_EXPRESSIONS)
	if err != nil {
		return err
	}
	for _, e := range list {
		about, err := split(e.data, 0)
		if err != nil {
			return err
		}
		data, err := about.nest(unix.NFTA_EXPR_DATA)
		if err != nil {
			return err
		}
		if err := r.expr(text(about.get(unix.NFTA_EXPR_NAME)), data); err != nil {
			return err
		}
	}
	return nil
}

func (r *ruleMapper) expr(name string, data attrs) error {
	value := func(kind uint16) ([]byte, error) {
		inner, err := data.nest(kind)
		return inner.get(unix.NFTA_DATA_VALUE), err
	}
	switch name {
	case "meta":
		if data.has(unix.NFTA_META_DREG) {
			r.set(data.get(unix.NFTA_META_DREG), field{})
			if net32(data.get(unix.NFTA_META_KEY)) == unix.NFT_META_NFPROTO {
				r.nfproto = word(data.get(unix.NFTA_META_DREG)) + 1
			}
		}
	case "ct":
		if data.has(unix.NFTA_CT_DREG) {
			const src, dst, srcIP, dstIP, srcIP6, dstIP6 = 8, 9, 19, 20, 21, 22 // NFT_CT_SRC …
			var f field
			switch net32(data.get(unix.NFTA_CT_KEY)) {
			case srcIP, dstIP:
				f = field{[]addressPart{{0, 4, false}}, 32}
			case srcIP6, dstIP6:
				f = field{[]addressPart{{0, 16, true}}, 128}
			case src, dst:
				f = map[bool]field{false: {[]addressPart{{0, 4, false}}, 32},
					true: {[]addressPart{{0, 16, true}}, 128}}[r.family == unix.NFPROTO_IPV6]
			}
			r.set(data.get(unix.NFTA_CT_DREG), f)
		}
	case "rt":
		const nexthop4, nexthop6 = 1, 2 // NFT_RT_NEXTHOP4, NFT_RT_NEXTHOP6
		var f field
		switch net32(data.get(unix.NFTA_RT_KEY)) {
		case nexthop4:
			f = field{[]addressPart{{0, 4, false}}, 32}
		case nexthop6:
			f = field{[]addressPart{{0, 16, true}}, 128}
		}
		r.set(data.get(unix.NFTA_RT_DREG), f)
	case "fib":
		r.set(data.get(unix.NFTA_FIB_DREG), field{})
	case "payload":
		parts, err := r.header(net32(data.get(unix.NFTA_PAYLOAD_BASE)), int(net32(data.get(unix.NFTA_PAYLOAD_OFFSET))),
			int(net32(data.get(unix.NFTA_PAYLOAD_LEN))))
		if err != nil {
			return err
		}
		f := field{parts, 8 * int(net32(data.get(unix.NFTA_PAYLOAD_LEN)))}
		if data.has(unix.NFTA_PAYLOAD_DREG) {
			r.set(data.get(unix.NFTA_PAYLOAD_DREG), f)
		} else if constant := r.take(data, unix.NFTA_PAYLOAD_SREG); constant != nil {
			return r.constant(f, constant)
		}
	case "bitwise":
		f := r.loaded[word(data.get(unix.NFTA_BITWISE_SREG))]
		if len(f.parts) > 0 {
			mask, err := value(unix.NFTA_BITWISE_MASK)
			if err != nil {
				return err
			}
			xor, err := value(unix.NFTA_BITWISE_XOR)
			if err != nil {
				return err
			}
			length, ok := maskBits(mask)
			if !ok || !bytes.Equal(xor, make([]byte, len(xor))) || mask == nil {
				return fmt.Errorf("a mask of an address that is no prefix")
			}
			f.bits = length
		}
		r.set(data.get(unix.NFTA_BITWISE_DREG), f)
	case "byteorder":
		if len(r.loaded[word(data.get(unix.NFTA_BYTEORDER_SREG))].parts) > 0 {
			return fmt.Errorf("an address in another order")
		}
		r.set(data.get(unix.NFTA_BYTEORDER_DREG), field{})
	case "cmp":
		constant, err := value(unix.NFTA_CMP_DATA)
		if err != nil {
			return err
		}
		sreg, op := word(data.get(unix.NFTA_CMP_SREG)), net32(data.get(unix.NFTA_CMP_OP))
		if sreg+1 == r.nfproto && len(constant) == 1 && op == unix.NFT_CMP_EQ {
			r.six = constant[0] == unix.NFPROTO_IPV6
		}
		f := r.loaded[sreg]
		if len(f.parts) > 0 && op != unix.NFT_CMP_EQ && op != unix.NFT_CMP_NEQ {
			return fmt.Errorf("a range of addresses")
		}
		return r.constant(f, constant)
	case "range":
		from, err := value(unix.NFTA_RANGE_FROM_DATA)
		if err != nil {
			return err
		}
		to, err := value(unix.NFTA_RANGE_TO_DATA)
		if err != nil {
			return err
		}
		f := r.loaded[word(data.get(unix.NFTA_RANGE_SREG))]
		if len(f.parts) == 1 && f.parts[0].at == 0 && len(from) == f.parts[0].size {
			return r.span(from, to)
		} else if len(f.parts) > 0 {
			return fmt.Errorf("a range of addresses")
		}
	case "lookup":
		s := r.sets[SetName{r.family, r.table, text(data.get(unix.NFTA_LOOKUP_SET))}]
		f := r.loaded[word(data.get(unix.NFTA_LOOKUP_SREG))]
		if s == nil || len(f.parts) > 0 && (f.bits < 8*f.parts[0].size || !hasAddress(s.KeyType)) {
			return fmt.Errorf("a set with parts of addresses")
		}
		if data.has(unix.NFTA_LOOKUP_DREG) {
			r.set(data.get(unix.NFTA_LOOKUP_DREG), field{}) // its data was mapped with the set
		}
	case "immediate":
		constant, err := value(unix.NFTA_IMMEDIATE_DATA)
		if err != nil {
			return err
		}
		r.set(data.get(unix.NFTA_IMMEDIATE_DREG), field{})
		if constant != nil {
			r.constants[word(data.get(unix.NFTA_IMMEDIATE_DREG))] = constant
		}
	case "nat":
		if !data.has(unix.NFTA_NAT_REG_ADDR_MIN) {
			return nil
		}
		from, to := r.take(data, unix.NFTA_NAT_REG_ADDR_MIN), r.take(data, unix.NFTA_NAT_REG_ADDR_MAX)
		switch {
		case from == nil && to == nil: // of a map
			return nil
		case from == nil:
			return errAttr
		case to == nil:
			return r.whole(from)
		}
		return r.span(from, to)
	case "tproxy", "dup", "fwd":
		// NFTA_TPROXY_REG_ADDR, NFTA_DUP_SREG_ADDR, NFTA_FWD_SREG_ADDR
		kind := map[string]uint16{"tproxy": 2, "dup": 1, "fwd": 2}[name]
		if constant := r.take(data, kind); constant != nil {
			return r.whole(constant)
		}
	case "dynset":
		s := r.sets[SetName{r.family, r.table, text(data.get(unix.NFTA_DYNSET_SET_NAME))}]
		if s == nil {
			return errAttr
		}
		if constant := r.take(data, unix.NFTA_DYNSET_SREG_KEY); constant != nil {
			if err := r.value(s.KeyType, constant, nil); err != nil {
				return err
			}
		}
		if constant := r.take(data, unix.NFTA_DYNSET_SREG_DATA); constant != nil {
			return r.value(s.DataType, constant, nil)
		}
	case "match":
		return r.match(text(data.get(unix.NFTA_MATCH_NAME)), data.get(unix.NFTA_MATCH_INFO),
			r.family == unix.NFPROTO_IPV6)
	case "target":
		return r.target(text(data.get(unix.NFTA_TARGET_NAME)), byte(net32(data.get(unix.NFTA_TARGET_REV))),
			data.get(unix.NFTA_TARGET_INFO), r.family == unix.NFPROTO_IPV6)
	default:
		if !slices.Contains(plainExprs, name) {
			return fmt.Errorf("an expression %s", strings.ToValidUTF8(name, "?"))
		}
		// A result of theirs is no address: NFTA_…_DREG of those that have one is 1.
		if name == "exthdr" || name == "socket" || name == "osf" || name == "numgen" {
			r.set(data.get(1), field{})
		}
		if name == "hash" {
			r.set(data.get(2), field{})
		}
	}
	return nil
}

func hasAddress(keyType uint32) bool {
	for ; keyType != 0; keyType >>= 6 {
		if part := keyType & 0x3f; part == typeIPv4 || part == typeIPv6 {
			return true
		}
	}
	return false
}

// take returns the constant in the register that an attribute names, once: nil if it holds another
// thing.
func (r *ruleMapper) take(data attrs, kind uint16) []byte {
	if !data.has(kind) {
		return nil
	}
	n := word(data.get(kind))
	constant := r.constants[n]
	delete(r.constants, n)
	return constant
}

// set notes what a register holds.
func (r *ruleMapper) set(reg []byte, f field) {
	n := word(reg)
	r.loaded[n] = f
	delete(r.constants, n)
	if r.nfproto == n+1 {
		r.nfproto = 0
	}
}

// constant maps the addresses in a constant that is compared with a field or written to it, in
// place.
func (r *ruleMapper) constant(f field, b []byte) error {
	for _, part := range f.parts {
		if part.at >= len(b) {
			continue
		}
		end := min(part.at+part.size, len(b))
		bits := min(f.bits, 8*end) - 8*part.at
		if bits > 0 {
			r.prefix(b[part.at:end], bits, part.six)
		}
	}
	return nil
}

// header finds addresses among the bytes of a header.
func (r *ruleMapper) header(base uint32, offset, length int) ([]addressPart, error) {
	if base != unix.NFT_PAYLOAD_NETWORK_HEADER {
		return nil, nil
	}
	type place struct {
		from, to int
		six      bool
	}
	four := []place{{12, 16, false}, {16, 20, false}}
	six := []place{{8, 24, true}, {24, 40, true}}
	places := four
	switch {
	case r.family == unix.NFPROTO_ARP:
		places = []place{{14, 18, false}, {24, 28, false}}
	case r.family == unix.NFPROTO_IPV6 || r.six:
		places = six
	case r.family != unix.NFPROTO_IPV4 && (offset == 8 && length > 2 || offset >= 20):
		places = six // IPv4 has nothing there that is asked for
	}
	var parts []addressPart
	for _, place := range places {
		switch {
		case offset+length <= place.from || offset >= place.to:
		case offset > place.from:
			return nil, fmt.Errorf("a part of an address")
		default:
			parts = append(parts, addressPart{place.from - offset, min(place.to, offset+length) - place.from,
				place.six})
		}
	}
	return parts, nil
}
