package twin

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"syscall"

	"pfdivert/roles/lab/namespace"
)

// EnclosedEnv names the user namespace outside, in the environment of a process that Enclose
// started.
const EnclosedEnv = "PFDIVERT_ENCLOSED"

// Enclosed reports whether this process was started by Enclose, and is in a user namespace of its
// own. Only such a one may replay a snapshot, which someone else may have written.
func Enclosed() bool {
	outside := os.Getenv(EnclosedEnv)
	here, err := os.Readlink("/proc/self/ns/user")
	return err == nil && outside != "" && here != outside
}

// Enclose prepares this program's start with other arguments in a user namespace and a network
// namespace of its own, in which it is root and outside of which it has no privilege: neither over
// devices, rules and settings of the host nor, for an ordinary user, over anything else. The users
// of the namespace are all that this process has as root, else its own alone. The caller starts it;
// a refusal is explained by namespace.Explain.
func Enclose(ctx context.Context, args []string) (*exec.Cmd, error) {
	outside, err := os.Readlink("/proc/self/ns/user")
	if err != nil {
		return nil, fmt.Errorf("the kernel has no user namespaces: %w", err)
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), EnclosedEnv+"="+outside)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
	}
	if os.Geteuid() == 0 {
		for _, m := range []struct {
			file string
			to   *[]syscall.SysProcIDMap
		}{{"uid_map", &cmd.SysProcAttr.UidMappings}, {"gid_map", &cmd.SysProcAttr.GidMappings}} {
			if *m.to, err = sameIDs("/proc/self/" + m.file); err != nil {
				return nil, namespace.Explain(err)
			}
		}
		cmd.SysProcAttr.GidMappingsEnableSetgroups = true
	}
	return cmd, nil
}

// sameIDs maps each id of this process's user namespace to itself.
func sameIDs(file string) ([]syscall.SysProcIDMap, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var all []syscall.SysProcIDMap
	for line := range bytes.Lines(b) {
		var first, outside, count int64
		if _, err := fmt.Sscan(string(line), &first, &outside, &count); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		// SysProcIDMap has int, of 32 bits on some systems, and 4294967295 ids in one line.
		for count > 0 && first < math.MaxInt {
			some := min(count, 1<<30, int64(math.MaxInt)-first)
			all = append(all, syscall.SysProcIDMap{ContainerID: int(first), HostID: int(first), Size: int(some)})
			first, count = first+some, count-some
		}
	}
	return all, nil
}
