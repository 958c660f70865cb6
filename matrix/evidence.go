package matrix

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"pfdivert/matrix/evidence"
	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// lookTimeout bounds the gathering of one cell's evidence, above the hosts' own bound.
const lookTimeout = 15 * time.Second

// evidencePerTarget is of how many runs of a target evidence is gathered: later
// ones are mostly the same, and reports keep no more.
const evidencePerTarget = 3

// evidenceBudget says of which runs evidence is gathered.
type evidenceBudget struct {
	all  bool // also of those that pass
	none bool
	mu   sync.Mutex
	n    map[string]int // runs of a target that were looked at
}

// wanted reports whether a run of the target is to be looked at if it does not pass. Where a
// failure of it may be known, byCause, all are: by the cause alone it is known to be that.
func (l *evidenceBudget) wanted(target string, byCause bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.none && (byCause || l.n[target] < evidencePerTarget)
}

// took counts a run of the target that was looked at, and reports whether its evidence is kept.
func (l *evidenceBudget) took(target string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.n == nil {
		l.n = map[string]int{}
	}
	l.n[target]++
	return l.n[target] <= evidencePerTarget
}

// finish runs the last scripts of an exchange. When something is wrong the hosts are looked at
// before sockets, states and rule are cleared away: doubt says that something is already
// known to be. What is judged, and in which order it was done, is the same either way.
func (x *exchange) finish(ctx context.Context, a, b *request, doubt bool) error {
	switch {
	case doubt && x.lookable || x.lookAlways && x.last():
		a.cutClearing()
		b.cutClearing()
	default:
		a.hold, b.hold = x.lookable, x.lookable
	}
	if err := both(ctx, a.run, b.run); err != nil {
		return err
	}
	if a.later == nil && b.later == nil {
		return nil
	}
	x.look(ctx)
	later := func(s *request) func(context.Context) error {
		return func(ctx context.Context) error {
			if s.later == nil {
				return nil
			}
			return s.later.run(ctx)
		}
	}
	return both(ctx, later(a), later(b))
}

// look gathers the cell's evidence from both hosts, once. It does not affect the verdict.
func (p *testCase) look(ctx context.Context) {
	if p.evidence != nil || !p.lookable && !p.lookAlways {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookTimeout)
	defer cancel()
	p.countLoops(ctx)
	p.evidence = &Evidence{}
	about := p.about()
	_ = both(ctx,
		func(ctx context.Context) error {
			p.evidence.Local = p.local.look(ctx, p.began, script.Look{About: about})
			return nil
		},
		func(ctx context.Context) error {
			p.evidence.Remote = p.remote.look(ctx, p.began, script.Look{About: about, Labels: p.labels})
			for i := range p.evidence.Remote.Rules {
				// It is loaded once, by this cell, and begins at zero.
				p.evidence.Remote.Rules[i].Before = &pfconf.Counters{}
			}
			return nil
		})
}

// countLoops asks for the counters of the cell's rule where pf is on beside the filter that has it.
func (p *testCase) countLoops(ctx context.Context) {
	if !p.kernel.PFOn || p.kernel.besides(p.Target) || len(p.labels) == 0 {
		return
	}
	at := p.remote.request()
	asked := at.counters(p.labels[0])
	if at.run(ctx) == nil && asked.Counters != nil {
		p.looped = asked.Counters
	}
}

func (s side) look(ctx context.Context, began time.Time, l script.Look) evidence.Record {
	countRoundTrips(ctx, 1)
	l.Cell = s.session
	l.Began = began
	c, err := s.host.Look(ctx, l)
	if err != nil {
		c.Missing, c.Cut = []string{s.name + ": " + err.Error()}, true
	}
	return c
}

// about says what belongs to the cell.
func (p *testCase) about() evidence.About {
	a := evidence.About{Proto: p.Proto, Local: p.Local, Remote: p.Remote, Fake: p.Fake, Own: p.own, Divert: p.Divert}
	for _, x := range p.exchanges() {
		a.Flows = append(a.Flows, x.flow())
		if x.mode.requests > 1 {
			second := x.flow()
			second.Echo++ // of the second request
			a.Flows = append(a.Flows, second)
		}
	}
	return a
}

// exchanges are the cells of a target in their order: one, or two of a reuse target.
func (p *testCase) exchanges() []*exchange {
	all := []*exchange{{testCase: p, mode: p.First, client: p.Client, server: p.Server}}
	if p.Target.reuse() {
		all = append(all, &exchange{testCase: p, mode: p.Second, part: "-2", client: p.Server, server: p.Client})
	}
	return all
}

// own returns those addresses of a cell that no other has.
func (a Addresses) own(local, fake netip.Addr) []netip.Addr {
	var own []netip.Addr
	if !a.Locals.IsSingleIP() {
		own = append(own, local)
	}
	if !a.Fakes.IsSingleIP() {
		own = append(own, fake)
	}
	return own
}
