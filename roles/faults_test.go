package roles

import (
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pfdivert/matrix"
	"pfdivert/matrix/faults"
	"pfdivert/roles/report"
	"pfdivert/roles/testbed"
)

// TestFaults runs all targets in labs that are broken in one way each. Those that need what is
// broken must say so, for the reason that says so, and no others. BenchmarkFaults times it: failing
// takes no longer than passing.
func TestFaults(t *testing.T) {
	lacks := skippedClaims(t)
	for _, f := range faults.On(runtime.GOOS, faults.All()) {
		t.Run(f.Name, func(t *testing.T) {
			p := reach(t, testbed.Options{Single: f.Single})
			p.Options.Untraced = true
			start := time.Now()
			judged, err := judgeFault(t.Context(), p, f, f.Targets(runtime.GOOS))
			if err != nil {
				t.Fatal(err)
			}
			took := time.Since(start)
			if r := judged[0].Result; r.Verdict == matrix.Skip && strings.HasPrefix(r.Detail, "break the host: ") {
				t.Skip(r.Detail)
			}
			noticed := 0
			for _, j := range judged {
				r := j.Result
				if j.Want.Verdict != matrix.Pass {
					noticed++
				}
				switch {
				case j.Wrong() != "" || r.Verdict == matrix.Skip && j.Want.Verdict != matrix.Skip && !lacks[r.Name]:
					t.Errorf("%s: %s: want %v, got %v\n%s", r.Name, j.Wrong(), j.Want, r, transcript(r))
				case r.Verdict != matrix.Pass && r.Detail == "":
					t.Errorf("%v: without a sentence", r)
				case r.Verdict != matrix.Pass && report.CauseOf(r) == "unexplained":
					t.Errorf("%v: nothing explains it", r)
				case r.Verdict == matrix.Fail && len(r.Transcript) == 0:
					t.Errorf("%v: a failure without a transcript", r)
				}
			}
			t.Logf("%d of %d noticed, in %v", noticed, len(judged), took.Round(time.Millisecond))
		})
	}
}

// skippedClaims are the claims that are SKIP in a lab that nothing is wrong with: this kernel lacks
// what they need, or may crash.
func skippedClaims(t *testing.T) map[string]bool {
	p := reach(t, testbed.Options{})
	var mu sync.Mutex
	skipped := map[string]bool{}
	err := matrix.Run(t.Context(), p.Hosts.Tested(), matrix.Plan{Targets: matrix.Claims()}, p.Options,
		func(r matrix.Result) {
			mu.Lock()
			defer mu.Unlock()
			skipped[r.Name] = r.Verdict == matrix.Skip
		})
	if err != nil {
		t.Fatal(err)
	}
	return skipped
}

// TestNoEvidence: where no one is asked, targets say the same, and nothing is explained.
func TestNoEvidence(t *testing.T) {
	p := reach(t, testbed.Options{})
	p.Options.NoEvidence = true
	all := faults.On(runtime.GOOS, faults.All())
	f := all[slices.IndexFunc(all, func(f faults.Fault) bool { return f.Name == "no-rule" })]
	judged, err := judgeFault(t.Context(), p, f, f.Sample(runtime.GOOS))
	if err != nil {
		t.Fatal(err)
	}
	for _, j := range judged {
		r := j.Result
		if j.Want = j.Want.Unexplained(); j.Wrong() != "" || r.Evidence != nil || r.Explanation != nil {
			t.Errorf("want %v, got %v, explained by %v", j.Want, r, r.Explanation)
		}
	}
}

// transcript is what a test shows of a result that it did not expect.
func transcript(r matrix.Result) string {
	var b strings.Builder
	for _, x := range r.Transcript {
		for line := range strings.Lines(x.Text) {
			b.WriteString("\t" + x.Host + " " + x.Name + ": " + line)
		}
	}
	return b.String()
}
