package roles

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"time"

	"pfdivert/matrix"
	"pfdivert/pfconf"
	"pfdivert/roles/agent"
	"pfdivert/roles/host"
	"pfdivert/roles/kernel"
	"pfdivert/roles/lab"
	"pfdivert/roles/report"
)

// setupTrips are the round trips of each run beside those of its cells: the
// hello, the set-up and the farewell.
const setupTrips = 3

// helloPatience bounds the start of an agent.
const helloPatience = 20 * time.Second

// pair is the two hosts of a run with their agents.
type pair struct {
	hosts         matrix.Hosts
	options       matrix.Options
	local, remote *host.Link
	far           *host.Remote // of a real remote host
	guest         *kernel.Guest
	builder       *builder // of a lab that outlives its processes
	real          bool     // the hosts stay when the agents end
	trips         int      // round trips until the agents had said hello, and to set them up
}

// hasNamespaces reports whether a lab on this system is gone with its processes, and needs
// no root.
const hasNamespaces = runtime.GOOS == "linux"

// reachHosts reaches the two hosts: the ones that the environment names, or a lab.
func reachHosts(ctx context.Context, c *call, o runFlags, targets []matrix.Target) (*pair, error) {
	if c.Getenv("REMOTE_SSH") != "" {
		return reachRemote(ctx, c, o, targets)
	}
	if err := strayAddresses(c.Getenv); err != nil {
		return nil, err
	}
	return reachOwnLab(ctx, c, o)
}

// reachOwnLab builds the lab that this system has, and reaches its agents.
func reachOwnLab(ctx context.Context, c *call, o runFlags) (*pair, error) {
	if !hasNamespaces {
		return reachBSDLab(ctx, c, o)
	}
	if o.domain != 0 {
		return nil, hinted{errors.New("-rdomain: this system has no routing domains"), "set REMOTE_SSH to an OpenBSD host, or run it there"}
	}
	return reachLab(ctx, o)
}

// reachLab builds a lab of namespaces and reaches its agents.
func reachLab(ctx context.Context, o runFlags) (*pair, error) {
	config := lab.Config{Single: o.single}
	options := host.LabOptions{Args: []string{"agent", "-lab"}, Config: config}
	if os.Geteuid() != 0 {
		options.Sudo = strings.Fields(o.sudo)
	}
	local, remote, err := host.Lab(ctx, options)
	if err != nil {
		return nil, err
	}
	p := &pair{local: local, remote: remote, trips: setupTrips}
	if err := p.dial(ctx, labHeartbeat); err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	p.inLab(config)
	return p, nil
}

// inLab takes the lab's addresses for the run.
func (p *pair) inLab(config lab.Config) {
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
}

// realRounds is how many echoes make a fence between real hosts: network cards
// with several queues and stacks with several threads change the order of flows, but
// not by as much as an echo takes to come back.
const realRounds = 2

// asks are the ways to ask for a password on each side; nil where no one can be asked.
type asks struct{ remote, local host.Ask }

var singleInLab = hinted{errors.New("-single is for the lab"), "of a remote host, give one FAKE_ADDR and one FAKE_ADDR6"}

// reachRemote reaches the remote host of the environment by ssh, and makes this
// machine LOCAL.
func reachRemote(ctx context.Context, c *call, o runFlags, targets []matrix.Target) (*pair, error) {
	ask := terminalAsk()
	return reachSSH(ctx, c, o, targets, asks{ask, ask})
}

func reachSSH(ctx context.Context, c *call, o runFlags, targets []matrix.Target, ask asks) (*pair, error) {
	if o.single {
		return nil, singleInLab
	}
	families, err := addressesFor(targets, c.Getenv)
	if err != nil {
		return nil, err
	}
	invoker, err := host.FindInvoker(c.Getenv)
	if err != nil {
		return nil, err
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("the own executable: %w", err)
	}
	p := &pair{real: true, trips: setupTrips}
	p.far, err = host.SSH(ctx, host.SSHOptions{
		Destination: c.Getenv("REMOTE_SSH"), Options: c.Getenv("SSH_OPTIONS"), Sudo: c.Getenv("SUDO"),
		Args: remoteArgs(o), Keep: o.keep, Dist: host.DistFolders(c.Getenv), Ask: ask.remote, Invoker: invoker,
	})
	if err != nil {
		return nil, err
	}
	p.remote = p.far.Link
	if p.local, err = host.Privileged(ctx, []string{exe, "agent"}, o.sudo, ask.local); err != nil {
		p.close()
		return nil, err
	}
	if err := p.dial(ctx, heartbeat); err != nil {
		return nil, err
	}
	if got := p.hosts.Remote.Hello.SHA256; got != p.far.Want {
		p.close()
		return nil, hinted{
			fmt.Errorf("%s: the agent's sha256 is %s and not %s: another program answered", c.Getenv("REMOTE_SSH"), got, p.far.Want),
			"remove ~/.cache/pfdivert on that host",
		}
	}
	p.options.Families = families
	p.options.Rounds = realRounds
	p.options.By, p.options.Patience = whoRuns(c.Getenv), o.wait
	p.relay(c.Err)
	p.trips += p.far.Trips
	return p, nil
}

