//go:build !openbsd

package agent

import (
	"context"
	"errors"
	"pfdivert/matrix/script"
	"runtime"
)

// EnterDomain fails for all but 0: only OpenBSD has others.
func EnterDomain(n int) (int, error) {
	if n <= 0 {
		return 0, nil
	}
	return 0, hinted{errors.New(runtime.GOOS + " has no routing domains"), "leave out -rdomain"}
}

// domain has nothing to look at.
func (c *checks) domain(context.Context, *script.Setup, int) {}
