//go:build !openbsd

package endpoint

import (
	"fmt"
	"net/netip"
	"runtime"
)

func askArrival(int, int) error {
	return fmt.Errorf("the interface of a datagram: %w (%s)", ErrUnsupported, runtime.GOOS)
}

// arrival is not called: no one has asked.
func arrival([]byte, int) (netip.Addr, error) { return netip.Addr{}, ErrUnsupported }
