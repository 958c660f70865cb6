package agent

import (
	"os/exec"
	"syscall"
)

// withoutPrivilege has the process start in a user namespace of its own, which gives no
// privilege in the network namespace that it stays in (user_namespaces(7)). Another user
// id would not do: in a lab that an unprivileged user started there is only one.
func withoutPrivilege(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER}
}

// DropPrivilege has nothing to drop: the process was started without.
func DropPrivilege() error { return nil }
