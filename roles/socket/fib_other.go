//go:build !freebsd && !openbsd

package socket

import (
	"fmt"
	"runtime"
)

// setFIB is that of the BSDs.
func setFIB(int, int) error { return fmt.Errorf("%w (%s)", ErrUnsupported, runtime.GOOS) }
