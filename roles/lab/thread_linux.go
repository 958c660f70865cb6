package lab

import (
	"errors"
	"sync"

	"pfdivert/roles/lab/namespace"
)

// thread is an operating system thread that runs functions given to it and
// nothing else, in a host's namespace.
type thread struct {
	work chan func()
	stop chan struct{}
	once sync.Once
}

var errClosed = errors.New("the lab is closed")

// newThread starts a thread and has it run setup.
func newThread(setup func() error) (*thread, error) {
	t := &thread{work: make(chan func()), stop: make(chan struct{})}
	namespace.OwnThread(func() {
		for {
			select {
			case f := <-t.work:
				f()
			case <-t.stop:
				return
			}
		}
	})
	if err := t.do(setup); err != nil {
		t.end()
		return nil, err
	}
	return t, nil
}

func (t *thread) do(f func() error) error {
	done := make(chan error, 1)
	select {
	case t.work <- func() { done <- f() }:
		return <-done
	case <-t.stop:
		return errClosed
	}
}

func (t *thread) end() {
	if t != nil {
		t.once.Do(func() { close(t.stop) })
	}
}
