//go:build !linux && !openbsd && !freebsd

package endpoint

import (
	"fmt"
	"runtime"
)

// unsupported is what the files for other systems answer.
func unsupported(what string) error {
	return fmt.Errorf("%s: %w (%s)", what, ErrUnsupported, runtime.GOOS)
}
