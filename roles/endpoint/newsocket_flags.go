//go:build linux || openbsd || freebsd

package endpoint

import "golang.org/x/sys/unix"

// newSocket makes a non-blocking socket that programs started later do not
// inherit.
func newSocket(family, typ, proto int) (int, error) {
	return unix.Socket(family, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
}
