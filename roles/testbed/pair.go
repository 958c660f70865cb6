package testbed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"pfdivert/matrix"
	"pfdivert/matrix/script"
	"pfdivert/pfconf"
	"pfdivert/roles/agent"
	"pfdivert/roles/host"
	"pfdivert/roles/kernel"
	"pfdivert/roles/lab"
	"pfdivert/roles/report"
	"pfdivert/roles/terminal"
)

// setupTrips are the round trips of each run beside those of its cells: the
// hello, the set-up and the farewell.
const setupTrips = 3

// helloPatience bounds the start of an agent.
const helloPatience = 20 * time.Second

// Pair is the two hosts of a run with their agents. Close it when done, after Leave if the hosts
// are real.
type Pair struct {
	Hosts         Agents
	Options       matrix.Options // addresses, fences and waiting, as these hosts need them
	Local, Remote *host.Process  // nil until it was started
	Trips         int            // round trips until the agents had said hello, and to set them up
	far           *host.Remote   // of a real remote host
	guest         *kernel.Guest  // of a kernel that was booted
	builder       *builder       // of a lab that outlives its processes
	real          bool           // the hosts stay when the agents end
}

// Agents are the connections to the two hosts' agents.
type Agents struct{ Local, Remote *agent.Conn }

// Tested returns the two hosts as a run needs them.
func (a Agents) Tested() matrix.Hosts { return matrix.Hosts{Local: a.Local, Remote: a.Remote} }

// HasNamespaces reports whether a lab on this system is gone with its processes, and needs
// no root.
const HasNamespaces = runtime.GOOS == "linux"

// LabParts divides targets into those that can share a lab of a system (runtime.GOOS): FreeBSD's
// pf spoils what ipfw diverts beside it, so a lab has it on for the targets that are about it and
// for no others; and a BSD's REMOTE has more networks for those that are about what it forwards.
func LabParts(system string, targets []matrix.Target) [][]matrix.Target {
	if system != "freebsd" && system != "openbsd" {
		return [][]matrix.Target{targets}
	}
	parts := make([][]matrix.Target, 4)
	for _, t := range targets {
		i := 0
		if system == "freebsd" && t.NeedsPF() {
			i = 1
		}
		if t.Forwards() {
			i += 2
		}
		parts[i] = append(parts[i], t)
	}
	return slices.DeleteFunc(parts, func(p []matrix.Target) bool { return p == nil })
}

// ForPart returns the options with what the lab of a part has.
func (o Options) ForPart(part []matrix.Target) Options {
	o.PF = slices.ContainsFunc(part, matrix.Target.NeedsPF)
	o.Router = slices.ContainsFunc(part, matrix.Target.Forwards)
	return o
}

// reachPart builds the lab of a part of LabParts.
func reachPart(ctx context.Context, o Options, part []matrix.Target) (*Pair, error) {
	if err := strayAddresses(o.Getenv); err != nil {
		return nil, err
	}
	return ReachLab(ctx, o.ForPart(part))
}

// ReachLab builds the kind of lab that this system has, and connects to its agents. The caller
// closes the pair.
func ReachLab(ctx context.Context, o Options) (*Pair, error) {
	o.doing("making two hosts on this machine")
	if !HasNamespaces {
		return reachBSD(ctx, o)
	}
	if o.Domain != 0 {
		return nil, terminal.WithHint(errors.New("-rdomain: this system has no routing domains"),
			"set REMOTE_SSH to an OpenBSD host, or run it there")
	}
	return reachNamespaces(ctx, o)
}

// reachNamespaces builds a lab of namespaces and reaches its agents.
func reachNamespaces(ctx context.Context, o Options) (*Pair, error) {
	config := lab.Config{Single: o.Single}
	options := host.LabOptions{Args: []string{"agent", "-lab"}, Config: config}
	if os.Geteuid() != 0 {
		options.Sudo = strings.Fields(o.Sudo)
	}
	local, remote, err := host.Lab(ctx, options)
	if err != nil {
		return nil, err
	}
	p := &Pair{Local: local, Remote: remote, Trips: setupTrips}
	if err := p.dial(ctx, LabHeartbeat); err != nil {
		if refused := host.SudoError(options.Sudo, p.Stderr()); refused != nil {
			return nil, refused
		}
		return nil, fmt.Errorf("lab: %w", err)
	}
	p.inLab(config)
	p.relay(o.Notices)
	return p, nil
}

