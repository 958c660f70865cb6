package inject

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf/rtnetlink"
)

// bridged and bridgedPlain do it for both families at once.
func (c change) bridged() error      { return c.bridge("1") }
func (c change) bridgedPlain() error { return c.bridge("0") }

// bridge makes the interface a bridge's port. call is whether br_netfilter is asked; where it is
// not loaded it is not.
func (c change) bridge(call string) error {
	for _, of := range []string{"iptables", "ip6tables"} {
		err := sysctl("bridge/bridge-nf-call-"+of, call)
		if errors.Is(err, fs.ErrNotExist) && call == "0" {
			break
		}
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: br_netfilter is not loaded", ErrLacks)
		}
		if err != nil {
			return err
		}
	}
	port, err := c.routes.Link(c.Interface)
	if err != nil || port.Kind == rtnetlink.Bridge { // the other family was first
		return err
	}
	kept, err := c.belongings(port.Index)
	if err != nil {
		return err
	}
	if err := c.routes.SetDown(port.Index); err != nil {
		return err
	}
	if err := c.routes.SetName(port.Index, "port0"); err != nil {
		return err
	}
	bridge, err := c.routes.AddLink(rtnetlink.NewLink{Name: c.Interface, Kind: rtnetlink.Bridge,
		Hardware: port.Hardware})
	if errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("%w: it has no bridges: %w", ErrLacks, err)
	}
	if err != nil {
		return fmt.Errorf("make a bridge: %w", err)
	}
	if err := c.routes.SetNoLinkLocal(bridge.Index); err != nil {
		return err
	}
	if err := c.routes.SetMaster(port.Index, bridge.Index); err != nil {
		return err
	}
	for _, l := range []rtnetlink.Link{port, bridge} {
		if err := c.routes.SetUp(l.Index); err != nil {
			return err
		}
	}
	return c.moveTo(kept, bridge.Index)
}

// kept is what an interface loses when it goes down or becomes another's port.
type kept struct {
	addresses  []rtnetlink.Address
	neighbours []rtnetlink.Neighbour
	routes     []rtnetlink.Route
}

func (c change) belongings(link int) (k kept, err error) {
	if k.addresses, err = c.routes.Addresses(unix.AF_UNSPEC); err != nil {
		return k, err
	}
	if k.neighbours, err = c.routes.Neighbours(); err != nil {
		return k, err
	}
	if k.routes, err = c.routes.Routes(unix.AF_UNSPEC, unix.RT_TABLE_MAIN); err != nil {
		return k, err
	}
	k.addresses = slices.DeleteFunc(k.addresses, func(a rtnetlink.Address) bool { return a.Link != link })
	k.neighbours = slices.DeleteFunc(k.neighbours, func(n rtnetlink.Neighbour) bool {
		return n.Link != link || n.State&unix.NUD_PERMANENT == 0
	})
	k.routes = slices.DeleteFunc(k.routes, func(r rtnetlink.Route) bool {
		return r.Link != link || r.Protocol == unix.RTPROT_KERNEL // of an address
	})
	return k, nil
}

func (c change) moveTo(k kept, link int) error {
	for _, a := range k.addresses {
		a.Link, a.Flags = link, unix.IFA_F_NODAD&a.Flags
		if err := c.routes.AddAddress(a); err != nil {
			return fmt.Errorf("address %v: %w", a.Prefix, err)
		}
	}
	for _, n := range k.neighbours {
		n.Link = link
		if err := c.routes.SetNeighbour(n); err != nil {
			return fmt.Errorf("neighbour %v: %w", n.Addr, err)
		}
	}
	for _, r := range k.routes {
		r.Link = link
		if err := c.routes.ReplaceRoute(r); err != nil {
			return fmt.Errorf("route to %v: %w", r.Dst, err)
		}
	}
	return nil
}

// littleMTU is what a veth goes by when it receives, too (is_skb_forwardable, net/core/dev.c).
func (c change) littleMTU() error {
	l, err := c.routes.Link(c.Interface)
	if err != nil {
		return err
	}
	return c.routes.SetMTU(l.Index, 1280)
}
