package matrix

import (
	"context"
	"errors"

	"pfdivert/matrix/explain"
	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// untold is a result that a trace of its packets may tell more of.
type untold struct {
	target Target
	result Result
	cell   *testCase
}

// traceable reports whether that is so.
func (r *runner) traceable(res Result) bool {
	return r.facts.Traces && res.Evidence != nil && (res.Verdict == Fail || res.Reason == ControlLost)
}

// traceAll traces the first of each kind of the results, one after another and only when no other
// cell is under way: the kernel drops what waits in a namespace's queues when chains come and go.
func (r *runner) traceAll(ctx context.Context, all []untold) {
	kinds := map[traceKind]bool{}
	for _, u := range all {
		k := kindOf(u)
		if !kinds[k] && ctx.Err() == nil {
			kinds[k] = true
			r.trace(ctx, u)
		}
	}
}

// traceKind is of what one cell is traced: others that fail alike have packets that meet the same.
type traceKind struct {
	family    pfconf.Family
	proto     pfconf.Proto
	mechanism explain.Mechanism
	claim     string
	reason    string
}

func kindOf(u untold) traceKind {
	k := traceKind{u.target.Family, u.target.Proto, u.target.First.mechanism, "", u.result.Reason}
	if u.target.Claim != nil {
		k.claim = u.target.Name
	}
	return k
}

// trace runs a cell once more while REMOTE's kernel tells which rules its packets meet, and adds
// that to the evidence of the first run. The verdict is the first run's.
func (r *runner) trace(ctx context.Context, u untold) {
	seen := &u.cell.evidence.Remote
	reason := u.result.Reason
	p := r.newCell(u.target)
	p.lookable, p.lookAlways, p.trace = false, false, seen
	p.onlyRule = reason != ControlLost
	err := r.runCell(ctx, p)
	var f *finding
	if errors.As(err, &f) && f.reason == reason {
		return
	}
	what := "it passed"
	if err != nil {
		what = err.Error()
	}
	seen.Trace = nil
	seen.Missing = append(seen.Missing, "trace: run again, the target did not fail so: "+what)
}

// traced does a step of the cell's trace.
func (p *testCase) traced(ctx context.Context, step script.Trace) {
	if p.trace == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookTimeout)
	defer cancel()
	c := p.remote.look(ctx, p.began, script.Look{About: p.about(), Trace: step})
	p.trace.Trace, p.trace.Missing = c.Trace, append(p.trace.Missing, c.Missing...)
}
