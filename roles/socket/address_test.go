package socket

import (
	"encoding/hex"
	"net/netip"
	"testing"
)

// TestPutSockaddr has the bytes of OpenBSD's struct sockaddr_in and sockaddr_in6 (netinet/in.h,
// netinet6/in6.h).
func TestPutSockaddr(t *testing.T) {
	for address, want := range map[string]string{
		"10.188.2.9:5000":       "10021388" + "0abc0209" + "0000000000000000" + "000000000000000000000000",
		"[fd00:188:2::9]:10002": "1c182712" + "00000000" + "fd000188000200000000000000000009" + "00000000",
	} {
		b := make([]byte, sizeSockaddr6)
		putSockaddr(b, netip.MustParseAddrPort(address))
		if got := hex.EncodeToString(b); got != want {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
}
