//go:build !linux

package endpoint

import "golang.org/x/sys/unix"

// filterICMP lets only messages of one type come to a raw ICMPv6 socket. The
// filter has a bit set for each type that may pass (RFC 3542, 3.2;
// netinet/icmp6.h). ICMP has none on the BSDs.
func filterICMP(fd, family int, typ uint8) error {
	if family == unix.AF_INET {
		return nil
	}
	var f unix.ICMPv6Filter
	f.Filt[typ>>5] = 1 << (typ & 31)
	return unix.SetsockoptICMPv6Filter(fd, unix.IPPROTO_ICMPV6, unix.ICMP6_FILTER, &f)
}
