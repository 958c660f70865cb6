package matrix

import (
	"net/netip"
	"testing"

	"pfdivert/pfconf"
)

// Runs at the same time from one LOCAL address, each with its part of the ports, never
// use a port of another's.
func TestParts(t *testing.T) {
	a := Addresses{
		Local: netip.MustParseAddr("10.188.1.1"), Remote: netip.MustParseAddr("10.188.1.2"),
		Locals: netip.MustParsePrefix("10.188.1.1/32"), Fakes: netip.MustParsePrefix("10.188.2.9/32"),
	}
	const parts = 7
	owner := map[uint16]int{}
	for part := range parts {
		s := NewAddressPlan(map[pfconf.Family]Addresses{pfconf.Inet: a})
		s.take(part, parts)
		used := map[uint16]bool{}
		for range 2 * portsEach / parts {
			c := s.Cell(Target{Family: pfconf.Inet, Proto: pfconf.UDP})
			for _, port := range []uint16{c.Client, c.Server} {
				used[port] = true
				if o, taken := owner[port]; taken && o != part {
					t.Fatalf("port %d is of parts %d and %d", port, o, part)
				}
				owner[port] = part
				if port < clientPorts || port >= serverPorts+portsEach {
					t.Fatalf("port %d is out of range", port)
				}
			}
		}
		if want := 2 * (portsEach / parts); len(used) != want {
			t.Errorf("part %d used %d ports, want %d", part, len(used), want)
		}
	}
}
