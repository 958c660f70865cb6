package twin

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ready makes the calling thread's namespace take notice of the carrier of devices: their queues
// begin to work, and a bridge's ports forward. Otherwise a kernel thread does so some time later,
// at most a second, as a device's two ends have one index here (linkwatch_urgent_event,
// net/core/link_watch.c), and packets are lost until then.
func ready(names []string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(fd)
	for _, name := range names {
		// ethtool_op_get_link calls linkwatch_sync_dev
		value := struct{ command, data uint32 }{command: unix.ETHTOOL_GLINK}
		request := struct {
			name [unix.IFNAMSIZ]byte
			data unsafe.Pointer
			_    [16]byte // struct ifreq is longer than this member of its union
		}{data: unsafe.Pointer(&value)}
		copy(request.name[:unix.IFNAMSIZ-1], name)
		_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
		// A device may have no carrier to ask for, or be among what Replay could not make.
		if e != 0 && !errors.Is(e, unix.EOPNOTSUPP) && !errors.Is(e, unix.ENODEV) {
			return fmt.Errorf("carrier of %s: %w", name, e)
		}
	}
	return nil
}
