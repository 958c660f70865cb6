//go:build openbsd || freebsd || darwin

package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"pfdivert/pfconf"
	"pfdivert/pfconf/pf"
	"pfdivert/pfconf/program"
	"pfdivert/roles/endpoint"
)

// ownStates returns LOCAL's state table: pf's where it is switched on. Its states are in
// the way of a reuse target's second cell.
func ownStates(ctx context.Context, opt Options) (pfconf.StateTable, error) {
	if opt.Ephemeral {
		return pfconf.Stateless{}, nil
	}
	if _, err := os.Stat("/dev/pf"); errors.Is(err, fs.ErrNotExist) {
		return pfconf.Stateless{}, nil // pf is not loaded (FreeBSD), or not for this jail
	}
	c := pf.NewControl(program.ExecBy(endpoint.Start), opt.Domain)
	status, err := c.Status(ctx)
	switch {
	case err != nil:
		return nil, fmt.Errorf("asking whether LOCAL's own pf is switched on: %w", err)
	case !status.Enabled:
		return pfconf.Stateless{}, nil
	}
	return c, nil
}
