package testbed

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"pfdivert/matrix/script"
	"runtime"
	"strings"
	"sync"
	"time"

	"pfdivert/matrix"
	"pfdivert/roles/host"
	"pfdivert/roles/report"
	"pfdivert/roles/terminal"
)

// Testbed is a host under test with its LOCAL and the way to reach them. A run has one, or several
// from a hosts file.
type Testbed struct {
	Name  string // empty when it is the only one
	Index int    // among the run's testbeds
	Pair  *Pair  // nil until it was reached
	// Dial reaches the two hosts; Parts, where it is a lab, those that run a part of the targets
	// each, one after the other, the first of which Dial reaches.
	Dial   func(context.Context) (*Pair, error)
	Parts  []Part
	filter string      // what was asked for
	turn   *sync.Mutex // of those of the same host
}

// Part is some of a run's targets with a lab for them.
type Part struct {
	Targets []matrix.Target
	Dial    func(context.Context) (*Pair, error)
}

// Find returns the testbeds that the options and the environment name, or one that is a lab. It
// reads and validates what they say, and reaches nothing.
func Find(o Options, targets []matrix.Target) ([]*Testbed, error) {
	if err := ValidFilter(o.Filter); err != nil {
		return nil, err
	}
	beds, err := find(o, targets)
	if err != nil {
		return nil, err
	}
	return byFilter(beds), nil
}

// find returns a testbed for each host.
func find(o Options, targets []matrix.Target) ([]*Testbed, error) {
	if o.Kernel != "" {
		if err := o.onlyKernel(); err != nil {
			return nil, err
		}
		return []*Testbed{{filter: o.Filter,
			Dial: func(ctx context.Context) (*Pair, error) { return reachKernel(ctx, o) }}}, nil
	}
	if o.HostsFile == "" {
		if words := strings.Fields(o.Getenv("REMOTE_SSH")); len(words) > 1 {
			return nil, terminal.WithHint(fmt.Errorf("REMOTE_SSH names %d hosts; each needs addresses of its own",
				len(words)),
				"write the hosts and their addresses into a file: -hosts FILE")
		}
		if o.Getenv("REMOTE_SSH") != "" {
			return []*Testbed{{filter: o.Filter,
				Dial: func(ctx context.Context) (*Pair, error) { return reachRemote(ctx, o, targets) }}}, nil
		}
		var parts []Part
		for _, part := range LabParts(runtime.GOOS, targets) {
			dial := func(ctx context.Context) (*Pair, error) { return reachPart(ctx, o, part) }
			parts = append(parts, Part{part, dial})
		}
		return []*Testbed{{filter: o.Filter, Dial: parts[0].Dial, Parts: parts}}, nil
	}
	all, err := readHosts(o.HostsFile)
	if err != nil {
		return nil, err
	}
	chosen, err := selectHosts(all, o.Getenv("REMOTE_SSH"))
	if err != nil {
		return nil, err
	}
	if err := validateHosts(chosen, targets, o.Getenv); err != nil {
		return nil, err
	}
	if len(chosen) == 1 {
		own := o.forHost(chosen[0])
		return []*Testbed{{filter: o.filterOf(chosen[0]), Dial: func(ctx context.Context) (*Pair, error) {
			if chosen[0].kernel != "" {
				return reachKernel(ctx, own.guest(chosen[0]))
			}
			return reachRemote(ctx, own, targets)
		}}}, nil
	}
	beds := make([]*Testbed, len(chosen))
	p := newPrompter(terminal.Ask())
	for i, h := range chosen {
		own := o.forHost(h)
		if h.kernel != "" {
			beds[i] = &Testbed{Name: h.name, filter: o.filterOf(h), Dial: func(ctx context.Context) (*Pair, error) {
				return reachKernel(ctx, own.guest(h))
			}}
			continue
		}
		own.Notices = &prefixed{o.Notices, h.name + " "}
		beds[i] = &Testbed{Name: h.name, filter: o.filterOf(h), Dial: func(ctx context.Context) (*Pair, error) {
			pair, err := p.reach(ctx, func(a asks) (*Pair, error) { return reachSSH(ctx, own, targets, a) })
			if pair != nil {
				// All LOCALs may be one address.
				pair.Options.Part, pair.Options.Parts = i, len(chosen)
			}
			return pair, err
		}}
	}
	return beds, nil
}

// forHost returns the options with the environment of a host of the file.
func (o Options) forHost(h fileHost) Options {
	o.Getenv = h.getenv(o.Getenv)
	return o
}

// filterOf is the engine, or FilterAll, with which a host of the file is tested.
func (o Options) filterOf(h fileHost) string { return cmp.Or(h.set["filter"], o.Filter) }

// prefixed writes each text behind a prefix.
type prefixed struct {
	w      io.Writer
	prefix string
}

func (p *prefixed) Write(text []byte) (int, error) {
	if _, err := p.w.Write(append([]byte(p.prefix), text...)); err != nil {
		return 0, err
	}
	return len(text), nil
}

// prompter asks a person for the passwords of several hosts, for one host after the other.
type prompter struct {
	mu    sync.Mutex
	ask   host.Ask // nil when there is no terminal
	local host.Ask // LOCAL's password is one for all
}

