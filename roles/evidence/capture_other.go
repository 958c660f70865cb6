//go:build !linux && !openbsd && !freebsd

package evidence

import (
	"errors"
	"pfdivert/matrix/evidence"
	"runtime"
	"time"
)

// capture records an interface.
type capture struct{ recorder }

func openCapture(string, Filter, bool) (*capture, error) {
	return nil, errors.New("not known how to capture on " + runtime.GOOS)
}

func (c *capture) look(a evidence.About, began time.Time) ([]evidence.Packet, error) {
	return c.of(a, began)
}

func (c *capture) close() error { return nil }
