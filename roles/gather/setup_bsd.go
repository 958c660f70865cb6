//go:build openbsd || freebsd

package gather

import (
	"context"
	"net"
	"net/netip"
	"runtime"

	"pfdivert/pfconf/program"
)

// LookAround surveys this host. Nothing is changed.
func LookAround(ctx context.Context) (*Survey, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	own := func(a netip.Addr) bool {
		for _, x := range addrs {
			if p, err := netip.ParsePrefix(x.String()); err == nil && p.Addr().Unmap() == a {
				return true
			}
		}
		return a.IsLoopback()
	}
	if runtime.GOOS == "freebsd" {
		return surveyFreeBSD(ctx, program.Exec, own), nil
	}
	return surveyPF(ctx, program.Exec, own), nil
}
