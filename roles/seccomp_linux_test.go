package roles

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// lackEnv, in the environment, names what the kernel is to lack for a program
// and all that it starts: "inet6", "netfilter", "namespaces".
const lackEnv = "PFDIVERT_TEST_LACK"

func init() {
	for _, what := range strings.Fields(os.Getenv(lackEnv)) {
		if err := lack(what); err != nil {
			fmt.Fprintln(os.Stderr, "seccomp:", err)
			os.Exit(3)
		}
	}
	os.Unsetenv(lackEnv) // children have the filter already
}

// Offsets in struct seccomp_data, linux/seccomp.h.
const numberAt, firstArg, argSize = 0, 16, 8

// argAt is where the low half of a system call's argument is.
func argAt(n uint32) uint32 {
	at := firstArg + n*argSize
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		at += 4
	}
	return at
}

// lack installs a filter by which the kernel refuses what it would refuse
// without the feature, for all threads.
func lack(what string) error {
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	// unless goes on if the loaded word is k (has a bit of it), and else over
	// the next instructions.
	unless := func(how uint16, k uint32, over uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | how | unix.BPF_K, Jf: over, K: k}
	}
	refuse := func(errno unix.Errno) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)}
	}
	var filter []unix.SockFilter
	switch what {
	case "inet6": // a kernel that was booted with ipv6.disable=1
		filter = []unix.SockFilter{
			load(numberAt), unless(unix.BPF_JEQ, unix.SYS_SOCKET, 3),
			load(argAt(0)), unless(unix.BPF_JEQ, unix.AF_INET6, 1), refuse(unix.EAFNOSUPPORT),
		}
	case "netfilter": // a kernel without CONFIG_NETFILTER_NETLINK
		filter = []unix.SockFilter{
			load(numberAt), unless(unix.BPF_JEQ, unix.SYS_SOCKET, 5),
			load(argAt(0)), unless(unix.BPF_JEQ, unix.AF_NETLINK, 3),
			load(argAt(2)), unless(unix.BPF_JEQ, unix.NETLINK_NETFILTER, 1), refuse(unix.EPROTONOSUPPORT),
		}
	case "namespaces": // a container that forbids them
		filter = []unix.SockFilter{
			load(numberAt), unless(unix.BPF_JEQ, unix.SYS_CLONE, 3),
			load(argAt(0)), unless(unix.BPF_JSET, unix.CLONE_NEWNET|unix.CLONE_NEWUSER, 1), refuse(unix.EPERM),
		}
	default:
		return fmt.Errorf("nothing is known about lacking %q", what)
	}
	filter = append(filter, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC,
		uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return errno
	}
	return nil
}
