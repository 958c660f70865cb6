package netfilter

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// nested are the attributes of a message, by number; a list's are told apart by list.
type nested struct{ b []byte }

func (n nested) each(f func(number uint16, value nested)) error {
	if len(n.b) == 0 {
		return nil
	}
	ad, err := netlink.NewAttributeDecoder(n.b)
	if err != nil {
		return err
	}
	for ad.Next() {
		f(ad.Type(), nested{ad.Bytes()})
	}
	return ad.Err()
}

// get gives the last attribute with a number.
func (n nested) get(number uint16) (v nested) {
	_ = n.each(func(k uint16, x nested) { // a message that is cut is found where it is listed
		if k == number {
			v = x
		}
	})
	return v
}

func (n nested) text() string {
	s, _, _ := strings.Cut(string(n.b), "\x00")
	return s
}

// number is of 16 or 32 bits, as netfilter's are: in network order.
func (n nested) number() uint32 {
	switch len(n.b) {
	case 2:
		return uint32(binary.BigEndian.Uint16(n.b))
	case 4:
		return binary.BigEndian.Uint32(n.b)
	}
	return 0
}

// families are those of IP's hooks, by NFPROTO_*; netdev's and bridge's have hooks of their own.
var families = map[byte]string{unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6", unix.NFPROTO_INET: "inet"}

// hooks by NF_INET_*.
var hooks = []string{"prerouting", "input", "forward", "output", "postrouting"}

// tableDormant is NFT_TABLE_F_DORMANT.
const tableDormant = 1

// nfTables reads the rules of nf_tables into the ruleset.
func (r *Ruleset) nfTables() error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return fmt.Errorf("netfilter socket: %w", err)
	}
	defer conn.Close()
	dump := func(message int, data []byte, f func(family string, n nested) error) error {
		messages, err := conn.Execute(netlink.Message{
			Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | message), Flags: netlink.Request | netlink.Dump}, Data: data,
		})
		if err != nil {
			return err
		}
		for _, m := range messages {
			if len(m.Data) < 4 {
				return fmt.Errorf("a message of %d bytes", len(m.Data))
			}
			if family := families[m.Data[0]]; family != "" { // struct nfgenmsg
				if err := f(family, nested{m.Data[4:]}); err != nil {
					return err
				}
			}
		}
		return nil
	}
	all := make([]byte, 4) // struct nfgenmsg: of all families
	dormant := map[string]bool{}
	if err := dump(unix.NFT_MSG_GETTABLE, all, func(family string, n nested) error {
		if n.get(unix.NFTA_TABLE_FLAGS).number()&tableDormant != 0 {
			dormant[family+" "+n.get(unix.NFTA_TABLE_NAME).text()] = true
		}
		return nil
	}); err != nil {
		return fmt.Errorf("list of tables: %w", err)
	}
	chains := map[[3]string]*Chain{}
	if err := dump(unix.NFT_MSG_GETCHAIN, all, func(family string, n nested) error {
		c := parseChain(family, n)
		c.Dormant = dormant[family+" "+c.Table]
		chains[[3]string{family, c.Table, c.Name}] = c
		r.Chains = append(r.Chains, c)
		return nil
	}); err != nil {
		return fmt.Errorf("list of chains: %w", err)
	}
	elements := func(family, table, set string) ([]element, error) {
		b, err := netlink.MarshalAttributes([]netlink.Attribute{
			{Type: unix.NFTA_SET_ELEM_LIST_TABLE, Data: []byte(table + "\x00")}, {Type: unix.NFTA_SET_ELEM_LIST_SET, Data: []byte(set + "\x00")},
		})
		if err != nil {
			return nil, err
		}
		number := byte(0)
		for k, name := range families {
			if name == family {
				number = k
			}
		}
		var all []element
		err = dump(unix.NFT_MSG_GETSETELEM, append([]byte{number, 0, 0, 0}, b...), func(_ string, n nested) error {
			return n.get(unix.NFTA_SET_ELEM_LIST_ELEMENTS).each(func(_ uint16, e nested) { all = append(all, parseElement(e)) })
		})
		return all, err
	}
	err = dump(unix.NFT_MSG_GETRULE, all, func(family string, n nested) error {
		table := n.get(unix.NFTA_RULE_TABLE).text()
		c := chains[[3]string{family, table, n.get(unix.NFTA_RULE_CHAIN).text()}]
		if c == nil {
			return nil // it was made meanwhile
		}
		rule, err := parseRule(c, n.get(unix.NFTA_RULE_EXPRESSIONS), func(set string) ([]element, error) { return elements(family, table, set) })
		if err != nil {
			return fmt.Errorf("%s: %w", rule.Where(), err)
		}
		c.Rules = append(c.Rules, rule)
		return nil
	})
	if err != nil {
		return fmt.Errorf("list of rules: %w", err)
	}
	return nil
}

