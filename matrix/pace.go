package matrix

import (
	"context"
	"sync"
	"time"

	"pfdivert/matrix/script"
)

const (
	// startPerProcessor is how many cells begin at once for each processor of the host that has
	// fewer, and leastPerProcessor how many are always under way.
	startPerProcessor, leastPerProcessor = 16, 4
	// slowAnswer is how much longer than the fastest an answer takes when a host has too much to
	// do: well below a second, after which TCP sends a SYN again (RFC 6298, 2.1).
	slowAnswer = 250 * time.Millisecond
)

// pace bounds how many cells are under way: one more after each script that is answered soon, half
// of them when one is answered late. So all targets run at once on hosts that keep up, and few on
// those that do not, whose states and retransmissions would not wait for them. It is safe for
// concurrent use.
type pace struct {
	mu             sync.Mutex
	changed        *sync.Cond
	least, most    int
	allowed, under int
	fastest        time.Duration // of all answers, 0 before the first
	lowered        time.Time     // when allowed was halved
}

// newPace returns a pace for hosts with so many processors each, for at most so many cells at once.
func newPace(processors, most int, k Kernel) *pace {
	processors = max(processors, 1)
	p := &pace{least: leastPerProcessor * processors, most: most, allowed: min(startPerProcessor*processors, most)}
	if k.SweepsFake {
		p.least = p.allowed // cells that wait for the others at the gate are no work; see ruleBatches
	}
	p.changed = sync.NewCond(&p.mu)
	return p
}

// enter waits until one more cell may begin, which must leave.
func (p *pace) enter() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.under >= p.allowed {
		p.changed.Wait()
	}
	p.under++
}

func (p *pace) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.under--
	p.changed.Signal()
}

// answered takes the time of a script's answer.
func (p *pace) answered(began time.Time, took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fastest == 0 || took < p.fastest {
		p.fastest = took
	}
	switch {
	case took-p.fastest < slowAnswer:
		p.allowed = min(p.allowed+1, p.most)
		p.changed.Signal()
	case began.After(p.lowered): // it was asked with as many under way as are allowed now
		p.allowed, p.lowered = max(p.allowed/2, min(p.least, p.most)), time.Now()
	}
}

// pacedHost is a host whose answers are timed.
type pacedHost struct {
	script.Host
	pace *pace
}

func (h pacedHost) Script(ctx context.Context, s script.Script) ([]script.Outcome, error) {
	began := time.Now()
	out, err := h.Host.Script(ctx, s)
	if err == nil && !apart(s.Steps, out) {
		h.pace.answered(began, time.Since(began))
	}
	return out, err
}

// apart reports whether a fence failed: its patience is no measure of the host.
func apart(steps []script.Step, out []script.Outcome) bool {
	for i, o := range out {
		if _, fence := steps[i].(script.Fence); fence && o.Err != nil {
			return true
		}
	}
	return false
}
