package twin

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf/xt"
)

// part is one condition or statement of a rule.
type part struct {
	field string // what a condition asks of the packet, as nft writes it: "ip daddr"; "" for a statement
	not   bool
	value string // what a condition compares with
	text  string // of a statement, in the words of the rule's own tool
	verd  bool   // a verdict: jump, accept, …
	needs string // what the field implies: "tcp", "ipv4"; a condition of that before it is not written
	xt    bool   // of iptables' own, such as "-m socket --transparent"
}

// writer writes rules as their own tools do: nft(8), iptables-save(8).
type writer struct {
	c    *Snapshot
	sets map[[3]string]*Set
	// abridged is set when a text is shorter than the rule: it can be read, not typed.
	abridged bool
}

func newWriter(c *Snapshot) *writer {
	w := &writer{c: c, sets: map[[3]string]*Set{}}
	for _, t := range c.Tables {
		for _, s := range t.Sets {
			w.sets[[3]string{t.Family, t.Name, s.Name}] = s
		}
	}
	return w
}

// xtTables are the tables that iptables-nft makes.
var xtTables = []string{"filter", "nat", "mangle", "raw", "security"}

// ofIptables reports whether a table of nf_tables is one of iptables-nft.
func ofIptables(t *Table) bool {
	return (t.Family == "ip" || t.Family == "ip6") && slices.Contains(xtTables, t.Name) &&
		!slices.ContainsFunc(t.Chains, func(c *Chain) bool { return c.Base && !slices.Contains(xt.Hooks, c.Name) })
}

// RuleText returns the text of a rule of an inet table from its expressions
// (NFTA_RULE_EXPRESSIONS), which look nothing up in a set.
func RuleText(expressions []byte) (string, error) {
	exprs, err := decodeExprs(expressions)
	if err != nil {
		return "", fmt.Errorf("a rule's expressions: %w", err)
	}
	return newWriter(&Snapshot{}).rule(&Table{Family: "inet"}, &ChainRule{Exprs: exprs}), nil
}

// rule writes a rule: in nft's syntax, or iptables' without "-A CHAIN".
func (w *writer) rule(t *Table, r *ChainRule) string {
	p := &decoder{w: w, t: t, regs: map[uint32]operand{}}
	for _, e := range r.Exprs {
		p.expr(e.Name, nested{e.Data})
	}
	p.flush()
	parts := p.imply()
	if ofIptables(t) {
		return iptablesText(parts, t.Family == "ip6")
	}
	var all []string
	for _, x := range parts {
		all = append(all, x.nft())
	}
	return strings.Join(slices.DeleteFunc(all, func(s string) bool { return s == "" }), " ")
}

func (x part) nft() string {
	if x.field == "" {
		return x.text
	}
	if x.not {
		return x.field + " != " + x.value
	}
	return x.field + " " + x.value
}

// The kinds of values, for how they are written.
type kind int

const (
	kNumber  kind = iota // in the machine's order
	kNetwork             // in network order
	kHex                 // a mark
	kAddr
	kProto
	kNFProto
	kName  // of a device
	kIndex // of a device
	kState
	kStatus
	kDirection
	kType   // of an address, RTN_*
	kExists // fib … oif missing
	kICMP
	kICMP6
	kFlags // of TCP
)

// operand is what a register holds.
type operand struct {
	name      string
	kind      kind
	size      int
	needs     string
	mask, xor []byte
	value     []byte // of a constant
	text      string // what nft writes for it, where it is computed
}

type decoder struct {
	w     *writer
	t     *Table
	regs  map[uint32]operand
	parts []part
	low   *lower // the first half of a range
}

type lower struct {
	reg   uint32
	value []byte
}

// reg maps registers of 16 bytes, numbered 1 to 4, to the first of their four of 4 bytes.
func reg(n uint32) uint32 {
	if n >= 1 && n <= 4 {
		return 8 + (n-1)*4
	}
	return n
}

func (d *decoder) say(text string) { d.parts = append(d.parts, part{text: text}) }

func (d *decoder) ask(o operand, not bool, value string) {
	d.parts = append(d.parts, part{field: o.name, not: not, value: value, needs: o.needs})
}

// flush writes what waits for a second half that did not come.
func (d *decoder) flush() {
	if d.low != nil {
		o := d.regs[d.low.reg]
		d.ask(o, false, ">= "+d.w.value(o, d.low.value))
		d.low = nil
	}
}

