package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf/nft"
	"pfdivert/pfconf/rtnetlink"
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
	err := rtnetlink.With(func(c *rtnetlink.Conn) error {
		ends := []netip.Addr{dst.Masked().Addr(), last(dst)}
		for _, a := range slices.Compact(ends) {
			r, err := c.RouteTo(a, rtnetlink.RouteQuery{Entry: true})
			switch {
			case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH):
				found = append(found, route{})
			case err != nil:
				return fmt.Errorf("ask for the way to %v: %w", a, err)
			default:
				found = append(found, route{dst: r.Dst, via: r.Via})
			}
		}
		family := uint8(unix.AF_INET)
		if dst.Addr().Is6() {
			family = unix.AF_INET6
		}
		list, err := c.Routes(family, unix.RT_TABLE_MAIN)
		if err != nil {
			return fmt.Errorf("list the main routing table: %w", err)
		}
		for _, r := range list {
			if r.Dst.Bits() > dst.Bits() && dst.Contains(r.Dst.Addr()) {
				found = append(found, route{dst: r.Dst, via: r.Via})
			}
		}
		return nil
	})
	return found, err
}

// own is the route as this program makes it.
func (linuxRoutes) own(r route) rtnetlink.Route {
	return rtnetlink.Route{Dst: r.dst, Via: r.via, Protocol: nft.Protocol}
}

func (l linuxRoutes) add(_ context.Context, r route) error {
	err := rtnetlink.With(func(c *rtnetlink.Conn) error { return c.AddRoute(l.own(r)) })
	switch {
	case err == nil:
		return nil
	// fib_check_nh_v4_gw, net/ipv4/fib_semantics.c
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH):
		return notNeighbour(r, err)
	}
	return fmt.Errorf("add the route to %v: %w", r, err)
}

func (l linuxRoutes) remove(_ context.Context, r route) error {
	err := rtnetlink.With(func(c *rtnetlink.Conn) error { return c.DeleteRoute(l.own(r)) })
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("delete the route to %v: %w", r, err)
	}
	return nil
}
