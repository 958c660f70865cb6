//go:build !linux && !openbsd && !freebsd

package agent

import (
	"context"
	"net/netip"
	"pfdivert/matrix/script"
	"runtime"
)

// system notes that there is no driver for this system's packet filter.
func (c *checks) system(context.Context, *script.Setup, bool) {
	c.no("packet filter", "choose a REMOTE with OpenBSD, FreeBSD or Linux", "there is no driver for %s's", runtime.GOOS)
}

// locals is for Linux, where a route can make an address the host's.
func locals([]netip.Prefix) ([]string, error) { return nil, nil }
