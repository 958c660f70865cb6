//go:build !freebsd

package socket

import (
	"fmt"
	"runtime"
)

// setFIB is FreeBSD's.
func setFIB(int, int) error { return fmt.Errorf("%w (%s)", ErrUnsupported, runtime.GOOS) }
