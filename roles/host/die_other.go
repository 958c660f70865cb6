//go:build !linux && !freebsd

package host

import "syscall"

// dieWithParent does nothing: this system cannot tie a child's life to its
// parent's. An agent ends by itself when its input does.
func dieWithParent(syscall.Signal) *syscall.SysProcAttr { return nil }
