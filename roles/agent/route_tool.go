package agent

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"pfdivert/pfconf"
	"pfdivert/pfconf/program"
)

// routeTool is the routing table of a BSD, by route(8).
//
// What is relied on (seen on OpenBSD 7.7 and FreeBSD 12.1): `route -n get` prints "name: value"
// lines, and no mask for a host on FreeBSD; a route that is not there is "not in table" ("has not
// been found" on FreeBSD) and an exit status other than 0; adding a second one to the same
// destination is "File exists" ("route already in table" on FreeBSD) and exit status 1; deleting
// one with another gateway is "not in table".
type routeTool struct{ run program.Runner }

// route runs route(8). absent tells that it did not find the route.
func (t routeTool) route(ctx context.Context, args ...string) (out string, absent bool, err error) {
	argv := append([]string{"route", "-n"}, args...)
	r, err := t.run(ctx, program.Command{Argv: argv})
	if err != nil {
		return "", false, fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
	}
	said := strings.TrimSpace(r.Stdout + r.Stderr)
	if r.Status == 0 && r.Stderr == "" {
		return r.Stdout, false, nil
	}
	if strings.Contains(said, "not in table") || strings.Contains(said, "has not been found") {
		return "", true, nil
	}
	err = fmt.Errorf("%s: %s (exit status %d)", strings.Join(argv, " "), strings.ReplaceAll(said, "\n", "; "), r.Status)
	if strings.Contains(said, "must be root") || strings.Contains(said, "not permitted") {
		err = hinted{err, "route(8) needs root: set SUDO to sudo or doas"}
	}
	return "", false, err
}

// familyFlag is route's flag for the family of an address.
func familyFlag(a netip.Addr) string { return "-" + pfconf.FamilyOf(a).String() }

// args name a destination: a prefix of one address is a host's.
func (r route) args() []string {
	if r.dst.IsSingleIP() {
		return []string{familyFlag(r.via), "-host", r.dst.Addr().String(), r.via.String()}
	}
	return []string{familyFlag(r.via), "-net", r.dst.String(), r.via.String()}
}

// taken asks for the ways of the prefix's first and last address.
func (t routeTool) taken(ctx context.Context, dst netip.Prefix) ([]route, error) {
	var found []route
	ends := []netip.Addr{dst.Masked().Addr(), last(dst)}
	for _, a := range slices.Compact(ends) {
		out, absent, err := t.route(ctx, "get", familyFlag(a), a.String())
		if err != nil {
			return nil, err
		}
		if absent {
			found = append(found, route{})
			continue
		}
		r, err := parseRoute(out, a)
		if err != nil {
			return nil, fmt.Errorf("route -n get %v: %w", a, err)
		}
		found = append(found, r)
	}
	return found, nil
}

func (t routeTool) add(ctx context.Context, r route) error {
	_, absent, err := t.route(ctx, append([]string{"add"}, r.args()...)...)
	if absent {
		err = fmt.Errorf("route add %v: not in table", r)
	}
	if err != nil && strings.Contains(err.Error(), "unreachable") {
		return notNeighbour(r, err)
	}
	return err
}

func (t routeTool) remove(ctx context.Context, r route) error {
	_, _, err := t.route(ctx, append([]string{"delete"}, r.args()...)...)
	return err
}

// parseRoute reads what `route -n get` prints for an address.
func parseRoute(out string, like netip.Addr) (r route, err error) {
	values := map[string]string{}
	for line := range strings.Lines(out) {
		if name, value, ok := strings.Cut(line, ": "); ok {
			values[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
	}
	address := func(s string) (netip.Addr, error) {
		if s == "default" {
			return pfconf.FamilyOf(like).Unspecified(), nil
		}
		return netip.ParseAddr(s)
	}
	dst, err := address(values["destination"])
	if err != nil {
		return r, fmt.Errorf("destination %q not understood", values["destination"])
	}
	bits := dst.BitLen()
	if mask, ok := values["mask"]; ok {
		m, err := address(mask)
		if err != nil {
			return r, fmt.Errorf("mask %q not understood", mask)
		}
		bits = 0
		for _, b := range m.AsSlice() {
			for ; b&0x80 != 0; b <<= 1 {
				bits++
			}
		}
	} else if values["destination"] == "default" {
		bits = 0
	}
	r.dst = netip.PrefixFrom(dst.WithZone(""), bits)
	// A route without a router has the interface's link address there, or nothing.
	if via, err := netip.ParseAddr(values["gateway"]); err == nil {
		r.via = via
	}
	return r, nil
}
