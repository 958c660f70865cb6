package matrix

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"pfdivert/matrix/script"
)

// A ruleBatches loads the rules of many cells in few loads. On a filter whose rules keep their
// counters, a load begins when the last one is done and a quarter of the cells under way waits for
// it: the kernel copies the whole set for every load. On one that begins to count again with every
// load (pf), a load waits until no cell has a rule in play: all cells that are under way have come
// to the gate.
type ruleBatches struct {
	change func(context.Context, []script.RuleChange) ([]*script.Error, error)
	// together: load only when every cell under way waits for it.
	together bool

	mu      sync.Mutex
	active  int // cells under way
	loading bool
	queue   []waiter
	remove  []string // labels of ended cells, to be removed with the next load
	stuck   error    // rules of ended cells are still loaded: no later result would be sure
}

type waiter struct {
	change script.RuleChange
	done   chan error
}

// removeAt is how many rules of ended cells may wait for the next load before
// they are reason enough for one.
const removeAt = 256

// enter says that a cell begins; it must leave.
func (g *ruleBatches) enter() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.active++
}

// leave says that a cell has ended, and its rules with it.
func (g *ruleBatches) leave(ctx context.Context, labels ...string) {
	g.mu.Lock()
	g.active--
	g.remove = append(g.remove, labels...)
	g.mu.Unlock()
	g.next(ctx)
}

// load makes a cell's change and waits until it is in force. An error means that it is not, also
// when ctx ends: a change that waits is withdrawn then, and one that is being made is waited for.
func (g *ruleBatches) load(ctx context.Context, c script.RuleChange) error {
	w := waiter{c, make(chan error, 1)}
	g.mu.Lock()
	if g.stuck != nil {
		defer g.mu.Unlock()
		return g.stuck
	}
	g.queue = append(g.queue, w)
	g.mu.Unlock()
	g.next(ctx)
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
	}
	if g.withdraw(w) {
		return context.Cause(ctx)
	}
	return <-w.done
}

// withdraw takes a waiter out of the queue, and reports whether it was there still.
func (g *ruleBatches) withdraw(w waiter) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := len(g.queue)
	g.queue = slices.DeleteFunc(g.queue, func(other waiter) bool { return other.done == w.done })
	return len(g.queue) < n
}

// next begins a load if it is time for one.
func (g *ruleBatches) next(ctx context.Context) {
	g.mu.Lock()
	defer g.mu.Unlock()
	due := len(g.queue) > 0 && 4*len(g.queue) >= g.active || len(g.remove) >= removeAt
	if g.together {
		due = len(g.queue) > 0 && len(g.queue) >= g.active // more when one gave up waiting
	}
	if g.loading || !due {
		return
	}
	g.loading = true
	queue, remove := g.queue, g.remove
	g.queue, g.remove = nil, nil
	go g.send(ctx, queue, remove)
}

// send makes the changes and tells those who wait.
func (g *ruleBatches) send(ctx context.Context, queue []waiter, remove []string) {
	var changes []script.RuleChange
	if len(remove) > 0 {
		changes = append(changes, script.RuleChange{Remove: remove})
	}
	first := len(changes)
	for _, w := range queue {
		changes = append(changes, w.change)
	}
	// The load serves other cells too: it does not end with the one that began it.
	faults, err := g.change(context.WithoutCancel(ctx), changes)
	for i, w := range queue {
		switch {
		case err != nil:
			w.done <- err
		case faults[first+i] != nil:
			w.done <- faults[first+i]
		default:
			w.done <- nil
		}
	}
	g.mu.Lock()
	g.loading = false
	if first > 0 && err == nil && faults[0] != nil {
		g.stuck = fmt.Errorf("rules of ended cells could not be removed: %w", faults[0])
	}
	g.mu.Unlock()
	g.next(ctx)
}
