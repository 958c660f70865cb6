package matrix

import (
	"context"
	"errors"

	"pfdivert/matrix/explain"
	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// traceLock is held while a cell is traced: a host traces one at a time.
const traceLock = "trace"

// traceable reports whether a trace of the packets may tell more of a result.
func (r *runner) traceable(res Result) bool {
	return r.facts.Traces && !r.budget.none && (res.Verdict == Fail || res.Reason == ControlLost)
}

// traceKind is of what one cell is traced: others that fail alike have packets that meet the same.
type traceKind struct {
	family    pfconf.Family
	proto     pfconf.Proto
	mechanism explain.Mechanism
	claim     string
	reason    string
}

// trace runs a cell once more while REMOTE's kernel tells which rules its packets meet, and adds
// that to the evidence of the first run. The verdict is the first run's.
func (r *runner) trace(ctx context.Context, t Target, first *testCase, res Result) {
	seen := &first.evidence.Remote
	kind := traceKind{t.Family, t.Proto, t.First.mechanism, "", res.Reason}
	if t.Claim != nil {
		kind.claim = t.Name
	}
	if _, there := r.tracedKinds.LoadOrStore(kind, true); there {
		return
	}
	if err := r.locks.lock(ctx, traceLock); err != nil {
		return // the run was stopped
	}
	defer r.locks.unlock(traceLock)
	p := r.newCell(t)
	p.lookable, p.lookAlways, p.trace = false, false, seen
	p.onlyRule = res.Reason != ControlLost
	err := r.runCell(ctx, p)
	var f *finding
	if errors.As(err, &f) && f.reason == res.Reason {
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