// dial takes up the connections to the agents, which are shown every so often that this process
// lives.
func (p *pair) dial(ctx context.Context, heartbeat time.Duration) (err error) {
	hello, cancel := p.starting(ctx)
	defer cancel()
	// LOCAL's agent first: in a lab it starts the other and knows why that failed.
	if p.hosts.Local, err = agent.Dial(hello, p.local.Read, p.local.Write, heartbeat); err == nil {
		p.hosts.Remote, err = agent.Dial(hello, p.remote.Read, p.remote.Write, heartbeat)
	}
	if err != nil {
		err = p.explain(err)
		p.close()
	}
	return err
}

// starting returns a context for the time until the agents have said hello.
func (p *pair) starting(ctx context.Context) (context.Context, context.CancelFunc) {
	if p.guest != nil {
		return p.guest.Booting(ctx)
	}
	return context.WithTimeoutCause(ctx, helloPatience, errors.New("no hello in time"))
}

// machines are what the agents said of their hosts.
func (p *pair) machines() (local, remote report.Host) {
	of := func(name string, c *agent.Conn) report.Host {
		return report.Host{Name: name, Kernel: c.Hello.Kernel, System: c.Hello.GOOS + "/" + c.Hello.GOARCH}
	}
	return of("local", p.hosts.Local), of("remote", p.hosts.Remote)
}

// stderr is what the agents wrote to their standard error.
func (p *pair) stderr() string {
	var all string
	links := []*host.Link{p.local, p.remote}
	if p.builder != nil {
		links = append(links, p.builder.link)
	}
	for _, l := range links {
		if l != nil {
			all += l.Stderr()
		}
	}
	return all
}

// explain adds what the agents said to an error.
func (p *pair) explain(err error) error {
	if said := p.stderr(); said != "" {
		return fmt.Errorf("%w\nthe agents said:\n%s", err, said)
	}
	return err
}

// leave has the agents of real hosts put everything back, and tells what they
// could not. It does so also when the run was interrupted.
func (p *pair) leave(ctx context.Context) error {
	if !p.real {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), agentPatience)
	defer cancel()
	var errs []error
	for name, c := range map[string]*agent.Conn{"local": p.hosts.Local, "remote": p.hosts.Remote} {
		if err := c.Bye(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: not everything was put back: %w", name, err))
		}
	}
	if p.builder != nil {
		p.endHosts() // a jail's processes are ended with it
		if err := p.builder.conn.Bye(ctx); err != nil {
			errs = append(errs, fmt.Errorf("lab: not everything was put back: %w", err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return hinted{err, "'pfdivert cleanup' on that host mends what is left"}
	}
	return nil
}

// close ends the agents and waits until they are gone.
func (p *pair) close() {
	p.endHosts()
	if p.builder != nil {
		p.builder.close()
	}
}

// endHosts ends the two hosts' agents, which undo what they have not undone. A second call
// does nothing.
func (p *pair) endHosts() {
	for _, c := range []*agent.Conn{p.hosts.Local, p.hosts.Remote} {
		if c != nil {
			_ = c.Close()
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), agentPatience)
	defer cancel()
	for _, l := range []*host.Link{p.local, p.remote} {
		end(ctx, l)
	}
	if p.far != nil {
		_ = p.far.Close(ctx)
	}
}

// end waits for an agent to end, which the end of its input brings about.
func end(ctx context.Context, l *host.Link) {
	if l == nil {
		return
	}
	_ = l.Write.Close()
	if err := l.Wait(ctx); err != nil && ctx.Err() != nil {
		l.Kill()
	}
}
