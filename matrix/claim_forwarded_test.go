package matrix

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// countingHost has rules that have matched so many packets.
type countingHost struct {
	script.Host
	matched map[string]uint64
	phase   string         // of the state that is looked for, empty where there is none
	near    netip.AddrPort // of that
	err     error
}

func (h *countingHost) Script(_ context.Context, s script.Script) ([]script.Outcome, error) {
	var out []script.Outcome
	for _, st := range s.Steps {
		if l, ok := st.(script.Lookup); ok {
			var states []pfconf.State
			if h.phase != "" && l.Flow.Near == h.near {
				states = []pfconf.State{{Phase: h.phase}}
			}
			out = append(out, script.Outcome{States: states})
			continue
		}
		c := pfconf.Counters{Matched: h.matched[st.(script.Counters).Label]}
		out = append(out, script.Outcome{Counters: &c})
	}
	return out, h.err
}

// That the third host's answers come to LOCAL by another way is no failure of the kernel's. It is
// told from one by the rules about the client's packets: they have matched a connection's, and
// those about the answers none.
func TestUnlessAside(t *testing.T) {
	wrong, lost := failed(WrongData, "not rewritten"), &script.LostError{Err: errors.New("gone")}
	for _, c := range []struct {
		name    string
		err     error
		matched map[string]uint64
		host    error
		want    string
	}{
		{"answers aside", wrong, map[string]uint64{"in": 3, "out": 4}, nil, "ERROR setup-failed"},
		{"an answer came in", wrong, map[string]uint64{"in": 3, "out": 4, "back-in": 1}, nil, "FAIL wrong-data"},
		{"an answer left", wrong, map[string]uint64{"in": 3, "out": 4, "back-out": 1}, nil, "FAIL wrong-data"},
		{"packets of the client were lost", wrong, map[string]uint64{"in": 2, "out": 2}, nil, "FAIL wrong-data"},
		{"the client was not answered", failed(NotReinjected, "it loops"), map[string]uint64{"in": 104, "out": 4}, nil,
			"FAIL not-reinjected"},
		{"nothing was diverted", wrong, nil, nil, "FAIL wrong-data"},
		{"what leaves was not diverted", wrong, map[string]uint64{"in": 3}, nil, "FAIL wrong-data"},
		{"not a failure", broken(TimedOut, "busy"), map[string]uint64{"in": 3, "out": 4}, nil, "ERROR timed-out"},
		{"no answer to the question", wrong, map[string]uint64{"in": 3, "out": 4}, lost, "FAIL wrong-data"},
	} {
		x := &claimRun{exchange: exchangeOf(t, "ipfw", "inet-divert-forwarded", false),
			answered: c.name != "the client was not answered"}
		x.remote = side{name: "remote", host: &countingHost{matched: c.matched, err: c.host}, closed: new(bool)}
		due := []leastOf{{"in", 3}, {"out", 3}, {"back-in", 2}, {"back-out", 2}}
		if got := verdictOf(x.unlessAside(t.Context(), c.err, due)); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// On OpenBSD pf's state tells that the third host's answers come by another way, where it is no
// lab's.
func TestUnlessUnseen(t *testing.T) {
	wrong, lost := failed(WrongData, "not rewritten"), &script.LostError{Err: errors.New("gone")}
	for _, c := range []struct {
		name     string
		err      error
		answered bool
		domain   int
		phase    string
		host     error
		want     string
	}{
		{"answers aside", wrong, true, 0, "CLOSED:SYN_SENT", nil, "ERROR setup-failed"},
		{"answers aside of what left", wrong, true, 0, "CLOSING:CLOSED", nil, "ERROR setup-failed"},
		{"answers were seen", wrong, true, 0, "ESTABLISHED:ESTABLISHED", nil, "FAIL wrong-data"},
		{"no state", wrong, true, 0, "", nil, "FAIL wrong-data"},
		{"the client was not answered", wrong, false, 0, "CLOSED:SYN_SENT", nil, "FAIL wrong-data"},
		{"a lab", wrong, true, 2, "CLOSED:SYN_SENT", nil, "FAIL wrong-data"},
		{"all is well", nil, true, 0, "CLOSED:SYN_SENT", nil, "PASS"},
		{"not a failure", broken(TimedOut, "busy"), true, 0, "CLOSED:SYN_SENT", nil, "ERROR timed-out"},
		{"no answer to the question", wrong, true, 0, "CLOSED:SYN_SENT", lost, "FAIL wrong-data"},
	} {
		x := &claimRun{exchange: exchangeOf(t, "pf", "inet-divert-pf-forwarded-in", false), answered: c.answered}
		x.second.Domain = c.domain
		from, to := x.flowEnds()
		for _, near := range []netip.AddrPort{from, to} { // of a state of what leaves, and of what comes in
			host := &countingHost{phase: c.phase, near: near, err: c.host}
			x.remote = side{name: "remote", host: host, closed: new(bool)}
			if got := verdictOf(x.unlessUnseen(t.Context(), c.err)); got != c.want {
				t.Errorf("%s, %v: %s, want %s", c.name, near, got, c.want)
			}
		}
	}
}
