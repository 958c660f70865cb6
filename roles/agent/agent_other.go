//go:build !linux && !openbsd && !freebsd

package agent

import (
	"context"
	"errors"
	"net/netip"
	"runtime"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// WarmUp does nothing: there is no driver.
func WarmUp() {}

// OpenFilter fails: there is no driver for this system's packet filter.
func OpenFilter(context.Context, *script.Setup, Options) (pfconf.Firewall, error) {
	return nil, errors.New("REMOTE can't be a " + runtime.GOOS + " host: there is no driver for its packet filter")
}

// OpenInspector fails: there is no driver for this system's packet filter.
func OpenInspector() (pfconf.Inspector, error) {
	return nil, errors.New("there is no driver for the packet filter of " + runtime.GOOS)
}

// system notes that there is no driver for this system's packet filter.
func (c *checks) system(context.Context, *script.Setup, bool) {
	c.no("packet filter", "choose a REMOTE with OpenBSD, FreeBSD or Linux", "there is no driver for %s's", runtime.GOOS)
}

// locals is for Linux, where a route can make an address the host's.
func locals([]netip.Prefix) ([]string, error) { return nil, nil }

func natlook(pfconf.NATQuery) (pfconf.NATAnswer, error) {
	return pfconf.NATAnswer{}, errors.New("there is no way to ask the packet filter of " + runtime.GOOS +
		" for a translated connection")
}

// ownFilter is for FreeBSD, whose ipfw drops by default what the raw IPv6 cells send.
func (*checks) ownFilter(context.Context, *script.Setup) {}

// EnterDomain returns an error unless n is 0: only OpenBSD has routing domains.
func EnterDomain(n int) (int, error) {
	if n <= 0 {
		return 0, nil
	}
	return 0, hinted{errors.New(runtime.GOOS + " has no routing domains"), "leave out -rdomain"}
}

// domain has nothing to look at.
func (c *checks) domain(context.Context, *script.Setup, int) {}
