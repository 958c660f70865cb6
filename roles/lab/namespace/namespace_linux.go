package namespace

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// Start starts cmd in a new network namespace. A user other than root becomes
// root of a user namespace, which owns it. cmd must not have been used; what
// its SysProcAttr says otherwise stays. A refusal is a *ForbiddenError.
func Start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWNET
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	return Explain(cmd.Start())
}

// Explain makes a refusal to create or to use a namespace a *ForbiddenError
// and leaves other errors alone. The errors are those of clone(2) and of
// user_namespaces(7); EACCES and EPERM come later, at the first use, where
// AppArmor lets a user namespace be created but takes its capabilities.
func Explain(err error) error {
	var forbidden *ForbiddenError
	if errors.As(err, &forbidden) {
		return err
	}
	for _, refusal := range []syscall.Errno{
		syscall.EPERM, syscall.EACCES, syscall.ENOSPC, syscall.EUSERS, syscall.EINVAL, syscall.ENOSYS,
	} {
		if errors.Is(err, refusal) {
			cause, cure := blame(os.Geteuid() == 0, refusal, sysctl)
			return &ForbiddenError{Err: err, Cause: cause, Cure: cure}
		}
	}
	return err
}

// blame finds the setting that forbids namespaces. value reads a sysctl, "" if
// there is none of the name.
func blame(root bool, refusal syscall.Errno, value func(name string) string) (cause, cure string) {
	if root {
		return "", "root lacks CAP_SYS_ADMIN here, as in a container: give the container that capability, or run outside"
	}
	const orRoot = "run the tests as root (SUDO=sudo), or: sysctl -w "
	for _, s := range []struct{ name, forbids, allows string }{
		{"kernel.unprivileged_userns_clone", "0", "1"},
		{"kernel.apparmor_restrict_unprivileged_userns", "1", "0"},
		{"user.max_user_namespaces", "0", "10000"},
		{"user.max_net_namespaces", "0", "10000"},
	} {
		if value(s.name) == s.forbids {
			return s.name + " is " + s.forbids, orRoot + s.name + "=" + s.allows
		}
	}
	switch refusal {
	case syscall.ENOSPC, syscall.EUSERS:
		return "the limit of namespaces is reached, here or in a user namespace outside",
			"raise user.max_user_namespaces and user.max_net_namespaces, or run the tests as root (SUDO=sudo)"
	case syscall.EINVAL, syscall.ENOSYS:
		return "the kernel was built without them", "run the tests as root (SUDO=sudo)"
	}
	return "no sysctl forbids it, so a seccomp filter or security module does, as in a container",
		"run the tests as root (SUDO=sudo), or outside of the container"
}

func sysctl(name string) string {
	b, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
