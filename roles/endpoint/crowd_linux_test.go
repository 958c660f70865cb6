package endpoint_test

import (
	"net/netip"
	"testing"

	"pfdivert/matrix/script"
	"pfdivert/roles/endpoint"
)

// A raw socket hears all that comes to its address, and its own message behind a crowd of others'.
// Without asking for room it has that of 277 here.
func TestCrowd(t *testing.T) {
	loopbackUp(t)
	host, own := netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.AddrFrom4([4]byte{127, 0, 0, 2})
	for _, kind := range []script.Kind{script.RawIP, script.Echo} {
		s, _ := open(t, script.Spec{Kind: kind, Role: script.Server, Local: port(host, 0), Only: own})
		other, _ := connect(t, script.Spec{Kind: kind, Local: port(netip.AddrFrom4([4]byte{127, 0, 0, 3}), 0), Remote: port(host, 0), EchoID: 8})
		for range 400 {
			must(t, other.Send([]byte("Crowd\n"), 1))
		}
		c, _ := connect(t, script.Spec{Kind: kind, Local: port(own, 0), Remote: port(host, 0), EchoID: 9})
		must(t, c.Send([]byte(script.ClientLine), 1))
		receive(t, s, endpoint.Now, script.ClientLine)
		nothing(t, s)
	}
}
