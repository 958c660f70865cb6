package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf"
	"pfdivert/pfconf/netlink"
)

// statement is one of a rule's: its text and its expressions.
type statement interface {
	fmt.Stringer
	encode(*request)
}

func (s onInterface) encode(r *request) {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, s.name)
	r.Load("meta", unix.NFTA_META_KEY, unix.NFT_META_IIFNAME, unix.NFTA_META_DREG)
	r.Compare(unix.NFT_CMP_EQ, name)
}

func (s fromAddr) encode(r *request) {
	family := byte(unix.NFPROTO_IPV6)
	if s.Is4() {
		family = unix.NFPROTO_IPV4
	}
	r.Load("meta", unix.NFTA_META_KEY, unix.NFT_META_NFPROTO, unix.NFTA_META_DREG)
	r.Compare(unix.NFT_CMP_EQ, []byte{family})
	r.address(s.Addr, 12, 8)
}

func (s toAddr) encode(r *request) { r.address(s.Addr, 16, 24) }

func (s ofProto) encode(r *request) {
	r.Load("meta", unix.NFTA_META_KEY, unix.NFT_META_L4PROTO, unix.NFTA_META_DREG)
	r.Compare(unix.NFT_CMP_EQ, []byte{byte(s.number)})
}

func (s fromPort) encode(r *request) { r.port(s.proto, 0, s.port) }
func (s toPort) encode(r *request)   { r.port(s.proto, 2, s.port) }

func (echoReply6) encode(r *request) {
	ofProto{pfconf.ICMP.Number(pfconf.Inet6)}.encode(r)
	r.Payload(unix.NFT_REG_1, unix.NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1)
	r.Compare(unix.NFT_CMP_EQ, []byte{129}) // RFC 4443, 4.2
}

func (ctInvalid) encode(r *request) { r.ctState(1) } // NF_CT_STATE_INVALID_BIT

// ctState matches packets in one of the states (linux/netfilter/nf_conntrack_common.h).
func (r *request) ctState(bits uint32) {
	r.Load("ct", unix.NFTA_CT_KEY, unix.NFT_CT_STATE, unix.NFTA_CT_DREG)
	r.Mask(native32(bits))
	r.Compare(unix.NFT_CMP_NEQ, native32(0))
}

func (notProxys) encode(r *request) {
	r.Load("meta", unix.NFTA_META_KEY, unix.NFT_META_MARK, unix.NFTA_META_DREG)
	r.Compare(unix.NFT_CMP_NEQ, native32(pfconf.ProxyMark))
}

func (ctReply) encode(r *request) {
	// IP_CT_DIR_REPLY, linux/netfilter/nf_conntrack_tuple_common.h; a key of one byte.
	r.Load("ct", unix.NFTA_CT_KEY, unix.NFT_CT_DIRECTION, unix.NFTA_CT_DREG)
	r.Compare(unix.NFT_CMP_EQ, []byte{1})
}

func (ctMarked) encode(r *request) {
	r.Load("ct", unix.NFTA_CT_KEY, unix.NFT_CT_MARK, unix.NFTA_CT_DREG)
	r.Compare(unix.NFT_CMP_EQ, native32(Mark))
}

func (ctMark) encode(r *request) {
	r.Immediate(unix.NFT_REG_1, native32(Mark))
	r.Expression("ct", func() {
		r.Attr32(unix.NFTA_CT_KEY, unix.NFT_CT_MARK)
		r.Attr32(unix.NFTA_CT_SREG, unix.NFT_REG_1)
	})
}

func (marked) encode(r *request) {
	r.Load("meta", unix.NFTA_META_KEY, unix.NFT_META_MARK, unix.NFTA_META_DREG)
	r.Compare(unix.NFT_CMP_EQ, native32(Mark))
}

func (mark) encode(r *request) {
	r.Immediate(unix.NFT_REG_1, native32(Mark))
	r.Expression("meta", func() {
		r.Attr32(unix.NFTA_META_KEY, unix.NFT_META_MARK)
		r.Attr32(unix.NFTA_META_SREG, unix.NFT_REG_1)
	})
}

func (counter) encode(r *request) {
	r.Expression("counter", func() {
		r.Attr64(unix.NFTA_COUNTER_BYTES, 0)
		r.Attr64(unix.NFTA_COUNTER_PACKETS, 0)
	})
}

func (s tproxy) encode(r *request) {
	family := uint32(unix.NFPROTO_IPV6)
	if s.to.Addr().Is4() {
		family = unix.NFPROTO_IPV4
	}
	r.Immediate(unix.NFT_REG_1, s.to.Addr().AsSlice())
	r.Immediate(unix.NFT_REG_2, binary.BigEndian.AppendUint16(nil, s.to.Port()))
	name := "tproxy"
	if s.absent {
		name = "no-tproxy"
	}
	r.Expression(name, func() {
		r.Attr32(netlink.TproxyFamily, family)
		r.Attr32(netlink.TproxyRegAddr, unix.NFT_REG_1)
		r.Attr32(netlink.TproxyRegPort, unix.NFT_REG_2)
	})
}

