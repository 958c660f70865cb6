//go:build linux || freebsd

package endpoint

import "golang.org/x/sys/unix"

// accept takes a connection, non-blocking and not inherited.
func accept(fd int) (int, unix.Sockaddr, error) {
	return unix.Accept4(fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
}
