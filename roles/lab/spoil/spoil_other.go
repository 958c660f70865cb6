//go:build !linux

package spoil

import (
	"errors"
	"runtime"
)

// Do fails: only Linux has labs.
func (h Host) Do(Step) error { return errors.New("no host can be broken on " + runtime.GOOS) }