// inLab takes the addresses of a lab of namespaces for the run.
func (p *Pair) inLab(config lab.Config) {
	p.Options.NoFamily = p.Hosts.Local.Hello.NoFamily
	p.Options.Families = map[pfconf.Family]matrix.Addresses{}
	for _, f := range pfconf.Families {
		if _, missing := p.Options.NoFamily[f]; missing {
			continue
		}
		plan := config.PlanOf(f)
		a := matrix.Addresses{Local: plan.Local.Addr(), Remote: plan.Remote.Addr(), Locals: plan.Locals,
			Fakes: plan.Fakes}
		if !a.Locals.IsValid() {
			a.Locals = netip.PrefixFrom(a.Local, a.Local.BitLen())
		}
		p.Options.Families[f] = a
	}
	p.Options.Rounds = 1 // nothing on a veth pair changes the order of packets
}

// realRounds is how many echoes make a fence between real hosts: network cards
// with several queues and stacks with several threads change the order of flows, but
// not by as much as an echo takes to come back.
const realRounds = 2

// asks are the ways to ask for a password on each side; nil where no one can be asked.
type asks struct{ remote, local host.Ask }

var singleInLab = terminal.WithHint(errors.New("-single is for the lab"),
	"of a remote host, give one FAKE_ADDR and one FAKE_ADDR6")

// reachRemote reaches the remote host of the environment by ssh, and makes this
// machine LOCAL.
func reachRemote(ctx context.Context, o Options, targets []matrix.Target) (*Pair, error) {
	ask := terminal.Ask()
	return reachSSH(ctx, o, targets, asks{ask, ask})
}

func reachSSH(ctx context.Context, o Options, targets []matrix.Target, ask asks) (*Pair, error) {
	if o.Single {
		return nil, singleInLab
	}
	families, err := addressesFor(targets, o.Getenv)
	if err != nil {
		return nil, err
	}
	second, err := secondNetworks(families, o.Getenv)
	if err != nil {
		return nil, err
	}
	invoker, err := host.FindInvoker(o.Getenv)
	if err != nil {
		return nil, err
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("the own executable: %w", err)
	}
	o.doing("reaching " + o.Getenv("REMOTE_SSH"))
	p := &Pair{real: true, Trips: setupTrips}
	p.far, err = host.SSH(ctx, host.SSHOptions{
		Destination: o.Getenv("REMOTE_SSH"), Options: o.Getenv("SSH_OPTIONS"), Sudo: o.Getenv("SUDO"),
		Args: remoteArgs(o), Keep: o.Keep, Dist: host.DistFolders(o.Getenv), Ask: ask.remote, Invoker: invoker,
		Doing: o.doing,
	})
	if err != nil {
		return nil, err
	}
	p.Remote = p.far.Process
	if p.Local, err = host.Privileged(ctx, []string{exe, "agent"}, o.Sudo, ask.local); err != nil {
		p.Close()
		return nil, err
	}
	if err := p.dial(ctx, Heartbeat); err != nil {
		return nil, err
	}
	if err := p.far.CheckSum(p.Hosts.Remote.Hello.SHA256); err != nil {
		p.Close()
		return nil, err
	}
	p.Options.Families = families
	if o.Beyond || slices.ContainsFunc(targets, matrix.Target.Forwards) {
		p.Options.Second = second // else a run that does not need them would depend on them
	}
	p.Options.Rounds = realRounds
	p.Options.By, p.Options.Patience = WhoRuns(o.Getenv), o.Wait
	p.relay(o.Notices)
	p.Trips += p.far.Trips
	return p, nil
}