func parseChain(family string, n nested) *Chain {
	c := &Chain{Family: family, Table: n.get(unix.NFTA_CHAIN_TABLE).text(), Name: n.get(unix.NFTA_CHAIN_NAME).text(), Type: n.get(unix.NFTA_CHAIN_TYPE).text()}
	if hook := n.get(unix.NFTA_CHAIN_HOOK); len(hook.b) > 0 {
		c.Hook = "another"
		if i := hook.get(unix.NFTA_HOOK_HOOKNUM).number(); int(i) < len(hooks) {
			c.Hook = hooks[i]
		}
		c.Priority = int(int32(hook.get(unix.NFTA_HOOK_PRIORITY).number()))
		c.Drops = n.get(unix.NFTA_CHAIN_POLICY).number() == 0 && len(n.get(unix.NFTA_CHAIN_POLICY).b) > 0 // NF_DROP
	}
	return c
}

// element is one of a set: a key, or the beginning of an interval, or its end, which is not in it.
type element struct {
	key, keyEnd []byte
	end         bool
	data        []byte
	action      *Action
}

const keyEnd = 10 // NFTA_SET_ELEM_KEY_END

func parseElement(n nested) element {
	e := element{key: n.get(unix.NFTA_SET_ELEM_KEY).get(unix.NFTA_DATA_VALUE).b, keyEnd: n.get(keyEnd).get(unix.NFTA_DATA_VALUE).b}
	e.end = n.get(unix.NFTA_SET_ELEM_FLAGS).number()&unix.NFT_SET_ELEM_INTERVAL_END != 0
	data := n.get(unix.NFTA_SET_ELEM_DATA)
	e.data = data.get(unix.NFTA_DATA_VALUE).b
	if v := data.get(unix.NFTA_DATA_VERDICT); len(v.b) > 0 {
		a := verdict(v)
		e.action = &a
	}
	return e
}

// verdict is a statement that decides.
func verdict(n nested) Action {
	chain := n.get(unix.NFTA_VERDICT_CHAIN).text()
	switch code := int32(n.get(unix.NFTA_VERDICT_CODE).number()); code {
	case unix.NFT_JUMP:
		return Action{Does: Jump, Chain: chain, Text: "jump " + chain}
	case unix.NFT_GOTO:
		return Action{Does: Goto, Chain: chain, Text: "goto " + chain}
	case unix.NFT_RETURN:
		return Action{Does: Return, Text: "return"}
	case 0: // NF_DROP
		return Action{Does: Drop, Text: "drop"}
	case 1: // NF_ACCEPT
		return Action{Does: Accept, Text: "accept"}
	case unix.NFT_CONTINUE, unix.NFT_BREAK:
		return Action{Text: "continue"}
	default:
		return Action{Does: Ends, Text: fmt.Sprintf("verdict %d", code)}
	}
}

