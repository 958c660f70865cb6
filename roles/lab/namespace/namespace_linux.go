package namespace

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Start starts cmd in a new network namespace. A user other than root becomes
// root of a user namespace, which owns it. cmd must not have been used; what
// its SysProcAttr says otherwise stays. A refusal is a *ForbiddenError.
//
// Where /proc/sys is read-only, as in a container, cmd has mounts of its own too, for OwnSettings.
func Start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWNET
	if settingsReadOnly() {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWNS
	}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	err := cmd.Start()
	// clone(2) of a kernel that was built without them.
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOSYS) {
		return &ForbiddenError{Err: err, Cause: "the kernel was built without namespaces",
			Cure: "test on a kernel that has them, or name a second host with REMOTE_SSH"}
	}
	return Explain(err)
}

// Explain makes a refusal to create or to use a namespace a *ForbiddenError
// and leaves other errors alone. Those of creating one are in clone(2) and
// user_namespaces(7). EPERM and EACCES also come at the first use, where AppArmor
// lets a user namespace be created but gives it no capabilities.
func Explain(err error) error {
	var forbidden *ForbiddenError
	if errors.As(err, &forbidden) {
		return err
	}
	for _, refusal := range []syscall.Errno{syscall.EPERM, syscall.EACCES, syscall.ENOSPC, syscall.EUSERS} {
		if errors.Is(err, refusal) {
			cause, cure := blame(realRoot(), refusal, sysctl)
			return &ForbiddenError{Err: err, Cause: cause, Cure: cure}
		}
	}
	return err
}

// realRoot reports whether this process is root and not just of a user namespace.
func realRoot() bool {
	b, err := os.ReadFile("/proc/self/uid_map")
	// A kernel without user namespaces has no such file.
	return os.Geteuid() == 0 && (err != nil || slices.Equal(strings.Fields(string(b)),
		[]string{"0", "0", "4294967295"}))
}

// blame finds the setting that forbids namespaces. value reads a sysctl, "" if
// there is none of the name.
func blame(root bool, refusal syscall.Errno, value func(name string) string) (cause, cure string) {
	if root && refusal != syscall.ENOSPC {
		return "", "root lacks CAP_SYS_ADMIN here, as in a container: give the container that capability, or run outside"
	}
	orRoot := "run the tests as root (SUDO=sudo), or: sysctl -w "
	if root {
		orRoot = "sysctl -w "
	}
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
	if refusal == syscall.ENOSPC || refusal == syscall.EUSERS {
		return "the limit of namespaces is reached, here or in a user namespace outside",
			"raise user.max_user_namespaces and user.max_net_namespaces, or run the tests as root (SUDO=sudo)"
	}
	return "no sysctl forbids it, so a seccomp filter or security module does, as in a container",
		"run the tests as root (SUDO=sudo), or outside of the container"
}

// settings is where a process writes the settings of its network namespace.
const settings = "/proc/sys"

func settingsReadOnly() bool {
	var s unix.Statfs_t
	return unix.Statfs(settings, &s) == nil && s.Flags&unix.ST_RDONLY != 0
}

// OwnSettings makes /proc/sys writable to the calling process, which Start started, and to those
// that it starts. The mount is not that of the processes outside.
func OwnSettings() error {
	if !settingsReadOnly() {
		return nil
	}
	const flags = unix.MS_REMOUNT | unix.MS_BIND | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("", settings, "", flags, ""); err != nil {
		return &ReadOnlyError{err}
	}
	return nil
}

// ReadOnlyError says that a container keeps this process from the settings of its namespaces.
type ReadOnlyError struct{ Err error }

func (e *ReadOnlyError) Error() string {
	return fmt.Sprintf("%s is read-only in this container and stays so: %v", settings, e.Err)
}

// Hint is what to do, for a person.
func (e *ReadOnlyError) Hint() string {
	return "give the container's root CAP_SYS_ADMIN and no AppArmor profile, or leave /proc unmasked (procMount: Unmasked)"
}

func sysctl(name string) string {
	b, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// onMainThread reports whether the calling thread is the process's first.
func onMainThread() bool { return unix.Gettid() == unix.Getpid() }
