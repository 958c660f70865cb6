//go:build !linux

package socket

import (
	"fmt"
	"net/netip"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// originalDst is Linux's. The BSDs are asked by DIOCNATLOOK.
func originalDst(int, int) (netip.AddrPort, error) {
	return netip.AddrPort{}, fmt.Errorf("SO_ORIGINAL_DST: %w (%s)", ErrUnsupported, runtime.GOOS)
}

// fastOpen is Linux's.
func fastOpen(int, []byte, unix.Sockaddr) error {
	return fmt.Errorf("%w (%s)", ErrUnsupported, runtime.GOOS)
}

// markProxys and bindDevice are Linux's.
func markProxys(int) error             { return fmt.Errorf("%w (%s)", ErrUnsupported, runtime.GOOS) }
func bindDevice(int, netip.Addr) error { return fmt.Errorf("%w (%s)", ErrUnsupported, runtime.GOOS) }

// setSegment is Linux's.
func setSegment(int, int) error { return fmt.Errorf("%w (%s)", ErrUnsupported, runtime.GOOS) }

// filterICMP lets only messages of one type come to a raw ICMPv6 socket. The
// filter has a bit set for each type that may pass (RFC 3542, 3.2;
// netinet/icmp6.h). ICMP has none on the BSDs.
func filterICMP(fd, family int, typ uint8) error {
	if family == unix.AF_INET {
		return nil
	}
	var f unix.ICMPv6Filter
	f.Filt[typ>>5] = 1 << (typ & 31)
	return unix.SetsockoptICMPv6Filter(fd, unix.IPPROTO_ICMPV6, unix.ICMP6_FILTER, &f)
}

// accept takes a connection, non-blocking and not inherited (x/sys has no
// accept4 for OpenBSD). The lock keeps a program from being started between the
// two calls; the listener is non-blocking, so it is not held long.
func accept(fd int) (int, unix.Sockaddr, error) {
	syscall.ForkLock.RLock()
	conn, sa, err := unix.Accept(fd)
	if err == nil {
		unix.CloseOnExec(conn)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return -1, nil, err
	}
	if err := unix.SetNonblock(conn, true); err != nil {
		_ = unix.Close(conn)
		return -1, nil, err
	}
	return conn, sa, nil
}

// Only Linux keeps a socket's ICMP errors; elsewhere they show as the error of
// a later call, if at all.
func askErrors(int, int) bool { return false }

func readErrors(int) []string { return nil }

// withoutRight does something without the right to bind foreign addresses.
func withoutRight(func() error) error { return fmt.Errorf("give a right up: %w", ErrUnsupported) }

// no one is OpenBSD's user and group id no one; elsewhere it is no one's as well.
const nobody = 32767

// DropPrivilege makes this process one of the user nobody, for good.
func DropPrivilege() error {
	if err := syscall.Setgroups([]int{nobody}); err != nil {
		return fmt.Errorf("setgroups: %w", err)
	}
	if err := syscall.Setgid(nobody); err != nil {
		return fmt.Errorf("setgid: %w", err)
	}
	if err := syscall.Setuid(nobody); err != nil {
		return fmt.Errorf("setuid: %w", err)
	}
	return nil
}
