//go:build !linux && !openbsd && !freebsd

package agent

import (
	"errors"
	"runtime"

	"pfdivert/pfconf"
)

// OpenDesk fails: there is no driver for this system's packet filter.
func OpenDesk() (pfconf.Desk, error) {
	return nil, errors.New("there is no driver for the packet filter of " + runtime.GOOS)
}
