// Package shared answers a dear question for many who ask it at the same time.
package shared

import (
	"context"
	"sync"
	"time"
)

// Question is answered for many at the same time with few answers: who asks
// while an answer is being fetched gets the next one, never one that was begun before
// it was asked.
type Question[T any] struct {
	ask func(context.Context) (T, error)

	mu      sync.Mutex
	running bool
	next    *answer[T]
}

type answer[T any] struct {
	done  chan struct{}
	value T
	err   error
}

// askTimeout bounds one answer; those who asked have deadlines of their own.
const askTimeout = time.Minute

// New makes a question that ask answers.
func New[T any](ask func(context.Context) (T, error)) *Question[T] {
	return &Question[T]{ask: ask}
}

// Get returns an answer that was begun after the call. The value is shared: it
// must not be changed.
func (s *Question[T]) Get(ctx context.Context) (T, error) {
	s.mu.Lock()
	if s.next == nil {
		s.next = &answer[T]{done: make(chan struct{})}
	}
	mine := s.next
	if !s.running {
		s.running = true
		go s.serve()
	}
	s.mu.Unlock()
	select {
	case <-mine.done:
		return mine.value, mine.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// serve fetches answers until no one waits for one.
func (s *Question[T]) serve() {
	for {
		s.mu.Lock()
		a := s.next
		s.next = nil
		s.running = a != nil
		s.mu.Unlock()
		if a == nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
		a.value, a.err = s.ask(ctx)
		cancel()
		close(a.done)
	}
}
