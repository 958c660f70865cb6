package twin

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf/xt"
)

// added is a rule that a fix adds: conditions and what is done to packets that meet all. It is
// rendered for the tool whose chain it goes into.
type added struct {
	IPv6     bool
	In       string // device by which packets come
	From, To netip.Prefix
	Proto    string // tcp, udp
	Port     uint16 // of the destination
	HasMark  bool
	NotMark  bool
	Mark     uint32
	Mask     uint32
	Reply    bool   // conntrack knows them as answers
	DNATed   bool   // conntrack knows them as redirected
	ToLocal  bool   // to an address of the host
	UID      int64  // of the sending socket, -1 for any
	Group    bool   // UID is its group
	Socket   bool   // a transparent socket is theirs
	CtMark   uint32 // of their connection, 0 for any
	Do       string
	SetMark  uint32
}

// What an added rule does (added.Do).
const (
	doAccept  = "accept"
	doReturn  = "return"
	doMark    = "mark" // set SetMark
	doNotrack = "notrack"
	doReject  = "reject"
	doMasq    = "masquerade"
	doCtMark  = "connmark" // set SetMark for the connection
)

// nft writes the rule as nft(8) reads it in a table of a family.
func (r added) nft(family string) string {
	var all []string
	ip := "ip"
	if r.IPv6 {
		ip = "ip6"
	}
	say := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	if r.In != "" {
		say("iifname %q", r.In)
	}
	if r.From.IsValid() {
		say("%s saddr %s", ip, prefixText(r.From))
	}
	if r.To.IsValid() {
		say("%s daddr %s", ip, prefixText(r.To))
	}
	switch {
	case r.Port != 0:
		say("%s dport %d", r.Proto, r.Port)
	case r.Proto != "":
		say("meta l4proto %s", r.Proto)
	}
	if r.HasMark {
		not := ""
		if r.NotMark {
			not = "!= "
		}
		if r.Mask == 0xffffffff {
			say("meta mark %s0x%x", not, r.Mark)
		} else {
			say("meta mark & 0x%x %s 0x%x", r.Mask, map[bool]string{false: "==", true: "!="}[r.NotMark], r.Mark)
		}
	}
	if r.Reply {
		say("ct direction reply")
	}
	if r.DNATed {
		say("ct status dnat")
	}
	if r.ToLocal {
		say("fib daddr type local")
	}
	if r.UID >= 0 {
		say("meta %s %d", map[bool]string{false: "skuid", true: "skgid"}[r.Group], r.UID)
	}
	if r.Socket {
		say("socket transparent 1")
	}
	if r.CtMark != 0 {
		say("ct mark 0x%x", r.CtMark)
	}
	switch r.Do {
	case doMark:
		say("meta mark set 0x%x", r.SetMark)
	case doCtMark:
		say("ct mark set 0x%x", r.SetMark)
	case doReject:
		if r.Proto == "tcp" {
			say("reject with tcp reset")
		} else {
			say("reject")
		}
	default:
		say("%s", r.Do)
	}
	return strings.Join(all, " ")
}

