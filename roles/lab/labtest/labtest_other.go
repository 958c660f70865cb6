//go:build !linux

package labtest

import (
	"errors"
	"os/exec"
	"runtime"
)

// Command fails: only Linux has network namespaces.
func Command(string, ...string) (*exec.Cmd, error) {
	return nil, errors.New("no network namespaces on " + runtime.GOOS)
}

// usersForbidden says so as well.
func usersForbidden() error { return errors.New("no user namespaces on " + runtime.GOOS) }

// becomeNobody is never called: no test gets this far here.
func becomeNobody(*exec.Cmd) {}
