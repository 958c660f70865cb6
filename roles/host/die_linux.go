package host

import "syscall"

// dieWithParent has a child get a signal when the thread that started it ends, even
// by SIGKILL. It is a belt: an agent ends by itself when its input does.
func dieWithParent(signal syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: signal}
}
