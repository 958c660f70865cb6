package socket

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// askArrival asks for the interface of each datagram (ip(7): IP_PKTINFO; ipv6(7):
// IPV6_RECVPKTINFO).
func askArrival(fd, family int) error {
	if family == unix.AF_INET {
		return unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_PKTINFO, 1)
	}
	return unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_RECVPKTINFO, 1)
}

// arrivalIndex is the number of the interface that a control message names.
func arrivalIndex(m unix.SocketControlMessage) (index int, ok bool) {
	switch {
	case m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= 4:
		return int(binary.NativeEndian.Uint32(m.Data)), true // struct in_pktinfo: index, addresses
	case m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= 20:
		return int(binary.NativeEndian.Uint32(m.Data[16:])), true // struct in6_pktinfo: address, index
	}
	return 0, false
}
