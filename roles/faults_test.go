package roles

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pfdivert/matrix"
	"pfdivert/pfconf"
)

// part is one of the cells that a target plays, for the faults' table.
type part struct {
	matrix.Target
	mode   matrix.Mode
	second bool // of a reuse target
}

// parts are a target's cells in their order.
func parts(t matrix.Target) []part {
	all := []part{{t, t.First, false}}
	if t.Second != "" {
		all = append(all, part{t, t.Second, true})
	}
	return all
}

func (p part) packet() bool { return p.mode == matrix.PacketIn || p.mode == matrix.PacketOut }
func (p part) tcp() bool    { return p.Proto == pfconf.TCP }

// back tells whether something must come back to a cell's client on REMOTE.
func (p part) back() bool {
	return p.mode == matrix.ReplyTo || p.mode == matrix.ReplyReuse || p.tcp() && p.mode == matrix.Reply
}

// afterTo tells whether it follows a divert-to cell of the same flow.
func (p part) afterTo() bool { return p.second && p.First == matrix.To }

// faults are the pieces that can be taken away, and the reason for which a cell that
// needs them must fail; "" for a cell that needs none of them. A target fails
// by its first cell that does.
var faults = []struct {
	omit   string
	single bool // with one FAKE address
	reason func(p part) string
}{
	{"rule", false, func(p part) string {
		switch {
		case p.packet():
			return matrix.NotRewritten
		case p.tcp() || p.mode == matrix.To:
			return matrix.NotDelivered
		case p.back():
			return matrix.NoReply
		}
		return matrix.NotCounted // what the client sends arrives anyway
	}},
	{"policy-rule", false, undelivered},
	{"policy-rule", true, undelivered},
	{"local-route", false, undelivered},
	{"mark", false, undelivered},
	{"tproxy", false, func(p part) string {
		if p.mode == matrix.To && p.Proto.HasPorts() {
			return matrix.NotDelivered
		}
		return ""
	}},
	{"ct-mark", false, func(p part) string {
		switch {
		case p.packet() || p.mode == matrix.To:
			return ""
		case p.afterTo() && !p.tcp():
			return "" // the first cell's state has the mark; TCP's new connection has a new state
		case p.tcp():
			return matrix.NotDelivered
		case p.back():
			return matrix.NoReply
		}
		return matrix.NotCounted
	}},
	{"back", false, func(p part) string {
		if p.mode == matrix.To {
			return ""
		}
		return undelivered(p)
	}},
	{"any-direction", false, stale},
	{"any-direction", true, stale},
	{"kernel-echo", false, func(p part) string {
		if p.Family == pfconf.Inet6 && p.Proto == pfconf.ICMP && p.mode == matrix.To {
			return matrix.Duplicate
		}
		return ""
	}},
	{"transparent", false, func(p part) string {
		switch {
		case p.packet():
			return ""
		case p.mode == matrix.To && p.Proto.HasPorts():
			return matrix.NotDelivered
		}
		return matrix.NoBindany
	}},
	{"checksum", false, func(p part) string {
		if p.packet() {
			return matrix.NotReinjected
		}
		return ""
	}},
	{"listen", false, func(p part) string {
		switch {
		case p.Proto == pfconf.ICMP && p.mode != matrix.To:
			return "" // the kernel is the server
		case p.packet(), p.Second == "" && p.mode != matrix.To && !p.tcp():
			return matrix.ControlLost
		}
		return matrix.NotDelivered
	}},
	{"swap", false, func(p part) string {
		switch {
		case !p.second || !p.Proto.HasPorts():
			return ""
		case p.tcp() || p.mode == matrix.To:
			return matrix.NotDelivered
		case p.back():
			return matrix.NoReply
		}
		return matrix.NotCounted
	}},
	{"drop", false, blocked},
	// Nor do TCP's timestamps help where they are missing, nor is anything else
	// in need of them.
	{"drop timestamps", false, blocked},
	{"timestamps", false, none},
	// It is off so that a killed state is missed at once; no target kills one
	// that is in use.
	{"early-demux", false, none},
}

func none(part) string { return "" }

// undelivered: what is diverted does not reach a socket of REMOTE. What goes out
// only does not need that.
func undelivered(p part) string {
	switch {
	case p.packet():
		return ""
	case p.tcp() || p.mode == matrix.To:
		return matrix.NotDelivered
	case p.back():
		return matrix.NoReply
	}
	return ""
}

// stale: the state that a divert-to cell left catches the answers of the cell after it,
// because the other side began it. TCP's new connection has a new state.
func stale(p part) string {
	if p.afterTo() && p.mode == matrix.ReplyTo {
		return matrix.NoReply
	}
	return ""
}

// blocked: the first cell's socket in TIME_WAIT has the very addresses and
// ports that the second's client needs.
func blocked(p part) string {
	if p.tcp() && p.second && p.First != p.Second {
		return matrix.PortBlocked
	}
	return ""
}

// reasonFor is the reason for which a target must fail.
func reasonFor(t matrix.Target, reason func(part) string) string {
	for _, p := range parts(t) {
		if r := reason(p); r != "" {
			return r
		}
	}
	return ""
}

// mostSeconds bounds a run of all targets in which nearly all fail. It takes 0.3 s
// alone on two cores; CI's machines have other work.
const mostSeconds = 10

// TestFaults plays all targets in a real lab with one piece taken away. Those
// that need it must FAIL, for the reason that says so, and no others; and failing
// takes no longer than passing.
func TestFaults(t *testing.T) {
	for _, f := range faults {
		t.Run(strings.TrimSpace(fmt.Sprintf("%s single=%v", f.omit, f.single)), func(t *testing.T) {
			p := reach(t, runFlags{single: f.single})
			opt := p.options
			opt.Omit = strings.Fields(f.omit)
			start := time.Now()
			results := p.play(t, matrix.Plan{Targets: matrix.Targets()}, opt)
			took := time.Since(start)
			failed := 0
			for _, target := range matrix.Targets() {
				got := results[target.Name]
				want := matrix.Result{Verdict: matrix.Pass}
				if r := reasonFor(target, f.reason); r != "" {
					want = matrix.Result{Verdict: matrix.Fail, Reason: r}
					failed++
				}
				switch {
				case got.Verdict != want.Verdict || got.Reason != want.Reason:
					t.Errorf("%s: want %s %s, got %v\n%s", target.Name, want.Verdict, want.Reason, got, transcript(got))
				case got.Verdict == matrix.Fail && (got.Detail == "" || len(got.Transcript) == 0):
					t.Errorf("%v: a failure without a sentence or transcript", got)
				}
			}
			t.Logf("%d of %d failed, in %v", failed, len(results), took.Round(time.Millisecond))
			if took > mostSeconds*time.Second {
				t.Errorf("it took %v: something waits for a time-out", took)
			}
		})
	}
}

// transcript is what a test shows of a result that it did not expect.
func transcript(r matrix.Result) string {
	var b strings.Builder
	for _, x := range r.Transcript {
		for line := range strings.Lines(x.Text) {
			fmt.Fprintf(&b, "\t%s %s: %s", x.Host, x.Name, line)
		}
	}
	return b.String()
}
