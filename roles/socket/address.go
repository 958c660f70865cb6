package socket

import (
	"encoding/binary"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
)

// family is the address family's number for socket(2).
func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// sockaddr is the address as the system calls take it.
func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

// addrPort is the address as a system call gave it; invalid when it gave none.
func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		a := netip.AddrFrom16(sa.Addr)
		if sa.ZoneId != 0 {
			a = a.WithZone(strconv.FormatUint(uint64(sa.ZoneId), 10))
		}
		return netip.AddrPortFrom(a, uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// portless is a with port 0. Linux gives a raw socket's protocol number as its
// port, the BSDs give 0.
func portless(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr(), 0) }

// Address families and sizes of struct sockaddr_in and sockaddr_in6 on OpenBSD.
const (
	bsdInet       = 2
	bsdInet6      = 24
	sizeSockaddr4 = 16
	sizeSockaddr6 = 28
)

// putSockaddr writes an address as OpenBSD's kernel reads it, into zeroed memory:
// length, family, port, then for IPv4 the address, for IPv6 the flow's label, the address and
// a zone.
func putSockaddr(b []byte, a netip.AddrPort) {
	binary.BigEndian.PutUint16(b[2:], a.Port())
	if a.Addr().Is4() {
		b[0], b[1] = sizeSockaddr4, bsdInet
		copy(b[4:], a.Addr().AsSlice())
		return
	}
	b[0], b[1] = sizeSockaddr6, bsdInet6
	copy(b[8:], a.Addr().AsSlice())
}