func newPrompter(ask host.Ask) *prompter {
	return &prompter{ask: ask, local: askOnce(ask)}
}

// reach reaches a host without asking anything, which may be done for many hosts at once. When that
// needs a person, it tries again and asks: ssh would ask on the terminal too.
func (p *prompter) reach(ctx context.Context, reach func(asks) (*Pair, error)) (*Pair, error) {
	got, err := reach(asks{})
	var e *host.Error
	if p.ask == nil || !errors.As(err, &e) {
		return got, err
	}
	switch e.Reason {
	case host.KeyRefused, host.HostKey, host.SudoPassword:
	default:
		return got, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return reach(asks{p.ask, p.local})
}

// Each calls do for all testbeds at once and returns their errors in the testbeds' order.
func Each(beds []*Testbed, do func(*Testbed) error) []error {
	errs := make([]error, len(beds))
	var all sync.WaitGroup
	for i, b := range beds {
		all.Go(func() { errs[i] = do(b) })
	}
	all.Wait()
	return errs
}

// Describe fills in what the agents said of their machines.
func Describe(beds []*Testbed, run *report.Run) {
	if len(beds) == 1 {
		local, remote := beds[0].Pair.Machines()
		run.Kernel, run.System, run.Hosts = remote.Kernel, remote.System, []report.Machine{local, remote}
		return
	}
	for _, b := range beds {
		remote := report.Machine{}
		if b.Pair != nil {
			var local report.Machine
			local, remote = b.Pair.Machines()
			run.Local = &local
		}
		remote.Name = b.Name
		run.Tested = append(run.Tested, remote)
	}
}

// Reach connects to the two hosts and sets b.Pair, for Close to end.
func (b *Testbed) Reach(ctx context.Context) (err error) {
	b.Pair, err = b.Dial(ctx)
	return err
}

// Target returns a target's name in the report.
func (b *Testbed) Target(name string) string {
	if b.Name == "" {
		return name
	}
	return report.OnHost(b.Name, name)
}

// Run runs the plan's targets and calls done with each result, from any goroutine. It returns an
// error when none could be run.
func (b *Testbed) Run(ctx context.Context, plan matrix.Plan, change func(*matrix.Options),
	done func(matrix.Result)) error {
	if len(b.Parts) < 2 {
		return b.runAll(ctx, plan, change, done)
	}
	plan.For /= time.Duration(len(b.Parts))
	for i, part := range b.Parts {
		if i > 0 {
			if err := b.next(ctx, part); err != nil {
				b.Lost(part.Targets, err, done)
				continue
			}
		}
		plan.Targets = part.Targets
		if err := b.runAll(ctx, plan, change, done); err != nil || ctx.Err() != nil {
			return err
		}
	}
	return nil
}

// next leaves the lab for that of another part. Without one the testbed has no hosts to leave.
func (b *Testbed) next(ctx context.Context, part Part) error {
	left := b.Pair.Leave(ctx)
	b.Pair.Close()
	b.Pair = &Pair{}
	if left != nil {
		return left
	}
	p, err := part.Dial(ctx)
	if err == nil {
		b.Pair = p
	}
	return err
}

// runAll is Run on the hosts that the testbed has now.
func (b *Testbed) runAll(ctx context.Context, plan matrix.Plan, change func(*matrix.Options),
	done func(matrix.Result)) error {
	opt := b.Pair.Options
	change(&opt)
	err := matrix.Run(ctx, b.Pair.Hosts.Tested(), plan, opt, func(r matrix.Result) {
		r = b.Pair.judgeKernel(r)
		r.Name = b.Target(r.Name)
		done(r)
	})
	if err != nil {
		return b.Pair.Explain(err)
	}
	return nil
}

// Lost calls done with an ERROR for each target of a testbed that err kept from being tested: the
// other hosts' results count nevertheless.
func (b *Testbed) Lost(targets []matrix.Target, err error, done func(matrix.Result)) {
	reason := matrix.SetupFailed
	var gone *script.LostError
	if errors.As(err, &gone) {
		reason = matrix.AgentLost
	}
	detail, _, _ := strings.Cut(err.Error(), "\n") // what the agents said was printed
	for _, t := range targets {
		done(matrix.Result{Name: b.Target(t.Name), Verdict: matrix.Error, Reason: reason, Detail: detail})
	}
}

// Close ends the agents and waits until they are gone; its error is always nil.
func (b *Testbed) Close() error {
	if b.Pair != nil {
		b.Pair.Close()
	}
	return nil
}

// PrintError prints an error of this host, which does not end the run.
func (b *Testbed) PrintError(w io.Writer, err error) {
	var text bytes.Buffer // in one write, because the others may write too
	terminal.PrintError(&text, fmt.Errorf("%s: %w", b.Name, err))
	_, _ = text.WriteTo(w)
}

// PrintStderr prints what the agents wrote to their standard error.
func (b *Testbed) PrintStderr(w io.Writer) {
	if tail := b.Pair.Stderr(); tail != "" {
		of := ""
		if b.Name != "" {
			of = " of " + b.Name
		}
		fmt.Fprintf(w, "the agents%s said:\n%s", of, tail)
	}
}