// Unnamed returns an item for each address beyond a REMOTE over ssh that the targets need and the
// environment does not have.
func (p *Pair) Unnamed(targets []matrix.Target) (all []agent.CheckItem) {
	if p.far == nil || p.Hosts.Remote.Hello.GOOS == "linux" {
		return nil
	}
	note := func(f pfconf.Family, what, variable, hint string, needs func(matrix.Target) bool) {
		if slices.ContainsFunc(targets, func(t matrix.Target) bool { return t.Family == f && needs(t) }) {
			all = append(all, agent.CheckItem{Name: fmt.Sprintf("%v %s", f, what), OK: true, Warn: true,
				Detail: variable + " is not set: the targets that need it are SKIP", Cure: hint})
		}
	}
	for _, f := range pfconf.Families {
		second := p.Options.Second[f]
		if !second.Gateway.IsValid() {
			note(f, "second network", script.GatewayVariable(f), script.GatewayHint(f), matrix.Target.NeedsGateway)
		}
		if !second.Mirror.IsValid() {
			note(f, "third host", script.MirrorVariable(f), script.MirrorHint(f), matrix.Target.NeedsMirror)
		}
	}
	return all
}

// ReachForCleanup starts an agent on this host and, if the environment names one, on the remote
// host; without one, Hosts.Remote stays nil.
func ReachForCleanup(ctx context.Context, o Options) (*Pair, error) {
	if o.Getenv("REMOTE_SSH") != "" {
		return reachRemote(ctx, o, nil)
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("the own executable: %w", err)
	}
	p := &Pair{}
	if p.Local, err = host.Privileged(ctx, []string{exe, "agent"}, o.Sudo, terminal.Ask()); err != nil {
		return nil, err
	}
	hello, cancel := context.WithTimeout(ctx, helloPatience)
	defer cancel()
	if p.Hosts.Local, err = agent.Dial(hello, p.Local.Read, p.Local.Write, Heartbeat); err != nil {
		err = p.Explain(err)
		p.Close()
		return nil, err
	}
	return p, nil
}

// dial takes up the connections to the agents, which are shown every so often that this process
// lives.
func (p *Pair) dial(ctx context.Context, heartbeat time.Duration) (err error) {
	hello, cancel := p.starting(ctx)
	defer cancel()
	// LOCAL's agent first: in a lab it starts the other and knows why that failed.
	if p.Hosts.Local, err = agent.Dial(hello, p.Local.Read, p.Local.Write, heartbeat); err == nil {
		p.Hosts.Remote, err = agent.Dial(hello, p.Remote.Read, p.Remote.Write, heartbeat)
	}
	if err != nil {
		err = p.Explain(err)
		if p.guest != nil {
			p.guest.Local.Kill() // nothing in it is worth waiting for
		}
		p.Close()
	}
	return err
}

// starting returns a context for the time until the agents have said hello.
func (p *Pair) starting(ctx context.Context) (context.Context, context.CancelFunc) {
	if p.guest != nil {
		return p.guest.Booting(ctx)
	}
	return context.WithTimeoutCause(ctx, helloPatience, errors.New("no hello in time"))
}

// Machines returns what the agents said of their hosts.
func (p *Pair) Machines() (local, remote report.Machine) {
	of := func(name string, c *agent.Conn) report.Machine {
		return report.Machine{Name: name, Kernel: c.Hello.Kernel, System: c.Hello.GOOS + "/" + c.Hello.GOARCH}
	}
	local, remote = of("local", p.Hosts.Local), of("remote", p.Hosts.Remote)
	remote.Filter = string(p.Options.Filter)
	return local, remote
}

