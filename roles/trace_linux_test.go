package roles

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"pfdivert/matrix"
	"pfdivert/matrix/faults"
	"pfdivert/roles/report"
	"pfdivert/roles/testbed"
)

// TestTrace: of a target that fails in a lab the kernel's trace says where its packet ended, in
// which rule or behind which policy, and the explanation names that.
func TestTrace(t *testing.T) {
	for _, c := range []struct {
		fault, target string
		packet        string   // begins so
		last          string   // table, chain and rule of the last hop
		end           string   // of the packet
		cause         string   // of the explanation
		likely        []string // in its texts
	}{
		{"drop-early", "inet-args-udp-to", "udp ", "ip drop-early drop-early-prerouting: ip daddr 10.208.0.0/12 counter drop",
			"was dropped by ", "dropped-before",
			[]string{"chain drop-early-prerouting hook prerouting: ip daddr 10.208.0.0/12"}},
		{"drop-early", "inet6-args-rip-to", "rip ", "ip6 drop-early drop-early-prerouting: ip6 daddr fd00:188:2::/64 counter drop",
			"was dropped by ", "dropped-before", []string{"ip6 daddr fd00:188:2::/64 counter drop"}},
		{"no-rule", "inet6-args-tcp-to", "tcp SYN ", "inet pfdivert pre: policy accept",
			"was dropped by routing, with mark 0x0 ", "rule-mismatch",
			[]string{"was dropped by routing, with mark 0x0"}},
		{"drop-input", "inet-args-tcp-to", "tcp SYN ", "drop", "was dropped by ", "dropped-after",
			[]string{"hook input"}},
	} {
		t.Run(c.fault+" "+c.target, func(t *testing.T) {
			all := faults.All()
			f := all[slices.IndexFunc(all, func(f faults.Fault) bool { return f.Name == c.fault })]
			some, err := matrix.Select([]string{c.target})
			if err != nil {
				t.Fatal(err)
			}
			judged, err := judgeFault(t.Context(), reach(t, testbed.Options{}), f, some)
			if err != nil {
				t.Fatal(err)
			}
			r := judged[0].Result
			if r.Verdict != matrix.Fail || r.Evidence == nil || r.Explanation == nil {
				t.Fatalf("%v", r)
			}
			if len(r.Trace) == 0 {
				t.Fatalf("no trace; missing: %q", r.Evidence.Remote.Missing)
			}
			p := r.Trace[0]
			last := "none"
			if n := len(p.Hops); n > 0 {
				last = p.Hops[n-1].Table + " " + p.Hops[n-1].Chain + ": " + p.Hops[n-1].Rule
			}
			if !p.Lost || !strings.HasPrefix(p.Packet, c.packet) || !strings.Contains(last, c.last) ||
				!strings.HasPrefix(p.End, c.end) {
				t.Errorf("%+v", p)
			}
			told := r.Explanation.LastSeen + "\n" + r.Explanation.Likely
			for _, w := range c.likely {
				if r.Explanation.Cause != c.cause || !strings.Contains(told, w) {
					t.Errorf("want %s, %q; got %+v", c.cause, w, r.Explanation)
				}
			}
			run := report.Run{Targets: []string{r.Name}}
			for name, write := range map[string]func(*bytes.Buffer) error{
				"evidence": func(b *bytes.Buffer) error { return report.WriteEvidence(b, r) },
				"JSON":     func(b *bytes.Buffer) error { return report.WriteJSON(b, run, []matrix.Result{r}) },
				"traces":   func(b *bytes.Buffer) error { return report.WriteTraces(b, []matrix.Result{r}) },
			} {
				var b bytes.Buffer
				if err := write(&b); err != nil || !strings.Contains(b.String(), c.end) {
					t.Errorf("%s: %v:\n%s", name, err, b.String())
				}
			}
		})
	}
}

// TestNoTrace: nothing is traced of a target that passes, even where its evidence is asked for.
func TestNoTrace(t *testing.T) {
	const name = "inet-args-udp-to"
	r := looked(t, matrix.Options{Evidence: true}, matrix.Plan{}, name)[name]
	if r.Verdict != matrix.Pass || r.Evidence == nil || r.Trace != nil || r.Evidence.Remote.Trace != nil {
		t.Errorf("%v: evidence %v, trace %v", r, r.Evidence != nil, r.Trace)
	}
}
