package roles

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"pfdivert/matrix"
	"pfdivert/pfconf"
	"pfdivert/roles/agent"
	"pfdivert/roles/host"
	"pfdivert/roles/lab"
	"pfdivert/roles/report"
)

// helloPatience bounds the start of an agent.
const helloPatience = 20 * time.Second

// pair is the two hosts of a run with their agents.
type pair struct {
	hosts         matrix.Hosts
	options       matrix.Options
	local, remote *host.Link
}

// reachLab builds a lab and reaches its agents.
func reachLab(ctx context.Context, o runFlags) (*pair, error) {
	config := lab.Config{Single: o.single}
	local, remote, err := host.Lab(ctx, host.LabOptions{Args: []string{"agent", "-lab"}, Config: config})
	if err != nil {
		return nil, err
	}
	p := &pair{local: local, remote: remote}
	hello, cancel := context.WithTimeoutCause(ctx, helloPatience, errors.New("no hello in time"))
	defer cancel()
	// LOCAL's agent first: it starts the other and knows why that failed.
	if p.hosts.Local, err = agent.Dial(hello, local.Read, local.Write, heartbeat); err == nil {
		p.hosts.Remote, err = agent.Dial(hello, remote.Read, remote.Write, heartbeat)
	}
	if err != nil {
		err = p.explain(fmt.Errorf("lab: %w", err))
		p.close()
		return nil, err
	}
	p.options.NoFamily = p.hosts.Local.Hello.NoFamily
	p.options.Families = map[pfconf.Family]matrix.Addresses{}
	for _, f := range pfconf.Families {
		if _, missing := p.options.NoFamily[f]; missing {
			continue
		}
		plan := config.PlanOf(f)
		a := matrix.Addresses{Local: plan.Local.Addr(), Remote: plan.Remote.Addr(), Locals: plan.Locals, Fakes: plan.Fakes}
		if !a.Locals.IsValid() {
			a.Locals = netip.PrefixFrom(a.Local, a.Local.BitLen())
		}
		p.options.Families[f] = a
	}
	p.options.Rounds = 1 // nothing on a veth pair changes the order of packets
	return p, nil
}

// describe fills in what the agents said of their hosts.
func (p *pair) describe(run *report.Run) {
	local, remote := p.hosts.Local.Hello, p.hosts.Remote.Hello
	run.Kernel, run.System = remote.Kernel, remote.GOOS+"/"+remote.GOARCH
	run.Hosts = []report.Host{
		{Name: "local", Kernel: local.Kernel, System: local.GOOS + "/" + local.GOARCH},
		{Name: "remote", Kernel: remote.Kernel, System: remote.GOOS + "/" + remote.GOARCH},
	}
}

// stderr is what the agents wrote to their standard error.
func (p *pair) stderr() string { return p.local.Stderr() + p.remote.Stderr() }

// explain adds what the agents said to an error.
func (p *pair) explain(err error) error {
	if said := p.stderr(); said != "" {
		return fmt.Errorf("%w\nthe agents said:\n%s", err, said)
	}
	return err
}

// close ends the agents and waits until they are gone.
func (p *pair) close() {
	for _, c := range []*agent.Conn{p.hosts.Local, p.hosts.Remote} {
		if c != nil {
			_ = c.Close()
		}
	}
	_ = p.local.Write.Close()
	_ = p.remote.Write.Close()
	ctx, cancel := context.WithTimeout(context.Background(), agentPatience)
	defer cancel()
	for _, l := range []*host.Link{p.local, p.remote} {
		if err := l.Wait(ctx); err != nil && ctx.Err() != nil {
			l.Kill()
		}
	}
}
