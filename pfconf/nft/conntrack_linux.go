package nft

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"pfdivert/pfconf"
)

// tuple names a packet of a flow, as conntrack sees it
// (include/net/netfilter/nf_conntrack_tuple.h). An entry is found by the
// tuple of either direction.
type tuple struct {
	family   pfconf.Family
	number   uint8
	src, dst netip.AddrPort // ports of TCP and UDP
	echo     echo           // of ICMP and ICMPv6
}

type echo struct {
	id         uint16
	kind, code uint8
}

// entry is a conntrack entry.
type entry struct {
	orig    tuple // of the packets of the side that began
	status  uint32
	timeout time.Duration
	mark    uint32
	tcp     uint8
	id      []byte // CTA_ID
}

// tcpStates are conntrack(8)'s names of enum tcp_conntrack,
// linux/netfilter/nf_conntrack_tcp.h.
var tcpStates = [...]string{
	"NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT",
	"CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE", "SYN_SENT2",
}

// Bits of an entry's status, linux/netfilter/nf_conntrack_common.h.
const (
	statusSeenReply = 1 << 1
	statusAssured   = 1 << 2
)

// phase is the TCP state, or for other protocols what conntrack(8) shows in
// brackets; nothing when there were answers but not many.
func (e entry) phase() string {
	switch {
	case int(e.orig.number) == pfconf.TCP.Number(e.orig.family) && int(e.tcp) < len(tcpStates):
		return tcpStates[e.tcp]
	case e.status&statusSeenReply == 0:
		return "UNREPLIED"
	case e.status&statusAssured != 0:
		return "ASSURED"
	}
	return ""
}

const (
	ctGet    = unix.NFNL_SUBSYS_CTNETLINK<<8 | nl.IPCTNL_MSG_CT_GET
	ctDelete = unix.NFNL_SUBSYS_CTNETLINK<<8 | nl.IPCTNL_MSG_CT_DELETE
	ctNew    = unix.NFNL_SUBSYS_CTNETLINK<<8 | nl.IPCTNL_MSG_CT_NEW
)

// CTA_MARK_MASK and the ICMP members of enum ctattr_l4proto,
// linux/netfilter/nfnetlink_conntrack.h.
const (
	ctaMarkMask = 21
	ctaICMPID   = 4
	ctaICMPv6ID = 7
	ctaICMPType = 1 // from the id on
	ctaICMPCode = 2
	icmpEcho4   = 8   // RFC 792
	icmpEcho6   = 128 // RFC 4443, 4.1
)

func ctFamily(f pfconf.Family) uint8 { return uint8(afOf(f)) }

// tuple adds the tuple to the message.
func (r *request) tuple(t tuple) {
	orig := r.nest(nl.CTA_TUPLE_ORIG)
	ip := r.nest(nl.CTA_TUPLE_IP)
	src, dst := uint16(nl.CTA_IP_V6_SRC), uint16(nl.CTA_IP_V6_DST)
	if t.family == pfconf.Inet {
		src, dst = nl.CTA_IP_V4_SRC, nl.CTA_IP_V4_DST
	}
	r.attr(src, t.src.Addr().AsSlice())
	r.attr(dst, t.dst.Addr().AsSlice())
	r.close(ip)
	proto := r.nest(nl.CTA_TUPLE_PROTO)
	r.attr8(nl.CTA_PROTO_NUM, t.number)
	switch int(t.number) {
	case pfconf.TCP.Number(t.family), pfconf.UDP.Number(t.family):
		r.attr16(nl.CTA_PROTO_SRC_PORT, t.src.Port())
		r.attr16(nl.CTA_PROTO_DST_PORT, t.dst.Port())
	case pfconf.ICMP.Number(t.family):
		id := uint16(ctaICMPv6ID)
		if t.family == pfconf.Inet {
			id = ctaICMPID
		}
		r.attr16(id, t.echo.id)
		r.attr8(id+ctaICMPType, t.echo.kind)
		r.attr8(id+ctaICMPCode, t.echo.code)
	}
	r.close(proto)
	r.close(orig)
}