// value is what a register holds: something of the packet, or numbers of the rule's.
type value struct {
	field     Field
	name      string // as nft(8) writes it
	size      int    // in bytes, 0 when it is not of the packet
	and, xor  []byte // what was done to it
	network   bool   // its bytes are in network order
	constants [][]byte
	unknown   string // why the numbers are not known
}

// ruleReader goes through a rule's statements, which hand values on in registers.
type ruleReader struct {
	rule      *Rule
	registers map[uint32]value
	elements  func(set string) ([]element, error)
	l4        string // the protocol that was asked for
}

func parseRule(c *Chain, list nested, elements func(string) ([]element, error)) (*Rule, error) {
	r := &ruleReader{rule: &Rule{Chain: c, Number: len(c.Rules) + 1}, registers: map[uint32]value{}, elements: elements}
	var errs []error
	err := list.each(func(_ uint16, e nested) {
		errs = append(errs, r.statement(e.get(unix.NFTA_EXPR_NAME).text(), e.get(unix.NFTA_EXPR_DATA)))
	})
	return r.rule, errors.Join(append(errs, err)...)
}

func (r *ruleReader) do(a Action)      { r.rule.Steps = append(r.rule.Steps, Step{Action: &a}) }
func (r *ruleReader) ask(c Cond)       { r.rule.Steps = append(r.rule.Steps, Step{Cond: &c}) }
func (r *ruleReader) strange(s string) { r.ask(Cond{Field: Unknown, Text: s}) }

// register takes a value. Those of 16 bytes have the numbers 1 to 4, and each is four of 4 bytes,
// which begin at 8.
func register(n uint32) uint32 {
	if n <= 4 {
		return 8 + (n-1)*4
	}
	return n
}

func (r *ruleReader) set(n uint32, v value) { r.registers[register(n)] = v }
func (r *ruleReader) get(n uint32) value    { return r.registers[register(n)] }

// The statements that do nothing to a packet's way.
var idle = []string{"counter", "log", "last", "dup", "dynset", "limitless", "secmark"}

// Those that ask something of it that is not followed.
var asking = map[string]string{
	"limit": "limit", "quota": "quota", "connlimit": "ct count", "osf": "osf", "xfrm": "ipsec", "tunnel": "tunnel",
}

