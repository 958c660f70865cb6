package twin

import (
	"fmt"
	"net/netip"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"
)

// decode makes a Config of what was read, from the host or from a snapshot: it trusts nothing in
// it.
func decode(d *Dump) (*Snapshot, error) {
	c := &Snapshot{Dump: *d}
	for _, part := range []struct {
		what     string
		messages [][]byte
		head     int
		decode   func(head []byte, all attrs) error
	}{
		{"network device", d.Links, unix.SizeofIfInfomsg, c.decodeLink},
		{"address", d.Addrs, unix.SizeofIfAddrmsg, c.decodeAddr},
		{"nexthop object", d.Nexthops, unix.SizeofNhmsg, func([]byte, attrs) error { return nil }},
		{"route", d.Routes, unix.SizeofRtMsg, c.decodeRoute},
		{"policy rule", d.Rules, unix.SizeofRtMsg, c.decodeRule},
		{"neighbor", d.Neighbors, unix.SizeofNdMsg, c.decodeNeighbor},
	} {
		for _, m := range part.messages {
			all, err := split(m, part.head)
			if err == nil {
				err = part.decode(m[:part.head], all)
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", part.what, err)
			}
		}
	}
	if err := c.decodeNFT(); err != nil {
		return nil, err
	}
	if err := c.decodeIPSets(); err != nil {
		return nil, err
	}
	return c, nil
}

// decodeLink reads struct ifinfomsg: family, pad, type u16, index i32, flags u32, change u32.
func (c *Snapshot) decodeLink(head []byte, all attrs) error {
	l := Link{
		Index: int(int32(host32(head[4:8]))), Flags: host32(head[8:12]), Name: text(all.get(unix.IFLA_IFNAME)),
		MTU: host32(all.get(unix.IFLA_MTU)),
		MAC: all.get(unix.IFLA_ADDRESS), Master: int(host32(all.get(unix.IFLA_MASTER))),
		Peer:     int(host32(all.get(unix.IFLA_LINK))),
		PeerAway: all.has(unix.IFLA_LINK_NETNSID), Group: host32(all.get(unix.IFLA_GROUP)),
		Type: uint16(host32(head[2:4])),
	}
	l.Carrier, l.Loopback = l.Flags&unix.IFF_LOWER_UP != 0, l.Flags&unix.IFF_LOOPBACK != 0
	// As dev_valid_name of net/core/dev.c: the name is part of a path below.
	if l.Index <= 0 || l.Name == "" || l.Name == "." || l.Name == ".." || len(l.Name) >= unix.IFNAMSIZ ||
		strings.ContainsFunc(l.Name, func(r rune) bool { return r == '/' || r == ':' || unicode.IsSpace(r) }) {
		return fmt.Errorf("device %q has index %d", l.Name, l.Index)
	}
	info, err := all.nest(unix.IFLA_LINKINFO)
	if err != nil {
		return err
	}
	l.Kind = text(info.get(unix.IFLA_INFO_KIND))
	if l.Kind == "vrf" {
		data, err := info.nest(unix.IFLA_INFO_DATA)
		if err != nil {
			return err
		}
		l.VRFTable = host32(data.get(unix.IFLA_VRF_TABLE))
	}
	c.Links = append(c.Links, l)
	return nil
}

// decodeAddr reads struct ifaddrmsg: family, prefix length, flags, scope, index u32.
func (c *Snapshot) decodeAddr(head []byte, all attrs) error {
	a := Addr{Index: int(int32(host32(head[4:8]))), Scope: head[3], Flags: uint32(head[2])}
	if flags := all.get(unix.IFA_FLAGS); flags != nil {
		a.Flags = host32(flags)
	}
	address, ok := netip.AddrFromSlice(all.get(unix.IFA_ADDRESS))
	if !ok {
		return fmt.Errorf("an address of %d bytes", len(all.get(unix.IFA_ADDRESS)))
	}
	a.Local = address
	if local, ok := netip.AddrFromSlice(all.get(unix.IFA_LOCAL)); ok {
		a.Local = local
	}
	if a.Prefix = netip.PrefixFrom(address, int(head[1])); !a.Prefix.IsValid() {
		return fmt.Errorf("%v with a prefix of %d bits", address, head[1])
	}
	c.Addrs = append(c.Addrs, a)
	return nil
}

// network reads an address of a family with its prefix length; none is 0.0.0.0 or ::.
func network(family byte, b []byte, bits int) (netip.Prefix, error) {
	address, ok := netip.AddrFromSlice(b)
	switch {
	case b == nil && family == unix.AF_INET:
		address = netip.IPv4Unspecified()
	case b == nil && family == unix.AF_INET6:
		address = netip.IPv6Unspecified()
	case !ok || address.Is4() != (family == unix.AF_INET):
		return netip.Prefix{}, fmt.Errorf("an address of %d bytes of family %d", len(b), family)
	}
	p := netip.PrefixFrom(address, bits)
	if !p.IsValid() {
		return p, fmt.Errorf("%v with a prefix of %d bits", address, bits)
	}
	return p, nil
}

