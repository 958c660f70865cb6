package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf"
)

// statement is one of a rule's: its text and its expressions.
type statement interface {
	fmt.Stringer
	encode(*request)
}

func (s onInterface) encode(r *request) {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, s.name)
	r.load("meta", unix.NFTA_META_KEY, unix.NFT_META_IIFNAME, unix.NFTA_META_DREG)
	r.compare(unix.NFT_CMP_EQ, name)
}

func (s fromAddr) encode(r *request) {
	family := byte(unix.NFPROTO_IPV6)
	if s.Is4() {
		family = unix.NFPROTO_IPV4
	}
	r.load("meta", unix.NFTA_META_KEY, unix.NFT_META_NFPROTO, unix.NFTA_META_DREG)
	r.compare(unix.NFT_CMP_EQ, []byte{family})
	r.address(s.Addr, 12, 8)
}

func (s toAddr) encode(r *request) { r.address(s.Addr, 16, 24) }

func (s ofProto) encode(r *request) {
	r.load("meta", unix.NFTA_META_KEY, unix.NFT_META_L4PROTO, unix.NFTA_META_DREG)
	r.compare(unix.NFT_CMP_EQ, []byte{byte(s.number)})
}

func (s fromPort) encode(r *request) { r.port(s.proto, 0, s.port) }
func (s toPort) encode(r *request)   { r.port(s.proto, 2, s.port) }

func (echoReply6) encode(r *request) {
	ofProto{pfconf.ICMP.Number(pfconf.Inet6)}.encode(r)
	r.payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1)
	r.compare(unix.NFT_CMP_EQ, []byte{129}) // RFC 4443, 4.2
}

func (ctInvalid) encode(r *request) {
	// NF_CT_STATE_INVALID_BIT, linux/netfilter/nf_conntrack_common.h.
	invalid, none := native32(1), native32(0)
	r.load("ct", unix.NFTA_CT_KEY, unix.NFT_CT_STATE, unix.NFTA_CT_DREG)
	r.expression("bitwise", func() {
		r.attr32(unix.NFTA_BITWISE_SREG, unix.NFT_REG_1)
		r.attr32(unix.NFTA_BITWISE_DREG, unix.NFT_REG_1)
		r.attr32(unix.NFTA_BITWISE_LEN, 4)
		r.value(unix.NFTA_BITWISE_MASK, invalid)
		r.value(unix.NFTA_BITWISE_XOR, none)
	})
	r.compare(unix.NFT_CMP_NEQ, none)
}

func (ctReply) encode(r *request) {
	// IP_CT_DIR_REPLY, linux/netfilter/nf_conntrack_tuple_common.h; a key of one byte.
	r.load("ct", unix.NFTA_CT_KEY, unix.NFT_CT_DIRECTION, unix.NFTA_CT_DREG)
	r.compare(unix.NFT_CMP_EQ, []byte{1})
}

func (ctMarked) encode(r *request) {
	r.load("ct", unix.NFTA_CT_KEY, unix.NFT_CT_MARK, unix.NFTA_CT_DREG)
	r.compare(unix.NFT_CMP_EQ, native32(Mark))
}

func (ctMark) encode(r *request) {
	r.immediate(unix.NFT_REG_1, native32(Mark))
	r.expression("ct", func() {
		r.attr32(unix.NFTA_CT_KEY, unix.NFT_CT_MARK)
		r.attr32(unix.NFTA_CT_SREG, unix.NFT_REG_1)
	})
}

func (mark) encode(r *request) {
	r.immediate(unix.NFT_REG_1, native32(Mark))
	r.expression("meta", func() {
		r.attr32(unix.NFTA_META_KEY, unix.NFT_META_MARK)
		r.attr32(unix.NFTA_META_SREG, unix.NFT_REG_1)
	})
}

func (counter) encode(r *request) {
	r.expression("counter", func() {
		r.attr64(unix.NFTA_COUNTER_BYTES, 0)
		r.attr64(unix.NFTA_COUNTER_PACKETS, 0)
	})
}

// Attributes of the tproxy expression, enum nft_tproxy_attributes in
// linux/netfilter/nf_tables.h.
const (
	nftaTproxyFamily  = 1
	nftaTproxyRegAddr = 2
	nftaTproxyRegPort = 3
)

func (s tproxy) encode(r *request) {
	family := uint32(unix.NFPROTO_IPV6)
	if s.to.Addr().Is4() {
		family = unix.NFPROTO_IPV4
	}
	r.immediate(unix.NFT_REG_1, s.to.Addr().AsSlice())
	r.immediate(unix.NFT_REG_2, binary.BigEndian.AppendUint16(nil, s.to.Port()))
	name := "tproxy"
	if s.absent {
		name = "no-tproxy"
	}
	r.expression(name, func() {
		r.attr32(nftaTproxyFamily, family)
		r.attr32(nftaTproxyRegAddr, unix.NFT_REG_1)
		r.attr32(nftaTproxyRegPort, unix.NFT_REG_2)
	})
}

