package endpoint

import (
	"pfdivert/matrix/script"

	"golang.org/x/sys/unix"
)

// setBindany lets the socket bind an address that is not the host's own
// (IP_TRANSPARENT, ip(7); 75 is IPV6_TRANSPARENT, uapi/linux/in6.h).
func setBindany(fd, family int) error {
	if family == unix.AF_INET {
		return unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_TRANSPARENT, 1)
	}
	return unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1)
}

// markDiverted marks the socket transparent: nftables' tproxy finds no other
// (net/netfilter/nft_tproxy.c).
func markDiverted(fd, family int) error { return setBindany(fd, family) }

func bindForeignRaw(int, script.Ends) (bool, error) { return false, nil }

// rawLengthIsPayload: see bindany_other.go.
const rawLengthIsPayload = false
