package pf

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"pfdivert/pfconf"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var ends = cmpopts.EquateComparable(netip.AddrPort{})

func stateFiles() map[string]bool {
	return map[string]bool{
		"testdata/states/openbsd.txt": false, "testdata/states/openbsd-vv.txt": true,
		"testdata/states/freebsd.txt": false, "testdata/states/freebsd-vv.txt": true,
		"testdata/states/freebsd-15.txt": false, "testdata/states/freebsd-15-vv.txt": true,
	}
}

// TestStatesAsSeen proves that every form of line that was seen is understood
// whole: written again, it is the same line.
func TestStatesAsSeen(t *testing.T) {
	for name, vv := range stateFiles() {
		lines := goldenLines(t, name)
		states, err := ParseStates(strings.NewReader(strings.Join(lines, "\n")), vv)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var first []string
		for _, l := range lines {
			if !strings.HasPrefix(l, " ") {
				first = append(first, l)
			}
		}
		if len(first) != len(states) || len(first) < 15 {
			t.Fatalf("%s: %d states from %d lines", name, len(states), len(first))
		}
		for i, s := range states {
			if Line(s) != first[i] {
				t.Errorf("%s:\n%s\nwas read as\n%s", name, first[i], Line(s))
			}
			if vv && (s.ID == "" || s.Expires == 0) {
				t.Errorf("%s: %s has no id or no time: %+v", name, first[i], s)
			}
		}
	}
}

// TestStateDetails: all that print_state of FreeBSD 15 can add to a state's times is passed over.
func TestStateDetails(t *testing.T) {
	all := ", anchor 1, rule 2, rlabel 3, allow-opts, sloppy, no-sync, pflow, psync-ack, no-df, set-tos 0x10, random-id, reassemble-tcp, " +
		"set-prio (0x00 0x07), dummynet pipe (5 6), dummynet queue (5 6), limit source-track global, NAT/RDR sticky-address, " +
		"route sticky-address, log (all), min-ttl 5, max-mss 1400"
	const state = "all udp 10.0.0.1:1 -> 10.0.0.2:2       SINGLE:NO_TRAFFIC\n   age 00:00:00, expires in 00:00:30, 0:0 pkts, 0:0 bytes"
	const id = "   id: 0000000000000001 creatorid: 00000002 route-to: fd00::1@vtnet0 rtable: 3\n"
	for detail := range strings.SplitSeq(all, ", ") {
		if detail != "" {
			detail = ", " + detail
		}
		if _, err := ParseStates(strings.NewReader(state+detail+"\n"+id), true); err != nil {
			t.Errorf("%s: %v", detail, err)
		}
	}
	if _, err := ParseStates(strings.NewReader(state+all+"\n"+id), true); err != nil {
		t.Error(err)
	}
}

