package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
	"pfdivert/pfconf/program"
)

// route is an entry of the host's routing table.
type route struct {
	dst netip.Prefix
	via netip.Addr // not valid: no router is on the way
}

func (r route) String() string {
	if !r.via.IsValid() {
		return fmt.Sprintf("%v without a router", r.dst)
	}
	return fmt.Sprintf("%v via %v", r.dst, r.via)
}

// routes is the host's routing table.
type routes interface {
	// taken returns the routes that packets to addresses of the prefix take. It gives the
	// zero route for addresses without one.
	taken(ctx context.Context, dst netip.Prefix) ([]route, error)
	add(ctx context.Context, r route) error
	// remove removes a route that add added. It is no error when there is none.
	remove(ctx context.Context, r route) error
}

// undoAddedRoute is the step that removes a route via REMOTE. Its arguments are the
// prefix and REMOTE's address.
const undoAddedRoute = "route/to"

// An addedRoute is LOCAL's route to FAKE, or to a third host, via REMOTE, which this program added.
// Runs at the same time share it: each holds a shared lock on a file about it, and the last one
// removes it. The file exists as long as the route is this program's.
type addedRoute struct {
	undo pfconf.Undo
	file *os.File
}

// plan finds out whether the route has to be added.
func (r route) plan(ctx context.Context, host routes) (missing bool, err error) {
	there, err := host.taken(ctx, r.dst)
	if err != nil {
		return false, err
	}
	for _, t := range there {
		if t.via == r.via {
			continue
		}
		if t.dst.IsValid() && r.dst.Bits() <= t.dst.Bits() && r.dst.Contains(t.dst.Addr()) {
			return false, hinted{fmt.Errorf("this host has a route to %v; it must be via REMOTE %v", t, r.via),
				"remove that route, or choose another address"}
		}
		missing = true // what goes nowhere, or to a wider network's router, will go to REMOTE
	}
	return missing, nil
}

// routeFile names the file about a route.
func (d stateDir) routeFile(r route) string {
	name := strings.NewReplacer("/", "_", ":", ".").Replace(r.dst.String() + "_via_" + r.via.String())
	return d.file("route" + netSuffix() + "-" + name + lockSuffix)
}

// addRoute sees to it that packets to the route's destination go to REMOTE. It gives nil when the
// host has such a route of its own. The directory's turn must be held.
func (d stateDir) addRoute(ctx context.Context, host routes, r route, journal pfconf.Journal) (*addedRoute, error) {
	path := d.routeFile(r)
	_, err := os.Lstat(path)
	shared := err == nil // it is another run's, at work too
	missing, err := r.plan(ctx, host)
	switch {
	case err != nil:
		return nil, fmt.Errorf("route to %v: %w", r.dst, err)
	case !missing && !shared:
		return nil, nil
	}
	f := &addedRoute{undo: pfconf.Undo{Do: undoAddedRoute, Args: []string{r.dst.String(), r.via.String()}}}
	// The other run's journal may be undone before this one's ends, or never.
	if err := journal(f.undo); err != nil {
		return nil, fmt.Errorf("write the journal: %w", err)
	}
	if f.file, err = lockFile(path, unix.LOCK_SH); err != nil {
		return nil, err
	}
	if missing {
		if err := host.add(ctx, r); err != nil {
			return f, err
		}
		// Some other rule of the host's may have the last word (ip rule, a metric).
		switch still, err := r.plan(ctx, host); {
		case err != nil:
			return f, err
		case still:
			return f, fmt.Errorf("route to %v: it was added and packets still do not go to REMOTE %v", r.dst, r.via)
		}
	}
	return f, nil
}

// undoRoute removes a route unless another run needs it still.
func (d stateDir) undoRoute(ctx context.Context, u pfconf.Undo) (string, error) {
	r, err := routeOf(u)
	if err != nil {
		return "", err
	}
	f, err := lockFile(d.routeFile(r), unix.LOCK_EX)
	if errors.Is(err, errHeld) {
		return fmt.Sprintf("leave the route to %v: another run needs it", r), nil
	}
	if err == nil {
		defer f.Close()
		err = hostRoutes.remove(ctx, r)
	}
	if err == nil {
		err = os.Remove(f.Name())
	}
	return Describe(u), err
}

func routeOf(u pfconf.Undo) (r route, err error) {
	if u.Do != undoAddedRoute || len(u.Args) != 2 {
		return r, fmt.Errorf("undo %s %q: not a step of this program", u.Do, u.Args)
	}
	if r.dst, err = netip.ParsePrefix(u.Args[0]); err == nil {
		r.via, err = netip.ParseAddr(u.Args[1])
	}
	if err != nil {
		return r, fmt.Errorf("undo %s: %w", u.Do, err)
	}
	return r, nil
}

// close lets go of the route, for undoRoute.
func (f *addedRoute) close() error {
	if f.file == nil {
		return nil
	}
	return f.file.Close()
}

// routesTo returns the routes that LOCAL needs.
func routesTo(s *script.Setup) []route {
	var rs []route
	all := slices.Clone(s.Fakes)
	for _, beyond := range s.Beyond {
		all = append(all, netip.PrefixFrom(beyond, beyond.BitLen()))
	}
	for _, dst := range all {
		for _, p := range s.Paths {
			if pfconf.FamilyOf(p.There) == pfconf.FamilyOf(dst.Addr()) {
				rs = append(rs, route{dst.Masked(), p.There})
			}
		}
	}
	return rs
}

// last is the last address of a prefix.
func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// notNeighbour explains why there can't be a route via REMOTE.
func notNeighbour(r route, err error) error {
	return hinted{fmt.Errorf("add the route to %v: %w", r, err),
		fmt.Sprintf("LOCAL and REMOTE must be in one network: no router may be on the way to %v", r.via)}
}

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

// routeValues are what `route -n get` prints, by their names.
func routeValues(out string) map[string]string {
	values := map[string]string{}
	for line := range strings.Lines(out) {
		if name, value, ok := strings.Cut(line, ": "); ok {
			values[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
	}
	return values
}

// parseRoute reads what `route -n get` prints for an address.
func parseRoute(out string, like netip.Addr) (r route, err error) {
	values := routeValues(out)
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
