package spoil

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"pfdivert/matrix/injection"
	"pfdivert/pfconf"
	"pfdivert/pfconf/nft"
)

// change is a step in one family of a host.
type change struct {
	Host
	Path
	family pfconf.Family
	fake   netip.Prefix
}

var steps = map[injection.Step]func(change) error{
	injection.FakeAside:   change.fakeAside,
	injection.NoFakeRoute: change.noFakeRoute,
	injection.FakeOnLink:  change.fakeOnLink,
	injection.OwnFake:     change.ownFake,
	injection.OtherMark:   change.otherMark,
	injection.OtherMask:   change.otherMask,
	injection.OtherTable:  change.otherTable,
	injection.NoRule6:     change.noRule6,
	injection.LateRule:    change.lateRule,
	injection.Martian:     change.martian,
	injection.Forwarding:  change.forwarding,
	injection.NoInet6:     change.noInet6,
	injection.Loop:        change.loop,
	injection.Bridged:     change.bridged,
	injection.LittleMTU:   change.littleMTU,
}

// Do makes the change in the network namespace of the process. The driver of the packet
// filter must have made its own before.
func (h Host) Do(_ context.Context, s injection.Step) error {
	for _, p := range h.Paths {
		f := pfconf.FamilyOf(p.Here)
		c := change{h, p, f, h.fake(f)}
		var err error
		if do := steps[s]; do != nil {
			err = do(c)
		} else if r := rules[s]; r != nil {
			err = c.filter(s, r(c))
		} else {
			return fmt.Errorf("there is no step %q", s)
		}
		if err != nil {
			return fmt.Errorf("%s: %v: %w", s, f, err)
		}
	}
	return nil
}

func (c change) af() int {
	if c.family == pfconf.Inet {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// sysctl sets a sysctl of this namespace.
func sysctl(name, value string) error {
	return os.WriteFile("/proc/sys/net/"+name, []byte(value+"\n"), 0)
}

func ipnet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// everything is the prefix of all of the family's addresses.
func (c change) everything() netip.Prefix { return netip.PrefixFrom(c.family.Unspecified(), 0) }

// aside makes an interface by which nothing reaches anybody. It is the same for both
// families.
func aside() (netlink.Link, error) {
	const name = "aside0"
	if l, err := netlink.LinkByName(name); err == nil {
		return l, nil
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "aside1"}); err != nil {
		return nil, err
	}
	for _, end := range []string{name, "aside1"} {
		l, err := netlink.LinkByName(end)
		if err != nil {
			return nil, err
		}
		if err := netlink.LinkSetARPOff(l); err != nil { // no one is asked for
			return nil, err
		}
		if err := netlink.LinkSetUp(l); err != nil {
			return nil, err
		}
	}
	return netlink.LinkByName(name)
}

// asideTable is the table of REMOTE's other way.
const asideTable = 200

func (c change) fakeAside() error {
	l, err := aside()
	if err != nil {
		return err
	}
	r := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipnet(c.fake), Scope: netlink.SCOPE_LINK}
	if !c.Remote {
		return netlink.RouteReplace(r)
	}
	r.Dst, r.Table = ipnet(c.everything()), asideTable
	if err := netlink.RouteReplace(r); err != nil {
		return err
	}
	rule := netlink.NewRule()
	rule.Family, rule.Src, rule.Table, rule.Priority = c.af(), ipnet(c.fake), asideTable, 100
	return netlink.RuleAdd(rule)
}

func (c change) noFakeRoute() error { return netlink.RouteDel(&netlink.Route{Dst: ipnet(c.fake)}) }

func (c change) fakeOnLink() error {
	l, err := netlink.LinkByName(c.Interface)
	if err != nil {
		return err
	}
	if err := c.noFakeRoute(); err != nil {
		return err
	}
	return netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipnet(c.fake), Scope: netlink.SCOPE_LINK})
}

func (c change) ownFake() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	first := c.fake.Addr().Next()
	return netlink.AddrAdd(lo, &netlink.Addr{IPNet: ipnet(netip.PrefixFrom(first, first.BitLen()))})
}

// policyRule is the driver's, with another mark, mask or priority.
func (c change) replaceRule(with func(*netlink.Rule)) error {
	own := func() *netlink.Rule {
		r := netlink.NewRule()
		r.Family, r.Mark, r.Table = c.af(), nft.Mark, nft.Table
		return r
	}
	if err := netlink.RuleDel(own()); err != nil {
		return err
	}
	if with == nil {
		return nil
	}
	r := own()
	with(r)
	return netlink.RuleAdd(r)
}

func (c change) otherMark() error {
	return c.replaceRule(func(r *netlink.Rule) { r.Mark = 1 })
}

func (c change) otherMask() error {
	return c.replaceRule(func(r *netlink.Rule) {
		mask := uint32(0xff)
		r.Mark, r.Mask = 1, &mask
	})
}

func (c change) noRule6() error {
	if c.family != pfconf.Inet6 {
		return nil
	}
	return c.replaceRule(nil)
}

func (c change) lateRule() error {
	l, err := netlink.LinkByName(c.Interface)
	if err != nil {
		return err
	}
	err = netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipnet(c.fake), Gw: c.There.AsSlice()})
	if err != nil {
		return err
	}
	const main = 32766 // its rule's priority (fib_default_rules_init, net/ipv4/fib_rules.c)
	return c.replaceRule(func(r *netlink.Rule) { r.Priority = main + 1 })
}

// local is the driver's route, for another prefix or in another table.
func local(p netip.Prefix, table int) *netlink.Route {
	return &netlink.Route{LinkIndex: 1, Dst: ipnet(p), Scope: netlink.SCOPE_HOST, Type: unix.RTN_LOCAL, Table: table}
}

func (c change) otherTable() error {
	if err := netlink.RouteDel(local(c.fake, nft.Table)); err != nil {
		return err
	}
	return netlink.RouteAdd(local(c.fake, nft.Table+1))
}

func (c change) localDefault() error {
	if err := netlink.RouteDel(local(c.fake, nft.Table)); err != nil {
		return err
	}
	return netlink.RouteAdd(local(c.everything(), nft.Table))
}

func (c change) martian() error {
	if c.family != pfconf.Inet {
		return nil // IPv6 has no such filter
	}
	if err := c.localDefault(); err != nil {
		return err
	}
	if err := sysctl("ipv4/conf/all/src_valid_mark", "1"); err != nil {
		return err
	}
	return sysctl("ipv4/conf/all/rp_filter", "1")
}

func (c change) forwarding() error {
	if c.family == pfconf.Inet {
		return sysctl("ipv4/ip_forward", "1")
	}
	return sysctl("ipv6/conf/all/forwarding", "1")
}

func (c change) noInet6() error {
	if c.family != pfconf.Inet6 {
		return nil
	}
	return sysctl("ipv6/conf/lo/disable_ipv6", "1")
}

func (c change) loop() error {
	if err := c.localDefault(); err != nil {
		return err
	}
	return c.filter(injection.Loop, c.markOut())
}
