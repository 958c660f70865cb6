package socket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"

	"pfdivert/matrix/script"
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

// dropInDomain has nothing to do: tcpdrop(8) looks for sockets of the network stack that
// it is run in.
func dropInDomain(_, _ netip.AddrPort) (done bool, err error) { return false, nil }

// newSocket makes a non-blocking socket that programs started later do not
// inherit.
func newSocket(family, typ, proto int) (int, error) {
	return unix.Socket(family, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
}

// missing is the error of a host that lacks what its kernel could have.
type missing string

func (m missing) Error() string { return string(m) }

// Missing says what the host lacks.
func (m missing) Missing() string { return string(m) }

// setFIB gives the socket a routing table of its own (SO_SETFIB, getsockopt(2)). It is refused
// where UDP sockets get datagrams of their own table alone (udp(4)).
func setFIB(fd, fib int) error {
	n, err := unix.SysctlUint32("net.fibs")
	if err != nil {
		return fmt.Errorf("sysctl net.fibs: %w", err)
	}
	if fib >= int(n) {
		return missing("there is no such routing table: net.fibs is " + strconv.Itoa(int(n)))
	}
	const all = "net.inet.udp.bind_all_fibs"
	switch n, err := unix.SysctlUint32(all); {
	case err != nil && !errors.Is(err, unix.ENOENT):
		return fmt.Errorf("sysctl %s: %w", all, err)
	case err == nil && n == 0:
		return missing("sockets get datagrams of their own routing table alone: " + all + " is 0")
	}
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SETFIB, fib)
}
