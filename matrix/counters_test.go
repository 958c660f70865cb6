package matrix

import (
	"net/netip"
	"testing"
	"time"

	"pfdivert/matrix/script"
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
		space := NewAddressPlan(map[pfconf.Family]Addresses{
			pfconf.Inet:  addresses("10.188.1.1", "10.188.1.2", "10.188.2.0/24"),
			pfconf.Inet6: addresses("fd00:188:1::1", "fd00:188:1::2", "fd00:188:2::/64"),
		})
		p := &testCase{Cell: space.Cell(targets[0]), kernel: pf}
		x := &exchange{testCase: p, mode: p.First, client: p.Client, server: p.Server}
		if tt.second {
			p.used = []usedFlow{{flow: x.flow(), began: time.Now()}}
			x = &exchange{testCase: p, mode: p.Second, part: "-2", client: p.Server, server: p.Client}
		}
		for _, c := range tt.good {
			x.counters = c
			if err := x.judgeCounters(tt.sent, tt.answer); err != nil {
				t.Errorf("%s: %+v: %v", tt.target, c, err)
			}
		}
		for _, c := range tt.bad {
			x.counters = c
			if err := x.judgeCounters(tt.sent, tt.answer); err == nil {
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

// TestWantCounters: no counters that are judged to be right keep a cell from being cleared away at
// once, to be looked at: what passes must not pay for evidence.
func TestWantCounters(t *testing.T) {
	for firewall := range kernels {
		for _, target := range Targets() {
			for _, second := range []bool{false, true} {
				if second && !target.reuse() {
					continue
				}
				x := halfOf(t, firewall, target.Name, second)
				sent, answered := uint64(1), uint64(0)
				if x.mode == ReplyTo {
					answered = 1
				}
				s := x.remote.request()
				e := teardown{counters: s.counters(x.label())}
				x.wantCounters(e, s, x.local.request(), sent, answered)
				accepted := 0
				for n := range uint64(256) { // each of the four counts from 0 to 3
					x.counters = pfconf.Counters{Matched: n & 3, Done: n >> 2 & 3, Replies: n >> 4 & 3, States: n >> 6}
					if x.judgeCounters(sent, answered) != nil {
						continue
					}
					accepted++
					if !script.Satisfied(s.steps[0], &script.Outcome{Counters: &x.counters}) {
						t.Fatalf("%s on %s, second %v: %+v passes, and is looked at", target.Name, firewall, second,
							x.counters)
					}
				}
				if accepted == 0 {
					t.Errorf("%s on %s, second %v: nothing passes", target.Name, firewall, second)
				}
			}
		}
	}
}

// TestStateGone: what a slow run waited for too long is not laid to the kernel.
func TestStateGone(t *testing.T) {
	x := halfOf(t, "pf", "inet-reuse-udp-to-reply", true)
	x.counters = pfconf.Counters{Matched: 1, States: 1}
	if got := verdictOf(x.judgeCounters(1, 0)); got != "FAIL not-counted" {
		t.Errorf("at once: %s", got)
	}
	x.used[0].began = time.Now().Add(-statesStay - time.Second)
	if got := verdictOf(x.judgeCounters(1, 0)); got != "ERROR timed-out" {
		t.Errorf("too late: %s", got)
	}
	x.counters = pfconf.Counters{}
	if got := verdictOf(x.judgeCounters(1, 0)); got != "PASS" {
		t.Errorf("with the state: %s", got)
	}
}
