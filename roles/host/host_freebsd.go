package host

import "syscall"

// dieWithParent has a child get a signal when this process ends (procctl(2),
// PROC_PDEATHSIG_CTL). It is a belt: an agent ends by itself when its input does.
func dieWithParent(signal syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: signal}
}
