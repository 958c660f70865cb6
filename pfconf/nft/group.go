package nft

import "sync"

// group does together what was asked for at the same time: whoever comes while
// the work is being done waits, and all who wait are done next. One who comes
// alone does the work at once on the own goroutine.
type group[T any] struct {
	do func([]T) // does the work for all; called by one goroutine at a time

	mu      sync.Mutex
	waiting []T
	done    chan struct{} // closed when those in waiting have been done
	busy    bool
}

// ask returns when do has been called with a batch that all of xs were in.
func (g *group[T]) ask(xs ...T) {
	g.mu.Lock()
	g.waiting = append(g.waiting, xs...)
	if g.busy {
		if g.done == nil {
			g.done = make(chan struct{})
		}
		done := g.done
		g.mu.Unlock()
		<-done
		return
	}
	g.busy = true
	g.mu.Unlock()
	// The asker's own batch first; those that came meanwhile must not keep it.
	if g.next() {
		go func() {
			for g.next() {
			}
		}()
	}
}

// next does one batch and reports whether another waits.
func (g *group[T]) next() bool {
	g.mu.Lock()
	batch, done := g.waiting, g.done
	g.waiting, g.done = nil, nil
	g.mu.Unlock()
	g.do(batch)
	if done != nil {
		close(done)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.waiting) > 0 {
		return true
	}
	g.busy = false
	return false
}
