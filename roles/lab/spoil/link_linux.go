package spoil

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// bridged does it for both families at once.
func (c change) bridged() error {
	for _, call := range []string{"iptables", "ip6tables"} {
		err := sysctl("bridge/bridge-nf-call-"+call, "1")
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: br_netfilter is not loaded", ErrLacks)
		}
		if err != nil {
			return err
		}
	}
	port, err := netlink.LinkByName(c.Interface)
	if err != nil || port.Type() == "bridge" { // the other family was first
		return err
	}
	kept, err := belongings(port)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetDown(port); err != nil {
		return err
	}
	if err := netlink.LinkSetName(port, "port0"); err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr = c.Interface, port.Attrs().HardwareAddr
	bridge := &netlink.Bridge{LinkAttrs: attrs}
	err = netlink.LinkAdd(bridge)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("%w: it has no bridges: %w", ErrLacks, err)
	}
	if err != nil {
		return fmt.Errorf("make a bridge: %w", err)
	}
	if err := netlink.LinkSetIP6AddrGenMode(bridge, 1); err != nil { // IN6_ADDR_GEN_MODE_NONE, linux/if_link.h
		return err
	}
	if err := netlink.LinkSetMaster(port, bridge); err != nil {
		return err
	}
	for _, l := range []netlink.Link{port, bridge} {
		if err := netlink.LinkSetUp(l); err != nil {
			return err
		}
	}
	return kept.moveTo(bridge)
}

// kept is what an interface loses when it goes down or becomes another's port.
type kept struct {
	addresses  []netlink.Addr
	neighbours []netlink.Neigh
	routes     []netlink.Route
}

func belongings(l netlink.Link) (kept, error) {
	var k kept
	var err error
	if k.addresses, err = netlink.AddrList(l, netlink.FAMILY_ALL); err != nil {
		return k, err
	}
	if k.neighbours, err = netlink.NeighList(l.Attrs().Index, 0); err != nil {
		return k, err
	}
	k.routes, err = netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{LinkIndex: l.Attrs().Index, Table: unix.RT_TABLE_MAIN},
		netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
	return k, err
}

func (k kept) moveTo(l netlink.Link) error {
	index := l.Attrs().Index
	for _, a := range k.addresses {
		if err := netlink.AddrAdd(l, &netlink.Addr{IPNet: a.IPNet, Flags: unix.IFA_F_NODAD & a.Flags}); err != nil {
			return fmt.Errorf("address %v: %w", a.IPNet, err)
		}
	}
	for _, n := range k.neighbours {
		if n.State&netlink.NUD_PERMANENT == 0 {
			continue
		}
		n.LinkIndex = index
		if err := netlink.NeighSet(&n); err != nil {
			return fmt.Errorf("neighbour %v: %w", n.IP, err)
		}
	}
	for _, r := range k.routes {
		if r.Protocol == unix.RTPROT_KERNEL { // of an address
			continue
		}
		r.LinkIndex = index
		if err := netlink.RouteReplace(&r); err != nil {
			return fmt.Errorf("route to %v: %w", r.Dst, err)
		}
	}
	return nil
}

// littleMTU is what a veth goes by when it receives, too (is_skb_forwardable, net/core/dev.c).
func (c change) littleMTU() error {
	l, err := netlink.LinkByName(c.Interface)
	if err != nil {
		return err
	}
	return netlink.LinkSetMTU(l, 1280)
}
