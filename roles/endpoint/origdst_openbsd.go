package endpoint

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"
)

// askOrigDst asks for the original destination of each datagram, address and
// port (ip(4): IP_RECVDSTADDR, IP_RECVDSTPORT; ip6(4): IPV6_RECVPKTINFO,
// IPV6_RECVDSTPORT).
func askOrigDst(fd, family int) error {
	if family == unix.AF_INET {
		return errors.Join(
			unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVDSTADDR, 1),
			unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVDSTPORT, 1))
	}
	return errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1),
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVDSTPORT, 1))
}

// read takes address or port from a control message. They have the numbers of
// the options, IPV6_PKTINFO its own; the data are a struct in_addr, a struct
// in6_pktinfo, and a 16 bit port in network order (sys/netinet/udp_usrreq.c,
// udp_sbappend; usr.sbin/tftp-proxy reads them so).
func (d *origDst) read(m *unix.SocketControlMessage) {
	v6 := m.Header.Level == unix.IPPROTO_IPV6
	if !v6 && m.Header.Level != unix.IPPROTO_IP {
		return
	}
	switch {
	case !v6 && m.Header.Type == unix.IP_RECVDSTADDR && len(m.Data) >= 4:
		d.addr = netip.AddrFrom4([4]byte(m.Data))
	case v6 && m.Header.Type == unix.IPV6_PKTINFO:
		d.packetInfo(m.Data)
	case !v6 && m.Header.Type == unix.IP_RECVDSTPORT && len(m.Data) >= 2,
		v6 && m.Header.Type == unix.IPV6_RECVDSTPORT && len(m.Data) >= 2:
		d.port = binary.BigEndian.Uint16(m.Data)
	}
}
