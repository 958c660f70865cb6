//go:build freebsd || openbsd

package socket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

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

// arrival is an address of the interface that the control messages of a datagram name: the
// family's first one that is not of the link alone, of a loopback interface the loopback address.
func arrival(control []byte, family int) (netip.Addr, error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return netip.Addr{}, err
	}
	for _, m := range messages {
		index := 0
		switch {
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_RECVIF && len(m.Data) >= 4:
			index = int(binary.NativeEndian.Uint16(m.Data[2:])) // struct sockaddr_dl: len, family, index
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= 20:
			index = int(binary.NativeEndian.Uint32(m.Data[16:])) // struct in6_pktinfo: address, index
		default:
			continue
		}
		return firstAddress(index, family)
	}
	return netip.Addr{}, errors.New("the system does not tell the interface")
}

// firstAddress is an address of an interface by which it is known.
func firstAddress(index, family int) (netip.Addr, error) {
	nic, err := net.InterfaceByIndex(index)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("interface %d: %w", index, err)
	}
	inet := family == unix.AF_INET
	switch {
	case nic.Flags&net.FlagLoopback == 0:
	case inet:
		return netip.AddrFrom4([4]byte{127, 0, 0, 1}), nil
	default:
		return netip.IPv6Loopback(), nil
	}
	addrs, err := nic.Addrs()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("addresses of %s: %w", nic.Name, err)
	}
	var last netip.Addr
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil || p.Addr().Is4() != inet {
			continue
		}
		if last = p.Addr(); !last.IsLinkLocalUnicast() {
			return last, nil
		}
	}
	if !last.IsValid() {
		return netip.Addr{}, fmt.Errorf("%s has no address of the family", nic.Name)
	}
	return last, nil
}
