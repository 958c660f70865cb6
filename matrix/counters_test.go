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
				x := exchangeOf(t, firewall, target.Name, second)
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

// TestLate: what a slow run waited for too long is not laid to the kernel, and what it saw in time
// is; nor is it taken for what the kernel must do.
func TestLate(t *testing.T) {
	const timedOut = "ERROR timed-out"
	for _, c := range []struct {
		firewall, target string
		second           bool
		fails            string // the reason of a failure
		late             string
	}{
		{"pf", "inet-reuse-udp-to-reply", true, NotCounted, timedOut}, // of the first cell's state
		{"pf", "inet-args-udp-reply", false, NoReply, timedOut},
		{"nftables", "inet-args-udp-reply-to", false, NoReply, timedOut},
		{"nftables", "inet-args-udp-reply", false, NotCounted, timedOut},
		{"nftables", "inet-reuse-udp-to-reply", true, StateMissing, timedOut},
		{"nftables", "inet-args-udp-to", false, ControlDelivered, "FAIL control-delivered"},
		{"nftables", "inet-args-udp-to", false, Duplicate, "FAIL duplicate"},
		{"nftables", "inet-args-udp-to", false, SocketFailed, "FAIL socket-failed"},
		{"ipfw", "inet-args-udp-reply", false, NotCounted, "FAIL not-counted"},
		{"ipfw", "inet-reuse-tcp-to-to", true, StateMissing, timedOut},
	} {
		x := exchangeOf(t, c.firewall, c.target, c.second)
		if !c.second {
			x.used = nil
		}
		err := failed(c.fails, "something")
		if got := verdictOf(x.unlessLate(err)); got != "FAIL "+c.fails {
			t.Errorf("%s of %s on %s, before its rule: %s", c.fails, c.target, c.firewall, got)
		}
		x.used = append(x.used, usedFlow{flow: x.flow(), began: time.Now()})
		if got := verdictOf(x.unlessLate(err)); got != "FAIL "+c.fails {
			t.Errorf("%s of %s on %s, at once: %s", c.fails, c.target, c.firewall, got)
		}
		for i := range x.used {
			x.used[i].began = time.Now().Add(-statesStay - time.Second)
		}
		if got := verdictOf(x.unlessLate(err)); got != c.late {
			t.Errorf("%s of %s on %s, late: %s, want %s", c.fails, c.target, c.firewall, got, c.late)
		}
		if got := verdictOf(x.unlessLate(nil)); got != "PASS" {
			t.Errorf("%s on %s, passed late: %s", c.target, c.firewall, got)
		}
	}

	// A state of the first cell that caught the packets of the second was there, however old it is:
	// otherwise they had met the second's rule, which has counted nothing.
	for _, c := range []struct {
		known    bool
		counters pfconf.Counters
		second   time.Duration // since the second rule
		want     string
	}{
		{true, pfconf.Counters{}, 0, "FAIL no-reply"},
		{true, pfconf.Counters{}, statesStay + time.Second, timedOut},
		{true, pfconf.Counters{Matched: 1, States: 1}, 0, timedOut},
		{false, pfconf.Counters{}, 0, timedOut},
	} {
		x := exchangeOf(t, "pf", "inet-reuse-rip-to-reply-to", true)
		x.used[0].began = time.Now().Add(-statesStay - 2*time.Second)
		x.used = append(x.used, usedFlow{flow: x.flow(), began: time.Now().Add(-c.second)})
		x.counterKnown, x.counters = c.known, c.counters
		if got := verdictOf(x.unlessLate(failed(NoReply, "nothing arrived"))); got != c.want {
			t.Errorf("a state that was left, counters %+v, known %v, the rule in force since %v: %s, want %s", c.counters,
				c.known, c.second, got, c.want)
		}
	}

	x := exchangeOf(t, "pf", "inet-args-udp-reply", false)
	x.used = []usedFlow{{flow: x.flow(), began: time.Now()}}
	gone := teardown{after: &stepResult{}}
	if got := verdictOf(x.judgeTeardown(gone)); got != "PASS" {
		t.Errorf("a state that went with its socket: %s", got)
	}
	x.used[0].began = time.Now().Add(-statesStay - time.Second)
	if got := verdictOf(x.judgeTeardown(gone)); got != timedOut {
		t.Errorf("a state that went with its socket or its time: %s", got)
	}
}

// TestSentAgain: a segment that TCP sent again may be in the queue when the counters are read.
func TestSentAgain(t *testing.T) {
	x := claimRun{exchange: exchangeOf(t, "nftables", "inet-args-tcp-to", false)}
	again := pfconf.Counters{Matched: 5, Done: 4, Replies: 3}
	for _, c := range []struct {
		age  time.Duration
		c    pfconf.Counters
		want string
	}{
		{0, again, "FAIL not-counted"},
		{time.Second, again, "PASS"},
		{time.Second, pfconf.Counters{Matched: 5, Done: 2, Replies: 3}, "FAIL not-counted"},
		{0, pfconf.Counters{Matched: 5, Done: 5, Replies: 3}, "PASS"},
	} {
		x.used = []usedFlow{{flow: x.flow(), began: time.Now().Add(-c.age)}}
		if got := verdictOf(x.judgeStreamCounters("r", c.c)); got != c.want {
			t.Errorf("%v after %v: %s, want %s", c.c, c.age, got, c.want)
		}
	}
}
