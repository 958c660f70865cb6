package matrix

import (
	"testing"
	"time"
)

// TestPace: how many cells are under way follows the processors and the answers.
func TestPace(t *testing.T) {
	for _, c := range []struct {
		name             string
		firewall         string
		processors, most int
		answers          []time.Duration
		want             int
	}{
		{"at first", "nftables", 1, 70, nil, 16},
		{"two processors", "nftables", 2, 70, nil, 32},
		{"a count that is not known", "nftables", 0, 70, nil, 16},
		{"few targets", "nftables", 2, 3, nil, 3},
		{"fast answers", "nftables", 2, 70, make([]time.Duration, 100), 70},
		{"a long way", "nftables", 1, 70, []time.Duration{time.Second, time.Second, time.Second + slowAnswer/2}, 19},
		{"a late answer", "nftables", 1, 70, []time.Duration{1, 1, 1 + slowAnswer}, 9},
		{"late answers", "nftables", 1, 70, []time.Duration{1, time.Second, time.Second, time.Second, time.Second}, 4},
		{"late answers of few", "nftables", 1, 2, []time.Duration{1, time.Second, time.Second, time.Second}, 2},
		{"cells that wait for one another", "pf", 1, 70, []time.Duration{1, time.Second, time.Second, time.Second}, 16},
		{"it recovers", "nftables", 1, 70, []time.Duration{1, time.Second, time.Second, 1, 1, 1}, 7},
	} {
		k, _ := KernelOf(c.firewall)
		p := newPace(c.processors, c.most, k)
		for _, took := range c.answers {
			time.Sleep(time.Nanosecond) // the clock goes on
			p.answered(time.Now(), took)
		}
		if p.allowed != c.want {
			t.Errorf("%s: %d cells, want %d", c.name, p.allowed, c.want)
		}
	}

	k, _ := KernelOf("nftables")
	p := newPace(1, 70, k)
	before := time.Now()
	p.answered(before, 1)
	for range 5 {
		p.answered(before, time.Second)
	}
	if p.allowed != 8 {
		t.Errorf("five answers that were late together: %d cells, want 8", p.allowed)
	}
}

// TestPaceEnter: a cell that begins waits until one has left, or one more is allowed.
func TestPaceEnter(t *testing.T) {
	k, _ := KernelOf("nftables")
	p := newPace(1, 2, k)
	p.enter()
	p.enter()
	entered := make(chan struct{})
	go func() { p.enter(); close(entered) }()
	select {
	case <-entered:
		t.Fatal("three cells where two are allowed")
	case <-time.After(20 * time.Millisecond):
	}
	p.leave()
	<-entered
}