func (r *ruleReader) statement(name string, n nested) error {
	number := func(k uint16) uint32 { return n.get(k).number() }
	switch name {
	case "immediate":
		data := n.get(unix.NFTA_IMMEDIATE_DATA)
		if v := data.get(unix.NFTA_DATA_VERDICT); len(v.b) > 0 {
			r.do(verdict(v))
			break
		}
		r.set(number(unix.NFTA_IMMEDIATE_DREG), value{constants: [][]byte{data.get(unix.NFTA_DATA_VALUE).b}})
	case "payload":
		if d := number(unix.NFTA_PAYLOAD_DREG); d != 0 {
			r.set(d, r.payload(number(unix.NFTA_PAYLOAD_BASE), number(unix.NFTA_PAYLOAD_OFFSET), number(unix.NFTA_PAYLOAD_LEN)))
		}
	case "meta":
		r.meta(n)
	case "ct":
		r.ct(n)
	case "socket":
		v := value{field: Packet, name: "socket", size: 4}
		switch number(1) { // NFTA_SOCKET_KEY
		case 0:
			v = value{field: Transparent, name: "socket transparent", size: 1}
		case 1:
			v = value{field: Packet, name: "socket mark", size: 4}
		case 2:
			v = value{field: Packet, name: "socket wildcard", size: 1}
		case 3:
			v = value{field: Sender, name: "socket cgroupv2", size: 8}
		}
		r.set(number(2), v)
	case "fib":
		v := value{field: Packet, name: "fib", size: 4}
		if number(2) == 3 && number(3)&2 != 0 { // NFTA_FIB_RESULT is NFT_FIB_RESULT_ADDRTYPE, NFTA_FIB_FLAGS has NFTA_FIB_F_DADDR
			v = value{field: AddrType, name: "fib daddr type", size: 4}
		}
		r.set(number(1), v)
	case "rt", "numgen", "exthdr":
		if d := number(1); d != 0 { // NFTA_*_DREG
			r.set(d, value{field: Packet, name: name, size: 4})
		}
	case "hash":
		r.set(number(unix.NFTA_HASH_DREG), value{field: Packet, name: name, size: 4})
	case "byteorder":
		v := r.get(number(1)) // NFTA_BYTEORDER_SREG
		v.network = !v.network
		r.set(number(2), v)
	case "bitwise":
		r.bitwise(n)
	case "cmp":
		return r.compare(r.get(number(unix.NFTA_CMP_SREG)), number(unix.NFTA_CMP_OP), n.get(unix.NFTA_CMP_DATA).get(unix.NFTA_DATA_VALUE).b)
	case "range":
		v := r.get(number(unix.NFTA_RANGE_SREG))
		from, to := n.get(unix.NFTA_RANGE_FROM_DATA).get(unix.NFTA_DATA_VALUE).b, n.get(unix.NFTA_RANGE_TO_DATA).get(unix.NFTA_DATA_VALUE).b
		r.ask(v.cond([]interval{{from, to}}, number(unix.NFTA_RANGE_OP) == unix.NFT_RANGE_NEQ))
	case "lookup":
		return r.lookup(n)
	case "tproxy": // NFTA_TPROXY_FAMILY, _REG_ADDR, _REG_PORT
		a := Action{Does: TProxy, Family: families[byte(number(1))], Text: "tproxy"}
		if a.Family == "inet" {
			a.Family = ""
		}
		a.target(r.get(number(2)), r.get(number(3)), number(2) != 0, number(3) != 0)
		r.do(a)
	case "redir":
		a := Action{Does: Redirect, Text: "redirect"}
		a.target(value{}, r.get(number(1)), false, number(1) != 0) // NFTA_REDIR_REG_PROTO_MIN
		a.ranged(r.get(number(2)), number(2) != 0 && number(2) != number(1))
		r.do(a)
	case "nat":
		if number(unix.NFTA_NAT_TYPE) != unix.NFT_NAT_DNAT {
			r.do(Action{Does: Accept, Text: "snat"})
			break
		}
		a := Action{Does: NATAway, Family: families[byte(number(unix.NFTA_NAT_FAMILY))], Text: "dnat"}
		to, port := number(unix.NFTA_NAT_REG_ADDR_MIN), number(unix.NFTA_NAT_REG_PROTO_MIN)
		a.target(r.get(to), r.get(port), to != 0, port != 0)
		r.do(a)
	case "masq":
		r.do(Action{Does: Accept, Text: "masquerade"})
	case "reject":
		r.do(Action{Does: Drop, Text: "reject"})
	case "notrack":
		r.do(Action{Does: Notrack, Text: "notrack"})
	case "synproxy":
		r.do(Action{Does: Ends, Text: name})
	case "flow_offload", "fwd", "objref":
		r.ask(Cond{Field: Packet, Text: name})
	case "queue":
		a := Action{Does: Queue, First: uint16(number(unix.NFTA_QUEUE_NUM))}
		a.Last = a.First + uint16(max(number(unix.NFTA_QUEUE_TOTAL), 1)) - 1
		a.Bypass = number(unix.NFTA_QUEUE_FLAGS)&unix.NFT_QUEUE_FLAG_BYPASS != 0
		if number(unix.NFTA_QUEUE_SREG_QNUM) != 0 {
			a.Unknown = "a map chooses its queue"
		}
		a.Text = fmt.Sprintf("queue to %d-%d", a.First, a.Last)
		r.do(a)
	case "match": // of xtables: its name, revision and data
		c, ok := matchOf(n.get(1).text(), n.get(2).number(), n.get(3).b)
		if ok {
			for _, c := range c {
				r.ask(c)
			}
		}
	case "target":
		for _, a := range targetOf(n.get(1).text(), n.get(2).number(), n.get(3).b, r.rule.Chain.Family == "ip6") {
			r.do(a)
		}
	default:
		if slices.Contains(idle, name) {
			break
		}
		if text, ok := asking[name]; ok {
			r.ask(Cond{Field: Packet, Text: text})
		} else {
			r.strange(name)
		}
	}
	return nil
}

