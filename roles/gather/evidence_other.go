//go:build !linux && !openbsd && !freebsd

package gather

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"pfdivert/matrix/evidence"
)

const (
	countersTakeLong = false
	tableTries       = 1
)

var errSystem = errors.New("not known how to ask on " + runtime.GOOS)

func readCounters(context.Context, Options) (counters, error) { return nil, errSystem }

func readSockets(context.Context, Options, string) ([]evidence.SocketEntry, error) {
	return nil, errSystem
}

func tables(a evidence.About) []string { return []string{evidence.ProtoRaw} }

func (h *Host) answers(context.Context, evidence.About) ([]evidence.Answer, []error) {
	return nil, []error{errSystem}
}

func readFilters(Options) func(context.Context) (asking, error) {
	return func(context.Context) (asking, error) { return asking{}, errSystem }
}

// capture records an interface.
type capture struct{ recorder }

func openCapture(string, Filter, bool) (*capture, error) {
	return nil, errors.New("not known how to capture on " + runtime.GOOS)
}

func (c *capture) look(a evidence.About, began time.Time) ([]evidence.Packet, error) {
	return c.of(a, began)
}

func (c *capture) close() error { return nil }

// LookAround is for other systems.
func LookAround(context.Context) (*Survey, error) {
	return nil, fmt.Errorf("how %s diverts is not known here: only hosts of Linux, OpenBSD and FreeBSD can be looked at", runtime.GOOS)
}
