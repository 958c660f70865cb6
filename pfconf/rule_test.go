package pfconf

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var netips = cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{})

func good() Rule {
	return Rule{Label: "regress-inet-tcp-to", Direction: In, Family: Inet, Proto: TCP,
		From: netip.MustParseAddr("10.188.1.1"), To: netip.MustParseAddr("10.188.2.9"), Port: 4000,
		Action: DivertTo, Divert: netip.MustParseAddrPort("127.0.0.1:5000")}
}

// TestValidate proves that a rule from a peer is refused unless each of its parts, and
// their combination, can be loaded.
func TestValidate(t *testing.T) {
	if err := good().Validate(); err != nil {
		t.Fatal(err)
	}
	v6, v4 := netip.MustParseAddr("fd00:188:2::9"), netip.MustParseAddr("10.188.2.9")
	for what, change := range map[string]func(*Rule){
		"no label":            func(r *Rule) { r.Label = "" },
		"a stranger's label":  func(r *Rule) { r.Label = "ssh" },
		"a label that quotes": func(r *Rule) { r.Label = `regress"` },
		"a label of two":      func(r *Rule) { r.Label = "regress x" },
		"a label with a line": func(r *Rule) { r.Label = "regress\npass" },
		"a macro in a label":  func(r *Rule) { r.Label = "regress$nr" },
		"64 characters":       func(r *Rule) { r.Label = "regress" + strings.Repeat("x", 57) },
		"no direction":        func(r *Rule) { r.Direction = 0 },
		"direction 3":         func(r *Rule) { r.Direction = 3 },
		"no family":           func(r *Rule) { r.Family = 0 },
		"family 5":            func(r *Rule) { r.Family = 5 },
		"no protocol":         func(r *Rule) { r.Proto = 0 },
		"protocol 9":          func(r *Rule) { r.Proto = 9 },
		"no action":           func(r *Rule) { r.Action = 0 },
		"no from":             func(r *Rule) { r.From = netip.Addr{} },
		"from the other":      func(r *Rule) { r.From = v6 },
		"from 4in6":           func(r *Rule) { r.From, r.Family = netip.AddrFrom16(v4.As16()), Inet6 },
		"to any":              func(r *Rule) { r.To = netip.IPv4Unspecified() },
		"to many":             func(r *Rule) { r.To = netip.MustParseAddr("224.0.0.1") },
		"to a zone": func(r *Rule) {
			r.Family, r.From, r.To, r.Divert = Inet6, v6, netip.MustParseAddr("fe80::1%em0"),
				netip.MustParseAddrPort("[::1]:1")
		},
		"no port":             func(r *Rule) { r.Port = 0 },
		"a port on icmp":      func(r *Rule) { r.Proto = ICMP },
		"divert-to raw out":   func(r *Rule) { r.Direction, r.Proto, r.Port = Out, Raw, 0 },
		"divert-to nowhere":   func(r *Rule) { r.Divert = netip.AddrPort{} },
		"divert-to port 0":    func(r *Rule) { r.Divert = netip.MustParseAddrPort("127.0.0.1:0") },
		"divert-to the other": func(r *Rule) { r.Divert = netip.MustParseAddrPort("[::1]:5000") },
		"reply with an address": func(r *Rule) {
			r.Direction, r.Action = Out, DivertReply
		},
		"packet with an address":  func(r *Rule) { r.Proto, r.Action = UDP, DivertPacket },
		"pf-divert-to an address": func(r *Rule) { r.Proto, r.Action = UDP, PFDivertTo },
		"pf-divert-to nowhere":    func(r *Rule) { r.Proto, r.Action, r.Divert = UDP, PFDivertTo, netip.AddrPort{} },
		"rdr-to out":              func(r *Rule) { r.Action, r.Direction = RdrTo, Out },
		"rdr-to without ports":    func(r *Rule) { r.Action, r.Proto, r.Port = RdrTo, ICMP, 0 },
		"rdr-to nowhere":          func(r *Rule) { r.Action, r.Divert = RdrTo, netip.AddrPort{} },
		"rdr-to port 0": func(r *Rule) {
			r.Action, r.Divert = RdrTo,
				netip.MustParseAddrPort("10.188.1.2:0")
		},
		"rdr-to the other": func(r *Rule) {
			r.Action, r.Divert = RdrTo,
				netip.MustParseAddrPort("[fd00::1]:80")
		},
		"divert-to both ways":     func(r *Rule) { r.Both = true },
		"divert-to bypassed":      func(r *Rule) { r.Bypass = true },
		"divert-to of copies":     func(r *Rule) { r.Tee = true },
		"divert-to with a number": func(r *Rule) { r.Number = 2 },
		"packet without a port":   func(r *Rule) { r.Proto, r.Action, r.Divert = UDP, DivertPacket, netip.AddrPort{} },
	} {
		r := good()
		change(&r)
		if err := r.Validate(); err == nil {
			t.Errorf("%s: %+v is valid", what, r)
		}
	}
	for what, change := range map[string]func(*Rule){
		"63 characters": func(r *Rule) { r.Label = "regress" + strings.Repeat("x", 56) },
		"reply":         func(r *Rule) { r.Direction, r.Action, r.Divert = Out, DivertReply, netip.AddrPort{} },
		"packet out": func(r *Rule) {
			r.Proto, r.Direction, r.Action, r.Divert = UDP, Out, DivertPacket, netip.AddrPortFrom(netip.Addr{}, 666)
		},
		"copies of packets, with a number": func(r *Rule) {
			r.Proto, r.Action, r.Divert, r.Tee, r.Number = UDP, DivertPacket, netip.AddrPortFrom(netip.Addr{}, 666),
				true, 2
		},
		"pf-divert-to out": func(r *Rule) {
			r.Proto, r.Direction, r.Action, r.Divert = UDP, Out, PFDivertTo, netip.AddrPortFrom(Inet.Unspecified(), 666)
		},
		"raw": func(r *Rule) { r.Proto, r.Port = Raw, 0 },
	} {
		r := good()
		change(&r)
		if err := r.Validate(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestRuleJSON proves that a rule survives a wire, by names that stay. The divert port of
// a divert-packet rule does with the unspecified address only: netip writes an AddrPort
// without an address as "".
func TestRuleJSON(t *testing.T) {
	packet := good()
	packet.Proto, packet.Action, packet.Divert = UDP, DivertPacket, netip.AddrPortFrom(Inet.Unspecified(), 666)
	reply := good()
	reply.Direction, reply.Action, reply.Divert = Out, DivertReply, netip.AddrPort{}
	for _, r := range []Rule{good(), reply, packet} {
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var got Rule
		if err := json.Unmarshal(b, &got); err != nil {
			t.Errorf("%s: %v", b, err)
		}
		if diff := cmp.Diff(r, got, netips); diff != "" {
			t.Errorf("%s (-sent +received)\n%s", b, diff)
		}
	}
	const want = `{"label":"regress-inet-tcp-to","dir":"in","af":"inet","proto":"tcp","from":"10.188.1.1","to":"10.188.2.9",` +
		`"port":4000,"action":"divert-to","divert":"127.0.0.1:5000"}`
	if b, _ := json.Marshal(good()); string(b) != want {
		t.Errorf("got  %s\nwant %s", b, want)
	}
	for _, bad := range []string{`{"af":"inet7"}`, `{"proto":"254"}`, `{"dir":""}`, `{"action":"divert"}`, `{"af":4}`} {
		if err := json.Unmarshal([]byte(bad), new(Rule)); err == nil {
			t.Errorf("%s was read", bad)
		}
	}
	if _, err := json.Marshal(Rule{}); err == nil {
		t.Error("a rule of nothing was written")
	}
}

func TestNumbers(t *testing.T) {
	for _, tt := range []struct {
		proto   Proto
		v4, v6  int
		ports   bool
		written string
	}{{TCP, 6, 6, true, "tcp"}, {UDP, 17, 17, true, "udp"}, {Raw, 254, 254, false, "rip"},
		{ICMP, 1, 58, false, "icmp"}} {
		if tt.proto.Number(Inet) != tt.v4 || tt.proto.Number(Inet6) != tt.v6 || tt.proto.HasPorts() != tt.ports ||
			tt.proto.String() != tt.written {
			t.Errorf("%v: %d, %d, ports %v", tt.proto, tt.proto.Number(Inet), tt.proto.Number(Inet6),
				tt.proto.HasPorts())
		}
	}
	if got := Proto(9).String(); got != "?9" {
		t.Errorf("protocol 9 is called %q", got)
	}
	for _, f := range Families {
		if l := f.Loopback(); FamilyOf(l) != f || !l.IsLoopback() {
			t.Errorf("%v: loopback %v", f, l)
		}
	}
}

// TestStateFlow proves which flow a state belongs to; only TCP and UDP have ports there.
func TestStateFlow(t *testing.T) {
	at := netip.MustParseAddrPort
	for _, tt := range []struct {
		state State
		want  Flow
		ok    bool
	}{
		{State{Family: Inet, Number: 6, Near: at("10.0.0.1:80"), Far: at("10.0.0.2:999"), Direction: In,
			Phase: "CLOSED:CLOSED"},
			Flow{Family: Inet, Proto: TCP, Near: at("10.0.0.1:80"), Far: at("10.0.0.2:999")}, true},
		{State{Family: Inet6, Number: 58, Near: at("[::1]:128"), Far: at("[::2]:7")},
			Flow{Family: Inet6, Proto: ICMP, Near: at("[::1]:0"), Far: at("[::2]:0")}, true},
		{State{Family: Inet, Number: 254, Near: at("10.0.0.1:0"), Far: at("10.0.0.2:0")},
			Flow{Family: Inet, Proto: Raw, Near: at("10.0.0.1:0"), Far: at("10.0.0.2:0")}, true},
		{State{Family: Inet, Number: 58, Near: at("10.0.0.1:0"), Far: at("10.0.0.2:0")}, Flow{}, false},
		{State{Family: Inet6, Number: 47, Near: at("[::1]:0"), Far: at("[::2]:0")}, Flow{}, false},
	} {
		got, ok := tt.state.Flow()
		if diff := cmp.Diff(tt.want, got, netips); ok != tt.ok || diff != "" {
			t.Errorf("%+v: %v (-want +got)\n%s", tt.state, ok, diff)
		}
	}
}