// TestParseStates proves what the parts of a line mean, on lines from the
// transcripts (the first six) and from the source of print_state.
func TestParseStates(t *testing.T) {
	at := netip.MustParseAddrPort
	port0 := func(a string) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(a), 0) }
	tests := []struct {
		text string
		want pfconf.State
	}{
		{"all tcp 10.188.2.9:5000 <- 10.188.1.1:43876       ESTABLISHED:FIN_WAIT_2\n" +
			"   [2439388306 + 64512] wscale 6  [2796819241 + 17344] wscale 10\n" +
			"   age 00:00:02, expires in 00:14:59, 5:3 pkts, 275:175 bytes, anchor 1, rule 0\n" +
			"   id: 6b022fef000000ce creatorid: fdd13125\n",
			pfconf.State{Family: pfconf.Inet, Number: 6, Near: at("10.188.2.9:5000"), Far: at("10.188.1.1:43876"),
				Direction: pfconf.In,
				Phase:     "ESTABLISHED:FIN_WAIT_2", Age: 2 * time.Second, Expires: 14*time.Minute + 59*time.Second,
				ID: "6b022fef000000ce/fdd13125"}},
		{"all ipv6-icmp fd00:188:2::9[128] <- fd00:188:1::1[1555]       0:0\n",
			pfconf.State{Family: pfconf.Inet6, Number: 58, Near: at("[fd00:188:2::9]:128"),
				Far: at("[fd00:188:1::1]:1555"), Direction: pfconf.In, Phase: "0:0"}},
		{"all 254 fd00:188:2::9 <- fd00:188:1::1       NO_TRAFFIC:SINGLE\n",
			pfconf.State{Family: pfconf.Inet6, Number: 254, Near: port0("fd00:188:2::9"), Far: port0("fd00:188:1::1"),
				Direction: pfconf.In, Phase: "NO_TRAFFIC:SINGLE"}},
		{"all udp (2) 10.188.12.9:7422 -> (2) 10.188.11.1:9       SINGLE:NO_TRAFFIC\n" +
			"   age 00:00:03, expires in 00:00:57, 1:1 pkts, 35:56 bytes, rule 0\n" +
			"   id: 6b023d2e00000155 creatorid: d4c3d9e5\n",
			pfconf.State{Family: pfconf.Inet, Number: 17, Near: at("10.188.12.9:7422"), Far: at("10.188.11.1:9"),
				Direction: pfconf.Out, Domain: 2,
				Phase: "SINGLE:NO_TRAFFIC", Age: 3 * time.Second, Expires: 57 * time.Second,
				ID: "6b023d2e00000155/d4c3d9e5"}},
		{"all tcp ::1[12300] (fd00:189:9::9[80]) <- fd00:189:1::2[43602]       CLOSED:SYN_SENT\n",
			pfconf.State{Family: pfconf.Inet6, Number: 6, Near: at("[::1]:12300"), NearWas: at("[fd00:189:9::9]:80"),
				Far:       at("[fd00:189:1::2]:43602"),
				Direction: pfconf.In, Phase: "CLOSED:SYN_SENT"}},
		{"all ipv6-icmp (1) ::[33026] -> (1) ff02::1:ff00:1[135]       0:0\n",
			pfconf.State{Family: pfconf.Inet6, Number: 58, Near: at("[::]:33026"), Far: at("[ff02::1:ff00:1]:135"),
				Direction: pfconf.Out, Domain: 1, Phase: "0:0"}},
		{"vio0 esp 10.0.0.1 ((3) 10.9.9.9) -> 10.0.0.2 (10.0.0.3) {10.0.0.254}       MULTIPLE:MULTIPLE\n" +
			"   age 30:00:00, expires in 24:00:01, 1:1 pkts, 1:1 bytes, rule 4, sloppy, set-tos 0x10, set-prio (0x01 0x02), source-track\n" +
			"   id: 6b023d2e00000155 creatorid: d4c3d9e5 gateway: 10.0.0.254@vio0 rtable: 0\n" +
			"   origif: vio0\n",
			pfconf.State{Family: pfconf.Inet, Number: 50, Interface: "vio0", Near: port0("10.0.0.1"),
				NearWas: port0("10.9.9.9"), Far: port0("10.0.0.2"),
				FarWas: port0("10.0.0.3"), Direction: pfconf.Out, Phase: "MULTIPLE:MULTIPLE", Age: 30 * time.Hour,
				Expires: 24*time.Hour + time.Second,
				ID:      "6b023d2e00000155/d4c3d9e5"}},
		{"all tcp 10.0.0.1:1 -> 10.0.0.2:2       <BAD STATE LEVELS 13:0>\n" +
			"   [1 + 2](+3)  [4 + 5](+6)\n" +
			"   age 00:00:00, expires in 00:00:00, 0:0 pkts, 0:0 bytes\n" +
			"   id: 0000000000000001 creatorid: 00000002\n",
			pfconf.State{Family: pfconf.Inet, Number: 6, Near: at("10.0.0.1:1"), Far: at("10.0.0.2:2"),
				Direction: pfconf.Out,
				Phase:     "<BAD STATE LEVELS 13:0>", ID: "0000000000000001/00000002"}},
	}
	for _, tt := range tests {
		got, err := ParseStates(strings.NewReader(tt.text), tt.want.ID != "")
		if err != nil {
			t.Errorf("%s: %v", tt.text, err)
			continue
		}
		if diff := cmp.Diff([]pfconf.State{tt.want}, got, ends); diff != "" {
			t.Errorf("%s(-want +got)\n%s", tt.text, diff)
		}
	}
}

