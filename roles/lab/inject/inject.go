// Package inject breaks a host of a lab on purpose, in ways in which hosts of
// people are broken, so that a test sees what this program says about them. What it
// does to a host that ends with the lab is never undone; Undo undoes the rest.
package inject

import (
	"errors"
	"net/netip"

	"pfdivert/pfconf"
	"pfdivert/pfconf/program"
)

// ErrLacks says that the kernel lacks what a step needs, so that a host of its cannot be broken so.
var ErrLacks = errors.New("this kernel cannot be broken so")

// BrokenHost is the host that is broken.
type BrokenHost struct {
	// Remote: it is REMOTE.
	Remote bool
	// Interface is the one towards the other host.
	Interface string
	// Paths are the hosts' addresses, by family.
	Paths []AddressPair
	// Fakes are the prefixes of FAKE.
	Fakes []netip.Prefix
	// Run runs the system's programs, where the BSDs are broken by these.
	Run program.Runner
	// Journal records what outlives the lab; nil for a host that ends with it.
	Journal pfconf.Journal
}

// AddressPair has the hosts' addresses in one family, as this host sees it.
type AddressPair struct{ Here, There netip.Addr }

// fake returns the family's prefix of FAKE.
func (h BrokenHost) fake(f pfconf.Family) netip.Prefix {
	for _, p := range h.Fakes {
		if pfconf.FamilyOf(p.Addr()) == f {
			return p
		}
	}
	return netip.Prefix{}
}
