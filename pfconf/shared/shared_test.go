package shared

import (
	"context"
	"sync"
	"testing"
)

// TestNext proves that an answer that was begun before a question is not given to it.
func TestNext(t *testing.T) {
	asked := 0
	begun, goOn := make(chan struct{}), make(chan struct{})
	s := New(func(context.Context) (int, error) {
		asked++
		n := asked
		begun <- struct{}{}
		<-goOn
		return n, nil
	})
	const late = 20
	answers := make(chan int, late+1)
	get := func() {
		n, err := s.Get(t.Context())
		if err != nil {
			t.Error(err)
		}
		answers <- n
	}
	go get()
	<-begun
	var wg sync.WaitGroup
	for range late {
		wg.Add(1)
		go func() { wg.Done(); get() }()
	}
	wg.Wait()
	goOn <- struct{}{}
	if n := <-answers; n != 1 {
		t.Errorf("the first was answered with %d", n)
	}
	served := 0
	for served < late {
		select {
		case <-begun:
			goOn <- struct{}{}
		case n := <-answers:
			served++
			if n < 2 {
				t.Errorf("a question was given an answer begun before it")
			}
		}
	}
}
