//go:build openbsd || freebsd || darwin

package agent

import (
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// bootID is the time of the boot, in seconds since 1970.
func bootID() (string, error) {
	t, err := unix.SysctlTimeval("kern.boottime")
	if err != nil {
		return "", fmt.Errorf("sysctl kern.boottime: %w", err)
	}
	return strconv.FormatInt(int64(t.Sec), 10), nil
}

// sameBoot reports whether two boot times are of one boot. The kernel changes the time
// with the clock (tc_setclock in OpenBSD's kern_tc.c), which ntpd adjusts; two boots within the
// minute do not leave the first one's journal, for /var/run is emptied in between.
func sameBoot(a, b string) bool {
	x, errX := strconv.ParseInt(a, 10, 64)
	y, errY := strconv.ParseInt(b, 10, 64)
	return errX == nil && errY == nil && max(x-y, y-x) < 60
}

// netID is for Linux, which has network namespaces.
func netID() string { return "" }

func netSuffix() string { return "" }