func (s dnat) encode(r *request) {
	family := uint32(unix.NFPROTO_IPV6)
	if s.to.Addr().Is4() {
		family = unix.NFPROTO_IPV4
	}
	r.immediate(unix.NFT_REG_1, s.to.Addr().AsSlice())
	r.immediate(unix.NFT_REG_2, binary.BigEndian.AppendUint16(nil, s.to.Port()))
	r.expression("nat", func() {
		r.attr32(unix.NFTA_NAT_TYPE, unix.NFT_NAT_DNAT)
		r.attr32(unix.NFTA_NAT_FAMILY, family)
		r.attr32(unix.NFTA_NAT_REG_ADDR_MIN, unix.NFT_REG_1)
		r.attr32(unix.NFTA_NAT_REG_PROTO_MIN, unix.NFT_REG_2)
	})
}

func (s queue) encode(r *request) {
	r.expression("queue", func() {
		r.attr16(unix.NFTA_QUEUE_NUM, s.number)
		r.attr16(unix.NFTA_QUEUE_TOTAL, 1)
		r.attr16(unix.NFTA_QUEUE_FLAGS, bypassFlag(s.bypass))
	})
}

func (s xtQueue) encode(r *request) {
	// struct xt_NFQ_info_v3, linux/netfilter/xt_NFQUEUE.h: number, total, flags,
	// padded to 8 (XT_ALIGN).
	info := binary.NativeEndian.AppendUint16(nil, s.number)
	info = binary.NativeEndian.AppendUint16(info, 1)
	info = binary.NativeEndian.AppendUint16(info, bypassFlag(s.bypass))
	info = append(info, 0, 0)
	r.expression("target", func() {
		r.attrString(unix.NFTA_TARGET_NAME, "NFQUEUE")
		r.attr32(unix.NFTA_TARGET_REV, 3)
		r.attr(unix.NFTA_TARGET_INFO, info)
	})
}

// bypassFlag is NFT_QUEUE_FLAG_BYPASS and NFQ_FLAG_BYPASS (linux/netfilter/nf_tables.h,
// xt_NFQUEUE.h).
func bypassFlag(bypass bool) uint16 {
	if bypass {
		return 1
	}
	return 0
}

func (v verdict) encode(r *request) {
	code := uint32(1) // NF_ACCEPT, linux/netfilter.h
	if v == drop {
		code = 0 // NF_DROP
	}
	r.verdict(code, "")
}

func (s jump) encode(r *request) {
	code := int32(unix.NFT_JUMP)
	r.verdict(uint32(code), s.chain)
}

// The expressions that statements share. Data go through register 1.

// verdict decides about the packet; chain is where a jump goes.
func (r *request) verdict(code uint32, chain string) {
	r.expression("immediate", func() {
		r.attr32(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT)
		data := r.nest(unix.NFTA_IMMEDIATE_DATA)
		n := r.nest(unix.NFTA_DATA_VERDICT)
		r.attr32(unix.NFTA_VERDICT_CODE, code)
		if chain != "" {
			r.attrString(unix.NFTA_VERDICT_CHAIN, chain)
		}
		r.close(n)
		r.close(data)
	})
}

func (r *request) expression(name string, body func()) {
	e := r.nest(unix.NFTA_LIST_ELEM)
	r.attrString(unix.NFTA_EXPR_NAME, name)
	data := r.nest(unix.NFTA_EXPR_DATA)
	body()
	r.close(data)
	r.close(e)
}

func (r *request) load(name string, keyAttr uint16, key uint32, destAttr uint16) {
	r.expression(name, func() {
		r.attr32(keyAttr, key)
		r.attr32(destAttr, unix.NFT_REG_1)
	})
}

func (r *request) payload(base, offset, length uint32) {
	r.expression("payload", func() {
		r.attr32(unix.NFTA_PAYLOAD_DREG, unix.NFT_REG_1)
		r.attr32(unix.NFTA_PAYLOAD_BASE, base)
		r.attr32(unix.NFTA_PAYLOAD_OFFSET, offset)
		r.attr32(unix.NFTA_PAYLOAD_LEN, length)
	})
}

func (r *request) compare(op uint32, data []byte) {
	r.expression("cmp", func() {
		r.attr32(unix.NFTA_CMP_SREG, unix.NFT_REG_1)
		r.attr32(unix.NFTA_CMP_OP, op)
		r.value(unix.NFTA_CMP_DATA, data)
	})
}

func (r *request) immediate(register uint32, data []byte) {
	r.expression("immediate", func() {
		r.attr32(unix.NFTA_IMMEDIATE_DREG, register)
		r.value(unix.NFTA_IMMEDIATE_DATA, data)
	})
}

func (r *request) value(kind uint16, data []byte) {
	n := r.nest(kind)
	r.attr(unix.NFTA_DATA_VALUE, data)
	r.close(n)
}

// address compares an address of the network header, at offset4 or offset6.
func (r *request) address(a netip.Addr, offset4, offset6 uint32) {
	b, offset := a.AsSlice(), offset6
	if a.Is4() {
		offset = offset4
	}
	r.payload(unix.NFT_PAYLOAD_NETWORK_HEADER, offset, uint32(len(b)))
	r.compare(unix.NFT_CMP_EQ, b)
}

func (r *request) port(p pfconf.Proto, offset uint32, port uint16) {
	ofProto{p.Number(pfconf.Inet)}.encode(r)
	r.payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, offset, 2)
	r.compare(unix.NFT_CMP_EQ, binary.BigEndian.AppendUint16(nil, port))
}

func native32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
