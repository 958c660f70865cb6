package roles

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"pfdivert/matrix"
	"pfdivert/roles/agent"
	"pfdivert/roles/host"
	"pfdivert/roles/report"
)

// tested is a host that a run tests, with the way to reach it.
type tested struct {
	name  string // empty when it is the only one
	index int    // among the run's hosts
	reach func(context.Context) (*pair, error)
	pair  *pair // nil if it was not reached
}

// hostsToTest returns the hosts that the flags and the environment name, or a lab.
func (c *call) hostsToTest(o runFlags, targets []matrix.Target) ([]*tested, error) {
	if o.kernel != "" {
		if err := o.onlyKernel(c.Getenv); err != nil {
			return nil, err
		}
		return []*tested{{reach: func(ctx context.Context) (*pair, error) { return reachKernel(ctx, c, o) }}}, nil
	}
	if o.hosts == "" {
		if words := strings.Fields(c.Getenv("REMOTE_SSH")); len(words) > 1 {
			return nil, hinted{fmt.Errorf("REMOTE_SSH names %d hosts; each needs addresses of its own", len(words)),
				"write the hosts and their addresses into a file: -hosts FILE"}
		}
		return []*tested{{reach: func(ctx context.Context) (*pair, error) { return reachHosts(ctx, c, o, targets) }}}, nil
	}
	all, err := readHosts(o.hosts)
	if err != nil {
		return nil, err
	}
	chosen, err := selectHosts(all, c.Getenv("REMOTE_SSH"))
	if err != nil {
		return nil, err
	}
	if err := validateHosts(chosen, targets, c.Getenv); err != nil {
		return nil, err
	}
	if len(chosen) == 1 {
		own := c.forHost(chosen[0])
		return []*tested{{reach: func(ctx context.Context) (*pair, error) {
			if k, ok := chosen[0].guest(o); ok {
				return reachKernel(ctx, own, k)
			}
			return reachRemote(ctx, own, o, targets)
		}}}, nil
	}
	hosts := make([]*tested, len(chosen))
	people := newPeople(terminalAsk())
	for i, h := range chosen {
		own := c.forHost(h)
		own.Err = &prefixed{c.Err, h.name + " "}
		if k, ok := h.guest(o); ok {
			hosts[i] = &tested{name: h.name, index: i, reach: func(ctx context.Context) (*pair, error) { return reachKernel(ctx, own, k) }}
			continue
		}
		hosts[i] = &tested{name: h.name, index: i, reach: func(ctx context.Context) (*pair, error) {
			p, err := people.reach(ctx, func(a asks) (*pair, error) { return reachSSH(ctx, own, o, targets, a) })
			if p != nil {
				// All LOCALs may be one address.
				p.options.Part, p.options.Parts = i, len(chosen)
			}
			return p, err
		}}
	}
	return hosts, nil
}

// forHost is the call with the environment of a host of the file.
func (c *call) forHost(h fileHost) *call {
	own := *c
	own.Getenv = h.getenv(c.Getenv)
	return &own
}

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

// people asks for what several hosts want to know of a person, for one host after the
// other.
type people struct {
	mu    sync.Mutex
	ask   host.Ask // nil when there is no terminal
	local host.Ask // LOCAL's password is one for all
}

func newPeople(ask host.Ask) *people {
	return &people{ask: ask, local: askOnce(ask)}
}

// reach reaches a host without asking anything, which may be done for many hosts at
// once, and when that needs a person tries again with one: ssh too would ask
// on the terminal.
func (p *people) reach(ctx context.Context, reach func(asks) (*pair, error)) (*pair, error) {
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

// each does something for all hosts at once and gives their errors in the hosts' order.
func each(hosts []*tested, do func(*tested) error) []error {
	errs := make([]error, len(hosts))
	var all sync.WaitGroup
	for i, h := range hosts {
		all.Go(func() { errs[i] = do(h) })
	}
	all.Wait()
	return errs
}

// describe fills in what the agents said of their machines.
func describe(hosts []*tested, run *report.Run) {
	if len(hosts) == 1 {
		local, remote := hosts[0].pair.machines()
		run.Kernel, run.System, run.Hosts = remote.Kernel, remote.System, []report.Host{local, remote}
		return
	}
	for _, h := range hosts {
		remote := report.Host{}
		if h.pair != nil {
			var local report.Host
			local, remote = h.pair.machines()
			run.Local = &local
		}
		remote.Name = h.name
		run.Tested = append(run.Tested, remote)
	}
}

// target is a target's name in the report.
func (h *tested) target(name string) string {
	if h.name == "" {
		return name
	}
	return report.OnHost(h.name, name)
}

// play plays the targets and calls done for each result. It
// returns an error when none could be played.
func (h *tested) play(ctx context.Context, plan matrix.Plan, change func(*matrix.Options), done func(matrix.Result)) error {
	opt := h.pair.options
	change(&opt)
	err := matrix.Run(ctx, h.pair.hosts, plan, opt, func(r matrix.Result) {
		r = h.pair.judgeKernel(r)
		r.Name = h.target(r.Name)
		done(r)
	})
	if err != nil {
		return h.pair.explain(err)
	}
	return nil
}

// lost returns the results of a host that could not be tested: those of the other
// hosts count nevertheless.
func (h *tested) lost(targets []matrix.Target, err error, done func(matrix.Result)) {
	reason := matrix.SetupFailed
	var gone *agent.LostError
	if errors.As(err, &gone) {
		reason = matrix.AgentLost
	}
	detail, _, _ := strings.Cut(err.Error(), "\n") // what the agents said was told
	for _, t := range targets {
		done(matrix.Result{Name: h.target(t.Name), Verdict: matrix.Error, Reason: reason, Detail: detail})
	}
}

// close ends the agents.
func (h *tested) close() error {
	if h.pair != nil {
		h.pair.close()
	}
	return nil
}

// tell prints an error of the host, which does not end the run.
func (h *tested) tell(w io.Writer, err error) {
	var text bytes.Buffer // at once, because the others may write too
	tell(&text, fmt.Errorf("%s: %w", h.name, err))
	_, _ = text.WriteTo(w)
}

// tellStderr prints what the agents wrote to their standard error.
func (h *tested) tellStderr(w io.Writer) {
	if tail := h.pair.stderr(); tail != "" {
		of := ""
		if h.name != "" {
			of = " of " + h.name
		}
		fmt.Fprintf(w, "the agents%s said:\n%s", of, tail)
	}
}
