package roles

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"pfdivert/matrix/script"
	"runtime"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"pfdivert/matrix"
	"pfdivert/matrix/faults"
	"pfdivert/pfconf"
	"pfdivert/roles/kernel"
	"pfdivert/roles/report"
	"pfdivert/roles/terminal"
	"pfdivert/roles/testbed"
)

var faultsRole = Role{
	Name: "faults", Usage: "[FLAGS]",
	Summary: "break a lab on purpose, in one way after the other, and see that the targets notice",
	Help: `Each fault has a lab of its own, in which targets are run. Exactly those that need
what is broken must say so, with the right reason and cause. With -only NAME one of them is
shown with its explanation. -keep leaves that lab open for a shell on REMOTE, to look around.
With -kernel the labs are in a machine of QEMU that has that kernel.

On Linux all targets are run, or all claims. On OpenBSD and FreeBSD, where a lab takes
seconds and root (or SUDO), those that must notice and four others; with -only all.

Exit status: 0 when each fault was noticed as it must be, 1 when one was not, 2 when a
lab could not be made or a run not begin.`,
}

func init() { faultsRole.run = runFaults }

func runFaults(ctx context.Context, c *call) (int, error) {
	f := c.flags()
	list := f.Bool("list", false, "list the faults and what is broken")
	name := f.String("only", "", "break the lab with the fault `NAME` only")
	o := c.testbed()
	filterFlag(f, &o)
	keep := f.Bool("keep", false, "leave the lab of -only open for a shell")
	kernelFlags(f, &o)
	if err := c.parse(f); err != nil {
		return exitError, err
	}
	if err := c.noArgs(f); err != nil {
		return exitError, err
	}
	all := faults.All()
	if *name != "" {
		one, err := namedFault(all, *name)
		if err != nil {
			return exitError, err
		}
		all = []faults.Fault{one}
	}
	if *list {
		return exitOK, c.listFaults(all)
	}
	if o.Kernel != "" {
		if *keep {
			return exitError, terminal.WithHint(errors.New("-keep needs a lab of this machine's"), "leave -kernel out")
		}
		return c.onKernel(ctx, f, o, kernel.Job{})
	}
	if why := noLab(runtime.GOOS, os.Geteuid(), c.Getenv("SUDO")); why != "" {
		return exitError, terminal.WithHint(errors.New("there is no lab to break: "+why),
			"'pfdivert faults -list' shows what would be broken")
	}
	all = faults.On(runtime.GOOS, all)
	if len(all) == 0 {
		return exitError, terminal.WithHint(fmt.Errorf("the fault %s is none of this system's", *name),
			"'pfdivert faults -list' shows the systems of each")
	}
	if err := testbed.ValidFilter(o.Filter); err != nil {
		return exitError, err
	}
	all = slices.DeleteFunc(all, func(f faults.Fault) bool { return !f.With(pfconf.Engine(o.Filter)) })
	if len(all) == 0 {
		return exitError, terminal.WithHint(fmt.Errorf("the fault %s is one of another filter's", *name),
			"leave -filter out")
	}
	if o.Filter == testbed.FilterAll {
		return exitError, terminal.WithHint(errors.New("-filter all: faults are run with one filter"),
			"-filter xt")
	}
	if *keep && *name == "" {
		return exitError, terminal.WithHint(errors.New("-keep leaves one lab open"), "name the fault with -only")
	}
	if *keep {
		// A terminal's interrupts are for the shell in the lab.
		ctx = context.WithoutCancel(ctx)
	}
	return c.playFaults(ctx, all, o, *keep)
}

func namedFault(all []faults.Fault, name string) (faults.Fault, error) {
	var names []string
	for _, f := range all {
		if f.Name == name {
			return f, nil
		}
		names = append(names, f.Name)
	}
	return faults.Fault{}, terminal.WithHint(fmt.Errorf("there is no fault %q", name),
		matrix.Suggest(name, names)+"'pfdivert faults -list' shows all")
}

func (c *call) listFaults(all []faults.Fault) error {
	w := tabwriter.NewWriter(c.Out, 0, 0, 2, ' ', 0)
	for _, f := range all {
		fmt.Fprintf(w, "%s\t%s\t%s\n", f.Name, strings.Join(f.Where(), " "), f.About)
	}
	return w.Flush()
}

// playFaults breaks a lab with each fault and prints what the targets said.
func (c *call) playFaults(ctx context.Context, all []faults.Fault, o testbed.Options, keep bool) (int, error) {
	start := time.Now()
	total := report.NewFaultTable(c.Out, all)
	for i, f := range all {
		targets, change := f.Targets(runtime.GOOS), func(o *matrix.Options) { o.Untraced = len(all) > 1 }
		if !testbed.HasNamespaces {
			targets, change = slowLab(f, len(all) == 1)
			fmt.Fprintf(c.Err, "%d of %d: %s, with %s\n", i+1, len(all), f.Name, pfconf.Count(len(targets), "target"))
		}
		parts := testbed.LabParts(runtime.GOOS, targets)
		var judged []faults.Judgement
		for j, part := range parts {
			err := c.inBrokenLab(ctx, f, o, part, change, func(p *testbed.Pair, some []faults.Judgement) error {
				if judged = append(judged, some...); j < len(parts)-1 {
					return nil
				}
				total.Add(f, judged)
				if len(all) == 1 {
					report.WriteFaultExamples(c.Out, judged)
				}
				if !keep {
					return nil
				}
				return c.keepFault(p, f)
			})
			if err != nil {
				return exitError, fmt.Errorf("fault %s: %w", f.Name, err)
			}
		}
	}
	if !keep {
		fmt.Fprintf(c.Out, "%s in %.1f s\n", total, time.Since(start).Seconds())
	}
	if total.Wrong() > 0 {
		return exitFail, nil
	}
	return exitOK, nil
}

