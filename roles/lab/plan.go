// Package lab builds the two hosts of a run on one Linux machine: LOCAL and
// REMOTE, each a network namespace, joined by a veth pair. The kernel under
// test is the real one; only the cable is made up.
package lab

import (
	"errors"
	"fmt"
	"net/netip"

	"pfdivert/pfconf"
)

// HostName is one of the two hosts of the lab.
type HostName string

// The hosts.
const (
	Local  HostName = "local"  // where the tests are started
	Remote HostName = "remote" // whose packet filter is tested
)

// The interfaces that join the hosts.
const (
	LocalInterface  = "local0"
	RemoteInterface = "remote0"
)

// Interface is the host's end of the cable.
func (h HostName) Interface() string {
	if h == Remote {
		return RemoteInterface
	}
	return LocalInterface
}

// AddressPlan is who has which address in one family.
type AddressPlan struct {
	// Local and Remote are the addresses on the interfaces, with the prefix
	// of the cable.
	Local, Remote netip.Prefix
	// Locals are further addresses of LOCAL, one for every cell; invalid in a
	// single lab.
	Locals netip.Prefix
	// Fakes are the addresses that LOCAL routes via REMOTE and no one has.
	Fakes netip.Prefix
}

// Many cells run at once, and a raw socket hears every packet for its address.
// So every cell has a LOCAL and a FAKE of its own, out of prefixes that are
// routed as a whole: the number of cells costs nothing when the lab is built.
var plans = map[pfconf.Family]AddressPlan{
	pfconf.Inet: {
		Local:  netip.MustParsePrefix("10.188.1.1/24"),
		Remote: netip.MustParsePrefix("10.188.1.2/24"),
		Locals: netip.MustParsePrefix("10.192.0.0/12"),
		Fakes:  netip.MustParsePrefix("10.208.0.0/12"),
	},
	pfconf.Inet6: {
		Local:  netip.MustParsePrefix("fd00:188:1::1/64"),
		Remote: netip.MustParsePrefix("fd00:188:1::2/64"),
		Locals: netip.MustParsePrefix("fd00:188:3::/64"),
		Fakes:  netip.MustParsePrefix("fd00:188:2::/64"),
	},
}

var singleFakes = map[pfconf.Family]netip.Prefix{
	pfconf.Inet:  netip.MustParsePrefix("10.188.2.9/32"),
	pfconf.Inet6: netip.MustParsePrefix("fd00:188:2::9/128"),
}

// PlanOf returns the addresses of a family.
func (c Config) PlanOf(f pfconf.Family) AddressPlan {
	p := plans[f]
	if c.Single {
		p.Locals, p.Fakes = netip.Prefix{}, singleFakes[f]
	}
	return p
}

// Pair returns the addresses of the cell number n, counted from 1. In a single
// lab every cell has the same pair.
func (p AddressPlan) Pair(n int) (local, fake netip.Addr, err error) {
	if !p.Locals.IsValid() {
		return p.Local.Addr(), p.Fakes.Addr(), nil
	}
	local, errLocal := nth(p.Locals, n)
	fake, errFake := nth(p.Fakes, n)
	return local, fake, errors.Join(errLocal, errFake)
}

// nth returns the address n places after the first of the prefix.
func nth(p netip.Prefix, n int) (netip.Addr, error) {
	b := p.Masked().Addr().AsSlice()
	carry := n
	for i := len(b) - 1; carry > 0 && i >= 0; i-- {
		carry += int(b[i])
		b[i], carry = byte(carry), carry>>8
	}
	a, _ := netip.AddrFromSlice(b)
	if n < 1 || carry != 0 || !p.Contains(a) {
		return netip.Addr{}, fmt.Errorf("no address number %d in %v", n, p)
	}
	return a, nil
}

// Config says which lab to build.
type Config struct {
	// Single gives each family one LOCAL, the address on the interface, and
	// one FAKE, as OpenBSD's suite has them, in place of prefixes.
	Single bool `json:"single,omitempty"`
}
