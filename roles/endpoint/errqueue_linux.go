package endpoint

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// askErrors has the kernel keep the ICMP errors that concern the socket
// (IP_RECVERR, ip(7)), and reports whether it does.
func askErrors(fd, family int) bool {
	if family == unix.AF_INET {
		return unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_RECVERR, 1) == nil
	}
	return unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_RECVERR, 1) == nil
}

// readErrors takes the socket's error queue, each error as one line, at most
// maxErrors.
func readErrors(fd int) []string {
	var texts []string
	var data [1]byte
	var oob [256]byte
	for len(texts) < maxErrors {
		_, oobn, _, _, err := unix.Recvmsg(fd, data[:], oob[:], unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			break
		}
		messages, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil {
			break
		}
		for _, m := range messages {
			if m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_RECVERR ||
				m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_RECVERR {
				texts = append(texts, errorText(m.Data))
			}
		}
	}
	return texts
}

// errorText reads a struct sock_extended_err with the sender's socket address
// behind it (uapi/linux/errqueue.h).
func errorText(b []byte) string {
	if len(b) < 16 {
		return fmt.Sprintf("error of %d bytes in the error queue", len(b))
	}
	errno := syscall.Errno(binary.NativeEndian.Uint32(b))
	origin, typ, code := b[4], b[5], b[6]
	var what string
	switch origin {
	case unix.SO_EE_ORIGIN_ICMP:
		what = "ICMP"
	case unix.SO_EE_ORIGIN_ICMP6:
		what = "ICMPv6"
	default:
		return fmt.Sprintf("own kernel: %v", errno)
	}
	return fmt.Sprintf("%s type %d code %d from %v: %v", what, typ, code, offender(b[16:]), errno)
}

// offender is the address behind a struct sock_extended_err (SO_EE_OFFENDER).
func offender(b []byte) netip.Addr {
	if len(b) < 2 {
		return netip.Addr{}
	}
	switch f := binary.NativeEndian.Uint16(b); {
	case f == unix.AF_INET && len(b) >= 8:
		return netip.AddrFrom4([4]byte(b[4:]))
	case f == unix.AF_INET6 && len(b) >= 24:
		return netip.AddrFrom16([16]byte(b[8:]))
	}
	return netip.Addr{}
}
