package matrix

import (
	"context"
	"errors"
	"fmt"
	"time"

	"pfdivert/matrix/explain"
	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// portTries is how often a cell is run again because a planned port was in
// use on a host.
const portTries = 5

// runTarget runs a target and judges it. The test case, for explain and trace, is nil when it was
// skipped.
func (r *runner) runTarget(ctx context.Context, t Target) (Result, *testCase) {
	start := time.Now()
	ctx, trips := withRoundTrips(ctx)
	res, p := r.judgeTarget(ctx, t)
	res.RoundTrips = *trips
	res.Name, res.Seconds = t.Name, time.Since(start).Seconds()
	cause := ""
	switch known := r.kernel.knownCause(t); {
	case res.Verdict != Fail || known == "":
	case r.opt.NoEvidence: // nothing tells causes apart, and the failure proves nothing
		cause = known
	case p != nil && p.evidence != nil:
		seen := res
		seen.Evidence = p.evidence
		if cause = r.explain(t, seen, p).Cause; cause == explain.NotLookedAt { // no more does half a look
			cause = known
		}
	}
	res = r.kernel.expected(t, res, cause)
	if p != nil && p.evidence != nil && (res.Verdict != Pass || p.lookAlways) && r.budget.took(t.Name) {
		res.Evidence = p.evidence
	}
	if p != nil && (res.Verdict != Pass || r.opt.Transcripts) {
		res.Transcript = p.transcript(ctx)
	}
	return res, p
}

// explained returns the result with its explanation, where something is wrong.
func (r *runner) explained(t Target, res Result, p *testCase) Result {
	// Its detail says what is missing, and what a person can do.
	unmet := res.Verdict == Skip && (r.kernel.besides(t) || t.Forwards())
	known := res.Verdict == XFail // its detail says why
	// Nothing is wrong there.
	fine := res.Verdict == Pass || known || res.Reason == NotClaimed || res.Reason == NotJoined ||
		res.Reason == Dangerous || unmet
	if !fine && !r.opt.NoEvidence {
		res.Explanation = r.explain(t, res, p)
	}
	return res
}

// judgeTarget runs a target, with other ports if those of the first cell are
// in use, and returns its verdict and the last cell.
func (r *runner) judgeTarget(ctx context.Context, t Target) (Result, *testCase) {
	if s := r.skip(t); s != nil {
		return s.result(), nil
	}
	var err error
	var p *testCase
	for range portTries {
		p = r.newCell(t)
		err = r.runCell(ctx, p)
		var taken *portTakenError
		if !errors.As(err, &taken) {
			break
		}
		err = broken(SocketFailed, "%v; %d ports were tried", taken, portTries)
	}
	if err == nil {
		return Result{Verdict: Pass}, p
	}
	var f *finding
	if !errors.As(err, &f) {
		f = &finding{Error, TimedOut, err.Error()}
		if r.ctx.Err() != nil {
			f = &finding{Error, Interrupted, "the run was stopped: " + context.Cause(r.ctx).Error()}
		}
	}
	return f.result(), p
}

// newCell makes a fresh cell of a target.
func (r *runner) newCell(t Target) *testCase {
	c := r.addresses.Cell(t)
	return &testCase{Cell: c, kernel: r.kernel, nics: r.facts.Interfaces, second: r.opt.Second[t.Family],
		beyond: r.facts.Beyond[t.Family], viaGateway: r.localFacts.Arrivals[t.Family],
		localSystem: r.localFacts.System, batches: r.batches, omit: r.omit,
		lookable: r.budget.wanted(t.Name, r.kernel.knownCause(t) != ""), lookAlways: r.budget.all,
		local:  side{"local", r.hosts.Local, c.Session, t.Family, t.NeedsMirror(), new(bool), map[string]string{}},
		remote: side{"remote", r.hosts.Remote, c.Session, t.Family, false, new(bool), map[string]string{}}}
}

// runCell runs a cell.
func (r *runner) runCell(ctx context.Context, p *testCase) error {
	if p.Target.First.IsDivertPacket() || p.Target.Claim != nil {
		select {
		case p.Divert = <-r.divert:
			defer func() { r.divert <- p.Divert }()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if err := r.locks.lock(ctx, p.lockKey); err != nil {
		return err
	}
	defer r.locks.unlock(p.lockKey)
	// What came before was another's, who may have had the same addresses.
	p.began = time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, script.CellTimeout,
		fmt.Errorf("the cell did not end within %v", script.CellTimeout))
	defer cancel()
	p.traced(ctx, script.BeginTrace)
	r.batches.enter()
	err := p.run(ctx)
	if p.current != nil {
		err = p.unlessAnswered(ctx, p.current.unlessLate(err))
	}
	err = r.unlessStopped(err)
	p.traced(ctx, script.EndTrace)
	var taken *portTakenError
	if (err != nil || p.lookAlways) && r.ctx.Err() == nil && !errors.As(err, &taken) {
		p.look(ctx)
	}
	if p.lockKey != "" && len(p.labels) > 0 {
		// The next one of this conversation begins without a rule.
		if left := r.batches.load(ctx, script.RuleChange{Remove: p.labels}); err == nil && left != nil {
			err = broken(RuleRefused, "remote: the rule is not removed: %v", left)
		}
		p.labels = nil
	}
	r.batches.leave(ctx, p.labels...)

	// What is left is closed and forgotten whatever happened to the cell; that this
	// failed is worth telling only when nothing else did.
	if ended := r.unlessStopped(p.close(ctx)); err == nil && ended != nil {
		err = ended
	}
	return err
}

// unlessStopped returns err, or why the run was stopped: what a cell finds then may be the stop's
// own doing, for cells that gave up left their sockets, rules and divert ports as they were.
func (r *runner) unlessStopped(err error) error {
	if err != nil && r.ctx.Err() != nil {
		return context.Cause(r.ctx)
	}
	return err
}

// run runs the cell.
func (p *testCase) run(ctx context.Context) error {
	for _, x := range p.exchanges() {
		// Before a control, which may mean something else with such rules. A claim about queues may
		// load no rule, and has no control that does.
		diverts := x.Claim == nil || x.mode.IsDivertTo() || x.mode.IsDivertReply()
		if err := p.kernel.Engine.Check(x.rule()); diverts && err != nil {
			return &finding{Skip, NotClaimed, err.Error()}
		}
	}
	if p.Target.reuse() {
		return p.reuse(ctx)
	}
	return p.exchanges()[0].run(ctx, !p.onlyRule)
}

// run runs an args cell, with or without its control.
func (x *exchange) run(ctx context.Context, control bool) error {
	x.current = x
	if x.Claim != nil {
		return x.Claim.run(&claimRun{exchange: x}, ctx)
	}
	run := runs[runKey{x.mode.mechanism, x.Proto}]
	if run == nil {
		return broken(SetupFailed, "there is no test of %s with %v", x.mode, x.Proto)
	}
	return run(x, ctx, control)
}

// runs are the functions that run an exchange, by what diverts it and by its protocol.
var runs = map[runKey]func(*exchange, context.Context, bool) error{
	{explain.DivertTo, pfconf.TCP}: runStream,
	{explain.DivertTo, pfconf.UDP}: runDatagram,
	{explain.DivertTo, pfconf.Raw}: runDatagram,
	{explain.DivertTo, pfconf.ICMP}: func(x *exchange, ctx context.Context,
		c bool) error {
		return echo{x}.requests(ctx, c)
	},
	{explain.DivertReply, pfconf.TCP}: runStream,
	{explain.DivertReply, pfconf.UDP}: runDatagram,
	{explain.DivertReply, pfconf.Raw}: runDatagram,
	{explain.DivertReply, pfconf.ICMP}: func(x *exchange, ctx context.Context,
		c bool) error {
		return echo{x}.replies(ctx, c)
	},
	{explain.PacketIn, pfconf.UDP}:  runPacket,
	{explain.PacketOut, pfconf.UDP}: runPacket,
}

type runKey struct {
	mechanism explain.Mechanism
	proto     pfconf.Proto
}

func runStream(x *exchange, ctx context.Context, c bool) error   { return stream{x}.run(ctx, c) }
func runDatagram(x *exchange, ctx context.Context, c bool) error { return datagram{x}.run(ctx, c) }
func runPacket(x *exchange, ctx context.Context, c bool) error   { return packet{x}.run(ctx, c) }

// transcript gets what the cell's endpoints logged.
func (p *testCase) transcript(ctx context.Context) []Transcript {
	var all []Transcript
	for _, s := range []side{p.local, p.remote} {
		entries, err := s.host.Log(ctx, p.Session)
		if err != nil {
			entries = []script.Transcript{{End: "agent", Text: "no transcript: " + err.Error() + "\n"}}
		}
		for _, e := range entries {
			all = append(all, Transcript{s.name, e.End, e.Text})
		}
	}
	return all
}

// result makes the finding a result.
func (f *finding) result() Result {
	return Result{Verdict: f.verdict, Reason: f.reason, Detail: f.detail}
}
