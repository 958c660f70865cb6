package inject

import (
	"context"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"pfdivert/matrix/injection"
	"pfdivert/pfconf"
	"pfdivert/pfconf/nft"
	"pfdivert/pfconf/rtnetlink"
)

// change is a step in one family of a host.
type change struct {
	BrokenHost
	AddressPair
	family pfconf.Family
	fake   netip.Prefix
	routes *rtnetlink.Conn
}

var steps = map[injection.Action]func(change) error{
	injection.FakeAside:    change.fakeAside,
	injection.NoFakeRoute:  change.noFakeRoute,
	injection.FakeOnLink:   change.fakeOnLink,
	injection.OwnFake:      change.ownFake,
	injection.OtherMark:    change.otherMark,
	injection.OtherMask:    change.otherMask,
	injection.OtherTable:   change.otherTable,
	injection.NoRule6:      change.noRule6,
	injection.LateRule:     change.lateRule,
	injection.Martian:      change.martian,
	injection.Forwarding:   change.forwarding,
	injection.NoInet6:      change.noInet6,
	injection.Loop:         change.loop,
	injection.Bridged:      change.bridged,
	injection.BridgedPlain: change.bridgedPlain,
	injection.LittleMTU:    change.littleMTU,
}

// Do makes the change in the network namespace of the process. The driver of the packet
// filter must have made its own before.
func (h BrokenHost) Do(_ context.Context, s injection.Action) error {
	return rtnetlink.With(func(routes *rtnetlink.Conn) error {
		for _, p := range h.Paths {
			f := pfconf.FamilyOf(p.Here)
			c := change{h, p, f, h.fake(f), routes}
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
	})
}

func (c change) af() uint8 {
	if c.family == pfconf.Inet {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// sysctl sets a sysctl of this namespace.
func sysctl(name, value string) error {
	return os.WriteFile("/proc/sys/net/"+name, []byte(value+"\n"), 0)
}

// everything is the prefix of all of the family's addresses.
func (c change) everything() netip.Prefix { return netip.PrefixFrom(c.family.Unspecified(), 0) }

// aside makes an interface by which nothing reaches anybody, and returns its index. It is the same
// for both families.
func (c change) aside() (int, error) {
	const name, peer = "aside0", "aside1"
	if l, err := c.routes.Link(name); err == nil {
		return l.Index, nil
	}
	here, err := c.routes.AddLink(rtnetlink.NewLink{Name: name, Kind: rtnetlink.Veth,
		Peer: &rtnetlink.NewLink{Name: peer}})
	if err != nil {
		return 0, err
	}
	there, err := c.routes.Link(peer)
	if err != nil {
		return 0, err
	}
	const upWithoutARP = unix.IFF_UP | unix.IFF_NOARP // no one is asked for
	for _, l := range []rtnetlink.Link{here, there} {
		if err := c.routes.SetFlags(l.Index, upWithoutARP, upWithoutARP); err != nil {
			return 0, err
		}
	}
	return here.Index, nil
}

// asideTable is the table of REMOTE's other way.
const asideTable = 200

func (c change) fakeAside() error {
	link, err := c.aside()
	if err != nil {
		return err
	}
	r := rtnetlink.Route{Link: link, Dst: c.fake, Scope: unix.RT_SCOPE_LINK}
	if !c.Remote {
		return c.routes.ReplaceRoute(r)
	}
	r.Dst, r.Table = c.everything(), asideTable
	if err := c.routes.ReplaceRoute(r); err != nil {
		return err
	}
	return c.routes.AddRule(rtnetlink.PolicyRule{Family: c.af(), Src: c.fake, Table: asideTable, Priority: 100})
}

func (c change) noFakeRoute() error { return c.routes.DeleteRoute(rtnetlink.Route{Dst: c.fake}) }

func (c change) fakeOnLink() error {
	l, err := c.routes.Link(c.Interface)
	if err != nil {
		return err
	}
	if err := c.noFakeRoute(); err != nil {
		return err
	}
	return c.routes.AddRoute(rtnetlink.Route{Link: l.Index, Dst: c.fake, Scope: unix.RT_SCOPE_LINK})
}

func (c change) ownFake() error {
	first := c.fake.Addr().Next()
	return c.routes.AddAddress(rtnetlink.Address{Link: loopback, Prefix: netip.PrefixFrom(first, first.BitLen())})
}

// loopback is the index of lo in every network namespace (LOOPBACK_IFINDEX, net/flow.h).
const loopback = 1

// replaceRule replaces the driver's policy rule by one with another mark, mask or priority.
func (c change) replaceRule(with func(*rtnetlink.PolicyRule)) error {
	r := rtnetlink.PolicyRule{Family: c.af(), Mark: nft.Mark, Table: nft.Table}
	if err := c.routes.DeleteRule(r); err != nil {
		return err
	}
	if with == nil {
		return nil
	}
	with(&r)
	return c.routes.AddRule(r)
}

func (c change) otherMark() error {
	return c.replaceRule(func(r *rtnetlink.PolicyRule) { r.Mark = 1 })
}

func (c change) otherMask() error {
	return c.replaceRule(func(r *rtnetlink.PolicyRule) { r.Mark, r.Mask = 1, 0xff })
}

func (c change) noRule6() error {
	if c.family != pfconf.Inet6 {
		return nil
	}
	return c.replaceRule(nil)
}

func (c change) lateRule() error {
	l, err := c.routes.Link(c.Interface)
	if err != nil {
		return err
	}
	if err := c.routes.AddRoute(rtnetlink.Route{Link: l.Index, Dst: c.fake, Via: c.There}); err != nil {
		return err
	}
	const main = 32766 // its rule's priority (fib_default_rules_init, net/ipv4/fib_rules.c)
	return c.replaceRule(func(r *rtnetlink.PolicyRule) { r.Priority = main + 1 })
}

// local is the driver's route, for another prefix or in another table.
func local(p netip.Prefix, table int) rtnetlink.Route {
	return rtnetlink.Route{Link: loopback, Dst: p, Scope: unix.RT_SCOPE_HOST, Type: unix.RTN_LOCAL, Table: table}
}

func (c change) otherTable() error {
	if err := c.routes.DeleteRoute(local(c.fake, nft.Table)); err != nil {
		return err
	}
	return c.routes.AddRoute(local(c.fake, nft.Table+1))
}

func (c change) localDefault() error {
	if err := c.routes.DeleteRoute(local(c.fake, nft.Table)); err != nil {
		return err
	}
	return c.routes.AddRoute(local(c.everything(), nft.Table))
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