// Bases of payloads.
const (
	network   = 1 // NFT_PAYLOAD_NETWORK_HEADER
	transport = 2
)

// payload is what is at an offset of a header. Parts of addresses are whole ones with a shorter prefix, which
// nft asks for so (struct iphdr, ipv6hdr, tcphdr).
func (r *ruleReader) payload(base, offset, size uint32) value {
	v := value{field: Packet, name: fmt.Sprintf("@%d,%d,%d", base, offset*8, size*8), size: int(size), network: true}
	six := map[string]uint32{"ip": 12, "ip6": 8}
	for family, at := range six {
		long := uint32(4)
		if family == "ip6" {
			long = 16
		}
		if base != network || r.rule.Chain.Family == "ip" && family == "ip6" || r.rule.Chain.Family == "ip6" && family == "ip" ||
			r.rule.Chain.Family == "inet" && r.l4family() != family {
			continue
		}
		switch {
		case offset == at && size <= long:
			v.field, v.name = Src, family+" saddr"
		case offset == at+long && size <= long:
			v.field, v.name = Dst, family+" daddr"
		case offset == 9 && size == 1 && family == "ip", offset == 6 && size == 1 && family == "ip6":
			v.field, v.name = Proto, "protocol"
		}
	}
	if base == transport && offset == 2 && size == 2 {
		v.field, v.name = Port, strings.TrimSpace(r.l4+" dport")
	} else if base == transport && offset == 0 && size == 2 {
		v.name = "sport"
	} else if base == transport && offset == 0 && size == 4 {
		v.name = "ports"
	}
	return v
}

// l4family is the family that a rule of an inet table asked for before.
func (r *ruleReader) l4family() string {
	for _, s := range slices.Backward(r.rule.Steps) {
		if s.Cond != nil && s.Cond.Field == NFProto && !s.Cond.Not && len(s.Cond.In) == 1 {
			return families[byte(s.Cond.In[0].lo)]
		}
	}
	return ""
}

// metas are what meta asks for, by NFT_META_*.
var metas = map[uint32]value{
	unix.NFT_META_L4PROTO: {field: Proto, name: "l4proto", size: 1},
	unix.NFT_META_NFPROTO: {field: NFProto, name: "nfproto", size: 1},
	unix.NFT_META_IIFNAME: {field: InName, name: "iifname", size: 16},
	unix.NFT_META_OIFNAME: {field: OutName, name: "oifname", size: 16},
	unix.NFT_META_MARK:    {field: Mark, name: "mark", size: 4},
	unix.NFT_META_SKUID:   {field: UID, name: "skuid", size: 4},
	unix.NFT_META_SKGID:   {field: Sender, name: "skgid", size: 4},
	unix.NFT_META_CGROUP:  {field: Sender, name: "cgroup", size: 4},
	unix.NFT_META_IIF:     {field: InName, name: "iif", size: 4},
	unix.NFT_META_OIF:     {field: OutName, name: "oif", size: 4},
}

func (r *ruleReader) meta(n nested) {
	key := n.get(unix.NFTA_META_KEY).number()
	if to := n.get(unix.NFTA_META_DREG).number(); to != 0 {
		v, ok := metas[key]
		if !ok {
			v = value{field: Packet, name: fmt.Sprintf("meta %d", key), size: 4}
		}
		v.name = "meta " + strings.TrimPrefix(v.name, "meta ")
		r.set(to, v)
		return
	}
	if key == unix.NFT_META_MARK {
		r.do(r.get(n.get(unix.NFTA_META_SREG).number()).marks("meta mark set", Mark, SetMark, RestoreMark))
	}
}

