//go:build !openbsd

package pf

import (
	"fmt"
	"runtime"
)

// Skip is for OpenBSD.
func Skip(string, bool) error {
	return fmt.Errorf("the interfaces that pf does not see can't be changed on %s", runtime.GOOS)
}
