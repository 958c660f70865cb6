//go:build !linux && !openbsd && !freebsd

package agent

import (
	"context"
	"errors"
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