func prefixText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// iptables writes the rule as iptables reads it, without the chain.
func (r added) iptables() string {
	var all []string
	say := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	if r.From.IsValid() {
		say("-s %s", prefixText(r.From))
	}
	if r.To.IsValid() {
		say("-d %s", prefixText(r.To))
	}
	if r.In != "" {
		say("-i %s", r.In)
	}
	if r.Proto != "" {
		say("-p %s", r.Proto)
	}
	if r.Port != 0 {
		say("--dport %d", r.Port)
	}
	if r.HasMark {
		not := bang(r.NotMark)
		if r.Mask == 0xffffffff {
			say("-m mark %s--mark 0x%x", not, r.Mark)
		} else {
			say("-m mark %s--mark 0x%x/0x%x", not, r.Mark, r.Mask)
		}
	}
	if r.Reply {
		say("-m conntrack --ctdir REPLY")
	}
	if r.DNATed {
		say("-m conntrack --ctstate DNAT")
	}
	if r.ToLocal {
		say("-m addrtype --dst-type LOCAL")
	}
	if r.UID >= 0 {
		say("-m owner --%s-owner %d", map[bool]string{false: "uid", true: "gid"}[r.Group], r.UID)
	}
	if r.Socket {
		say("-m socket --transparent")
	}
	if r.CtMark != 0 {
		say("-m connmark --mark 0x%x", r.CtMark)
	}
	switch r.Do {
	case doMark:
		say("-j MARK --set-mark 0x%x", r.SetMark)
	case doCtMark:
		say("-j CONNMARK --set-mark 0x%x", r.SetMark)
	case doNotrack:
		say("-j CT --notrack")
	case doReject:
		if r.Proto == "tcp" {
			say("-j REJECT --reject-with tcp-reset")
		} else {
			say("-j REJECT")
		}
	default:
		say("-j %s", strings.ToUpper(r.Do))
	}
	return strings.Join(all, " ")
}

// A nftExpr is an expression of nf_tables as its message has it (NFTA_LIST_ELEM).
func nftExpr(name string, data attrs) attr {
	return attr{unix.NFTA_LIST_ELEM | nestedFlag, attrs{
		{unix.NFTA_EXPR_NAME, zero(name)}, {unix.NFTA_EXPR_DATA | nestedFlag, data.bytes()},
	}.bytes()}
}

func be32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }

func be16(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }

func dataValue(kind uint16, b []byte) attr {
	return attr{kind | nestedFlag, attrs{{unix.NFTA_DATA_VALUE, b}}.bytes()}
}

// compare asks for a value in register 1.
func compare(op uint32, b []byte) attr {
	return nftExpr("cmp", attrs{{unix.NFTA_CMP_SREG, be32(1)}, {unix.NFTA_CMP_OP, be32(op)},
		dataValue(unix.NFTA_CMP_DATA, b)})
}

func loadMeta(key uint32) attr {
	return nftExpr("meta", attrs{{unix.NFTA_META_KEY, be32(key)}, {unix.NFTA_META_DREG, be32(1)}})
}

func setMeta(key uint32, b []byte) []attr {
	return []attr{
		nftExpr("immediate", attrs{{unix.NFTA_IMMEDIATE_DREG, be32(1)}, dataValue(unix.NFTA_IMMEDIATE_DATA, b)}),
		nftExpr("meta", attrs{{unix.NFTA_META_KEY, be32(key)}, {unix.NFTA_META_SREG, be32(1)}}),
	}
}

func loadPayload(base, offset, size uint32) attr {
	return nftExpr("payload", attrs{
		{unix.NFTA_PAYLOAD_DREG, be32(1)}, {unix.NFTA_PAYLOAD_BASE, be32(base)},
		{unix.NFTA_PAYLOAD_OFFSET, be32(offset)}, {unix.NFTA_PAYLOAD_LEN, be32(size)},
	})
}

// maskWith is register 1 & mask.
func maskWith(mask []byte) attr {
	return nftExpr("bitwise", attrs{
		{unix.NFTA_BITWISE_SREG, be32(1)}, {unix.NFTA_BITWISE_DREG, be32(1)},
		{unix.NFTA_BITWISE_LEN, be32(uint32(len(mask)))},
		dataValue(unix.NFTA_BITWISE_MASK, mask), dataValue(unix.NFTA_BITWISE_XOR, make([]byte, len(mask))),
	})
}

func verdictExpr(code int32, chain string) attr {
	v := attrs{{unix.NFTA_VERDICT_CODE, be32(uint32(code))}}
	if chain != "" {
		v = v.with(unix.NFTA_VERDICT_CHAIN, zero(chain))
	}
	return nftExpr("immediate", attrs{
		{unix.NFTA_IMMEDIATE_DREG, be32(unix.NFT_REG_VERDICT)},
		{unix.NFTA_IMMEDIATE_DATA | nestedFlag, attrs{{unix.NFTA_DATA_VERDICT | nestedFlag, v.bytes()}}.bytes()},
	})
}

