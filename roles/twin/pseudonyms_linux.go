package twin

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf/xt"
)

// pseudonyms maps addresses so that prefixes stay prefixes: two addresses that have their first n
// bits in common have so after it. Private addresses stay private, those with a meaning stay as
// they are, and inside of the host's own IPv4 networks the last part of an address stays.
type pseudonyms struct {
	key   [32]byte
	own   []netip.Prefix
	flips map[netip.Prefix]byte
}

// Networks with a meaning, for which others are no substitute. Of the first list the addresses stay
// as they are; of the second they stay in their network.
var (
	keptNetworks = prefixes("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "192.0.0.0/24", "192.0.2.0/24",
		"192.88.99.0/24", "198.18.0.0/15",
		"198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "::/8", "2001:db8::/32", "3fff::/20",
		"fe80::/10", "ff00::/8")
	closedNetworks = prefixes("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "64:ff9b::/96",
		"2002::/16", "fc00::/8", "fd00::/8")
)

func prefixes(texts ...string) []netip.Prefix {
	all := make([]netip.Prefix, len(texts))
	for i, t := range texts {
		all[i] = netip.MustParsePrefix(t)
	}
	return all
}

// Pseudonyms is the configuration with other addresses in place of the host's, chosen at random and
// the same in all of it. What it can't map is an error, as nothing may slip through.
func (c *Snapshot) Pseudonyms() (*Snapshot, error) {
	var key [32]byte
	if _, err := rand.Read(key[:]); err != nil {
		return nil, err
	}
	return c.pseudonyms(key)
}

func (c *Snapshot) pseudonyms(key [32]byte) (*Snapshot, error) {
	p := &pseudonyms{key: key, flips: map[netip.Prefix]byte{}}
	for _, a := range c.Addrs {
		if a.Local.Is4() {
			p.own = append(p.own, a.Prefix.Masked(), netip.PrefixFrom(a.Local, a.Prefix.Bits()).Masked())
		}
	}
	mapped, err := p.config(c)
	if err != nil {
		return nil, &SnapshotError{fmt.Errorf("no pseudonyms for %w", err),
			"save it without -pseudonyms, and look at what is in it before you send it"}
	}
	return mapped, nil
}

// addr maps an address.
func (p *pseudonyms) addr(a netip.Addr) netip.Addr {
	if a.Is4In6() {
		four := p.addr(a.Unmap()).As4()
		b := a.As16()
		copy(b[12:], four[:])
		return netip.AddrFrom16(b)
	}
	b := a.AsSlice()
	spareEUI(b)
	was := a
	kept := func(list []netip.Prefix) bool {
		return slices.ContainsFunc(list, func(n netip.Prefix) bool { return n.Contains(was) })
	}
	if kept(keptNetworks) {
		mapped, _ := netip.AddrFromSlice(b)
		return mapped
	}
	length := len(b) * 8
	if a.Is6() {
		length = 64 // the rest is an interface's identifier
	}
	for i := range length {
		node, err := was.Prefix(i)
		if err != nil {
			break
		}
		splits := func(n netip.Prefix) bool {
			return n.Bits() > i && n.Addr().Is4() == was.Is4() && node.Contains(n.Addr())
		}
		inside := func(n netip.Prefix) bool { return n.Bits() <= i && n.Contains(was) }
		if slices.ContainsFunc(keptNetworks, splits) || slices.ContainsFunc(closedNetworks, splits) ||
			slices.ContainsFunc(p.own, inside) {
			continue
		}
		b[i/8] ^= p.flip(node) << (7 - i%8)
	}
	mapped, _ := netip.AddrFromSlice(b)
	return mapped
}

// flip is 0 or 1, the same for the same prefix.
func (p *pseudonyms) flip(node netip.Prefix) byte {
	f, ok := p.flips[node]
	if !ok {
		b := node.Addr().As16()
		h := sha256.Sum256(append(append(p.key[:], byte(node.Bits()), byte(b2i(node.Addr().Is4()))), b[:]...))
		f = h[0] & 1
		p.flips[node] = f
	}
	return f
}

// spareEUI takes the vendor out of an interface's identifier that was made of a hardware address.
func spareEUI(b []byte) {
	if len(b) == 16 && b[11] == 0xff && b[12] == 0xfe && b[8]&2 != 0 {
		b[8], b[9], b[10] = 0, 0, 0
	}
}

