package socket

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"pfdivert/matrix/script"
)

// setBindany lets the socket bind an address that is not the host's own
// (SO_BINDANY, getsockopt(2); root only).
func setBindany(fd, _ int) error {
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDANY, 1)
}

// markDiverted has nothing to do: pf delivers to any socket.
func markDiverted(int, int) error { return nil }

func bindForeignRaw(int, script.Ends) (bool, error) { return false, nil }

// rawLengthIsPayload: see bindany_other.go.
const rawLengthIsPayload = false

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

// identMapping is struct tcp_ident_mapping of OpenBSD's netinet/tcp_var.h. The addresses are
// struct sockaddr_storage, whose alignment is that of 64 bits: 528 bytes on amd64, where the
// kernel takes no fewer.
type identMapping struct {
	foreign, local [32]uint64
	euid, ruid     int32
	domain         uint32
}

// tcpDropMIB is net.inet.tcp.drop: CTL_NET, PF_INET, IPPROTO_TCP, TCPCTL_DROP (sysctl(2)).
var tcpDropMIB = [...]int32{4, 2, 6, 19}

// dropInDomain does what tcpdrop(8) does, in the routing domain of this process.
// tcpdrop looks for the socket in routing domain 0 alone.
func dropInDomain(local, remote netip.AddrPort) (done bool, err error) {
	domain, err := unix.Getrtable()
	if err != nil {
		return false, os.NewSyscallError("getrtable", err)
	}
	if domain == 0 {
		return false, nil
	}
	m := identMapping{domain: uint32(domain)}
	putSockaddr(unsafe.Slice((*byte)(unsafe.Pointer(&m.foreign)), unsafe.Sizeof(m.foreign)), remote)
	putSockaddr(unsafe.Slice((*byte)(unsafe.Pointer(&m.local)), unsafe.Sizeof(m.local)), local)
	_, _, errno := syscall.Syscall6(syscall.SYS___SYSCTL, uintptr(unsafe.Pointer(&tcpDropMIB)),
		uintptr(len(tcpDropMIB)),
		0, 0, uintptr(unsafe.Pointer(&m)), unsafe.Sizeof(m))
	switch errno {
	case 0:
		return true, nil
	case unix.ESRCH:
		return true, ErrNoSocket
	}
	return true, os.NewSyscallError("sysctl net.inet.tcp.drop", errno)
}

// setFIB puts the socket into another routing domain than that of this process (SO_RTABLE,
// getsockopt(2); root only).
func setFIB(fd, fib int) error {
	return os.NewSyscallError("setsockopt SO_RTABLE", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RTABLE, fib))
}

// newSocket makes a non-blocking socket that programs started later do not
// inherit.
func newSocket(family, typ, proto int) (int, error) {
	return unix.Socket(family, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
}
