package matrix

import (
	"net/netip"
	"testing"

	"pfdivert/pfconf"
)

// TestStateCounters proves what pf's counters must be: as many states as the cell's
// packets need, none where the first cell's state carries them, and the packets of
// both directions.
func TestStateCounters(t *testing.T) {
	pf, _ := KernelOf("pf")
	for _, tt := range []struct {
		target       string
		second       bool
		sent, answer uint64
		good, bad    []pfconf.Counters
	}{
		{"inet-args-udp-to", false, 1, 0,
			[]pfconf.Counters{{Matched: 1, States: 1}, {Matched: 2, States: 1}},
			[]pfconf.Counters{{}, {Matched: 1}, {States: 1}, {Matched: 2, States: 2}}},
		{"inet-args-udp-reply-to", false, 1, 1,
			[]pfconf.Counters{{Matched: 2, States: 1}},
			[]pfconf.Counters{{}, {Matched: 1, States: 1}}},
		{"inet6-args-icmp-reply-reuse", false, 2, 2,
			[]pfconf.Counters{{Matched: 4, States: 2}},
			[]pfconf.Counters{{Matched: 4, States: 1}, {Matched: 3, States: 2}}},
		{"inet-args-udp-packet-in", false, 1, 0,
			[]pfconf.Counters{{States: 1}},
			[]pfconf.Counters{{}, {States: 2}}},
		// The same flow as the first cell's, whose state is still there.
		{"inet-reuse-udp-to-reply", true, 1, 0,
			[]pfconf.Counters{{}},
			[]pfconf.Counters{{Matched: 1, States: 1}, {Matched: 1}}},
		{"inet6-reuse-rip-to-to", true, 1, 0,
			[]pfconf.Counters{{}},
			[]pfconf.Counters{{Matched: 1, States: 1}}},
		// Swapped ports make another flow; a tied state is gone.
		{"inet-reuse-udp-to-to", true, 1, 0,
			[]pfconf.Counters{{Matched: 1, States: 1}},
			[]pfconf.Counters{{}}},
		{"inet-reuse-udp-reply-to", true, 1, 0,
			[]pfconf.Counters{{Matched: 1, States: 1}},
			[]pfconf.Counters{{}}},
		{"inet-reuse-tcp-to-reply", true, 3, 2,
			[]pfconf.Counters{{Matched: 8, States: 1}},
			[]pfconf.Counters{{}, {Matched: 4, States: 1}}},
	} {
		targets, err := Select([]string{tt.target})
		if err != nil {
			t.Fatal(err)
		}
		space := NewSpace(map[pfconf.Family]Addresses{
			pfconf.Inet:  addresses("10.188.1.1", "10.188.1.2", "10.188.2.0/24"),
			pfconf.Inet6: addresses("fd00:188:1::1", "fd00:188:1::2", "fd00:188:2::/64"),
		})
		p := &play{Cell: space.Cell(targets[0]), kernel: pf}
		h := &half{play: p, mode: p.First, client: p.Client, server: p.Server}
		if tt.second {
			p.handled = []handled{{flow: h.flow()}}
			h = &half{play: p, mode: p.Second, part: "-2", client: p.Server, server: p.Client}
		}
		for _, c := range tt.good {
			h.counters = c
			if err := h.judgeCounters(tt.sent, tt.answer); err != nil {
				t.Errorf("%s: %+v: %v", tt.target, c, err)
			}
		}
		for _, c := range tt.bad {
			h.counters = c
			if err := h.judgeCounters(tt.sent, tt.answer); err == nil {
				t.Errorf("%s: %+v was believed", tt.target, c)
			}
		}
	}
}

func addresses(local, remote, fakes string) Addresses {
	l := netip.MustParseAddr(local)
	return Addresses{
		Local: l, Remote: netip.MustParseAddr(remote),
		Locals: netip.PrefixFrom(l, l.BitLen()), Fakes: netip.MustParsePrefix(fakes),
	}
}