var protoNumbers = map[string]byte{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP}

// exprs are the rule's expressions for a table of a family. Those of iptables-nft mean the same as
// its own.
func (r added) exprs(family string) attrs {
	var all attrs
	add := func(some ...attr) { all = append(all, some...) }
	if family == "inet" && (r.From.IsValid() || r.To.IsValid()) {
		add(loadMeta(unix.NFT_META_NFPROTO), compare(unix.NFT_CMP_EQ,
			[]byte{map[bool]byte{false: unix.NFPROTO_IPV4, true: unix.NFPROTO_IPV6}[r.IPv6]}))
	}
	if r.In != "" {
		name := make([]byte, unix.IFNAMSIZ)
		copy(name, r.In)
		add(loadMeta(unix.NFT_META_IIFNAME), compare(unix.NFT_CMP_EQ, name))
	}
	for i, p := range []netip.Prefix{r.From, r.To} {
		if !p.IsValid() {
			continue
		}
		size, at := uint32(4), uint32(12)
		if r.IPv6 {
			size, at = 16, 8
		}
		add(loadPayload(unix.NFT_PAYLOAD_NETWORK_HEADER, at+uint32(i)*size, size))
		if !p.IsSingleIP() {
			add(maskWith(maskOf(p)))
		}
		add(compare(unix.NFT_CMP_EQ, p.Masked().Addr().AsSlice()))
	}
	if r.Proto != "" {
		add(loadMeta(unix.NFT_META_L4PROTO), compare(unix.NFT_CMP_EQ, []byte{protoNumbers[r.Proto]}))
	}
	if r.Port != 0 {
		add(loadPayload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2), compare(unix.NFT_CMP_EQ, be16(r.Port)))
	}
	if r.HasMark {
		add(loadMeta(unix.NFT_META_MARK))
		if r.Mask != 0xffffffff {
			add(maskWith(native(r.Mask)))
		}
		op := uint32(unix.NFT_CMP_EQ)
		if r.NotMark {
			op = unix.NFT_CMP_NEQ
		}
		add(compare(op, native(r.Mark)))
	}
	if r.Reply {
		add(nftExpr("ct", attrs{{unix.NFTA_CT_KEY, be32(unix.NFT_CT_DIRECTION)}, {unix.NFTA_CT_DREG, be32(1)}}),
			compare(unix.NFT_CMP_EQ, []byte{1}))
	}
	if r.DNATed {
		add(nftExpr("ct", attrs{{unix.NFTA_CT_KEY, be32(unix.NFT_CT_STATUS)}, {unix.NFTA_CT_DREG, be32(1)}}),
			maskWith(native(1<<5)), compare(unix.NFT_CMP_NEQ, native(0))) // IPS_DST_NAT
	}
	if r.ToLocal { // NFTA_FIB_DREG, _RESULT: NFT_FIB_RESULT_ADDRTYPE, _FLAGS: NFTA_FIB_F_DADDR
		add(nftExpr("fib", attrs{{1, be32(1)}, {2, be32(3)}, {3, be32(2)}}),
			compare(unix.NFT_CMP_EQ, native(unix.RTN_LOCAL)))
	}
	if r.UID >= 0 {
		key := uint32(unix.NFT_META_SKUID)
		if r.Group {
			key = unix.NFT_META_SKGID
		}
		add(loadMeta(key), compare(unix.NFT_CMP_EQ, native(uint32(r.UID))))
	}
	if r.Socket { // NFTA_SOCKET_KEY: NFT_SOCKET_TRANSPARENT, _DREG
		add(nftExpr("socket", attrs{{1, be32(0)}, {2, be32(1)}}), compare(unix.NFT_CMP_EQ, []byte{1}))
	}
	if r.CtMark != 0 {
		add(nftExpr("ct", attrs{{unix.NFTA_CT_KEY, be32(unix.NFT_CT_MARK)}, {unix.NFTA_CT_DREG, be32(1)}}),
			compare(unix.NFT_CMP_EQ, native(r.CtMark)))
	}
	switch r.Do {
	case doCtMark:
		add(nftExpr("immediate", attrs{{unix.NFTA_IMMEDIATE_DREG, be32(1)},
			dataValue(unix.NFTA_IMMEDIATE_DATA, native(r.SetMark))}),
			nftExpr("ct", attrs{{unix.NFTA_CT_KEY, be32(unix.NFT_CT_MARK)}, {unix.NFTA_CT_SREG, be32(1)}}))
	case doAccept:
		add(verdictExpr(1, ""))
	case doReturn:
		add(verdictExpr(unix.NFT_RETURN, ""))
	case doMark:
		add(setMeta(unix.NFT_META_MARK, native(r.SetMark))...)
	case doMasq:
		add(nftExpr("masq", nil))
	case doNotrack:
		add(nftExpr("notrack", nil))
	case doReject:
		kind, code := uint32(0), byte(3)
		switch {
		case r.Proto == "tcp":
			kind, code = 1, 0
		case family == "inet":
			kind, code = 2, 1
		case r.IPv6:
			code = 4
		}
		add(nftExpr("reject", attrs{{unix.NFTA_REJECT_TYPE, be32(kind)}, {unix.NFTA_REJECT_ICMP_CODE, []byte{code}}}))
	}
	return all
}

