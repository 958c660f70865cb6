//go:build openbsd || freebsd

package pf

import (
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf"
)

// Natlook asks pf for the other side of a translated connection. It takes read
// access to /dev/pf, which only root has. That there is none is pfconf.ErrNoState.
func Natlook(q pfconf.NATQuery) (answer pfconf.NATAnswer, err error) {
	dev, err := os.Open("/dev/pf")
	if err != nil {
		return answer, err
	}
	defer func() { err = errors.Join(err, dev.Close()) }()
	return systemNatlook.natlook(q, ioctlOf(dev))
}

// ioctlOf asks pf by its device.
func ioctlOf(dev *os.File) func(request uint32, b []byte) error {
	return func(request uint32, b []byte) error {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, dev.Fd(), uintptr(request),
			uintptr(unsafe.Pointer(&b[0]))); errno != 0 {
			return errno
		}
		return nil
	}
}