func (s dnat) encode(r *request) {
	family := uint32(unix.NFPROTO_IPV6)
	if s.to.Addr().Is4() {
		family = unix.NFPROTO_IPV4
	}
	r.Immediate(unix.NFT_REG_1, s.to.Addr().AsSlice())
	r.Immediate(unix.NFT_REG_2, binary.BigEndian.AppendUint16(nil, s.to.Port()))
	r.Expression("nat", func() {
		r.Attr32(unix.NFTA_NAT_TYPE, unix.NFT_NAT_DNAT)
		r.Attr32(unix.NFTA_NAT_FAMILY, family)
		r.Attr32(unix.NFTA_NAT_REG_ADDR_MIN, unix.NFT_REG_1)
		r.Attr32(unix.NFTA_NAT_REG_PROTO_MIN, unix.NFT_REG_2)
	})
}

func (s redirect) encode(r *request) {
	r.Immediate(unix.NFT_REG_1, binary.BigEndian.AppendUint16(nil, s.port))
	r.Expression("redir", func() { r.Attr32(1, unix.NFT_REG_1) }) // NFTA_REDIR_REG_PROTO_MIN
}

func (s snatTo) encode(r *request) {
	family := uint32(unix.NFPROTO_IPV6)
	if s.Is4() {
		family = unix.NFPROTO_IPV4
	}
	r.Immediate(unix.NFT_REG_1, s.AsSlice())
	r.Expression("nat", func() {
		r.Attr32(unix.NFTA_NAT_TYPE, unix.NFT_NAT_SNAT)
		r.Attr32(unix.NFTA_NAT_FAMILY, family)
		r.Attr32(unix.NFTA_NAT_REG_ADDR_MIN, unix.NFT_REG_1)
	})
}

func (notrack) encode(r *request) { r.Expression("notrack", func() {}) }

func (ctUntracked) encode(r *request) { r.ctState(1 << 6) } // NF_CT_STATE_UNTRACKED_BIT

func (s ctZoneSet) encode(r *request) {
	r.Immediate(unix.NFT_REG_1, binary.NativeEndian.AppendUint16(nil, s.zone))
	r.Expression("ct", func() {
		r.Attr32(unix.NFTA_CT_KEY, unix.NFT_CT_ZONE)
		r.Attr32(unix.NFTA_CT_SREG, unix.NFT_REG_1)
	})
}

func (s ctZone) encode(r *request) {
	r.Load("ct", unix.NFTA_CT_KEY, unix.NFT_CT_ZONE, unix.NFTA_CT_DREG)
	r.Compare(unix.NFT_CMP_EQ, binary.NativeEndian.AppendUint16(nil, s.zone))
}

func (transparentSocket) encode(r *request) {
	// NFTA_SOCKET_KEY with NFT_SOCKET_TRANSPARENT, a key of one byte; NFTA_SOCKET_DREG.
	r.Load("socket", 1, 0, 2)
	r.Compare(unix.NFT_CMP_EQ, []byte{1})
}

func (s queue) encode(r *request) {
	r.Expression("queue", func() {
		r.Attr16(unix.NFTA_QUEUE_NUM, s.number)
		r.Attr16(unix.NFTA_QUEUE_TOTAL, 1)
		r.Attr16(unix.NFTA_QUEUE_FLAGS, bypassFlag(s.bypass))
	})
}

func (s xtQueue) encode(r *request) {
	// struct xt_NFQ_info_v3, linux/netfilter/xt_NFQUEUE.h: number, total, flags,
	// padded to 8 (XT_ALIGN).
	info := binary.NativeEndian.AppendUint16(nil, s.number)
	info = binary.NativeEndian.AppendUint16(info, 1)
	info = binary.NativeEndian.AppendUint16(info, bypassFlag(s.bypass))
	info = append(info, 0, 0)
	r.Expression("target", func() {
		r.AttrString(unix.NFTA_TARGET_NAME, "NFQUEUE")
		r.Attr32(unix.NFTA_TARGET_REV, 3)
		r.Attr(unix.NFTA_TARGET_INFO, info)
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
	r.Verdict(code, "")
}

func (s jump) encode(r *request) {
	code := int32(unix.NFT_JUMP)
	r.Verdict(uint32(code), s.chain)
}

// address compares an address of the network header, at offset4 or offset6.
func (r *request) address(a netip.Addr, offset4, offset6 uint32) {
	b, offset := a.AsSlice(), offset6
	if a.Is4() {
		offset = offset4
	}
	r.Payload(unix.NFT_REG_1, unix.NFT_PAYLOAD_NETWORK_HEADER, offset, uint32(len(b)))
	r.Compare(unix.NFT_CMP_EQ, b)
}

func (r *request) port(p pfconf.Proto, offset uint32, port uint16) {
	ofProto{p.Number(pfconf.Inet)}.encode(r)
	r.Payload(unix.NFT_REG_1, unix.NFT_PAYLOAD_TRANSPORT_HEADER, offset, 2)
	r.Compare(unix.NFT_CMP_EQ, binary.BigEndian.AppendUint16(nil, port))
}

func native32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
