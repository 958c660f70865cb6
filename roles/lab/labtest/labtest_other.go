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

// becomeNobody is never called: no test gets this far here.
func becomeNobody(*exec.Cmd) {}
