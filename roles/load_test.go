package roles

import (
	"context"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"pfdivert/matrix"
	"pfdivert/roles/lab/labtest"
	"pfdivert/roles/testbed"
)

// TestLoad runs all targets and claims 20 times in a lab, in another order each time, all at
// once: every one passes, and neither this process nor the agents leave a
// goroutine behind. It is run under the race detector, and then the agents are too.
func TestLoad(t *testing.T) {
	labtest.Need(t)
	lacks := skippedClaims(t)
	before := goleak.IgnoreCurrent()
	t.Setenv(countLeaks, "1")
	for _, single := range []bool{false, true} {
		p, err := testbed.ReachLab(context.Background(), testbed.Options{Single: single})
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		played := map[string]int{}
		rounds := 20
		if single {
			rounds = 2 // cells take turns: slow, and the same code
		}
		plan := matrix.Plan{Targets: append(matrix.Targets(), matrix.Claims()...), Rounds: rounds, Seed: 20}
		err = matrix.Run(t.Context(), p.Hosts.Tested(), plan, p.Options, func(r matrix.Result) {
			mu.Lock()
			defer mu.Unlock()
			played[r.Name]++
			if r.Verdict != matrix.Pass && r.Verdict != matrix.XFail && r.Reason != matrix.NotClaimed &&
				!(r.Verdict == matrix.Skip && lacks[r.Name]) {
				t.Errorf("single=%v: %v\n%s", single, r, transcript(r))
			}
		})
		if err != nil {
			t.Error(p.Explain(err))
		}
		for _, target := range plan.Targets {
			if n := played[target.Name]; n != rounds {
				t.Errorf("%s was run %d times, not %d", target.Name, n, rounds)
			}
		}
		p.Close()
		if said := p.Stderr(); said != "" {
			t.Errorf("the agents said:\n%s", said)
		}
	}
	if err := goleak.Find(before); err != nil {
		t.Error(err)
	}
}