// imply leaves conditions out that the field of the next one implies, as nft does.
func (d *decoder) imply() []part {
	if ofIptables(d.t) {
		return d.parts
	}
	var all []part
	for i, x := range d.parts {
		next := func(k int) part {
			if i+k < len(d.parts) {
				return d.parts[i+k]
			}
			return part{}
		}
		y := next(1)
		switch {
		case x.not:
		case x.field == "meta l4proto" && y.needs == x.value:
			continue
		case x.field == "meta nfproto":
			if y.field == "meta l4proto" && next(2).needs == y.value {
				y = next(2)
			}
			if x.value == "ipv4" && (strings.HasPrefix(y.field, "ip ") || strings.HasPrefix(y.field, "icmp ")) ||
				x.value == "ipv6" && (strings.HasPrefix(y.field, "ip6 ") || strings.HasPrefix(y.field, "icmpv6 ")) {
				continue
			}
		}
		all = append(all, x)
	}
	return all
}

// operand is what is in the register that an attribute names.
func (d *decoder) operand(n nested, kind uint16) operand { return d.regs[reg(n.numberOf(kind))] }

func (d *decoder) setOperand(n nested, kind uint16, o operand) { d.regs[reg(n.numberOf(kind))] = o }

func (d *decoder) expr(name string, n nested) {
	num := func(k uint16) uint32 { return n.numberOf(k) }
	get := func(k uint16) operand { return d.operand(n, k) }
	set := func(k uint16, o operand) { d.setOperand(n, k, o) }
	if d.low != nil && name != "cmp" {
		d.flush()
	}
	switch name {
	case "immediate":
		data := n.get(unix.NFTA_IMMEDIATE_DATA)
		if v := data.get(unix.NFTA_DATA_VERDICT); len(v.b) > 0 {
			d.parts = append(d.parts, part{text: verdictText(v), verd: true})
			return
		}
		set(unix.NFTA_IMMEDIATE_DREG, operand{value: data.get(unix.NFTA_DATA_VALUE).b})
	case "payload":
		o := d.payload(num(unix.NFTA_PAYLOAD_BASE), num(unix.NFTA_PAYLOAD_OFFSET), num(unix.NFTA_PAYLOAD_LEN))
		if num(unix.NFTA_PAYLOAD_DREG) != 0 {
			set(unix.NFTA_PAYLOAD_DREG, o)
			return
		}
		d.say(o.name + " set " + d.w.operand(get(unix.NFTA_PAYLOAD_SREG), o))
	case "meta":
		o := meta(num(unix.NFTA_META_KEY))
		if num(unix.NFTA_META_DREG) != 0 {
			set(unix.NFTA_META_DREG, o)
			return
		}
		if num(unix.NFTA_META_KEY) == unix.NFT_META_NFTRACE {
			o.name = "meta nftrace"
		}
		d.say(o.name + " set " + d.w.operand(get(unix.NFTA_META_SREG), o))
	case "ct":
		o := ct(num(unix.NFTA_CT_KEY), n.get(unix.NFTA_CT_DIRECTION))
		if num(unix.NFTA_CT_DREG) != 0 {
			set(unix.NFTA_CT_DREG, o)
			return
		}
		d.say(o.name + " set " + d.w.operand(get(unix.NFTA_CT_SREG), o))
	case "socket": // NFTA_SOCKET_KEY, _DREG
		names := []string{"transparent", "mark", "wildcard", "cgroupv2"}
		o := operand{name: "socket ?", kind: kNetwork}
		if k := num(1); int(k) < len(names) {
			o.name = "socket " + names[k]
			if k == 1 {
				o.kind = kHex
			}
		}
		set(2, o)
	case "fib": // NFTA_FIB_DREG, _RESULT, _FLAGS
		set(1, fib(num(2), num(3)))
	case "rt":
		set(1, operand{name: "rt", kind: kNumber})
	case "numgen":
		set(1, operand{name: fmt.Sprintf("numgen mod %d", num(2)), kind: kNumber})
	case "hash":
		set(unix.NFTA_HASH_DREG, operand{name: fmt.Sprintf("hash mod %d", num(unix.NFTA_HASH_MODULUS)), kind: kNumber})
	case "exthdr":
		if num(1) != 0 {
			set(1, operand{name: "exthdr", kind: kNetwork})
		}
	case "byteorder":
		set(2, get(1))
	case "bitwise":
		d.bitwise(n)
	case "cmp":
		d.cmp(reg(num(unix.NFTA_CMP_SREG)), num(unix.NFTA_CMP_OP),
			n.get(unix.NFTA_CMP_DATA).get(unix.NFTA_DATA_VALUE).b)
	case "range":
		o := get(unix.NFTA_RANGE_SREG)
		from := n.get(unix.NFTA_RANGE_FROM_DATA).get(unix.NFTA_DATA_VALUE).b
		to := n.get(unix.NFTA_RANGE_TO_DATA).get(unix.NFTA_DATA_VALUE).b
		d.ask(o, num(unix.NFTA_RANGE_OP) == unix.NFT_RANGE_NEQ, d.w.span(o, from, to))
	case "lookup":
		d.lookup(n)
	default:
		d.statement(name, n, num, get)
	}
}

