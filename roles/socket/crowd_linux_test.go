package socket_test

import (
	"net/netip"
	"testing"

	"pfdivert/matrix/script"
	"pfdivert/roles/socket"
)

// A raw socket hears all that comes to its address, and its own message behind a crowd of others'.
// Without asking for room it has that of 277 here.
func TestCrowd(t *testing.T) {
	loopbackUp(t)
	host, own := netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.AddrFrom4([4]byte{127, 0, 0, 2})
	for _, kind := range []string{raw, echo} {
		s, _ := open(t, only(socketFor(kind, script.Ends{Role: script.Server, Local: port(host, 0)}), own))
		other, _ := connect(t, withID(socketFor(kind, script.Ends{Role: script.Client,
			Local: port(netip.AddrFrom4([4]byte{127, 0, 0, 3}), 0), Remote: port(host, 0)}), 8))
		for range 400 {
			must(t, other.Send([]byte("Crowd\n"), 1))
		}
		c, _ := connect(t, withID(socketFor(kind, script.Ends{Role: script.Client, Local: port(own, 0),
			Remote: port(host, 0)}), 9))
		must(t, c.Send([]byte(script.ClientLine), 1))
		receive(t, s, socket.Now, script.ClientLine)
		nothing(t, s)
	}
}

// only has a raw socket leave out other addresses' packets.
func only(s script.Socket, a netip.Addr) script.Socket {
	switch s := s.(type) {
	case script.RawIP:
		s.Only = a
		return s
	case script.Echo:
		s.Only = a
		return s
	}
	return s
}
