package endpoint

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// askOrigDst asks for the original destination of each datagram (ip(4):
// IP_RECVORIGDSTADDR, 27; ip6(4): IPV6_RECVORIGDSTADDR, 72).
func askOrigDst(fd, family int) error {
	if family == unix.AF_INET {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVORIGDSTADDR, 1)
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVORIGDSTADDR, 1)
}

// read takes the destination from a control message: a socket address, or for
// raw IPv6 the packet info.
func (d *origDst) read(m *unix.SocketControlMessage) {
	switch {
	case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_RECVORIGDSTADDR && len(m.Data) >= 8:
		d.port = binary.BigEndian.Uint16(m.Data[2:]) // struct sockaddr_in: len, family, port, address
		d.addr = netip.AddrFrom4([4]byte(m.Data[4:]))
	case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_RECVORIGDSTADDR && len(m.Data) >= 24:
		d.port = binary.BigEndian.Uint16(m.Data[2:]) // struct sockaddr_in6: len, family, port, flow, address
		d.addr = netip.AddrFrom16([16]byte(m.Data[8:]))
	case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO:
		d.packetInfo(m.Data)
	}
}
