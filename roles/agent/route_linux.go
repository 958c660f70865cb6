package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"pfdivert/pfconf"
	"pfdivert/pfconf/nft"
)

// hostRoutes is this host's routing table.
var hostRoutes routes = linuxRoutes{}

// linuxRoutes is the main routing table. The routes that it adds carry the protocol number
// nft.Protocol, by which they are known for this program's.
type linuxRoutes struct{}

// taken asks for the ways of the prefix's first and last address, and lists what the main table
// has for parts of the prefix.
func (linuxRoutes) taken(_ context.Context, dst netip.Prefix) ([]route, error) {
	var found []route
	ends := []netip.Addr{dst.Masked().Addr(), last(dst)}
	for _, a := range slices.Compact(ends) {
		list, err := netlink.RouteGetWithOptions(a.AsSlice(), &netlink.RouteGetOptions{FIBMatch: true})
		switch {
		case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH):
			found = append(found, route{})
		case err != nil:
			return nil, fmt.Errorf("ask for the way to %v: %w", a, err)
		}
		for _, r := range list {
			found = append(found, routeFrom(r, dst.Addr()))
		}
	}
	family := netlink.FAMILY_V4
	if pfconf.FamilyOf(dst.Addr()) == pfconf.Inet6 {
		family = netlink.FAMILY_V6
	}
	list, err := netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("list the main routing table: %w", err)
	}
	for _, r := range list {
		if x := routeFrom(r, dst.Addr()); x.dst.Bits() > dst.Bits() && dst.Contains(x.dst.Addr()) {
			found = append(found, x)
		}
	}
	return found, nil
}

// routeFrom reads a route of the family of like. The default route has no destination.
func routeFrom(r netlink.Route, like netip.Addr) route {
	var out route
	if r.Dst == nil {
		zero := netip.IPv4Unspecified()
		if like.Is6() {
			zero = netip.IPv6Unspecified()
		}
		out.dst = netip.PrefixFrom(zero, 0)
	} else {
		a, _ := netip.AddrFromSlice(r.Dst.IP)
		if like.Is4() {
			a = a.Unmap()
		}
		ones, _ := r.Dst.Mask.Size()
		out.dst = netip.PrefixFrom(a, ones)
	}
	if via, ok := netip.AddrFromSlice(r.Gw); ok {
		out.via = via.Unmap()
	}
	return out
}

func (linuxRoutes) netlink(r route) *netlink.Route {
	return &netlink.Route{
		Dst:      &net.IPNet{IP: r.dst.Addr().AsSlice(), Mask: net.CIDRMask(r.dst.Bits(), r.dst.Addr().BitLen())},
		Gw:       r.via.AsSlice(),
		Table:    unix.RT_TABLE_MAIN,
		Protocol: nft.Protocol,
	}
}

func (l linuxRoutes) add(_ context.Context, r route) error {
	err := netlink.RouteAdd(l.netlink(r))
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH): // fib_check_nh_v4_gw, net/ipv4/fib_semantics.c
		return notNeighbour(r, err)
	}
	return fmt.Errorf("add the route to FAKE %v: %w", r, err)
}

func (l linuxRoutes) remove(_ context.Context, r route) error {
	if err := netlink.RouteDel(l.netlink(r)); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("delete the route to FAKE %v: %w", r, err)
	}
	return nil
}