func TestParseStatesRefuses(t *testing.T) {
	const good = "all tcp 10.188.2.9:5000 <- 10.188.1.1:43876       ESTABLISHED:FIN_WAIT_2"
	const id = "   id: 6b022fef000000ce creatorid: fdd13125"
	tests := []struct {
		text string
		vv   bool
		want string // in the error
	}{
		{good + "\n\n", false, `line 2, ""`},
		{good + "\n" + id, false, "line 2"},
		{good + "\n" + good, true, "line 2"},
		{good, true, "no id"},
		{good + "\n" + id + "\n" + id, true, "line 3"},
		{id, true, "line 1"},
		{good + "\n   something new", true, `"   something new"`},
		{"pfctl: DIOCGETSTATES: Cannot allocate memory", false, "line 1"},
		{"all tcp 10.188.2.9:5000 <- 10.188.1.1:43876", false, "phase"},
		{"all tcp 10.188.2.9:5000 <- 10.188.1.1:43876       ", false, "phase"},
		{"all tcp 10.188.2.9:5000 == 10.188.1.1:43876       A:B", false, "direction"},
		{"all nosuch 10.188.2.9:5000 <- 10.188.1.1:43876       A:B", false, "nosuch"},
		{"all 256 10.188.2.9 <- 10.188.1.1       A:B", false, "256"},
		{"all tcp 10.188.2.9:70000 <- 10.188.1.1:43876       A:B", false, "70000"},
		{"all tcp 10.188.2.9[5000] <- 10.188.1.1:43876       A:B", false, "written"},
		{"all tcp fd00::1[5000] <- 10.188.1.1:43876       A:B", false, "families"},
		{"all tcp (1) 10.188.2.9:5000 <- 10.188.1.1:43876       A:B", false, "domains"},
		{"all tcp 10.188.2.9:5000 (10.0.0.1:2 <- 10.188.1.1:43876       A:B", false, "parenthesis"},
	}
	for _, tt := range tests {
		states, err := ParseStates(strings.NewReader(tt.text), tt.vv)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: got %v, %v, want an error with %q", tt.text, states, err, tt.want)
		}
	}
}

// FuzzParseStates proves that no input is worse than an error, and that what was
// understood of a listing is still understood when it is written again.
func FuzzParseStates(f *testing.F) {
	for name, vv := range stateFiles() {
		lines := goldenLines(f, name)
		f.Add(strings.Join(lines, "\n"), vv)
		for _, l := range lines[:min(len(lines), 12)] {
			f.Add(l, false)
		}
	}
	f.Fuzz(func(t *testing.T, text string, vv bool) {
		states, err := ParseStates(strings.NewReader(text), vv)
		if err != nil {
			return
		}
		var again strings.Builder
		for _, s := range states {
			again.WriteString(Line(s) + "\n")
		}
		got, err := ParseStates(strings.NewReader(again.String()), false)
		if err != nil {
			t.Fatalf("%q was understood, then written as %q: %v", text, again.String(), err)
		}
		for i := range states { // what a line does not have
			states[i].Age, states[i].Expires, states[i].ID = 0, 0, ""
		}
		if diff := cmp.Diff(states, got, ends); diff != "" {
			t.Errorf("%q (-first +again)\n%s", text, diff)
		}
	})
}
