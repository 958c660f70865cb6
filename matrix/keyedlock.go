package matrix

import (
	"context"
	"sync"
)

// keyedLock lets those with the same key go one at a time. An empty key never
// waits.
type keyedLock struct {
	mu    sync.Mutex
	taken map[string]chan struct{} // holds a token while the turn is free
}

func (t *keyedLock) of(key string) chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.taken == nil {
		t.taken = map[string]chan struct{}{}
	}
	if t.taken[key] == nil {
		t.taken[key] = make(chan struct{}, 1)
		t.taken[key] <- struct{}{}
	}
	return t.taken[key]
}

func (t *keyedLock) lock(ctx context.Context, key string) error {
	if key == "" {
		return nil
	}
	select {
	case <-t.of(key):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (t *keyedLock) unlock(key string) {
	if key != "" {
		t.of(key) <- struct{}{}
	}
}
