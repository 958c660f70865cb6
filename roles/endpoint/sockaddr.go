package endpoint

import (
	"encoding/binary"
	"net/netip"
)

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
