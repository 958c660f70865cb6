//go:build !linux

package namespace

import (
	"errors"
	"os/exec"
	"runtime"
)

// Start fails: only Linux has network namespaces.
func Start(*exec.Cmd) error {
	return &ForbiddenError{
		Err:  errors.New("no network namespaces on " + runtime.GOOS),
		Cure: "name a second host to test with REMOTE_SSH, or run the lab on Linux",
	}
}

// onMainThread is false: threads have nothing here that others lack.
func onMainThread() bool { return false }
