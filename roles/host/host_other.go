//go:build !linux

package host

import (
	"context"
	"errors"
	"os"
	"runtime"

	"pfdivert/roles/lab"
	"pfdivert/roles/lab/namespace"
)

// RemoteAgent is REMOTE's agent in a lab, which only Linux has.
type RemoteAgent struct{ Lab *lab.Lab }

var errNoLab = &namespace.ForbiddenError{
	Err:  errors.New("no network namespaces on " + runtime.GOOS),
	Cure: "name a second host to test with REMOTE_SSH, or run the lab on Linux",
}

// Lab fails: only Linux has network namespaces.
func Lab(context.Context, LabOptions) (local, remote *Process, err error) {
	return nil, nil, errNoLab
}

// LabOn fails, see Lab.
func LabOn(LabOptions, [3]*os.File, [3]*os.File) error { return errNoLab }

// StartRemoteAgent fails, see Lab.
func StartRemoteAgent(context.Context, string, []string) (*RemoteAgent, error) {
	return nil, errNoLab
}

// Close does nothing.
func (*RemoteAgent) Close(context.Context) error { return nil }