// statement writes an expression that does something.
func (d *decoder) statement(name string, n nested, num func(uint16) uint32, get func(uint16) operand) {
	inet := d.t.Family == "inet"
	switch name {
	case "counter":
		d.say("counter")
	case "notrack":
		d.say("notrack")
	case "log":
		text := "log"
		if p := n.get(unix.NFTA_LOG_PREFIX).text(); p != "" {
			text += " prefix " + strconv.Quote(p)
		}
		if len(n.get(unix.NFTA_LOG_GROUP).b) > 0 {
			text += fmt.Sprintf(" group %d", num(unix.NFTA_LOG_GROUP))
		}
		d.say(text)
	case "limit":
		rate, unit := net64(n.get(unix.NFTA_LIMIT_RATE).b), net64(n.get(unix.NFTA_LIMIT_UNIT).b)
		units := map[uint64]string{1: "second", 60: "minute", 3600: "hour", 86400: "day", 604800: "week"}
		over := ""
		if num(unix.NFTA_LIMIT_FLAGS)&1 != 0 {
			over = "over "
		}
		text := fmt.Sprintf("limit rate %s%d/%s", over, rate, units[unit])
		if num(unix.NFTA_LIMIT_TYPE) != 0 {
			text = fmt.Sprintf("limit rate %s%d bytes/%s", over, rate, units[unit])
		}
		if b := num(unix.NFTA_LIMIT_BURST); b != 5 && b != 0 {
			text += fmt.Sprintf(" burst %d packets", b)
		}
		d.say(text)
	case "reject":
		d.parts = append(d.parts, part{text: rejectText(d.t.Family, num(unix.NFTA_REJECT_TYPE),
			num(unix.NFTA_REJECT_ICMP_CODE)), verd: true})
	case "tproxy": // NFTA_TPROXY_FAMILY, _REG_ADDR, _REG_PORT
		text := "tproxy"
		if inet && num(1) != unix.NFPROTO_INET {
			text += map[uint32]string{unix.NFPROTO_IPV4: " ip", unix.NFPROTO_IPV6: " ip6"}[num(1)]
		}
		d.say(text + " to " + d.target(get(2), get(3), num(2) != 0, num(3) != 0))
	case "redir":
		text := "redirect"
		if num(1) != 0 { // NFTA_REDIR_REG_PROTO_MIN, _MAX
			text += " to " + d.ports(get(1), get(2), num(2) != 0 && num(2) != num(1))
		}
		d.parts = append(d.parts, part{text: text, verd: true})
	case "masq":
		text := "masquerade"
		if num(2) != 0 {
			text += " to " + d.ports(get(2), get(3), num(3) != 0 && num(3) != num(2))
		}
		d.parts = append(d.parts, part{text: text, verd: true})
	case "nat":
		text := "snat"
		if num(unix.NFTA_NAT_TYPE) == unix.NFT_NAT_DNAT {
			text = "dnat"
		}
		if inet {
			text += map[uint32]string{unix.NFPROTO_IPV4: " ip", unix.NFPROTO_IPV6: " ip6"}[num(unix.NFTA_NAT_FAMILY)]
		}
		a, p := num(unix.NFTA_NAT_REG_ADDR_MIN), num(unix.NFTA_NAT_REG_PROTO_MIN)
		text += " to " + d.target(d.regs[reg(a)], d.regs[reg(p)], a != 0, p != 0)
		d.parts = append(d.parts, part{text: text, verd: true})
	case "queue":
		first, total := num(unix.NFTA_QUEUE_NUM), max(num(unix.NFTA_QUEUE_TOTAL), 1)
		text := fmt.Sprintf("queue num %d", first)
		if total > 1 {
			text = fmt.Sprintf("queue num %d-%d", first, first+total-1)
		}
		if num(unix.NFTA_QUEUE_FLAGS)&unix.NFT_QUEUE_FLAG_BYPASS != 0 {
			text += " bypass"
		}
		d.parts = append(d.parts, part{text: text, verd: true})
	case "dynset":
		d.say(map[uint32]string{0: "add", 1: "update", 2: "delete"}[num(unix.NFTA_DYNSET_OP)] + " @" +
			n.get(unix.NFTA_DYNSET_SET_NAME).text() + " { " + get(unix.NFTA_DYNSET_SREG_KEY).name + " }")
	case "objref":
		d.w.abridged = true
		d.say("objref " + n.get(4).text())
	case "match":
		if n.get(1).text() == "set" {
			d.xt(d.w.setMatch(n.get(3).b), true)
			return
		}
		d.xt(xtMatch(n.get(1).text(), n.get(2).number(), n.get(3).b))
	case "target":
		text, ok := xtTarget(n.get(1).text(), n.get(2).number(), n.get(3).b, d.t.Family == "ip6")
		if !ok {
			d.w.abridged = true
		}
		d.parts = append(d.parts, part{text: text, verd: true, xt: true})
	default:
		d.w.abridged = true
		d.say(name)
	}
}