// prefix maps the first bits of an address, in place; the others become 0. Fewer bytes than an
// address has are its first ones.
func (p *pseudonyms) prefix(b []byte, bits int, six bool) {
	whole := make([]byte, 4)
	if six {
		whole = make([]byte, 16)
	}
	copy(whole, b)
	a, _ := netip.AddrFromSlice(whole)
	bits = min(bits, 8*len(whole))
	network, err := p.addr(a).Prefix(bits)
	if err != nil {
		return // bits are bounded
	}
	if bits == 8*len(whole) {
		copy(b, p.addr(a).AsSlice())
		return
	}
	copy(b, network.Addr().AsSlice())
}

// whole maps an address, in place.
func (p *pseudonyms) whole(b []byte) error {
	if len(b) != 4 && len(b) != 16 {
		return fmt.Errorf("an address of %d bytes", len(b))
	}
	p.prefix(b, 8*len(b), len(b) == 16)
	return nil
}

// span maps the addresses from one to another, in place, which must be all of a prefix.
func (p *pseudonyms) span(from, to []byte) error {
	bits, ok := spanBits(from, to)
	if !ok || len(from) != 4 && len(from) != 16 {
		return fmt.Errorf("a range of addresses that is no prefix")
	}
	p.prefix(from, bits, len(from) == 16)
	copy(to, from)
	for i := bits; i < 8*len(to); i++ {
		to[i/8] |= 1 << (7 - i%8)
	}
	return nil
}

// spanBits is the length of the prefix whose addresses are from one to another, false if there is
// none.
func spanBits(from, to []byte) (int, bool) {
	if len(from) != len(to) {
		return 0, false
	}
	n := 0
	for n < 8*len(from) && (from[n/8]^to[n/8])>>(7-n%8)&1 == 0 {
		n++
	}
	for i := n; i < 8*len(from); i++ {
		if from[i/8]>>(7-i%8)&1 != 0 || to[i/8]>>(7-i%8)&1 != 1 {
			return 0, false
		}
	}
	return n, true
}

// maskBits is the length of the prefix that a mask takes, false for a mask of another kind.
func maskBits(mask []byte) (int, bool) {
	n := 0
	for n < len(mask) && mask[n] == 0xff {
		n++
	}
	length := 8 * n
	if n < len(mask) {
		length += bits.LeadingZeros8(^mask[n])
	}
	for i := length; i < 8*len(mask); i++ {
		if mask[i/8]>>(7-i%8)&1 != 0 {
			return 0, false
		}
	}
	return length, true
}

// config maps all of a configuration.
func (p *pseudonyms) config(c *Snapshot) (*Snapshot, error) {
	spared, err := c.spared()
	if err != nil {
		return nil, err
	}
	d := *spared
	for _, part := range []struct {
		what  string
		list  *[][]byte
		head  int
		kinds []uint16
	}{
		{"address", &d.Addrs, unix.SizeofIfAddrmsg, []uint16{unix.IFA_ADDRESS, unix.IFA_LOCAL, unix.IFA_BROADCAST,
			unix.IFA_ANYCAST}},
		{"nexthop object", &d.Nexthops, unix.SizeofNhmsg, []uint16{unix.NHA_GATEWAY}},
		{"neighbor", &d.Neighbors, unix.SizeofNdMsg, []uint16{unix.NDA_DST}},
	} {
		var mapped [][]byte
		for _, m := range *part.list {
			one := bytes.Clone(m)
			all, err := split(one, part.head)
			if err != nil {
				return nil, err
			}
			if part.what == "nexthop object" && all.has(unix.NHA_ENCAP) {
				return nil, fmt.Errorf("a nexthop object with a tunnel")
			}
			for _, a := range all {
				if slices.Contains(part.kinds, a.kind()) {
					if err := p.whole(a.data); err != nil {
						return nil, fmt.Errorf("%s: %w", part.what, err)
					}
				}
			}
			mapped = append(mapped, one)
		}
		*part.list = mapped
	}
	for _, part := range []struct {
		what     string
		list     *[][]byte
		dst, src uint16
	}{{"route", &d.Routes, unix.RTA_DST, unix.RTA_SRC}, {"policy rule", &d.Rules, unix.FRA_DST, unix.FRA_SRC}} {
		var mapped [][]byte
		for _, m := range *part.list {
			one := bytes.Clone(m)
			all, err := split(one, unix.SizeofRtMsg)
			if err != nil {
				return nil, err
			}
			// struct rtmsg and struct fib_rule_hdr: family, dst_len, src_len, …
			p.prefix(all.get(part.dst), int(one[1]), one[0] == unix.AF_INET6)
			p.prefix(all.get(part.src), int(one[2]), one[0] == unix.AF_INET6)
			if part.what == "route" {
				if err := p.hops(all); err != nil {
					return nil, fmt.Errorf("route: %w", err)
				}
			}
			mapped = append(mapped, one)
		}
		*part.list = mapped
	}
	if d.NFT, err = p.nft(c, d.NFT); err != nil {
		return nil, err
	}
	if d.Asked, err = p.nft(c, d.Asked); err != nil {
		return nil, err
	}
	if d.Sets, err = p.ipsets(d.Sets); err != nil {
		return nil, err
	}
	for i := range d.Legacy {
		if err := p.legacy(&d.Legacy[i]); err != nil {
			return nil, fmt.Errorf("table %s of %s: %w", d.Legacy[i].Name, legacyTool(d.Legacy[i].IPv6), err)
		}
	}
	d.Sockets = slices.Clone(d.Sockets)
	for i, s := range d.Sockets {
		d.Sockets[i].Local = netip.AddrPortFrom(p.addr(s.Local.Addr()), s.Local.Port())
	}
	return decode(&d)
}