func (r *ruleReader) ct(n nested) {
	key := n.get(unix.NFTA_CT_KEY).number()
	if to := n.get(unix.NFTA_CT_DREG).number(); to != 0 {
		v := value{field: Packet, name: fmt.Sprintf("ct %d", key), size: 4}
		switch key {
		case unix.NFT_CT_STATE:
			v = value{field: State, name: "ct state", size: 4}
		case unix.NFT_CT_MARK:
			v = value{field: CTMark, name: "ct mark", size: 4}
		}
		r.set(to, v)
		return
	}
	if key == unix.NFT_CT_MARK {
		r.do(r.get(n.get(unix.NFTA_CT_SREG).number()).marks("ct mark set", CTMark, setCTMark, SaveMark))
	}
}

// marks is the action that sets a mark: to numbers, to its own other bits, or to what the other mark is.
func (v value) marks(text string, own Field, set, copied Does) Action {
	a := Action{Does: set, Text: text}
	other := map[Field]Field{Mark: CTMark, CTMark: Mark}[own]
	switch {
	case len(v.constants) == 1 && len(v.constants[0]) == 4:
		a.Xor = native32(v.constants[0])
		a.Text += fmt.Sprintf(" 0x%x", a.Xor)
	case v.field == own && len(v.and) == 4:
		a.And, a.Xor = native32(v.and), native32(v.xor)
		a.Text += fmt.Sprintf(" mark & 0x%x ^ 0x%x", a.And, a.Xor)
	case v.field == other && v.and == nil:
		a.Does, a.Text = copied, text+" "+map[Field]string{Mark: "ct mark", CTMark: "meta mark"}[own]
	default:
		a.MarkUnknown = true
		a.Text += " …"
	}
	return a
}

func native32(b []byte) uint32 {
	if len(b) != 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(b)
}

func (r *ruleReader) bitwise(n nested) {
	v := r.get(n.get(unix.NFTA_BITWISE_SREG).number())
	mask, xor := n.get(unix.NFTA_BITWISE_MASK).get(unix.NFTA_DATA_VALUE).b, n.get(unix.NFTA_BITWISE_XOR).get(unix.NFTA_DATA_VALUE).b
	if len(mask) == 0 || len(xor) != len(mask) || v.and != nil || v.size == 0 { // a shift, or one after another
		v = value{field: Packet, name: v.name, size: v.size, unknown: "it is computed"}
	} else {
		v.and, v.xor = mask, xor
	}
	r.set(n.get(unix.NFTA_BITWISE_DREG).number(), v)
}

func (r *ruleReader) compare(v value, op uint32, data []byte) error {
	if v.field == Transparent && len(data) > 1 {
		data = data[:1]
	}
	low, high := make([]byte, len(data)), slices.Repeat([]byte{0xff}, len(data))
	if v.name == "ports" && len(data) == 4 { // sport and dport
		r.ask(Cond{Field: Packet, Not: op == unix.NFT_CMP_NEQ, Text: fmt.Sprintf("sport %d", binary.BigEndian.Uint16(data))})
		v.field, v.name, data = Port, strings.TrimSpace(r.l4+" dport"), data[2:]
	}
	switch op {
	case unix.NFT_CMP_EQ, unix.NFT_CMP_NEQ:
		if v.field == Proto && op == unix.NFT_CMP_EQ && len(data) == 1 {
			r.l4 = protoName(data[0])
		}
		r.ask(v.cond([]interval{{data, data}}, op == unix.NFT_CMP_NEQ))
	case unix.NFT_CMP_LT:
		r.ask(v.cond([]interval{{data, high}}, true))
	case unix.NFT_CMP_GTE:
		r.ask(v.cond([]interval{{data, high}}, false))
	case unix.NFT_CMP_LTE:
		r.ask(v.cond([]interval{{low, data}}, false))
	case unix.NFT_CMP_GT:
		r.ask(v.cond([]interval{{low, data}}, true))
	default:
		r.strange(fmt.Sprintf("cmp %d", op))
	}
	return nil
}