// slowLab says what is run with the fault, and how, in a lab that is no lab of namespaces. What
// such a host shows of a cell that fails takes dozens of commands: it is asked only when the fault
// is run alone. Few cells at once leave a small machine time for the agents' heartbeats.
func slowLab(f faults.Fault, alone bool) ([]matrix.Target, func(*matrix.Options)) {
	targets := f.Targets(runtime.GOOS)
	if !alone {
		targets = f.Sample(runtime.GOOS)
	}
	return targets, func(o *matrix.Options) { o.Parallel, o.NoEvidence = 8, !alone }
}

// inBrokenLab runs the targets in a lab that is broken so. The lab is gone when look
// has seen it.
func (c *call) inBrokenLab(ctx context.Context, f faults.Fault, o testbed.Options, targets []matrix.Target,
	change func(*matrix.Options), look func(*testbed.Pair, []faults.Judgement) error) error {
	o.Single, o.Wait = f.Single, labPatience
	o = o.ForPart(targets)
	p, err := testbed.ReachLab(ctx, o)
	if err != nil {
		return err
	}
	defer p.Close()
	p.Options.Filter = pfconf.Engine(o.Filter)
	change(&p.Options)
	judged, err := judgeFault(ctx, p, f, targets)
	if err == nil {
		err = look(p, judged)
	}
	return errors.Join(err, p.Leave(ctx))
}

// judgeFault breaks the lab and runs the targets; the judgements are in their order.
func judgeFault(ctx context.Context, p *testbed.Pair, f faults.Fault,
	targets []matrix.Target) ([]faults.Judgement, error) {
	var mu sync.Mutex
	results := map[string]matrix.Result{}
	err := matrix.Run(ctx, p.Hosts.Tested(), matrix.Plan{Targets: targets}, f.Options(p.Options),
		func(r matrix.Result) {
			mu.Lock()
			defer mu.Unlock()
			results[r.Name] = r
		})
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	var fault *script.Error
	if errors.As(err, &fault) && fault.Code == script.CodeUnsupported {
		for _, t := range targets { // none was run
			results[t.Name] = matrix.Result{Name: t.Name, Verdict: matrix.Skip, Reason: matrix.NoFeature,
				Detail: fault.Text}
		}
		err = nil
	}
	if err != nil {
		return nil, p.Explain(err)
	}
	judged := make([]faults.Judgement, len(targets))
	for i, t := range targets {
		want := f.Want(runtime.GOOS, t)
		// nothing may have been asked; and what a BSD shows does not always tell causes apart
		if !testbed.HasNamespaces {
			want = want.Unexplained()
		}
		judged[i] = faults.Judgement{Result: results[t.Name], Want: want}
	}
	return judged, nil
}

// keepFault is a shell on REMOTE of a lab that has been broken and played in. The lab
// stands until the shell ends.
func (c *call) keepFault(p *testbed.Pair, f faults.Fault) error {
	enter, local, look := p.Enter()
	if os.Geteuid() != 0 {
		if sudo := strings.Fields(c.Getenv("SUDO")); len(sudo) > 0 {
			enter = append(sudo, enter...)
		} else { // on Linux: elsewhere it takes root
			enter = append(enter, "--user", "--preserve-credentials")
		}
	}
	shell := c.Getenv("SHELL")
	if shell == "" {
		shell = "/bin/sh"
	}
	a := p.Options.Families[pfconf.Inet]
	fmt.Fprintf(c.Err, `Broken: %s.
This is a shell on REMOTE, %v, with the rules that were loaded last. exit ends the lab.
LOCAL is %v, FAKE %v. A command on LOCAL: %s CMD
Look at: %s
Send something to FAKE: %[5]s %[7]s client -proto udp -bind %[3]v %[8]v:4000
`, f.About, a.Remote, a.Local, a.Fakes, local, look, ownPath(), a.Fakes.Addr().Next())
	// A terminal's interrupts are for the shell.
	cmd := exec.CommandContext(context.Background(), enter[0], append(enter[1:], shell)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.In, c.Out, c.Err
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.Is(err, exec.ErrNotFound) && testbed.HasNamespaces:
		return terminal.WithHint(err, "nsenter is part of util-linux")
	case errors.As(err, &exit):
		return nil // that of its last command
	}
	return err
}

// ownPath is how a shell starts this one.
func ownPath() string {
	if path, err := os.Executable(); err == nil {
		return path
	}
	return os.Args[0]
}