// parseEntry reads what the kernel tells of an entry; family is the message's.
func parseEntry(family uint8, b []byte) (entry, error) {
	var e entry
	for kind, data := range attributes(b) {
		switch {
		case kind == nl.CTA_TUPLE_ORIG:
			e.orig = parseTuple(data)
		case kind == nl.CTA_STATUS && len(data) == 4:
			e.status = binary.BigEndian.Uint32(data)
		case kind == nl.CTA_TIMEOUT && len(data) == 4:
			e.timeout = time.Duration(binary.BigEndian.Uint32(data)) * time.Second
		case kind == nl.CTA_MARK && len(data) == 4:
			e.mark = binary.BigEndian.Uint32(data)
		case kind == nl.CTA_ID:
			e.id = append([]byte(nil), data...)
		case kind == nl.CTA_PROTOINFO:
			state := attribute(attribute(data, nl.CTA_PROTOINFO_TCP), nl.CTA_PROTOINFO_TCP_STATE)
			if len(state) == 1 {
				e.tcp = state[0]
			}
		}
	}
	e.orig.family = pfconf.Inet6
	if family == unix.AF_INET {
		e.orig.family = pfconf.Inet
	}
	if !e.orig.src.Addr().IsValid() || !e.orig.dst.Addr().IsValid() {
		return e, errors.New("conntrack: an entry came without its addresses")
	}
	return e, nil
}

func parseTuple(b []byte) tuple {
	var t tuple
	var src, dst netip.Addr
	var sport, dport uint16
	for kind, data := range attributes(attribute(b, nl.CTA_TUPLE_IP)) {
		a, _ := netip.AddrFromSlice(data)
		switch kind {
		case nl.CTA_IP_V4_SRC, nl.CTA_IP_V6_SRC:
			src = a
		case nl.CTA_IP_V4_DST, nl.CTA_IP_V6_DST:
			dst = a
		}
	}
	for kind, data := range attributes(attribute(b, nl.CTA_TUPLE_PROTO)) {
		switch {
		case kind == nl.CTA_PROTO_NUM && len(data) == 1:
			t.number = data[0]
		case kind == nl.CTA_PROTO_SRC_PORT && len(data) == 2:
			sport = binary.BigEndian.Uint16(data)
		case kind == nl.CTA_PROTO_DST_PORT && len(data) == 2:
			dport = binary.BigEndian.Uint16(data)
		case (kind == ctaICMPID || kind == ctaICMPv6ID) && len(data) == 2:
			t.echo.id = binary.BigEndian.Uint16(data)
		case (kind == ctaICMPID+ctaICMPType || kind == ctaICMPv6ID+ctaICMPType) && len(data) == 1:
			t.echo.kind = data[0]
		case (kind == ctaICMPID+ctaICMPCode || kind == ctaICMPv6ID+ctaICMPCode) && len(data) == 1:
			t.echo.code = data[0]
		}
	}
	t.src, t.dst = netip.AddrPortFrom(src, sport), netip.AddrPortFrom(dst, dport)
	return t
}

// each sends a message about each tuple and gives the answers in their order: an
// entry, an acknowledgement, or an error.
func (s *socket) each(kind, flags uint16, tuples []tuple, ids [][]byte, take func(i int, m message)) error {
	for from := 0; from < len(tuples); from += atOnce {
		r := s.request()
		part := tuples[from:min(from+atOnce, len(tuples))]
		for i, t := range part {
			r.add(kind, flags, ctFamily(t.family), 0)
			r.tuple(t)
			if ids != nil {
				r.attr(nl.CTA_ID, ids[from+i])
			}
			r.finish()
		}
		answers := 0
		err := s.exchange(r, func(m message) bool {
			take(from+int(m.seq-r.first), m)
			answers++
			return answers < len(part)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// dumpEntries lists the whole table.
func (s *socket) dumpEntries() ([]entry, error) {
	r := s.request()
	r.add(ctGet, unix.NLM_F_DUMP, unix.AF_UNSPEC, 0)
	r.finish()
	var entries []entry
	var bad error
	err := s.exchange(r, func(m message) bool {
		switch m.kind {
		case unix.NLMSG_DONE:
			return false
		case unix.NLMSG_ERROR:
			bad = errors.Join(bad, m.errno)
			return false
		case ctNew:
			e, err := parseEntry(m.family, m.data)
			bad = errors.Join(bad, err)
			entries = append(entries, e)
		}
		return true
	})
	return entries, errors.Join(bad, err)
}
