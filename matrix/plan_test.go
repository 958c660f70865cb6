package matrix

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// played are the names that a plan runs, in order.
func played(ctx context.Context, p Plan) []string {
	var all []string
	for t := range p.order(ctx) {
		all = append(all, t.Name)
	}
	return all
}

func TestPlan(t *testing.T) {
	some := Targets()[:5]
	once := names(some)
	for _, c := range []struct {
		plan    Plan
		repeats bool
		rounds  int
	}{
		{Plan{Targets: some}, false, 1},
		{Plan{Targets: some, Rounds: 1}, false, 1},
		{Plan{Targets: some, Rounds: 3}, true, 3},
	} {
		got := played(t.Context(), c.plan)
		if want := slices.Repeat(once, c.rounds); !slices.Equal(got, want) || c.plan.Repeats() != c.repeats {
			t.Errorf("%d rounds: %q", c.plan.Rounds, got)
		}
	}
}

// A shuffled plan runs each target once in a round, in an order that the seed
// gives again.
func TestPlanShuffles(t *testing.T) {
	p := Plan{Targets: Targets(), Rounds: 3, Seed: 7}
	first := played(t.Context(), p)
	if again := played(t.Context(), p); !slices.Equal(first, again) {
		t.Error("the same seed gives another order")
	}
	sorted := slices.Sorted(slices.Values(names(p.Targets)))
	var rounds [][]string
	for round := range slices.Chunk(first, len(p.Targets)) {
		if !slices.Equal(slices.Sorted(slices.Values(round)), sorted) {
			t.Errorf("a round is not all targets: %q", round)
		}
		rounds = append(rounds, round)
	}
	if slices.Equal(rounds[0], rounds[1]) || slices.Equal(rounds[0], names(p.Targets)) {
		t.Error("not shuffled")
	}
	p.Seed = 8
	if slices.Equal(first, played(t.Context(), p)) {
		t.Error("another seed gives the same order")
	}
	if !slices.Equal(names(p.Targets), names(Targets())) {
		t.Error("the plan itself was shuffled")
	}
}

// For a time: whole rounds begin until it is over, the first one in any case.
func TestPlanFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := Plan{Targets: Targets()[:3], For: 10 * time.Second}
		if !p.Repeats() {
			t.Error("does not repeat")
		}
		var n int
		for range p.order(t.Context()) {
			n++
			time.Sleep(2 * time.Second)
		}
		if n != 6 { // the last one begins at 10 s
			t.Errorf("%d targets of 2 s in 10 s", n)
		}
		p.For = time.Second
		n = 0
		for range p.order(t.Context()) {
			n++
			time.Sleep(2 * time.Second)
		}
		if n != 3 {
			t.Errorf("%d targets, want the first round", n)
		}
	})
}

func TestPlanEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n := 0
	for range (Plan{Targets: Targets(), Rounds: 1000}).order(ctx) {
		if n++; n == 100 {
			cancel()
		}
	}
	if n != 100 {
		t.Errorf("%d targets were begun, 100 before the end", n)
	}
}
