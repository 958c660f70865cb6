//go:build !linux && !openbsd && !freebsd && !darwin

package evidence

import (
	"context"
	"errors"
	"runtime"
)

const countersTakeLong = false

var errSystem = errors.New("not known how to ask on " + runtime.GOOS)

func readCounters(context.Context, Options) (counters, error) { return nil, errSystem }

func readSockets(context.Context, Options, string) ([]Socket, error) { return nil, errSystem }

func (a About) tables() []string { return []string{protoRaw} }

func (h *Host) answers(context.Context, About) ([]Answer, []error) { return nil, []error{errSystem} }

func readChains(Options) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return "", errSystem }
}