// hops maps the gateways and the source of a route, in place.
func (p *pseudonyms) hops(all attrs) error {
	if all.has(unix.RTA_ENCAP) {
		return fmt.Errorf("one with a tunnel")
	}
	for _, a := range all {
		switch a.kind() {
		case unix.RTA_GATEWAY, unix.RTA_PREFSRC:
			if err := p.whole(a.data); err != nil {
				return err
			}
		case unix.RTA_VIA: // struct rtvia: family u16, address
			if len(a.data) < 2 {
				return errAttr
			}
			if err := p.whole(a.data[2:]); err != nil {
				return err
			}
		case unix.RTA_MULTIPATH:
			for hops := a.data; len(hops) >= unix.SizeofRtNexthop; {
				size := int(host32(hops[:2]))
				if size < unix.SizeofRtNexthop || size > len(hops) {
					return errAttr
				}
				inner, err := split(hops[:size], unix.SizeofRtNexthop)
				if err != nil {
					return err
				}
				if err := p.hops(inner); err != nil {
					return err
				}
				hops = hops[min((size+3)&^3, len(hops)):]
			}
		}
	}
	return nil
}

// ipsets maps the elements of sets of ipset.
func (p *pseudonyms) ipsets(messages []NetlinkMessage) ([]NetlinkMessage, error) {
	const (
		cidr, cidr2, netmask = 3, 21, 20
		bitmask              = 12
	)
	var mapped []NetlinkMessage
	for _, m := range messages {
		m.Data = bytes.Clone(m.Data)
		all, err := split(m.Data, 4)
		if err != nil {
			return nil, err
		}
		name := text(all.get(ipsetAttrSetName))
		entry := func(one attrs) error {
			for _, q := range []struct{ ip, to, bits uint16 }{{ipsetIP, ipsetIPTo, cidr},
				{ipsetIP2, ipsetIP2To, cidr2}} {
				from, err := one.nest(q.ip)
				if err != nil {
					return err
				}
				to, err := one.nest(q.to)
				if err != nil {
					return err
				}
				for i, a := range from { // IPSET_ATTR_IPADDR_IPV4 or IPV6
					if len(to) > i && !bytes.Equal(a.data, to[i].data) {
						if err := p.span(a.data, to[i].data); err != nil {
							return err
						}
						continue
					}
					length := 8 * len(a.data)
					if b := one.get(q.bits); len(b) == 1 {
						length = int(b[0])
					}
					if len(a.data) != 4 && len(a.data) != 16 {
						return fmt.Errorf("an address of %d bytes", len(a.data))
					}
					p.prefix(a.data, length, len(a.data) == 16)
					if len(to) > i {
						copy(to[i].data, a.data)
					}
				}
			}
			return nil
		}
		if data, err := all.nest(ipsetAttrData); err != nil {
			return nil, err
		} else if all.has(ipsetAttrTypeName) {
			if data.has(netmask) || data.has(bitmask) {
				return nil, fmt.Errorf("ipset %s, which has a mask", name)
			}
			if err := entry(data); err != nil {
				return nil, fmt.Errorf("ipset %s: %w", name, err)
			}
		}
		elements, err := all.nest(ipsetAttrADT)
		if err != nil {
			return nil, err
		}
		for _, e := range elements {
			one, err := split(e.data, 0)
			if err == nil {
				err = entry(one)
			}
			if err != nil {
				return nil, fmt.Errorf("ipset %s: %w", name, err)
			}
		}
		mapped = append(mapped, m)
	}
	return mapped, nil
}

