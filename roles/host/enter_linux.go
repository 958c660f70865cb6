package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"pfdivert/roles/lab/namespace"

	"golang.org/x/sys/unix"
)

// enter opens REMOTE's pipes, makes a network namespace and executes this
// program anew in it, with the same arguments but for the settings. A process
// has one namespace for all its threads if it had it before it had the threads:
// execve(2) leaves only the calling one, with what it has. It returns on error.
func enter(s labSettings) error {
	from := *s.Enter
	s.Enter = nil
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for i, flags := range []int{unix.O_RDONLY, unix.O_WRONLY, unix.O_WRONLY} {
		path := fmt.Sprintf("/proc/%d/fd/%d", from.PID, from.FDs[i])
		fd, err := unix.Open(path, flags, 0) // stays open in the new program
		if err != nil {
			return fmt.Errorf("open REMOTE's pipe %s: %w", path, err)
		}
		s.Pipes[i] = fd
	}
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if len(os.Args) < 2 {
		return errors.New("no settings of a lab among the arguments")
	}
	args := append(os.Args[:len(os.Args)-1:len(os.Args)-1], string(b))
	if err := s.pin(s.LocalCPU); err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return namespace.Explain(os.NewSyscallError("unshare", err))
	}
	// sudo, which is the parent, undid this when it became root.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("die with the parent: %w", err)
	}
	return fmt.Errorf("execute anew: %w", syscall.Exec("/proc/self/exe", args, os.Environ()))
}
