//go:build !linux && !openbsd && !freebsd

package evidence

import (
	"context"
	"errors"
	"pfdivert/matrix/evidence"
	"runtime"
)

const (
	countersTakeLong = false
	tableTries       = 1
)

var errSystem = errors.New("not known how to ask on " + runtime.GOOS)

func readCounters(context.Context, Options) (counters, error) { return nil, errSystem }

func readSockets(context.Context, Options, string) ([]evidence.Socket, error) { return nil, errSystem }

func tables(a evidence.About) []string { return []string{evidence.ProtoRaw} }

func (h *Host) answers(context.Context, evidence.About) ([]evidence.Answer, []error) {
	return nil, []error{errSystem}
}

func readFilters(Options) func(context.Context) (asking, error) {
	return func(context.Context) (asking, error) { return asking{}, errSystem }
}
