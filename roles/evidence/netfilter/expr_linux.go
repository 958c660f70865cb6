package netfilter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

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

func (r *ruleReader) do(a Action) { r.rule.Steps = append(r.rule.Steps, Step{Action: &a}) }

func (r *ruleReader) ask(c Cond) { r.rule.Steps = append(r.rule.Steps, Step{Cond: &c}) }

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

func (r *ruleReader) get(n uint32) value { return r.registers[register(n)] }

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

// payload is what is at an offset of a header. Parts of addresses are whole ones with a shorter
// prefix, which nft asks for so (struct iphdr, ipv6hdr, tcphdr).
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

// marks is the action that sets a mark: to numbers, to its own other bits, or to what the other
// mark is.
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
