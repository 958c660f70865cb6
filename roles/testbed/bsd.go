package testbed

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"

	"pfdivert/matrix"
	"pfdivert/pfconf"
	"pfdivert/roles/agent"
	"pfdivert/roles/host"
	"pfdivert/roles/lab/bsd"
	"pfdivert/roles/terminal"
)

// builder is the agent that builds a lab and undoes it when its hosts' agents have ended.
type builder struct {
	link *host.Process
	conn *agent.Conn
	lab  *bsd.Lab
}

// remoteArgs are the arguments of a remote host's agent.
func remoteArgs(o Options) []string {
	if o.Domain == 0 {
		return []string{"agent"}
	}
	return []string{"agent", "-rdomain", strconv.Itoa(o.Domain)}
}

// reachBSD has an agent build a lab on this machine, and starts one in each of
// its hosts. The hosts are real in that changes of them outlive the agents.
func reachBSD(ctx context.Context, o Options) (*Pair, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("the own executable: %w", err)
	}
	ask := askOnce(terminal.Ask())
	start := func(h bsd.Entry) (*host.Process, error) {
		argv := append(slices.Clone(h.Enter), exe, "agent")
		return host.Privileged(ctx, append(argv, h.Args...), o.Sudo, ask)
	}
	p := &Pair{real: true, Trips: setupTrips}
	lab, err := p.build(ctx, o, start)
	if err == nil {
		p.Local, err = start(lab.Local)
	}
	if err == nil {
		p.Remote, err = start(lab.Remote)
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	if err := p.dial(ctx, LabHeartbeat); err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	p.Options.Families = map[pfconf.Family]matrix.Addresses{}
	for f, a := range lab.Addresses {
		p.Options.Families[f] = matrix.Addresses{Local: a.Local, Remote: a.Remote,
			Locals: netip.PrefixFrom(a.Local, a.Local.BitLen()), Fakes: a.Fakes}
	}
	p.Options.Second = map[pfconf.Family]matrix.Network{}
	for _, f := range pfconf.Families {
		p.Options.Second[f] = matrix.Network{Gateway: lab.Second.Gateways[f], Mirror: lab.Second.Mirrors[f],
			Domain: lab.Second.Domain}
	}
	p.Options.Rounds = realRounds
	p.Options.By, p.Options.Patience = WhoRuns(o.Getenv), o.Wait
	p.relay(o.Notices)
	return p, nil
}

// build starts the lab's builder and has it build.
func (p *Pair) build(ctx context.Context, o Options, start func(bsd.Entry) (*host.Process, error)) (*bsd.Lab, error) {
	link, err := start(bsd.Entry{Args: []string{"-lab-builder"}})
	if err != nil {
		return nil, err
	}
	p.builder = &builder{link: link}
	hello, cancel := context.WithTimeoutCause(ctx, helloPatience, errors.New("no hello in time"))
	defer cancel()
	if p.builder.conn, err = agent.Dial(hello, link.Read, link.Write, LabHeartbeat); err != nil {
		return nil, p.Explain(err)
	}
	go printNotices(o.Notices, "lab", p.builder.conn)
	lab, err := p.builder.conn.Lab(ctx, agent.LabRequest{
		Config: bsd.Layout{Single: o.Single, Domain: o.Domain, PF: o.PF, Router: o.Router},
		By:     WhoRuns(o.Getenv), WaitSeconds: int(o.Wait.Seconds()),
	})
	if err != nil {
		return nil, p.Explain(err)
	}
	p.builder.lab = lab
	return lab, nil
}

// close ends the builder, which undoes the lab, and waits until it is gone.
func (b *builder) close() {
	if b.conn != nil {
		_ = b.conn.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), AgentPatience)
	defer cancel()
	end(ctx, b.link)
}

// askOnce asks for a password that is one for several agents; nil where no one can be asked.
func askOnce(ask host.Ask) host.Ask {
	if ask == nil {
		return nil
	}
	var once sync.Once
	var password string
	var err error
	return func(ctx context.Context, prompt string) (string, error) {
		once.Do(func() { password, err = ask(ctx, prompt) })
		return password, err
	}
}