func (d *decoder) xt(text string, ok bool) {
	if !ok {
		d.w.abridged = true
	}
	d.parts = append(d.parts, part{text: text, xt: true})
}

// target writes an address, a port or both.
func (d *decoder) target(address, port operand, hasAddress, hasPort bool) string {
	var text string
	switch {
	case !hasAddress:
	case address.text != "":
		text = address.text
	default:
		a, _ := netip.AddrFromSlice(address.value)
		text = a.String()
		if a.Is6() && hasPort {
			text = "[" + text + "]"
		}
	}
	if hasPort {
		text += ":" + strings.TrimPrefix(d.ports(port, operand{}, false), ":")
	}
	return text
}

func (d *decoder) ports(low, high operand, isRange bool) string {
	if low.text != "" {
		return low.text
	}
	text := fmt.Sprintf(":%d", be(low.value))
	if isRange {
		text += fmt.Sprintf("-%d", be(high.value))
	}
	return text
}

func (d *decoder) payload(base, offset, size uint32) operand {
	o := operand{name: fmt.Sprintf("@%s,%d,%d", []string{"ll", "nh", "th", "ih"}[min(base, 3)], offset*8, size*8),
		kind: kNetwork, size: int(size)}
	six := d.t.Family == "ip6" || d.t.Family != "ip" && d.has("meta nfproto", "ipv6")
	four := d.t.Family == "ip" || d.t.Family != "ip6" && d.has("meta nfproto", "ipv4")
	switch {
	case base == unix.NFT_PAYLOAD_NETWORK_HEADER && four:
		switch {
		case offset == 12 && size <= 4:
			o.name, o.kind, o.size = "ip saddr", kAddr, 4
		case offset == 16 && size <= 4:
			o.name, o.kind, o.size = "ip daddr", kAddr, 4
		case offset == 9 && size == 1:
			o.name, o.kind = "ip protocol", kProto
		case offset == 8 && size == 1:
			o.name = "ip ttl"
		}
	case base == unix.NFT_PAYLOAD_NETWORK_HEADER && six:
		switch {
		case offset == 8 && size <= 16:
			o.name, o.kind, o.size = "ip6 saddr", kAddr, 16
		case offset == 24 && size <= 16:
			o.name, o.kind, o.size = "ip6 daddr", kAddr, 16
		case offset == 6 && size == 1:
			o.name, o.kind = "ip6 nexthdr", kProto
		}
	case base == unix.NFT_PAYLOAD_TRANSPORT_HEADER:
		for _, proto := range []string{"tcp", "udp", "sctp", "dccp", "udplite"} {
			if !d.has("meta l4proto", proto) && !d.has("ip protocol", proto) && !d.has("ip6 nexthdr", proto) {
				continue
			}
			switch {
			case offset == 0 && size == 2:
				o.name, o.needs = proto+" sport", proto
			case offset == 2 && size == 2:
				o.name, o.needs = proto+" dport", proto
			case proto == "tcp" && offset == 13 && size == 1:
				o.name, o.kind, o.needs = "tcp flags", kFlags, proto
			}
			return o
		}
		switch {
		case d.has("meta l4proto", "icmp") && offset == 0 && size == 1:
			o.name, o.kind, o.needs = "icmp type", kICMP, "icmp"
		case d.has("meta l4proto", "ipv6-icmp") && offset == 0 && size == 1:
			o.name, o.kind, o.needs = "icmpv6 type", kICMP6, "ipv6-icmp"
		case offset == 0 && size == 2:
			o.name = "th sport"
		case offset == 2 && size == 2:
			o.name = "th dport"
		}
	}
	return o
}

// has reports whether the rule asked for a value before.
func (d *decoder) has(field, value string) bool {
	return slices.ContainsFunc(d.parts, func(x part) bool { return x.field == field && !x.not && x.value == value })
}

