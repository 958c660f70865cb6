//go:build !linux

package nft

import (
	"context"
	"errors"
	"runtime"

	"pfdivert/pfconf"
	"pfdivert/pfconf/need"
)

var errNotLinux = errors.New("nftables is Linux's packet filter; this is " + runtime.GOOS)

// Firewall is a pfconf.Firewall on Linux. Elsewhere there is none.
type Firewall struct{ pfconf.Firewall }

// Open fails: only Linux has nftables.
func Open(context.Context, Config) (*Firewall, error) { return nil, errNotLinux }

// Ask fails: only Linux has nftables.
func Ask(context.Context, Config, ...need.Name) (map[need.Name]ProbeResult, error) {
	return nil, errNotLinux
}

// Undo fails: only Linux has nftables.
func Undo(context.Context, pfconf.Undo) error { return errNotLinux }

// Natlook fails: only Linux has conntrack.
func Natlook(pfconf.NATQuery) (pfconf.NATAnswer, error) { return pfconf.NATAnswer{}, errNotLinux }

// Probe answers No.
func (*Firewall) Probe(need.Name) ProbeResult { return ProbeResult{No, errNotLinux} }
