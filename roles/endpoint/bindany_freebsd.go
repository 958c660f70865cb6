package endpoint

import (
	"fmt"
	"pfdivert/matrix/script"

	"golang.org/x/sys/unix"
)

// setBindany lets the socket bind an address that is not the host's own
// (IP_BINDANY, ip(4); IPV6_BINDANY, ip6(4)).
func setBindany(fd, family int) error {
	if family == unix.AF_INET {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BINDANY, 1)
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_BINDANY, 1)
}

// markDiverted has nothing to do: ipfw fwd delivers to any socket.
func markDiverted(int, int) error { return nil }

// bindForeignRaw stands in for bind on inet6: there the kernel refuses a
// foreign address to a raw socket, IPV6_BINDANY or not (EADDRNOTAVAIL). A sticky
// IPV6_PKTINFO (RFC 3542, 6.2) makes the address the source of all that is sent;
// what arrives for other addresses is left out by the program. It reports whether
// it did so.
func bindForeignRaw(fd int, s script.Ends) (bool, error) {
	if !s.Bindany || s.Omits(script.Transparent) || !s.Local.Addr().Is6() {
		return false, nil
	}
	a := s.Local.Addr().As16()
	info := string(a[:]) + "\x00\x00\x00\x00" // struct in6_pktinfo; interface 0
	if err := unix.SetsockoptString(fd, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, info); err != nil {
		return false, fmt.Errorf("IPV6_PKTINFO: %w", err)
	}
	return true, nil
}

// rawLengthIsPayload: see bindany_other.go.
const rawLengthIsPayload = false
