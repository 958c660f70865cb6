package pfconf

import (
	"net/netip"
	"testing"
)

// TestPackets: what is proven of the packets of two rules.
func TestPackets(t *testing.T) {
	side := func(text string, ports ...PortRange) (s Side) {
		s.Address(text)
		if len(ports) > 0 {
			s.Ports = ports
		}
		return s
	}
	not := func(s Side) Side {
		s.Not = true
		return s
	}
	web := PortRange{80, 80}
	flow := Packets{Families: []Family{Inet}, Proto: 6, Direction: In, Interface: "em0", From: side("10.0.0.1"),
		To: side("10.9.0.1", web)}
	const covers, apart, some, neither = "covers", "apart", "some", ""
	for _, c := range []struct {
		name string
		p    Packets
		want string
	}{
		{"all", Packets{}, covers},
		{"itself", flow, covers},
		{"the family", Packets{Families: []Family{Inet}}, covers},
		{"the other family", Packets{Families: []Family{Inet6}}, apart},
		{"an address of the other family", Packets{From: side("fd00::/8")}, apart},
		{"another protocol", Packets{Proto: 17}, apart},
		{"the other direction", Packets{Direction: Out}, apart},
		{"another interface", Packets{Interface: "em1"}, apart},
		{"all but the interface", Packets{Interface: "!em0"}, apart},
		{"all but another", Packets{Interface: "!em1"}, covers},
		{"a group", Packets{Interface: "egress"}, neither},
		{"a prefix", Packets{From: side("10.0.0.0/24")}, covers},
		{"another prefix", Packets{From: side("10.0.1.0/24")}, apart},
		{"one of several", Packets{From: side("10.0.1.0/24,10.0.0.1")}, covers},
		{"none of several", Packets{From: side("10.0.1.0/24,10.0.0.2")}, apart},
		{"not the address", Packets{From: not(side("10.0.0.1"))}, apart},
		{"not another address", Packets{From: not(side("10.0.0.2"))}, covers},
		{"a table", Packets{From: side("<t>")}, neither},
		{"not a table", Packets{From: not(side("<t>"))}, neither},
		{"the port", Packets{To: side("any", PortRange{1, 100})}, covers},
		{"other ports", Packets{To: side("any", PortRange{1, 79}, PortRange{81, 90})}, apart},
		{"a source port", Packets{From: side("any", PortRange{1024, 65535})}, some},
		{"port 0", Packets{From: side("any", PortRange{})}, neither},
		{"a condition", Packets{Conditions: []string{"user = 0"}}, neither},
		{"a condition elsewhere", Packets{Proto: 17, Conditions: []string{"user = 0"}}, apart},
	} {
		got := neither
		switch {
		case c.p.Covers(flow) && c.p.Apart(flow):
			got = "both"
		case c.p.Covers(flow):
			got = covers
		case c.p.Apart(flow):
			got = apart
		case c.p.TakesSome(flow):
			got = some
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		if c.p.Apart(flow) != flow.Apart(c.p) {
			t.Errorf("%s: it depends on who is asked whether they are apart", c.name)
		}
	}
	r := Rule{Direction: In, Family: Inet, Proto: TCP, From: netip.MustParseAddr("10.0.0.1"),
		To: netip.MustParseAddr("10.9.0.1"), Port: 80}
	if p := PacketsOf(r, "em0"); !p.Covers(flow) || !flow.Covers(p) {
		t.Errorf("%+v", p)
	}
}
