//go:build !linux

package evidence

import (
	"context"
	"errors"
	"runtime"
)

var errSystem = errors.New("not known how to ask on " + runtime.GOOS)

func readCounters(context.Context) (counters, error) { return nil, errSystem }

func readSockets(string) ([]Socket, error) { return nil, errSystem }

func (h *Host) answers(context.Context, About) ([]Answer, []error) { return nil, []error{errSystem} }

func readChains(string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return "", errSystem }
}