func (r *ruleReader) lookup(n nested) error {
	name := n.get(unix.NFTA_LOOKUP_SET).text()
	source := n.get(unix.NFTA_LOOKUP_SREG).number()
	v := r.get(source)
	not := n.get(unix.NFTA_LOOKUP_FLAGS).number()&unix.NFT_LOOKUP_F_INV != 0
	to := n.get(unix.NFTA_LOOKUP_DREG)
	isVerdict := len(to.b) > 0 && to.number() == unix.NFT_REG_VERDICT
	// A set of addresses that has a name can be a country's.
	var list []element
	if isVerdict || v.field != Src && v.field != Dst && v.field != Packet || strings.HasPrefix(name, "__") {
		var err error
		if list, err = r.elements(name); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	// Keys that are longer than the value are of several values.
	if slices.ContainsFunc(list, func(e element) bool { return len(e.key) > (v.size+3)/4*4 }) {
		v = value{field: Packet, name: v.name + " …", size: v.size}
	}
	c := v.cond(intervals(list, v.size), not)
	if !strings.HasPrefix(name, "__") { // else its elements are the text
		if c.Text = v.name + " @" + name; not {
			c.Text = v.name + " != @" + name
		}
	}
	switch {
	case len(to.b) == 0:
		r.ask(c)
	case isVerdict:
		var all []Chosen
		for _, i := range intervalsOf(list, v.size) {
			one := v.cond([]interval{i.interval}, false)
			if i.action == nil {
				continue
			}
			if v.field == Packet {
				one.Text = fmt.Sprintf("%s %x", v.name, i.from)
			}
			all = append(all, Chosen{one, *i.action})
		}
		r.rule.Steps = append(r.rule.Steps, Step{Choice: all})
	default: // what has no element leaves the rule
		r.ask(c)
		var out value
		for _, e := range list {
			if !e.end && e.data != nil && !slices.ContainsFunc(out.constants, func(b []byte) bool { return string(b) == string(e.data) }) {
				out.constants = append(out.constants, e.data)
			}
		}
		if len(out.constants) == 0 {
			out.unknown = "a map chooses it"
		}
		r.set(to.number(), out)
	}
	return nil
}

// interval has both its ends.
type interval struct{ from, to []byte }

type chosenInterval struct {
	interval
	action *Action
}

func intervals(list []element, size int) []interval {
	var all []interval
	for _, i := range intervalsOf(list, size) {
		all = append(all, i.interval)
	}
	return all
}

// intervalsOf joins the beginnings and the ends of a set.
func intervalsOf(list []element, size int) []chosenInterval {
	if !slices.ContainsFunc(list, func(e element) bool { return e.end }) {
		var all []chosenInterval
		for _, e := range list {
			to := e.key
			if e.keyEnd != nil {
				to = e.keyEnd
			}
			all = append(all, chosenInterval{interval{e.key, to}, e.action})
		}
		return all
	}
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b element) int {
		ends := func(e element) int {
			if e.end {
				return 0
			}
			return 1
		}
		return cmp.Or(slices.Compare(a.key, b.key), ends(a)-ends(b))
	})
	var all []chosenInterval
	for i, e := range list {
		if e.end {
			continue
		}
		to := slices.Repeat([]byte{0xff}, len(e.key))
		if i+1 < len(list) {
			to = before(list[i+1].key)
		}
		all = append(all, chosenInterval{interval{e.key, to}, e.action})
	}
	return all
}

// before is the number before.
func before(b []byte) []byte {
	b = slices.Clone(b)
	for i := len(b) - 1; i >= 0; i-- {
		b[i]--
		if b[i] != 0xff {
			break
		}
	}
	return b
}