// legacy maps the addresses of a table of iptables-legacy, in place.
func (p *pseudonyms) legacy(t *LegacyTable) error {
	at := xt.LayoutOf(t.IPv6)
	return t.each(func(e []byte, target string) error {
		// struct ipt_ip begins with source, destination and their masks; so does struct ip6t_ip6.
		for i := range 2 {
			length, ok := maskBits(e[(2+i)*at.Address : (3+i)*at.Address])
			if !ok {
				return fmt.Errorf("a mask that is no prefix")
			}
			p.prefix(e[i*at.Address:(i+1)*at.Address], length, t.IPv6)
		}
		var failed error
		t.matches(e, func(name string, data []byte) {
			if err := p.match(name, data, t.IPv6); err != nil && failed == nil {
				failed = err
			}
		})
		if failed != nil {
			return failed
		}
		offset := int(host32(e[at.Target : at.Target+2]))
		return p.target(target, e[offset+31], e[offset+32:], t.IPv6)
	})
}

// plainMatches and plainTargets are extensions of iptables that hold no address.
var (
	plainMatches = []string{"addrtype", "cgroup", "comment", "connbytes", "connlimit", "connmark", "cpu", "devgroup",
		"dscp", "ecn", "esp", "hashlimit",
		"helper", "hl", "icmp", "icmp6", "length", "limit", "mac", "mark", "multiport", "nfacct", "owner", "physdev",
		"pkttype", "quota", "realm",
		"rpfilter", "sctp", "set", "socket", "state", "statistic", "tcp", "tcpmss", "time", "tos", "ttl", "udp"}
	plainTargets = []string{"", "ERROR", "CHECKSUM", "CLASSIFY", "CONNMARK", "CT", "DSCP", "HL", "LOG", "MARK",
		"NFLOG", "NFQUEUE", "NOTRACK",
		"REJECT", "SET", "TCPMSS", "TOS", "TRACE", "TTL", "AUDIT"}
)

// address maps one in a union nf_inet_addr, in place.
func (p *pseudonyms) address(b []byte, length int, six bool) {
	if six {
		p.prefix(b[:16], length, true)
	} else {
		p.prefix(b[:4], min(length, 32), false)
	}
}

// match maps the addresses in a match of iptables, in place.
func (p *pseudonyms) match(name string, data []byte, six bool) error {
	size := map[bool]int{false: 4, true: 16}[six]
	switch {
	case slices.Contains(plainMatches, name):
		return nil
	case name == "iprange" && len(data) >= 65:
		// struct xt_iprange_mtinfo: src_min, src_max, dst_min, dst_max of 16 bytes each, flags u8
		for i, flag := range []byte{1, 2} {
			if data[64]&flag != 0 {
				if err := p.span(data[32*i:32*i+size], data[32*i+16:32*i+16+size]); err != nil {
					return err
				}
			}
		}
		return nil
	case name == "conntrack" && len(data) >= 128:
		// struct xt_conntrack_mtinfo1 and later: four addresses, each with its mask, of 16 bytes
		// each
		for i := range 4 {
			length, ok := maskBits(data[32*i+16 : 32*i+16+size])
			if !ok {
				return fmt.Errorf("a mask that is no prefix")
			}
			if length > 0 {
				p.address(data[32*i:], length, six)
			}
		}
		return nil
	}
	return fmt.Errorf("a rule with -m %s", name)
}

// target maps the addresses in a target of iptables, in place.
func (p *pseudonyms) target(name string, revision byte, data []byte, six bool) error {
	size := map[bool]int{false: 4, true: 16}[six]
	const mapIPs = 1 // NF_NAT_RANGE_MAP_IPS
	switch {
	case slices.Contains(plainTargets, name):
		return nil
	case name == "TPROXY" && revision == 0 && len(data) >= 12: // mark_mask, mark_value u32, laddr be32
		p.prefix(data[8:12], 32, false)
		return nil
	case name == "TPROXY" && revision == 1 && len(data) >= 24: // mark_mask, mark_value u32, laddr of 16 bytes
		p.address(data[8:24], 128, six)
		return nil
	case name == "DNAT" || name == "SNAT" || name == "REDIRECT" || name == "MASQUERADE":
		// struct nf_nat_range: flags u32, min, max of 16 bytes each. For IPv4 revision 0 is struct
		// nf_nat_ipv4_multi_range_compat: rangesize u32, flags u32, min be32, max be32.
		from, to, flags := 4, 20, 0
		if !six && revision == 0 {
			from, to, flags = 8, 12, 4
		}
		if len(data) < to+size {
			return errAttr
		}
		if host32(data[flags:flags+4])&mapIPs == 0 {
			return nil
		}
		if bytes.Equal(data[from:from+size], data[to:to+size]) {
			p.prefix(data[from:from+size], 8*size, six)
			copy(data[to:to+size], data[from:from+size])
			return nil
		}
		return p.span(data[from:from+size], data[to:to+size])
	}
	return fmt.Errorf("a rule with -j %s", name)
}
