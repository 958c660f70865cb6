//go:build !linux

package endpoint

import (
	"fmt"
	"syscall"
)

// no one is OpenBSD's user and group id no one; elsewhere it is no one's as well.
const nobody = 32767

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