func meta(key uint32) operand {
	switch key {
	case unix.NFT_META_MARK:
		return operand{name: "meta mark", kind: kHex, size: 4}
	case unix.NFT_META_IIF:
		return operand{name: "iif", kind: kIndex, size: 4}
	case unix.NFT_META_OIF:
		return operand{name: "oif", kind: kIndex, size: 4}
	case unix.NFT_META_IIFNAME:
		return operand{name: "iifname", kind: kName, size: 16}
	case unix.NFT_META_OIFNAME:
		return operand{name: "oifname", kind: kName, size: 16}
	case unix.NFT_META_L4PROTO:
		return operand{name: "meta l4proto", kind: kProto, size: 1}
	case unix.NFT_META_NFPROTO:
		return operand{name: "meta nfproto", kind: kNFProto, size: 1}
	}
	names := map[uint32]string{
		unix.NFT_META_LEN: "length", unix.NFT_META_PROTOCOL: "protocol", unix.NFT_META_PRIORITY: "priority",
		unix.NFT_META_IIFTYPE: "iiftype", unix.NFT_META_OIFTYPE: "oiftype",
		unix.NFT_META_SKUID: "skuid", unix.NFT_META_SKGID: "skgid", unix.NFT_META_PKTTYPE: "pkttype",
		unix.NFT_META_CPU: "cpu", unix.NFT_META_CGROUP: "cgroup",
		unix.NFT_META_NFTRACE: "nftrace", unix.NFT_META_IIFGROUP: "iifgroup", unix.NFT_META_OIFGROUP: "oifgroup",
	}
	name := names[key]
	if name == "" {
		name = fmt.Sprintf("key %d", key)
	}
	return operand{name: "meta " + name, kind: kNumber, size: 4}
}

func ct(key uint32, direction nested) operand {
	way := ""
	if len(direction.b) == 1 {
		way = []string{"original ", "reply "}[direction.b[0]&1]
	}
	switch key {
	case unix.NFT_CT_STATE:
		return operand{name: "ct state", kind: kState, size: 4}
	case unix.NFT_CT_STATUS:
		return operand{name: "ct status", kind: kStatus, size: 4}
	case unix.NFT_CT_DIRECTION:
		return operand{name: "ct direction", kind: kDirection, size: 1}
	case unix.NFT_CT_MARK:
		return operand{name: "ct mark", kind: kHex, size: 4}
	case unix.NFT_CT_PROTOCOL:
		return operand{name: "ct " + way + "protocol", kind: kProto, size: 1}
	case unix.NFT_CT_PROTO_DST:
		return operand{name: "ct " + way + "proto-dst", kind: kNetwork, size: 2}
	case unix.NFT_CT_PROTO_SRC:
		return operand{name: "ct " + way + "proto-src", kind: kNetwork, size: 2}
	case unix.NFT_CT_ZONE:
		return operand{name: "ct zone", kind: kNumber, size: 2}
	case unix.NFT_CT_SRC, unix.NFT_CT_DST, unix.NFT_CT_SRC_IP, unix.NFT_CT_DST_IP, unix.NFT_CT_SRC_IP6,
		unix.NFT_CT_DST_IP6:
		name := "saddr"
		if key == unix.NFT_CT_DST || key == unix.NFT_CT_DST_IP || key == unix.NFT_CT_DST_IP6 {
			name = "daddr"
		}
		family := "ip "
		if key == unix.NFT_CT_SRC_IP6 || key == unix.NFT_CT_DST_IP6 {
			family = "ip6 "
		}
		return operand{name: "ct " + way + family + name, kind: kAddr}
	}
	return operand{name: fmt.Sprintf("ct %skey %d", way, key), kind: kNumber, size: 4}
}

// fib is what nft's fib looks for (NFT_FIB_RESULT_* and NFTA_FIB_F_*, linux/netfilter/nf_tables.h).
func fib(result, flags uint32) operand {
	var asked []string
	for i, name := range []string{"saddr", "daddr", "mark", "iif", "oif"} {
		if flags&(1<<i) != 0 {
			asked = append(asked, name)
		}
	}
	o := operand{name: "fib " + strings.Join(asked, " . "), size: 4}
	switch result {
	case 1:
		o.name, o.kind = o.name+" oif", kIndex
	case 2:
		o.name, o.kind = o.name+" oifname", kName
	case 3:
		o.name, o.kind = o.name+" type", kType
	}
	if flags&(1<<5) != 0 { // NFTA_FIB_F_PRESENT
		o.kind = kExists
	}
	return o
}

// ones reports how long a mask's prefix is, and false where it is none.
func ones(mask []byte) (int, bool) {
	n, end := 0, false
	for _, b := range mask {
		for bit := byte(0x80); bit != 0; bit >>= 1 {
			switch {
			case b&bit == 0:
				end = true
			case end:
				return 0, false
			default:
				n++
			}
		}
	}
	return n, true
}

func (d *decoder) bitwise(n nested) {
	o := d.regs[reg(n.numberOf(unix.NFTA_BITWISE_SREG))]
	mask := n.get(unix.NFTA_BITWISE_MASK).get(unix.NFTA_DATA_VALUE).b
	xor := n.get(unix.NFTA_BITWISE_XOR).get(unix.NFTA_DATA_VALUE).b
	o.mask, o.xor = mask, xor
	d.regs[reg(n.numberOf(unix.NFTA_BITWISE_DREG))] = o
}

