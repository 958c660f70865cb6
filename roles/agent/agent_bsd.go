//go:build !linux

package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf"
	"pfdivert/pfconf/pf"
	"pfdivert/pfconf/program"
	"pfdivert/roles/gather"
	"pfdivert/roles/socket"
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

// ownStates returns LOCAL's state table: pf's where it is switched on. Its states are in
// the way of a reuse target's second cell.
func ownStates(ctx context.Context, opt Options) (pfconf.StateTable, error) {
	if opt.Ephemeral {
		return pfconf.Stateless{}, nil
	}
	if _, err := os.Stat("/dev/pf"); errors.Is(err, fs.ErrNotExist) {
		return pfconf.Stateless{}, nil // pf is not loaded (FreeBSD), or not for this jail
	}
	c := pf.NewControl(program.ExecBy(socket.Start), opt.Domain)
	status, err := c.Status(ctx)
	switch {
	case err != nil:
		return nil, fmt.Errorf("asking whether LOCAL's own pf is switched on: %w", err)
	case !status.Enabled:
		return pfconf.Stateless{}, nil
	}
	return c, nil
}

// hostRoutes is this host's routing table.
var hostRoutes routes = routeTool{program.Exec}

// dropsOthers is for Linux, which has a reverse path filter outside of its packet filter.
func dropsOthers(string, pfconf.Family) (bool, error) { return false, nil }

// routing does nothing: no mark and no table of its own route diverted packets.
func routing(*gather.Options, pfconf.Engine) {}

// startUnprivileged has the process drop its privilege when it has been started: as another
// user it might not be allowed to read this program's file.
func startUnprivileged(cmd *exec.Cmd) error {
	cmd.Args = append(cmd.Args, "-unprivileged")
	return socket.Start(cmd)
}

// DropPrivilege makes this process one of the user nobody, for good.
func DropPrivilege() error { return socket.DropPrivilege() }
