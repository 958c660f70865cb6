package sshtest

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// opaque has the kernel accept, for this process and all that it starts, that a socket be made
// transparent, and not do it: setsockopt(2) of IP_TRANSPARENT and IPV6_TRANSPARENT returns 0.
func opaque() error {
	// Offsets in struct seccomp_data, linux/seccomp.h: the number, and the low half of an argument.
	const number, level, name = 0, 24, 32
	low := uint32(0)
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		low = 4
	}
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	unless := func(k uint32, over uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: over, K: k}
	}
	done := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO}
	allow := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW}
	filter := []unix.SockFilter{
		load(number), unless(unix.SYS_SETSOCKOPT, 9),
		load(level + low), unless(unix.SOL_IP, 3), load(name + low), unless(unix.IP_TRANSPARENT, 5), done,
		unless(unix.SOL_IPV6, 3), load(name + low), unless(unix.IPV6_TRANSPARENT, 1), done, allow,
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC,
		uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return errno
	}
	return nil
}
