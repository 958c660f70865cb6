package nft

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf"
	"pfdivert/pfconf/netlink"
)

// tuple names a packet of a flow, as conntrack sees it
// (include/net/netfilter/nf_conntrack_tuple.h). An entry is found by the
// tuple of either direction.
type tuple struct {
	family   pfconf.Family
	number   uint8
	src, dst netip.AddrPort // ports of TCP and UDP
	echo     echo           // of ICMP and ICMPv6
	zone     uint16
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

// ctTCPStates are conntrack(8)'s names of enum tcp_conntrack,
// linux/netfilter/nf_conntrack_tcp.h.
var ctTCPStates = [...]string{
	"NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT",
	"CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE", "SYN_SENT2",
}

// Bits of an entry's status, linux/netfilter/nf_conntrack_common.h.
const (
	statusSeenReply = 1 << 1
	statusAssured   = 1 << 2
	statusOffload   = 1 << 14
)

// phase is the TCP state, or for other protocols what conntrack(8) shows in
// brackets; nothing when there were answers but not many. Of a flow that a
// flowtable has taken the kernel tells no state.
func (e entry) phase() string {
	switch {
	case e.status&statusOffload != 0:
		return pfconf.Offloaded
	case int(e.orig.number) == pfconf.TCP.Number(e.orig.family) && int(e.tcp) < len(ctTCPStates):
		return ctTCPStates[e.tcp]
	case e.status&statusSeenReply == 0:
		return "UNREPLIED"
	case e.status&statusAssured != 0:
		return "ASSURED"
	}
	return ""
}

// Messages and attributes, linux/netfilter/nfnetlink_conntrack.h.
const (
	ctNew    = unix.NFNL_SUBSYS_CTNETLINK << 8
	ctGet    = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1
	ctDelete = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2

	ctaTupleOrig  = 1
	ctaTupleReply = 2
	ctaStatus     = 3
	ctaProtoInfo  = 4
	ctaTimeout    = 7
	ctaMark       = 8
	ctaID         = 12
	ctaZone       = 18
	ctaMarkMask   = 21

	ctaTupleIP    = 1
	ctaTupleProto = 2
	ctaIPv4Src    = 1
	ctaIPv4Dst    = 2
	ctaIPv6Src    = 3
	ctaIPv6Dst    = 4

	ctaProtoNumber  = 1
	ctaProtoSrcPort = 2
	ctaProtoDstPort = 3
	ctaICMPID       = 4
	ctaICMPv6ID     = 7
	ctaICMPType     = 1 // from the id on
	ctaICMPCode     = 2

	ctaProtoInfoTCP      = 1
	ctaProtoInfoTCPState = 1
)

// Types of echo requests.
const (
	icmpEcho4 = 8   // RFC 792
	icmpEcho6 = 128 // RFC 4443, 4.1
)

// tuple adds the tuple to the message.
func (r *request) tuple(t tuple) {
	orig := r.Nest(ctaTupleOrig)
	ip := r.Nest(ctaTupleIP)
	src, dst := uint16(ctaIPv6Src), uint16(ctaIPv6Dst)
	if t.family == pfconf.Inet {
		src, dst = ctaIPv4Src, ctaIPv4Dst
	}
	r.Attr(src, t.src.Addr().AsSlice())
	r.Attr(dst, t.dst.Addr().AsSlice())
	r.Close(ip)
	proto := r.Nest(ctaTupleProto)
	r.Attr8(ctaProtoNumber, t.number)
	switch int(t.number) {
	case pfconf.TCP.Number(t.family), pfconf.UDP.Number(t.family):
		r.Attr16(ctaProtoSrcPort, t.src.Port())
		r.Attr16(ctaProtoDstPort, t.dst.Port())
	case pfconf.ICMP.Number(t.family):
		id := uint16(ctaICMPv6ID)
		if t.family == pfconf.Inet {
			id = ctaICMPID
		}
		r.Attr16(id, t.echo.id)
		r.Attr8(id+ctaICMPType, t.echo.kind)
		r.Attr8(id+ctaICMPCode, t.echo.code)
	}
	r.Close(proto)
	r.Close(orig)
	if t.zone != 0 {
		r.Attr16(ctaZone, t.zone)
	}
}

// parseEntry reads what the kernel tells of an entry; family is the message's.
func parseEntry(family uint8, b []byte) (entry, error) {
	var e entry
	for kind, data := range netlink.Attributes(b) {
		switch {
		case kind == ctaTupleOrig:
			e.orig = parseTuple(data)
		case kind == ctaStatus && len(data) == 4:
			e.status = binary.BigEndian.Uint32(data)
		case kind == ctaTimeout && len(data) == 4:
			e.timeout = time.Duration(binary.BigEndian.Uint32(data)) * time.Second
		case kind == ctaMark && len(data) == 4:
			e.mark = binary.BigEndian.Uint32(data)
		case kind == ctaID:
			e.id = append([]byte(nil), data...)
		case kind == ctaProtoInfo:
			state := netlink.Attribute(netlink.Attribute(data, ctaProtoInfoTCP), ctaProtoInfoTCPState)
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
	for kind, data := range netlink.Attributes(netlink.Attribute(b, ctaTupleIP)) {
		a, _ := netip.AddrFromSlice(data)
		switch kind {
		case ctaIPv4Src, ctaIPv6Src:
			src = a
		case ctaIPv4Dst, ctaIPv6Dst:
			dst = a
		}
	}
	for kind, data := range netlink.Attributes(netlink.Attribute(b, ctaTupleProto)) {
		switch {
		case kind == ctaProtoNumber && len(data) == 1:
			t.number = data[0]
		case kind == ctaProtoSrcPort && len(data) == 2:
			sport = binary.BigEndian.Uint16(data)
		case kind == ctaProtoDstPort && len(data) == 2:
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
func (s *socket) each(kind, flags uint16, tuples []tuple, ids [][]byte, take func(i int, m netlink.Message)) error {
	for from := 0; from < len(tuples); from += atOnce {
		r := s.request()
		part := tuples[from:min(from+atOnce, len(tuples))]
		for i, t := range part {
			r.Netfilter(kind, flags, afOf(t.family), 0)
			r.tuple(t)
			if ids != nil {
				r.Attr(ctaID, ids[from+i])
			}
		}
		answers := 0
		err := s.Exchange(r.Request, func(m netlink.Message) bool {
			take(from+int(m.Seq-r.First), m)
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
	r.Netfilter(ctGet, unix.NLM_F_DUMP, unix.AF_UNSPEC, 0)
	var entries []entry
	err := s.Dump(r.Request, func(m netlink.Message) error {
		if m.Kind != ctNew {
			return nil
		}
		e, err := parseEntry(m.Netfilter())
		entries = append(entries, e)
		return err
	})
	return entries, err
}
