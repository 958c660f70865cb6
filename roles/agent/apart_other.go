//go:build !linux

package agent

import (
	"fmt"
	"os/exec"
	"syscall"
)

// nobody is OpenBSD's user and group id nobody; elsewhere it is nobody's as well.
const nobody = 32767

// withoutPrivilege has the process drop its privilege when it has been started: as another
// user it might not be allowed to read this program's file.
func withoutPrivilege(cmd *exec.Cmd) { cmd.Args = append(cmd.Args, "-unprivileged") }

// DropPrivilege makes this process one of the user nobody, for good.
func DropPrivilege() error {
	if err := syscall.Setgroups([]int{nobody}); err != nil {
		return fmt.Errorf("setgroups: %w", err)
	}
	if err := syscall.Setgid(nobody); err != nil {
		return fmt.Errorf("setgid: %w", err)
	}
	if err := syscall.Setuid(nobody); err != nil {
		return fmt.Errorf("setuid: %w", err)
	}
	return nil
}
