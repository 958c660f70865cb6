package matrix

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// filter stands for REMOTE's agent behind a gate: a load takes a second.
type filter struct {
	mu    sync.Mutex
	loads [][]script.RuleChange
	busy  bool
	err   error                    // of every load
	fault map[string]*script.Error // by the label to add or remove
}

func (f *filter) change(_ context.Context, changes []script.RuleChange) ([]*script.Error, error) {
	f.mu.Lock()
	if f.busy {
		panic("two loads at a time")
	}
	f.busy = true
	f.mu.Unlock()
	time.Sleep(time.Second)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.busy = false
	f.loads = append(f.loads, changes)
	faults := make([]*script.Error, len(changes))
	for i, c := range changes {
		for _, r := range c.Add {
			faults[i] = f.fault[r.Label]
		}
		for _, l := range c.Remove {
			faults[i] = f.fault[l]
		}
	}
	return faults, f.err
}

// fail makes the error of the loads to come.
func (f *filter) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

// adding is the change that loads a rule.
func adding(label string) script.RuleChange {
	return script.RuleChange{Add: []pfconf.Rule{{Label: label}}}
}

// labels are those that each load added and removed ("-").
func (f *filter) labels() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []string
	for _, changes := range f.loads {
		s := ""
		for _, c := range changes {
			for _, l := range c.Remove {
				s += "-" + l + " "
			}
			for _, r := range c.Add {
				s += r.Label + " "
			}
		}
		all = append(all, s)
	}
	return all
}

func wantLoads(t *testing.T, f *filter, want ...string) {
	t.Helper()
	if got := f.labels(); !slices.Equal(got, want) {
		t.Errorf("loads %q, want %q", got, want)
	}
}

// Rules that come while a load is under way are loaded together, next.
func TestGateGathers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &filter{}
		g := &ruleBatches{change: f.change}
		var cells sync.WaitGroup
		cell := func(label string) {
			g.enter()
			cells.Go(func() {
				if err := g.load(t.Context(), adding(label)); err != nil {
					t.Errorf("%s: %v", label, err)
				}
			})
			synctest.Wait()
		}
		cell("a")
		for _, label := range []string{"b", "c", "d"} {
			cell(label)
		}
		cells.Wait()
		wantLoads(t, f, "a ", "b c d ")
		// What ended cells leave is removed by the way.
		g.leave(t.Context(), "a")
		g.leave(t.Context(), "b")
		synctest.Wait()
		wantLoads(t, f, "a ", "b c d ")
		cell("e")
		cells.Wait()
		wantLoads(t, f, "a ", "b c d ", "-a -b e ")
	})
}

// Of many cells a quarter must wait; none waits for ever, for cells leave.
func TestGateWaitsForQuarter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &filter{}
		g := &ruleBatches{change: f.change}
		for range 8 {
			g.enter()
		}
		var cells sync.WaitGroup
		load := func(label string) {
			cells.Go(func() { _ = g.load(t.Context(), adding(label)) })
			synctest.Wait()
		}
		load("a")
		time.Sleep(time.Minute)
		wantLoads(t, f)
		load("b")
		cells.Wait()
		wantLoads(t, f, "a b ")
		load("c")
		for range 3 {
			g.leave(t.Context())
		}
		time.Sleep(time.Minute)
		wantLoads(t, f, "a b ")
		g.leave(t.Context())
		cells.Wait()
		wantLoads(t, f, "a b ", "c ")
	})
}

// Where a load sets counters back, it waits for all cells, whose counters no one
// needs then.
func TestGateTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &filter{}
		g := &ruleBatches{change: f.change, together: true}
		for range 3 {
			g.enter()
		}
		var cells sync.WaitGroup
		for _, label := range []string{"a", "b"} {
			cells.Go(func() { _ = g.load(t.Context(), adding(label)) })
			synctest.Wait()
		}
		time.Sleep(time.Minute)
		wantLoads(t, f)
		g.leave(t.Context(), "c") // the third one needed no other rule
		cells.Wait()
		wantLoads(t, f, "-c a b ")
	})
}

// A lot of rules of ended cells is reason enough for a load.
func TestGateRemoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &filter{}
		g := &ruleBatches{change: f.change}
		for i := range removeAt {
			synctest.Wait()
			if len(f.labels()) > 0 {
				t.Fatalf("loaded for %d rules", i)
			}
			g.enter()
			g.leave(t.Context(), fmt.Sprint(i))
		}
		time.Sleep(time.Minute)
		f.mu.Lock()
		loads := f.loads
		f.mu.Unlock()
		if len(loads) != 1 || len(loads[0][0].Remove) != removeAt {
			t.Errorf("loads %q", f.labels())
		}
	})
}

