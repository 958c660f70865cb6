//go:build freebsd || openbsd

package socket

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// askArrival asks for the interface of each datagram (ip(4): IP_RECVIF; RFC 3542, 6.2:
// IPV6_RECVPKTINFO).
func askArrival(fd, family int) error {
	if family == unix.AF_INET {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVIF, 1)
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
}

// arrivalIndex is the number of the interface that a control message names.
func arrivalIndex(m unix.SocketControlMessage) (index int, ok bool) {
	switch {
	case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_RECVIF && len(m.Data) >= 4:
		return int(binary.NativeEndian.Uint16(m.Data[2:])), true // struct sockaddr_dl: len, family, index
	case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= 20:
		return int(binary.NativeEndian.Uint32(m.Data[16:])), true // struct in6_pktinfo: address, index
	}
	return 0, false
}
