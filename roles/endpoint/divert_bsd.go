//go:build openbsd || freebsd

package endpoint

import "net/netip"

// otherWay is the address that turns a packet round which came with this one: none for
// one that came in, the loopback interface's for one that is to leave.
func otherWay(a netip.Addr) netip.Addr {
	switch {
	case a.Is4() && a.IsUnspecified():
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case a.Is4():
		return netip.IPv4Unspecified()
	case a.IsUnspecified():
		return netip.IPv6Loopback()
	}
	return netip.IPv6Unspecified()
}
