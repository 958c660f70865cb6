package testbed

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"pfdivert/matrix"
	"pfdivert/matrix/script"
	"pfdivert/pfconf"
	"pfdivert/roles/terminal"
)

// addressNames are the variables with the addresses of each family, by the names
// of OpenBSD's suite.
var addressNames = map[pfconf.Family][3]string{
	pfconf.Inet:  {"LOCAL_ADDR", "REMOTE_ADDR", "FAKE_ADDR"},
	pfconf.Inet6: {"LOCAL_ADDR6", "REMOTE_ADDR6", "FAKE_ADDR6"},
}

// addressesFor reads the addresses of the families that the targets need.
func addressesFor(targets []matrix.Target, getenv func(string) string) (map[pfconf.Family]matrix.Addresses, error) {
	all := map[pfconf.Family]matrix.Addresses{}
	for _, t := range targets {
		if _, done := all[t.Family]; done {
			continue
		}
		a, err := addressesOf(t.Family, getenv)
		if err != nil {
			return nil, err
		}
		all[t.Family] = a
	}
	return all, nil
}

func addressesOf(f pfconf.Family, getenv func(string) string) (a matrix.Addresses, err error) {
	names := addressNames[f]
	var unset []string
	for _, n := range names {
		if getenv(n) == "" {
			unset = append(unset, n)
		}
	}
	if len(unset) > 0 {
		hint := "set all three of a family; docs/remote.md says which addresses they are"
		for other, names := range addressNames {
			if other != f && !slices.ContainsFunc(names[:], func(n string) bool { return getenv(n) == "" }) {
				hint = fmt.Sprintf("set %s, or run the targets of %v alone: pfdivert run '%[2]v-*'",
					strings.Join(unset, ", "), other)
			}
		}
		return a, terminal.WithHint(
			fmt.Errorf("%s: not set, and %v targets are to run", strings.Join(unset, ", "), f), hint)
	}
	wrong := func(name string, err error) error {
		return terminal.WithHint(fmt.Errorf("%s=%q: %w", name, getenv(name), err),
			"give a plain address; FAKE may be a prefix like 10.188.2.0/24 or fd00:188:2::/64")
	}
	if a.Local, err = netip.ParseAddr(getenv(names[0])); err != nil {
		return a, wrong(names[0], err)
	}
	if a.Remote, err = netip.ParseAddr(getenv(names[1])); err != nil {
		return a, wrong(names[1], err)
	}
	if a.Fakes, err = prefix(getenv(names[2])); err != nil {
		return a, wrong(names[2], err)
	}
	a.Locals = netip.PrefixFrom(a.Local, a.Local.BitLen())
	if pfconf.FamilyOf(a.Local) != f {
		return a, wrong(names[0], fmt.Errorf("this is no %v address", f))
	}
	if err := a.Validate(); err != nil {
		return a, terminal.WithHint(err, "see docs/remote.md for how the three addresses belong together")
	}
	return a, nil
}

// secondNetworks reads the addresses beyond REMOTE that the environment has for the families, which
// may be none.
func secondNetworks(families map[pfconf.Family]matrix.Addresses,
	getenv func(string) string) (map[pfconf.Family]matrix.Network, error) {
	all := map[pfconf.Family]matrix.Network{}
	for f, a := range families {
		n, err := secondNetwork(f, a, getenv)
		if err != nil {
			return nil, err
		}
		all[f] = n
	}
	return all, nil
}

func secondNetwork(f pfconf.Family, own matrix.Addresses, getenv func(string) string) (n matrix.Network, err error) {
	read := func(name, hint string) (netip.Addr, error) {
		text := getenv(name)
		if text == "" {
			return netip.Addr{}, nil
		}
		wrong := func(format string, a ...any) (netip.Addr, error) {
			err := fmt.Errorf("%s=%q: "+format, append([]any{name, text}, a...)...)
			return netip.Addr{}, terminal.WithHint(err, hint+", or unset it")
		}
		a, err := netip.ParseAddr(text)
		switch {
		case err != nil:
			return wrong("this is no plain address")
		case pfconf.FamilyOf(a) != f:
			return wrong("this is no %v address", f)
		case a.Zone() != "" || a.Is4In6() || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() ||
			a.IsLinkLocalUnicast():
			return wrong("no other host reaches it by its routes")
		}
		for i, taken := range []bool{a == own.Local, a == own.Remote, own.Fakes.Contains(a)} {
			if taken {
				return wrong("%s has this address", addressNames[f][i])
			}
		}
		return a, nil
	}
	if n.Gateway, err = read(script.GatewayVariable(f), script.GatewayHint(f)); err == nil {
		n.Mirror, err = read(script.MirrorVariable(f), script.MirrorHint(f))
	}
	if err == nil && n.Gateway.IsValid() && n.Gateway == n.Mirror {
		err = terminal.WithHint(
			fmt.Errorf("%s and %s are both %v", script.GatewayVariable(f), script.MirrorVariable(f), n.Mirror),
			"the first is LOCAL's, the second a third host's: docs/remote.md")
	}
	return n, err
}

// prefix reads an address or a prefix; its host bits do not matter.
func prefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, errors.New("neither an address nor a prefix")
	}
	return p.Masked(), nil
}

// strayAddresses refuses addresses that a lab would not use.
func strayAddresses(getenv func(string) string) error {
	for _, f := range pfconf.Families {
		names := addressNames[f]
		for _, n := range append(names[:], script.GatewayVariable(f), script.MirrorVariable(f)) {
			if getenv(n) != "" {
				return terminal.WithHint(fmt.Errorf("%s is set and REMOTE_SSH is not", n),
					"set REMOTE_SSH to test another host, or unset the addresses to test this machine in a lab")
			}
		}
	}
	return nil
}
