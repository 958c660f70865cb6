package socket_test

import (
	"net"
	"net/netip"
	"testing"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
	"pfdivert/roles/socket"
)

// A datagram socket that was asked to says by which interface each datagram came: here that of the
// loopback address.
func TestArrival(t *testing.T) {
	eachLoopback(t, func(t *testing.T, lo netip.Addr) {
		s, _ := open(t, script.Datagram{Ends: script.Ends{Role: script.Server, Local: port(lo, 5000)}, Arrival: true})
		c, _ := connect(t, script.Datagram{Ends: script.Ends{Role: script.Client, Local: port(lo, 0),
			Remote: port(lo, 5000)}})
		must(t, c.Send([]byte(script.ClientLine), 0))
		m := receive(t, s, soon(), script.ClientLine)
		if via := netip.AddrPortFrom(lo, 0); m.Via != via {
			t.Errorf("it came by the interface of %v, want %v", m.Via, via)
		}
	})
}

// An interface is known by the family's first address that is not of the link alone.
func TestKnownBy(t *testing.T) {
	nics, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, nic := range nics {
		for _, f := range pfconf.Families {
			var want netip.Addr
			list, err := nic.Addrs()
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range list {
				p := netip.MustParsePrefix(a.String())
				if pfconf.FamilyOf(p.Addr()) == f && (!want.IsValid() || want.IsLinkLocalUnicast()) {
					want = p.Addr()
				}
			}
			if got, err := socket.KnownBy(&nic, f == pfconf.Inet6); got != want || (err == nil) != want.IsValid() {
				t.Errorf("%s, %v: %v, %v; want %v", nic.Name, f, got, err, want)
			}
		}
	}
}
