package rtnetlink

import (
	"cmp"
	"encoding/binary"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Route is a route. Of one with several next hops the interface and Via are not set.
type Route struct {
	Dst      netip.Prefix // always set: that of all addresses is the default route
	Link     int          // of the interface; 0 lets the kernel choose
	Via      netip.Addr
	Src      netip.Addr // preferred source address
	Table    int        // 0 stands for RT_TABLE_MAIN when a route is added or deleted
	Type     uint8      // RTN_*; 0 stands for RTN_UNICAST when it is added
	Scope    uint8      // RT_SCOPE_*, of IPv4
	Protocol uint8      // RTPROT_*; 0 stands for RTPROT_BOOT when it is added
	Priority uint32     // of IPv6 the kernel's default is 1024
	MTU      uint32
	QuickACK uint32 // 1 to acknowledge without delay
}

// routeHeader is a struct rtmsg: family, lengths of destination and source, type of service,
// table, protocol, scope, type, flags.
func routeHeader(dst netip.Prefix, srcBits, table int, protocol, scope, kind uint8, flags uint32) *message {
	low := uint8(unix.RT_TABLE_UNSPEC)
	if table < 256 {
		low = uint8(table)
	}
	b := []byte{familyOf(dst.Addr()), uint8(dst.Bits()), uint8(srcBits), 0, low, protocol, scope, kind}
	return newMessage(binary.NativeEndian.AppendUint32(b, flags))
}

func (r Route) attributes(m *message) {
	if r.Dst.Bits() > 0 {
		m.addr(unix.RTA_DST, r.Dst.Addr())
	}
	m.addr(unix.RTA_GATEWAY, r.Via)
	m.addr(unix.RTA_PREFSRC, r.Src)
	number(m.attributes, unix.RTA_OIF, r.Link)
	if r.Table >= 256 {
		number(m.attributes, unix.RTA_TABLE, r.Table)
	}
	number(m.attributes, unix.RTA_PRIORITY, r.Priority)
	if r.MTU != 0 || r.QuickACK != 0 {
		m.attributes.Nested(unix.RTA_METRICS, func(ae *netlink.AttributeEncoder) error {
			number(ae, unix.RTAX_MTU, r.MTU)
			number(ae, unix.RTAX_QUICKACK, r.QuickACK)
			return nil
		})
	}
}

func parseRoute(b []byte) (r Route, err error) {
	var dst netip.Addr
	err = parse(b, unix.SizeofRtMsg, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case unix.RTA_DST:
			dst = address(ad)
		case unix.RTA_GATEWAY:
			r.Via = address(ad)
		case unix.RTA_PREFSRC:
			r.Src = address(ad)
		case unix.RTA_OIF:
			r.Link = int(ad.Uint32())
		case unix.RTA_TABLE:
			r.Table = int(ad.Uint32())
		case unix.RTA_PRIORITY:
			r.Priority = ad.Uint32()
		case unix.RTA_METRICS:
			ad.Nested(func(ad *netlink.AttributeDecoder) error {
				for ad.Next() {
					switch ad.Type() {
					case unix.RTAX_MTU:
						r.MTU = ad.Uint32()
					case unix.RTAX_QUICKACK:
						r.QuickACK = ad.Uint32()
					}
				}
				return nil
			})
		}
	})
	if err != nil {
		return r, err
	}
	r.Table = cmp.Or(r.Table, int(b[4]))
	r.Protocol, r.Scope, r.Type = b[5], b[6], b[7]
	if dst.IsValid() {
		r.Dst, err = prefix(dst, b[1])
	} else {
		r.Dst = everything(b[0])
	}
	return r, err
}

// Routes lists the routes of AF_INET, AF_INET6, or AF_UNSPEC for both, which are in the table, or
// in any for RT_TABLE_UNSPEC. What the kernel keeps for single flows is not among them.
func (c *Conn) Routes(family uint8, table int) ([]Route, error) {
	var all []Route
	header := make([]byte, unix.SizeofRtMsg)
	header[0] = family
	err := c.dump(unix.RTM_GETROUTE, newMessage(header), func(b []byte) error {
		if len(b) < unix.SizeofRtMsg || b[0] != unix.AF_INET && b[0] != unix.AF_INET6 ||
			native32(b[8:])&unix.RTM_F_CLONED != 0 {
			return nil
		}
		r, err := parseRoute(b)
		if table == unix.RT_TABLE_UNSPEC || r.Table == table {
			all = append(all, r)
		}
		return err
	})
	return all, err
}

// AddRoute adds the route; that there is such a one is unix.EEXIST.
func (c *Conn) AddRoute(r Route) error { return c.newRoute(unix.NLM_F_EXCL, r) }

// ReplaceRoute adds the route in place of one with the same destination and priority.
func (c *Conn) ReplaceRoute(r Route) error { return c.newRoute(unix.NLM_F_REPLACE, r) }

func (c *Conn) newRoute(flags uint16, r Route) error {
	m := routeHeader(r.Dst, 0, cmp.Or(r.Table, unix.RT_TABLE_MAIN), cmp.Or(r.Protocol, unix.RTPROT_BOOT),
		r.Scope, cmp.Or(r.Type, unix.RTN_UNICAST), 0)
	r.attributes(m)
	return c.set(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|flags, m)
}

// DeleteRoute deletes a route of any scope that is like r in all that r has; that there is none is
// unix.ESRCH.
func (c *Conn) DeleteRoute(r Route) error {
	m := routeHeader(r.Dst, 0, cmp.Or(r.Table, unix.RT_TABLE_MAIN), r.Protocol, unix.RT_SCOPE_NOWHERE, r.Type, 0)
	r.attributes(m)
	return c.set(unix.RTM_DELROUTE, 0, m)
}

// RouteQuery says for which packet a route is looked up, apart from its destination.
type RouteQuery struct {
	Src      netip.Addr
	Incoming int // the interface that it comes in by; 0 for one of the host's own
	Mark     uint32
	// Entry asks for the entry of the table that matches, not for what the packet would get of
	// it (since Linux 4.13).
	Entry bool
}

// RouteTo looks up the route of a packet. Errors such as unix.ENETUNREACH, unix.EHOSTUNREACH and
// unix.EXDEV say what would happen to it.
func (c *Conn) RouteTo(dst netip.Addr, l RouteQuery) (Route, error) {
	srcBits, flags := 0, uint32(unix.RTM_F_LOOKUP_TABLE)
	if l.Src.IsValid() {
		srcBits = l.Src.BitLen()
	}
	if l.Entry {
		flags |= unix.RTM_F_FIB_MATCH
	}
	m := routeHeader(netip.PrefixFrom(dst, dst.BitLen()), srcBits, 0, 0, 0, 0, flags)
	m.addr(unix.RTA_DST, dst)
	m.addr(unix.RTA_SRC, l.Src)
	number(m.attributes, unix.RTA_IIF, l.Incoming)
	number(m.attributes, unix.RTA_MARK, l.Mark)
	b, err := c.get(unix.RTM_GETROUTE, m)
	if err != nil {
		return Route{}, err
	}
	return parseRoute(b)
}