func (d *decoder) cmp(r, op uint32, value []byte) {
	o := d.regs[r]
	if d.low != nil && d.low.reg == r && op == unix.NFT_CMP_LTE {
		from := d.low.value
		d.low = nil
		d.ask(o, false, d.w.span(o, from, value))
		return
	}
	d.flush()
	if op == unix.NFT_CMP_GTE {
		d.low = &lower{r, value}
		return
	}
	not := op == unix.NFT_CMP_NEQ
	if o.mask != nil {
		zero := len(bytes.Trim(value, "\x00")) == 0
		switch bits, prefix := ones(o.mask); {
		case (o.kind == kState || o.kind == kStatus) && zero:
			d.ask(o, !not, d.w.value(o, o.mask))
			return
		case o.kind == kAddr && prefix:
			d.ask(o, not, fmt.Sprintf("%s/%d", d.w.value(o, value), bits))
			return
		case o.kind == kFlags:
			d.ask(o, not, d.w.value(o, value)+" / "+d.w.value(o, o.mask))
			return
		}
		sign := "=="
		if not {
			sign = "!="
		}
		d.ask(operand{name: o.name + " & " + d.w.value(o, o.mask) + " " + sign, needs: o.needs}, false,
			d.w.value(o, value))
		return
	}
	text := d.w.value(o, value)
	if o.kind == kAddr && len(value) < o.size { // nft asks for the first bytes of an address
		text = fmt.Sprintf("%s/%d", text, len(value)*8)
	}
	if sign := map[uint32]string{unix.NFT_CMP_LT: "< ", unix.NFT_CMP_LTE: "<= ",
		unix.NFT_CMP_GT: "> "}[op]; sign != "" {
		text = sign + text
	}
	d.ask(o, not, text)
}

// lookup asks whether something is in a set, or takes a map's value.
func (d *decoder) lookup(n nested) {
	name := n.get(unix.NFTA_LOOKUP_SET).text()
	first := reg(n.numberOf(unix.NFTA_LOOKUP_SREG))
	s := d.w.sets[[3]string{d.t.Family, d.t.Name, name}]
	key := []operand{d.regs[first]}
	if s != nil {
		key = nil
		for at := uint32(0); at < max(s.KeyLen, 1); {
			o, ok := d.regs[first+at/4]
			if !ok {
				break
			}
			key = append(key, o)
			at += max((uint32(o.size)+3)/4*4, 4)
			if s.Flags&setConcat == 0 && s.KeyType>>6 == 0 {
				break
			}
		}
	}
	var names []string
	needs := ""
	for _, o := range key {
		name := o.name
		if o.mask != nil {
			name += " & " + d.w.value(o, o.mask)
		}
		names = append(names, name)
		needs = max(needs, o.needs)
	}
	o := operand{name: strings.Join(names, " . "), needs: needs}
	content := "@" + name
	if s == nil || s.Flags&unix.NFT_SET_ANONYMOUS != 0 {
		content = d.w.elements(s, key)
	}
	switch {
	case len(n.get(unix.NFTA_LOOKUP_DREG).b) == 0:
		d.ask(o, n.numberOf(unix.NFTA_LOOKUP_FLAGS)&1 != 0, content)
	case n.numberOf(unix.NFTA_LOOKUP_DREG) == 0:
		d.parts = append(d.parts, part{field: o.name + " vmap", value: content, needs: needs, verd: true})
	default:
		d.regs[reg(n.numberOf(unix.NFTA_LOOKUP_DREG))] = operand{text: o.name + " map " + content}
		// What the key implies is implied by a field that is not written.
		d.parts = append(d.parts, part{field: o.name, needs: needs})
		d.parts = d.parts[:len(d.parts)-1]
		d.drop(needs)
	}
}

// drop leaves the last condition out where it is for a protocol that a map's key implies.
func (d *decoder) drop(needs string) {
	if i := len(d.parts) - 1; i >= 0 && needs != "" && d.parts[i].field == "meta l4proto" && d.parts[i].value == needs {
		d.parts = d.parts[:i]
	}
}

// maxElements is how many elements of an anonymous set are written.
const maxElements = 24

