//go:build !linux && !openbsd && !freebsd

package endpoint

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// newSocket makes a non-blocking socket that programs started later do not
// inherit. The lock keeps a program from being started between the two calls.
func newSocket(family, typ, proto int) (int, error) {
	syscall.ForkLock.RLock()
	fd, err := unix.Socket(family, typ, proto)
	if err == nil {
		unix.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return -1, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