func maskOf(p netip.Prefix) []byte {
	mask := make([]byte, p.Addr().BitLen()/8)
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return mask
}

// ruleMessage is a rule's message of a dump.
func ruleMessage(family, table, chain string, exprs attrs) NetlinkMessage {
	number := byte(0)
	for k, name := range families {
		if name == family {
			number = k
		}
	}
	b := attrs{
		{unix.NFTA_RULE_TABLE, zero(table)}, {unix.NFTA_RULE_CHAIN, zero(chain)},
		{unix.NFTA_RULE_EXPRESSIONS | nestedFlag, exprs.bytes()},
	}.append([]byte{number, unix.NFNETLINK_V0, 0, 0})
	return NetlinkMessage{unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWRULE, b}
}

// legacy is the rule as an entry of iptables-legacy or ip6tables-legacy.
func (r added) legacy() []byte {
	at := xt.LayoutOf(r.IPv6)
	e := make([]byte, at.Size)
	for i, p := range []netip.Prefix{r.From, r.To} {
		if p.IsValid() {
			copy(e[i*at.Address:], p.Masked().Addr().AsSlice())
			copy(e[(2+i)*at.Address:], maskOf(p))
		}
	}
	if r.In != "" {
		copy(e[at.NICs:at.NICs+15], r.In)
		for i := range min(len(r.In)+1, 16) {
			e[at.NICs+32+i] = 0xff
		}
	}
	if r.Proto != "" {
		binary.NativeEndian.PutUint16(e[at.Proto:], uint16(protoNumbers[r.Proto]))
		if r.IPv6 {
			e[at.Flags] |= 1 // IP6T_F_PROTO
		}
	}
	if r.Port != 0 { // struct xt_tcp, xt_udp
		data := make([]byte, map[string]int{"tcp": 12, "udp": 10}[r.Proto])
		binary.NativeEndian.PutUint16(data[2:], 0xffff)
		binary.NativeEndian.PutUint16(data[4:], r.Port)
		binary.NativeEndian.PutUint16(data[6:], r.Port)
		e = append(e, xt.Extension{Name: r.Proto, Revision: 0, Data: data}.Bytes()...)
	}
	if r.HasMark { // struct xt_mark_mtinfo1
		data := make([]byte, 12)
		put32(data, 0, r.Mark)
		put32(data, 4, r.Mask)
		if r.NotMark {
			data[8] = 1
		}
		e = append(e, xt.Extension{Name: "mark", Revision: 1, Data: data}.Bytes()...)
	}
	if r.Reply || r.DNATed { // struct xt_conntrack_mtinfo3
		data := make([]byte, 164)
		flags, inverted := uint16(0), uint16(0)
		if r.Reply {
			flags, inverted = flags|0x1000, 0x1000
		}
		if r.DNATed {
			flags |= 1
			binary.NativeEndian.PutUint16(data[150:], 128)
		}
		binary.NativeEndian.PutUint16(data[146:], flags)
		binary.NativeEndian.PutUint16(data[148:], inverted)
		e = append(e, xt.Extension{Name: "conntrack", Revision: 3, Data: data}.Bytes()...)
	}
	if r.ToLocal { // struct xt_addrtype_info_v1
		data := make([]byte, 8)
		binary.NativeEndian.PutUint16(data[2:], 1<<unix.RTN_LOCAL)
		e = append(e, xt.Extension{Name: "addrtype", Revision: 1, Data: data}.Bytes()...)
	}
	if r.UID >= 0 { // struct xt_owner_match_info
		data := make([]byte, 20)
		at := 0
		data[16] = 1 // XT_OWNER_UID
		if r.Group {
			at, data[16] = 8, 2 // XT_OWNER_GID
		}
		put32(data, at, uint32(r.UID))
		put32(data, at+4, uint32(r.UID))
		e = append(e, xt.Extension{Name: "owner", Revision: 1, Data: data}.Bytes()...)
	}
	if r.Socket { // struct xt_socket_mtinfo1
		e = append(e, xt.Extension{Name: "socket", Revision: 1, Data: []byte{1}}.Bytes()...)
	}
	if r.CtMark != 0 { // struct xt_connmark_mtinfo1
		data := make([]byte, 12)
		put32(data, 0, r.CtMark)
		put32(data, 4, 0xffffffff)
		e = append(e, xt.Extension{Name: "connmark", Revision: 1, Data: data}.Bytes()...)
	}
	target := len(e)
	switch r.Do {
	case doCtMark: // struct xt_connmark_tginfo1: ctmark, ctmask, nfmask, mode XT_CONNMARK_SET
		data := make([]byte, 16)
		put32(data, 0, r.SetMark)
		put32(data, 4, 0xffffffff)
		put32(data, 8, 0xffffffff)
		e = append(e, xt.Extension{Name: "CONNMARK", Revision: 1, Data: data}.Bytes()...)
	case doMark: // struct xt_mark_tginfo2
		data := make([]byte, 8)
		put32(data, 0, r.SetMark)
		put32(data, 4, 0xffffffff)
		e = append(e, xt.Extension{Name: "MARK", Revision: 2, Data: data}.Bytes()...)
	case doMasq: // struct nf_nat_ipv4_multi_range_compat with one range, nf_nat_range
		data := make([]byte, map[bool]int{false: 20, true: 40}[r.IPv6])
		if !r.IPv6 {
			put32(data, 0, 1)
		}
		e = append(e, xt.Extension{Name: "MASQUERADE", Revision: 0, Data: data}.Bytes()...)
	case doNotrack:
		e = append(e, xt.Extension{Name: "NOTRACK", Revision: 0, Data: nil}.Bytes()...)
	case doReject:
		kind := uint32(3)
		switch {
		case r.Proto == "tcp" && r.IPv6:
			kind = 6
		case r.Proto == "tcp":
			kind = 7
		case r.IPv6:
			kind = 4
		}
		data := make([]byte, 4)
		put32(data, 0, kind)
		e = append(e, xt.Extension{Name: "REJECT", Revision: 0, Data: data}.Bytes()...)
	default:
		data := make([]byte, 4)
		verdict := xtAccept
		if r.Do == doReturn {
			verdict = xtReturn
		}
		put32(data, 0, uint32(int32(verdict)))
		e = append(e, xt.Extension{Name: "", Revision: 0, Data: data}.Bytes()...)
	}
	binary.NativeEndian.PutUint16(e[at.Target:], uint16(target))
	binary.NativeEndian.PutUint16(e[at.Target+2:], uint16(len(e)))
	return e
}