// elements writes what is in an anonymous set.
func (w *writer) elements(s *Set, key []operand) string {
	if s == nil {
		w.abridged = true
		return "{ … }"
	}
	list := slices.Clone(s.Elements)
	interval := s.Flags&unix.NFT_SET_INTERVAL != 0 && len(key) == 1
	if len(key) == 1 {
		sortStable(list, func(a, b Element) int { return bytes.Compare(a.Key, b.Key) })
	}
	var all []string
	for i := 0; i < len(list); i++ {
		e := list[i]
		if e.End {
			continue
		}
		text := ""
		if interval {
			to := bytes.Repeat([]byte{0xff}, len(e.Key))
			if i+1 < len(list) { // the next key begins behind it
				to = minus1(list[i+1].Key)
			}
			text = w.span(key[0], e.Key, to)
		} else {
			at := 0
			var some []string
			for _, o := range key {
				size := o.size
				if size == 0 || at+size > len(e.Key) {
					size = len(e.Key) - at
				}
				if len(e.KeyEnd) == len(e.Key) && len(e.KeyEnd) > 0 {
					some = append(some, w.span(o, e.Key[at:at+size], e.KeyEnd[at:at+size]))
				} else {
					some = append(some, w.value(o, e.Key[at:at+size]))
				}
				at = min(at+(size+3)/4*4, len(e.Key))
			}
			text = strings.Join(some, " . ")
		}
		if data := (nested{e.Data}); len(e.Data) > 0 {
			if v := data.get(unix.NFTA_DATA_VERDICT); len(v.b) > 0 {
				text += " : " + verdictText(v)
			} else {
				text += fmt.Sprintf(" : 0x%x", data.get(unix.NFTA_DATA_VALUE).b)
				w.abridged = true
			}
		}
		all = append(all, text)
		if len(all) == maxElements {
			w.abridged = true
			all = append(all, "…")
			break
		}
	}
	return "{ " + strings.Join(all, ", ") + " }"
}

func minus1(b []byte) []byte {
	b = slices.Clone(b)
	for i := len(b) - 1; i >= 0; i-- {
		if b[i]--; b[i] != 0xff {
			break
		}
	}
	return b
}

// operand writes what a statement sets: a constant, a map's value, or something computed.
func (w *writer) operand(o, to operand) string {
	switch {
	case o.text != "":
		return o.text
	case o.value != nil:
		return w.value(to, o.value)
	case o.mask == nil:
		return o.name
	}
	mask, xor := hostNumber(o.mask), hostNumber(o.xor)
	all := uint64(1)<<(8*min(len(o.mask), 7)) - 1
	switch {
	case xor == 0:
		return fmt.Sprintf("%s & %s", o.name, w.value(o, o.mask))
	case mask^all == xor:
		return fmt.Sprintf("%s | %s", o.name, w.value(o, o.xor))
	case mask == all:
		return fmt.Sprintf("%s ^ %s", o.name, w.value(o, o.xor))
	}
	return fmt.Sprintf("%s & %s ^ %s", o.name, w.value(o, o.mask), w.value(o, o.xor))
}

// span writes an interval.
func (w *writer) span(o operand, from, to []byte) string {
	if bytes.Equal(from, to) {
		return w.value(o, from)
	}
	if o.kind == kAddr {
		a, ok := netip.AddrFromSlice(from)
		for bits := 0; ok && bits < len(from)*8; bits++ {
			p := netip.PrefixFrom(a, bits)
			if p.Masked().Addr() == a && bytes.Equal(lastOf(p), to) {
				return p.String()
			}
		}
	}
	return w.value(o, from) + "-" + w.value(o, to)
}

func lastOf(p netip.Prefix) []byte {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return b
}

func be(b []byte) uint64 {
	var n uint64
	for _, x := range b[:min(len(b), 8)] {
		n = n<<8 | uint64(x)
	}
	return n
}

func hostNumber(b []byte) uint64 {
	switch len(b) {
	case 1:
		return uint64(b[0])
	case 2:
		return uint64(binary.NativeEndian.Uint16(b))
	case 4:
		return uint64(binary.NativeEndian.Uint32(b))
	}
	return be(b)
}