// decodeRoute reads struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type,
// flags u32.
func (c *Snapshot) decodeRoute(head []byte, all attrs) error {
	if head[0] != unix.AF_INET && head[0] != unix.AF_INET6 {
		return fmt.Errorf("family %d", head[0])
	}
	r := Route{
		Table: uint32(head[4]), Proto: head[5], Scope: head[6], Type: head[7], Flags: host32(head[8:12]),
		Metric: host32(all.get(unix.RTA_PRIORITY)),
	}
	if table := all.get(unix.RTA_TABLE); table != nil {
		r.Table = host32(table)
	}
	var err error
	if r.Dst, err = network(head[0], all.get(unix.RTA_DST), int(head[1])); err != nil {
		return err
	}
	r.Src, _ = netip.AddrFromSlice(all.get(unix.RTA_PREFSRC))
	hop := func(index []byte, all attrs) NextHop {
		h := NextHop{Index: int(int32(host32(index)))}
		gateway := all.get(unix.RTA_GATEWAY)
		if via := all.get(unix.RTA_VIA); len(via) > 2 { // struct rtvia: family u16, address
			gateway = via[2:]
		}
		h.Gateway, _ = netip.AddrFromSlice(gateway)
		return h
	}
	for hops := all.get(unix.RTA_MULTIPATH); len(hops) > 0; {
		// struct rtnexthop: len u16, flags u8, hops u8, ifindex i32, attributes
		size := int(host32(hops[:min(2, len(hops))]))
		if size < unix.SizeofRtNexthop || size > len(hops) {
			return errAttr
		}
		inner, err := split(hops[:size], unix.SizeofRtNexthop)
		if err != nil {
			return err
		}
		r.Hops = append(r.Hops, hop(hops[4:8], inner))
		hops = hops[min((size+3)&^3, len(hops)):]
	}
	if len(r.Hops) == 0 && (all.has(unix.RTA_OIF) || all.has(unix.RTA_GATEWAY) || all.has(unix.RTA_VIA)) {
		r.Hops = []NextHop{hop(all.get(unix.RTA_OIF), all)}
	}
	c.Routes = append(c.Routes, r)
	return nil
}

// decodeRule reads struct fib_rule_hdr: family, dst_len, src_len, tos, table, res1, res2, action,
// flags u32.
func (c *Snapshot) decodeRule(head []byte, all attrs) error {
	if head[0] != unix.AF_INET && head[0] != unix.AF_INET6 {
		return fmt.Errorf("family %d", head[0])
	}
	r := PolicyRule{
		IPv6: head[0] == unix.AF_INET6, Priority: host32(all.get(unix.FRA_PRIORITY)), Table: uint32(head[4]),
		Action: head[7],
		Invert: host32(head[8:12])&unix.FIB_RULE_INVERT != 0, Mark: host32(all.get(unix.FRA_FWMARK)),
		Mask: host32(all.get(unix.FRA_FWMASK)),
		In:   text(all.get(unix.FRA_IIFNAME)), Out: text(all.get(unix.FRA_OIFNAME)),
		Proto: uint8(host32(all.get(unix.FRA_IP_PROTO))), L3mdev: host32(all.get(unix.FRA_L3MDEV)) != 0,
	}
	if table := all.get(unix.FRA_TABLE); table != nil {
		r.Table = host32(table)
	}
	if ids := all.get(unix.FRA_UID_RANGE); len(ids) == 8 {
		r.HasUIDs, r.UIDFirst, r.UIDLast = true, host32(ids[:4]), host32(ids[4:])
	}
	for _, n := range []struct {
		kind uint16
		bits byte
		to   *netip.Prefix
	}{{unix.FRA_SRC, head[2], &r.Src}, {unix.FRA_DST, head[1], &r.Dst}} {
		if !all.has(n.kind) {
			continue
		}
		var err error
		if *n.to, err = network(head[0], all.get(n.kind), int(n.bits)); err != nil {
			return err
		}
	}
	c.PolicyRules = append(c.PolicyRules, r)
	return nil
}

// decodeNeighbor reads struct ndmsg: family, pads, ifindex i32, state u16, flags u8, type u8.
func (c *Snapshot) decodeNeighbor(head []byte, all attrs) error {
	address, ok := netip.AddrFromSlice(all.get(unix.NDA_DST))
	if !ok {
		return nil // of a bridge's forwarding table
	}
	c.Neighbors = append(c.Neighbors, Neighbor{
		Index: int(int32(host32(head[4:8]))), Addr: address, MAC: all.get(unix.NDA_LLADDR),
	})
	return nil
}
