package agent

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"pfdivert/pfconf"
	"pfdivert/roles/socket"
)

// The other host has answered before any cell sends to it, and a family whose host does not answer
// holds up no one for long.
func TestGreet(t *testing.T) {
	lan(t)
	heard, err := net.ListenIP("ip4:icmp", &net.IPAddr{IP: net.IPv4(10, 188, 1, 1)})
	check(t, err)
	defer heard.Close()
	fences := map[fenceTo]*socket.Fencer{}
	for family, other := range map[pfconf.Family]string{pfconf.Inet: "10.188.1.2", pfconf.Inet6: "fd00:188:1::9"} {
		here, to := netip.MustParseAddr(other).As16(), fenceTo{family, false}
		here[15] = 1
		fences[to], err = socket.OpenFence(netip.AddrFrom16(here).Unmap(), netip.MustParseAddr(other))
		check(t, err)
		defer fences[to].Close()
	}
	a := &agent{fences: fences}
	a.greet(t.Context())
	check(t, heard.SetReadDeadline(time.Now().Add(time.Second)))
	if _, from, err := heard.ReadFrom(make([]byte, 256)); err != nil || from.String() != "10.188.1.2" {
		t.Errorf("an answer from %v: %v", from, err)
	}
}