// Stderr returns what the agents wrote to their standard error.
func (p *Pair) Stderr() string {
	var all string
	links := []*host.Process{p.Local, p.Remote}
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

// Explain returns err with what the agents wrote to their standard error.
func (p *Pair) Explain(err error) error {
	if said := p.Stderr(); said != "" {
		return fmt.Errorf("%w\nthe agents said:\n%s", err, said)
	}
	return err
}

// Leave has the agents of real hosts undo all their changes, also after ctx has ended. The error
// says what they could not undo.
func (p *Pair) Leave(ctx context.Context) error {
	if !p.real {
		return nil
	}
	ctx = context.WithoutCancel(ctx)
	errs := make([]error, 3)
	var hosts sync.WaitGroup
	hosts.Go(func() { errs[0] = bye(ctx, "local", p.Hosts.Local) })
	hosts.Go(func() { errs[1] = bye(ctx, "remote", p.Hosts.Remote) })
	hosts.Wait()
	if p.builder != nil {
		p.endHosts() // a jail's processes are ended with it
		errs[2] = bye(ctx, "lab", p.builder.conn)
	}
	if err := errors.Join(errs...); err != nil {
		return terminal.WithHint(err, agent.CleanUp)
	}
	return nil
}

// leavePatience is how long an agent may take to say that it has put all back: longer than it may
// take to do it.
const leavePatience = agent.UndoTimeout + AgentPatience

// leaver is an agent's connection, when it is to end.
type leaver interface{ Bye(context.Context) error }

// bye has an agent put back what it changed.
func bye(ctx context.Context, name string, c leaver) error {
	ctx, cancel := context.WithTimeoutCause(ctx, leavePatience,
		fmt.Errorf("it has not said within %v that it did", leavePatience))
	defer cancel()
	if err := c.Bye(ctx); err != nil {
		return fmt.Errorf("%s: not everything was put back: %w", name, err)
	}
	return nil
}

// Close ends the agents and waits until they are gone.
func (p *Pair) Close() {
	p.endHosts()
	if p.builder != nil {
		p.builder.close()
	}
}

// endHosts ends the two hosts' agents, which undo what they have not undone. A second call
// does nothing.
func (p *Pair) endHosts() {
	for _, c := range []*agent.Conn{p.Hosts.Local, p.Hosts.Remote} {
		if c != nil {
			_ = c.Close()
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), AgentPatience)
	defer cancel()
	for _, l := range []*host.Process{p.Local, p.Remote} {
		end(ctx, l)
	}
	if p.far != nil {
		_ = p.far.Close(ctx)
	}
}

// end waits for an agent to end, which the end of its input brings about.
func end(ctx context.Context, l *host.Process) {
	if l == nil {
		return
	}
	_ = l.Write.Close()
	if err := l.Wait(ctx); err != nil && ctx.Err() != nil {
		l.Kill()
	}
}

// relay prints what the agents say unasked: whom they wait for, what killed runs had left.
func (p *Pair) relay(w io.Writer) {
	for name, conn := range map[string]*agent.Conn{"local": p.Hosts.Local, "remote": p.Hosts.Remote} {
		go printNotices(w, name, conn)
	}
}

// printNotices prints what one agent says unasked, until it ends.
func printNotices(w io.Writer, name string, conn *agent.Conn) {
	for text := range conn.Notices {
		fmt.Fprintf(w, "%s: %s\n", name, text)
	}
}

// Enter returns what precedes a command on REMOTE, and one on LOCAL, and commands that show there
// what was built. The pair must be a lab.
func (p *Pair) Enter() (remote []string, local, look string) {
	if p.builder == nil {
		return []string{"nsenter", "--target", strconv.Itoa(p.Hosts.Remote.Hello.PID), "--net"},
			fmt.Sprintf("nsenter --net=/proc/%d/ns/net", p.Hosts.Local.Hello.PID),
			"ip rule; ip route show table all; nft list ruleset; nstat -az; ip route get FAKE (on LOCAL)"
	}
	look = "pfctl -a regress -vsr; pfctl -ss; netstat -s -p divert"
	if p.Hosts.Remote.Hello.GOOS == "freebsd" {
		look = "ipfw -S show; sysctl net.inet.ip.fw; netstat -rn"
	}
	lab := p.builder.lab
	return slices.Clone(lab.Remote.Command()), strings.Join(lab.Local.Command(), " "), look
}