// A rule that is refused is its own cell's trouble, a connection that is lost
// everybody's.
func TestGateFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused := &script.Error{Code: script.CodeOther, Text: "no"}
		f := &filter{fault: map[string]*script.Error{"bad": refused, "rotten": refused}}
		g := &ruleBatches{change: f.change}
		both := func() (good, bad error) {
			var cells sync.WaitGroup
			g.mu.Lock() // so that both are loaded together
			cells.Go(func() { good = g.load(t.Context(), adding("good")) })
			cells.Go(func() { bad = g.load(t.Context(), adding("bad")) })
			g.active = 8
			g.mu.Unlock()
			cells.Wait()
			return good, bad
		}
		if good, bad := both(); good != nil || bad != error(refused) || len(f.labels()) != 1 {
			t.Errorf("good: %v, bad: %v in loads %q", good, bad, f.labels())
		}
		lost := errors.New("lost")
		f.fail(lost)
		if good, bad := both(); good != lost || bad != lost {
			t.Errorf("good: %v, bad: %v", good, bad)
		}
		// A rule of an ended cell that stays makes every later result unsure.
		f.fail(nil)
		g.leave(t.Context(), "rotten")
		_, _ = both()
		if err := g.load(t.Context(), adding("later")); !errors.Is(err, refused) {
			t.Errorf("behind a rule that can't be removed: %v", err)
		}
	})
}

// Who gives up waiting gets the reason; the others' rules are loaded.
func TestGateGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &filter{}
		g := &ruleBatches{change: f.change, together: true}
		for range 2 {
			g.enter()
		}
		cause := errors.New("too late")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, cause)
		defer cancel()
		if err := g.load(ctx, adding("a")); err != cause {
			t.Errorf("%v, want %v", err, cause)
		}
		g.leave(t.Context())
		if err := g.load(t.Context(), adding("b")); err != nil {
			t.Error(err)
		}
		if len(f.loads) != 1 || len(f.loads[0]) != 1 || f.loads[0][0].Add[0].Label != "b" {
			t.Errorf("loaded %v, not b alone", f.loads)
		}
	})
}

// A cell whose time is over while its rule is being loaded knows that it is loaded, and has it
// removed: were the filter asked to remove what is not there, no later load would be made.
func TestGateLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &filter{}
		g := &ruleBatches{change: f.change}
		g.enter()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		if err := g.load(ctx, adding("a")); err != nil || ctx.Err() == nil {
			t.Errorf("%v, and its time: %v", err, ctx.Err())
		}
		f.fail(errors.New("the agent is gone"))
		ctx, cancel = context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		if err := g.load(ctx, adding("b")); err == nil || err == ctx.Err() {
			t.Errorf("of a load that failed: %v", err)
		}
	})
}

// Cells that come, load once or twice and go, as a run's do, all get through.
func TestGateManyCells(t *testing.T) {
	for _, together := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			f := &filter{}
			g := &ruleBatches{change: f.change, together: together}
			var players sync.WaitGroup
			for p := range 40 {
				players.Go(func() {
					for n := range 20 {
						g.enter()
						var labels []string
						for half := range 1 + rand.IntN(2) {
							label := fmt.Sprintf("%d.%d.%d", p, n, half)
							c := adding(label)
							c.Remove = labels
							if err := g.load(t.Context(), c); err != nil {
								t.Error(err)
							}
							labels = []string{label}
							time.Sleep(rand.N(time.Second))
						}
						g.leave(t.Context(), labels...)
					}
				})
			}
			players.Wait()
			time.Sleep(time.Minute)
			f.mu.Lock()
			defer f.mu.Unlock()
			added, removed := map[string]int{}, map[string]int{}
			for _, changes := range f.loads {
				for _, c := range changes {
					for _, r := range c.Add {
						added[r.Label]++
					}
					for _, l := range c.Remove {
						removed[l]++
						if added[l] == 0 {
							t.Errorf("%s is removed before it is there", l)
						}
					}
				}
			}
			if len(added) < 800 || len(added)-len(removed) >= removeAt+40 {
				t.Errorf("together=%v: %d rules were loaded and %d removed", together, len(added), len(removed))
			}
			for l, n := range removed {
				if n != 1 || added[l] != 1 {
					t.Errorf("%s: loaded %d times, removed %d times", l, added[l], n)
				}
			}
		})
	}
}

// Turns: one at a time for a key, all at once without.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var turns keyedLock
		var mu sync.Mutex
		now, most := map[string]int{}, map[string]int{}
		var all sync.WaitGroup
		for i := range 60 {
			key := []string{"inet rip", "inet icmp", ""}[i%3]
			all.Go(func() {
				if err := turns.lock(t.Context(), key); err != nil {
					t.Error(err)
				}
				mu.Lock()
				now[key]++
				most[key] = max(most[key], now[key])
				mu.Unlock()
				time.Sleep(time.Second)
				mu.Lock()
				now[key]--
				mu.Unlock()
				turns.unlock(key)
			})
		}
		all.Wait()
		if most["inet rip"] != 1 || most["inet icmp"] != 1 || most[""] != 20 {
			t.Errorf("at a time: %v", most)
		}
		if err := turns.lock(t.Context(), "inet rip"); err != nil {
			t.Fatal(err)
		}
		cause := errors.New("too late")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, cause)
		defer cancel()
		if err := turns.lock(ctx, "inet rip"); err != cause {
			t.Errorf("%v, want %v", err, cause)
		}
	})
}
