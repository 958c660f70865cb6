//go:build !linux && !freebsd

package endpoint

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// accept takes a connection, non-blocking and not inherited (x/sys has no
// accept4 for OpenBSD). The lock keeps a program from being started between the
// two calls; the listener is non-blocking, so it is not held long.
func accept(fd int) (int, unix.Sockaddr, error) {
	syscall.ForkLock.RLock()
	conn, sa, err := unix.Accept(fd)
	if err == nil {
		unix.CloseOnExec(conn)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return -1, nil, err
	}
	if err := unix.SetNonblock(conn, true); err != nil {
		_ = unix.Close(conn)
		return -1, nil, err
	}
	return conn, sa, nil
}
