package roles

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"pfdivert/roles/terminal"
)

// limits returns an error when this process may open so few files, or its user have so few
// processes and threads, that Go's runtime would end with a stack trace.
func limits() error {
	const least = 64 // a target alone takes some 30 of each
	processes := "u"
	if runtime.GOOS == "openbsd" {
		processes = "p" // ksh(1)
	}
	for _, l := range []struct {
		resource   int
		text, flag string
	}{
		{unix.RLIMIT_NOFILE, "this process may open %d files", "n"},
		{unix.RLIMIT_NPROC, "this user may have %d processes", processes},
	} {
		var limit unix.Rlimit
		if err := unix.Getrlimit(l.resource, &limit); err != nil {
			return fmt.Errorf("getrlimit(2): %w", err)
		}
		may := uint64(limit.Cur)
		if may >= least || l.resource == unix.RLIMIT_NPROC && os.Geteuid() == 0 { // root may exceed it
			continue
		}
		return terminal.WithHint(fmt.Errorf(l.text+", and needs %d", may, least),
			fmt.Sprintf("in a new shell, or as root: ulimit -%s 1024", l.flag))
	}
	return nil
}
