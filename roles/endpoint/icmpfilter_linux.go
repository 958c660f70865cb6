package endpoint

import "golang.org/x/sys/unix"

// filterICMP lets only messages of one type come to a raw ICMP socket. The
// filters have a bit set for each type that is blocked: 32 bits for ICMP (raw(7)),
// 256 for ICMPv6 (RFC 3542, 3.2; Linux has its bits the other way round from
// the BSDs, uapi/linux/icmpv6.h).
func filterICMP(fd, family int, typ uint8) error {
	if family == unix.AF_INET {
		const icmpFilter = 1 // ICMP_FILTER, uapi/linux/icmp.h
		return unix.SetsockoptInt(fd, unix.SOL_RAW, icmpFilter, int(int32(^(uint32(1) << typ))))
	}
	var f unix.ICMPv6Filter
	for i := range f.Data {
		f.Data[i] = ^uint32(0)
	}
	f.Data[typ>>5] &^= 1 << (typ & 31)
	const icmpv6Filter = 1 // ICMPV6_FILTER, uapi/linux/icmpv6.h
	return unix.SetsockoptICMPv6Filter(fd, unix.SOL_ICMPV6, icmpv6Filter, &f)
}
