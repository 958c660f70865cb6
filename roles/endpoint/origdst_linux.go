package endpoint

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// askOrigDst asks for the original destination of each datagram (uapi
// linux/in.h: 20, linux/in6.h: 74; net/ipv4/ip_sockglue.c, ip_cmsg_recv_dstaddr).
func askOrigDst(fd, family int) error {
	if family == unix.AF_INET {
		return unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_RECVORIGDSTADDR, 1)
	}
	return unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_RECVORIGDSTADDR, 1)
}

// read takes the destination from a control message: a socket address, or for
// raw IPv6 the packet info.
func (d *origDst) read(m *unix.SocketControlMessage) {
	switch {
	case m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_ORIGDSTADDR && len(m.Data) >= 8:
		d.port = binary.BigEndian.Uint16(m.Data[2:]) // struct sockaddr_in: family, port, address
		d.addr = netip.AddrFrom4([4]byte(m.Data[4:]))
	case m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_ORIGDSTADDR && len(m.Data) >= 24:
		d.port = binary.BigEndian.Uint16(m.Data[2:]) // struct sockaddr_in6: family, port, flow, address
		d.addr = netip.AddrFrom16([16]byte(m.Data[8:]))
	case m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_PKTINFO:
		d.packetInfo(m.Data)
	}
}
