package endpoint

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// withoutRight does something on a thread that lacks the capabilities by which a socket may be made
// transparent (net/ipv4/ip_sockglue.c), for as long as it takes.
func withoutRight(do func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var has [2]unix.CapUserData
	if err := unix.Capget(&header, &has[0]); err != nil {
		return fmt.Errorf("capget: %w", err)
	}
	less := has
	less[0].Effective &^= 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_NET_RAW
	if err := unix.Capset(&header, &less[0]); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	err := do()
	if back := unix.Capset(&header, &has[0]); back != nil {
		return errors.Join(err, fmt.Errorf("capset back: %w", back))
	}
	return err
}