// value writes a number as nft does for what it is compared with.
func (w *writer) value(o operand, b []byte) string {
	switch o.kind {
	case kNetwork:
		if len(b) > 8 {
			return fmt.Sprintf("0x%x", b)
		}
		return fmt.Sprint(be(b))
	case kHex:
		return fmt.Sprintf("0x%08x", hostNumber(b))
	case kAddr:
		full := make([]byte, max(o.size, len(b)))
		copy(full, b)
		a, ok := netip.AddrFromSlice(full)
		if !ok {
			return fmt.Sprintf("0x%x", b)
		}
		return a.String()
	case kProto:
		return protoName(byte(be(b)))
	case kNFProto:
		return map[uint64]string{2: "ipv4", 10: "ipv6"}[be(b)]
	case kName:
		name := nested{b}.text()
		if !bytes.Contains(b, []byte{0}) && len(b) < unix.IFNAMSIZ {
			name += "*"
		}
		return strconv.Quote(name)
	case kIndex:
		for _, l := range w.c.Links {
			if uint64(l.Index) == hostNumber(b) {
				return strconv.Quote(l.Name)
			}
		}
		return fmt.Sprint(hostNumber(b))
	case kState:
		return bitNames(hostNumber(b), []bitName{{1, "invalid"}, {2, "established"}, {4, "related"}, {8, "new"},
			{64, "untracked"}})
	case kStatus:
		return bitNames(hostNumber(b), []bitName{{1, "expected"}, {2, "seen-reply"}, {4, "assured"}, {8, "confirmed"},
			{16, "snat"}, {32, "dnat"}, {512, "dying"}})
	case kDirection:
		return []string{"original", "reply"}[hostNumber(b)&1]
	case kType:
		return addressType(hostNumber(b))
	case kExists:
		return []string{"missing", "exists"}[hostNumber(b)&1]
	case kICMP:
		if name := icmpNames[be(b)]; name != "" {
			return name
		}
		return fmt.Sprint(be(b))
	case kICMP6:
		if name := icmp6Names[be(b)]; name != "" {
			return name
		}
		return fmt.Sprint(be(b))
	case kFlags:
		return bitNames(be(b), []bitName{{1, "fin"}, {2, "syn"}, {4, "rst"}, {8, "psh"}, {16, "ack"}, {32, "urg"},
			{64, "ecn"}, {128, "cwr"}})
	}
	return fmt.Sprint(hostNumber(b))
}

type bitName struct {
	bit  uint64
	name string
}

func bitNames(n uint64, names []bitName) string {
	var all []string
	for _, x := range names {
		if n&x.bit != 0 {
			all = append(all, x.name)
			n &^= x.bit
		}
	}
	if n != 0 || all == nil {
		all = append(all, fmt.Sprintf("0x%x", n))
	}
	return strings.Join(all, ",")
}

func addressType(n uint64) string {
	names := []string{"unspec", "unicast", "local", "broadcast", "anycast", "multicast", "blackhole", "unreachable",
		"prohibit"}
	if n < uint64(len(names)) {
		return names[n]
	}
	return fmt.Sprint(n)
}

var (
	icmpNames = map[uint64]string{0: "echo-reply", 3: "destination-unreachable", 5: "redirect", 8: "echo-request",
		11: "time-exceeded", 12: "parameter-problem"}

	icmp6Names = map[uint64]string{
		1: "destination-unreachable", 2: "packet-too-big", 3: "time-exceeded", 4: "parameter-problem",
		128: "echo-request", 129: "echo-reply", 130: "mld-listener-query",
		131: "mld-listener-report", 132: "mld-listener-done", 133: "nd-router-solicit", 134: "nd-router-advert",
		135: "nd-neighbor-solicit", 136: "nd-neighbor-advert",
		137: "nd-redirect", 143: "mld2-listener-report",
	}

	protoNames = map[byte]string{1: "icmp", 2: "igmp", 6: "tcp", 17: "udp", 33: "dccp", 47: "gre", 50: "esp", 51: "ah",
		58: "ipv6-icmp", 132: "sctp", 136: "udplite"}
)

func protoName(n byte) string {
	if name := protoNames[n]; name != "" {
		return name
	}
	return fmt.Sprint(n)
}

func verdictText(n nested) string {
	chain := n.get(unix.NFTA_VERDICT_CHAIN).text()
	switch code := int32(n.numberOf(unix.NFTA_VERDICT_CODE)); code {
	case unix.NFT_JUMP:
		return "jump " + chain
	case unix.NFT_GOTO:
		return "goto " + chain
	case unix.NFT_RETURN:
		return "return"
	case 0: // NF_DROP
		return "drop"
	case 1: // NF_ACCEPT
		return "accept"
	case unix.NFT_CONTINUE:
		return "continue"
	default:
		return fmt.Sprintf("verdict %d", code)
	}
}

func rejectText(family string, kind, code uint32) string {
	switch kind {
	case 1:
		return "reject with tcp reset"
	case 2: // NFT_REJECT_ICMPX_UNREACH
		if code == 1 {
			return "reject"
		}
		return "reject with icmpx " + []string{"no-route", "port-unreachable", "host-unreachable",
			"admin-prohibited"}[code&3]
	}
	if family == "ip6" {
		if code == 4 {
			return "reject"
		}
		return "reject with icmpv6 " + map[uint32]string{0: "no-route", 1: "admin-prohibited", 3: "addr-unreachable",
			5: "policy-fail", 6: "reject-route"}[code]
	}
	if code == 3 {
		return "reject"
	}
	return "reject with icmp " + map[uint32]string{0: "net-unreachable", 1: "host-unreachable", 2: "prot-unreachable",
		9: "net-prohibited", 10: "host-prohibited", 13: "admin-prohibited"}[code]
}
