package matrix

import (
	"context"
	"errors"
	"fmt"
	"time"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// cellTimeout is the last resort: nothing in a cell waits by the clock, so only a host that
// hangs can take so long. All cells wait for the same loads of pf: on a busy emulated
// machine a pfctl takes a second, and a run 60 of them one after the other.
const cellTimeout = 2 * time.Minute

// portTries is how often a cell is run again because a planned port was in
// use on a host.
const portTries = 5

// playTarget runs a target and judges it.
func (r *runner) playTarget(ctx context.Context, t Target) Result {
	start := time.Now()
	ctx, trips := withTrips(ctx)
	res, p := r.judgeTarget(ctx, t)
	res.Trips = *trips
	res.Name, res.Seconds = t.Name, time.Since(start).Seconds()
	cause := ""
	if p != nil && p.evidence != nil && res.Verdict == Fail && r.kernel.knownByCause(t) {
		seen := res
		seen.Evidence = p.evidence
		cause = r.explain(t, seen, p).Cause
	}
	res = r.kernel.expected(t, res, cause)
	if p != nil && p.evidence != nil && (res.Verdict != Pass || p.lookAlways) {
		r.looks.took(t.Name)
		res.Evidence = p.evidence
	}
	noPF := res.Verdict == Skip && r.kernel.besides(t)
	known := res.Verdict == XFail // its detail says why

	if res.Verdict != Pass && !known && res.Reason != NotClaimed && !noPF && !r.opt.NoEvidence { // nothing is wrong there
		res.Explanation = r.explain(t, res, p)
	}
	if p != nil && (res.Verdict != Pass || r.opt.Transcripts) {
		res.Transcript = p.transcript(ctx)
	}
	return res
}

// judgeTarget runs a target, with other ports if those of the first cell are
// in use, and returns its verdict and the last cell.
func (r *runner) judgeTarget(ctx context.Context, t Target) (Result, *play) {
	if s := r.skip(t); s != nil {
		return s.result(), nil
	}
	var err error
	var p *play
	for range portTries {
		p, err = r.playCell(ctx, t)
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

// playCell runs a target once, with a fresh cell.
func (r *runner) playCell(ctx context.Context, t Target) (*play, error) {
	c := r.space.Cell(t)
	p := &play{Cell: c, kernel: r.kernel, nics: r.facts.Interfaces, localSystem: r.localSystem, gate: r.gate, omit: r.omit,
		lookable: r.looks.wanted(t.Name), lookAlways: r.looks.all,
		local:  side{"local", r.hosts.Local, c.Session, t.Family, new(bool)},
		remote: side{"remote", r.hosts.Remote, c.Session, t.Family, new(bool)}}
	if t.First == PacketIn || t.First == PacketOut || t.Claim != nil {
		select {
		case p.Divert = <-r.divert:
			defer func() { r.divert <- p.Divert }()
		case <-ctx.Done():
			return p, context.Cause(ctx)
		}
	}
	if err := r.turns.take(ctx, c.turn); err != nil {
		return p, err
	}
	defer r.turns.give(c.turn)
	// What came before was another's, who may have had the same addresses.
	p.began = time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, cellTimeout, fmt.Errorf("the cell did not end within %v", cellTimeout))
	defer cancel()
	r.gate.enter()
	err := r.unlessStopped(p.run(ctx))
	var taken *portTakenError
	if (err != nil || p.lookAlways) && r.ctx.Err() == nil && !errors.As(err, &taken) {
		p.look(ctx)
	}
	if c.turn != "" && len(p.labels) > 0 {
		// The next one of this conversation begins without a rule.
		if left := r.gate.load(ctx, script.Change{Remove: p.labels}); err == nil && left != nil {
			err = broken(RuleRefused, "remote: the rule is not removed: %v", left)
		}
		p.labels = nil
	}
	r.gate.leave(ctx, p.labels...)

	// What is left is closed and forgotten whatever happened to the cell; that this
	// failed is worth telling only when nothing else did.
	if ended := r.unlessStopped(p.end(ctx)); err == nil && ended != nil {
		err = ended
	}
	return p, err
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
func (p *play) run(ctx context.Context) error {
	if p.Target.reuse() {
		return p.reuse(ctx)
	}
	return p.halves()[0].run(ctx, true)
}

// run runs an args cell, with or without its control.
func (h *half) run(ctx context.Context, control bool) error {
	h.playing = h
	switch {
	case h.Claim != nil:
		return h.Claim.play(h, ctx)
	case h.mode == PacketIn || h.mode == PacketOut:
		return h.packet(ctx, control)
	case h.Proto == pfconf.TCP:
		return h.stream(ctx, control)
	case h.Proto == pfconf.ICMP && h.mode == To:
		return h.echoTo(ctx, control)
	case h.Proto == pfconf.ICMP:
		return h.echoReply(ctx, control)
	}
	return h.datagram(ctx, control)
}

// transcript gets what the cell's endpoints logged.
func (p *play) transcript(ctx context.Context) []Transcript {
	var all []Transcript
	for _, s := range []side{p.local, p.remote} {
		entries, err := s.host.Log(ctx, p.Session)
		if err != nil {
			entries = []script.Entry{{End: "agent", Text: "no transcript: " + err.Error() + "\n"}}
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
