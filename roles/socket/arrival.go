package socket

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// arrival is what the interface that the control messages of a datagram name is known by.
func arrival(control []byte, family int) (netip.Addr, error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return netip.Addr{}, err
	}
	for _, m := range messages {
		if index, ok := arrivalIndex(m); ok {
			nic, err := net.InterfaceByIndex(index)
			if err != nil {
				return netip.Addr{}, fmt.Errorf("interface %d: %w", index, err)
			}
			return KnownBy(nic, family == unix.AF_INET6)
		}
	}
	return netip.Addr{}, errors.New("the system does not tell the interface")
}

// KnownBy returns the address that a Message has as Via when it came by the interface: the family's
// first one that is not of the link alone, of a loopback interface the loopback address.
func KnownBy(nic *net.Interface, inet6 bool) (netip.Addr, error) {
	switch {
	case nic.Flags&net.FlagLoopback == 0:
	case inet6:
		return netip.IPv6Loopback(), nil
	default:
		return netip.AddrFrom4([4]byte{127, 0, 0, 1}), nil
	}
	addrs, err := nic.Addrs()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("addresses of %s: %w", nic.Name, err)
	}
	var last netip.Addr
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil || p.Addr().Is6() != inet6 {
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
