package endpoint_test

import (
	"net/netip"
	"testing"

	"pfdivert/roles/endpoint"
)

// A raw socket hears all that comes to its address, and its own message behind a crowd of others'.
// Without asking for room it has that of 277 here.
func TestCrowd(t *testing.T) {
	loopbackUp(t)
	host, own := netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.AddrFrom4([4]byte{127, 0, 0, 2})
	for _, kind := range []endpoint.Kind{endpoint.RawIP, endpoint.Echo} {
		s, _ := open(t, endpoint.Spec{Kind: kind, Role: endpoint.Server, Local: port(host, 0), Only: own})
		other, _ := connect(t, endpoint.Spec{Kind: kind, Local: port(netip.AddrFrom4([4]byte{127, 0, 0, 3}), 0), Remote: port(host, 0), EchoID: 8})
		for range 400 {
			must(t, other.Send([]byte("Crowd\n"), 1))
		}
		c, _ := connect(t, endpoint.Spec{Kind: kind, Local: port(own, 0), Remote: port(host, 0), EchoID: 9})
		must(t, c.Send([]byte(endpoint.ClientLine), 1))
		receive(t, s, endpoint.Now, endpoint.ClientLine)
		nothing(t, s)
	}
}
