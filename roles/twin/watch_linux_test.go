package twin

import (
	"net/netip"
	"testing"
)

// TestConversation: packets of other ports are not the conversation's; what has no ports is told by
// its addresses.
func TestConversation(t *testing.T) {
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	c := Conversation{A: a, B: b, Ports: []uint16{53}}
	for _, x := range []struct {
		from, to uint16
		want     bool
	}{{9, 53, true}, {53, 9, true}, {9, 54, false}, {0, 0, true}} {
		if got := c.has(PacketPath{From: netip.AddrPortFrom(a, x.from),
			To: netip.AddrPortFrom(b, x.to)}); got != x.want {
			t.Errorf("%d to %d: %v", x.from, x.to, got)
		}
	}
	if _, err := NewWatch(Conversation{A: a, B: netip.IPv6Loopback()}); err == nil {
		t.Error("addresses of two families are taken")
	}
}
