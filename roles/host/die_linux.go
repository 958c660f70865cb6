package host

import "syscall"

// dieWithParent has a child killed when the thread that started it ends, even
// by SIGKILL. It is a belt: an agent ends by itself when its input does.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
