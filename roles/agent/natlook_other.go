//go:build !linux && !openbsd && !freebsd

package agent

import (
	"errors"
	"runtime"

	"pfdivert/pfconf"
)

func natlook(pfconf.NATQuery) (pfconf.NATAnswer, error) {
	return pfconf.NATAnswer{}, errors.New("there is no way to ask the packet filter of " + runtime.GOOS + " for a translated connection")
}
