package roles

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"pfdivert/matrix"
	"pfdivert/pfconf"
	"pfdivert/roles/lab/bsd"
	"pfdivert/roles/report"
	"pfdivert/roles/terminal"
	"pfdivert/roles/testbed"
)

// labPatience is how long a run waits for another one that is using the host, unless it is told
// otherwise.
const labPatience = 10 * time.Minute

var orchestratorRole = Role{
	Name: "run", Usage: "[FLAGS] [PATTERN...]", Summary: "run the targets that match, or all, and judge the kernel",
	Help: `Patterns are names of targets with '*', '?' and '[...]'; 'pfdivert list' shows
the names. One that matches no target of the suite chooses claims, and '*' is all of
both. Without REMOTE_SSH the targets run between two hosts that are made on
this machine: network namespaces on Linux, routing domains on OpenBSD, jails on
FreeBSD. The BSDs' take root: SUDO, or start it as root.

With -kernel it boots that kernel in QEMU, with this program as its init, and the
targets run between two hosts there; no root is needed. QEMU uses KVM where it works.

Environment: REMOTE_SSH is the host to test, as ssh takes it; LOCAL_ADDR,
REMOTE_ADDR and FAKE_ADDR, and the same with 6 at the end, are the addresses to
use with it; FAKE may be a prefix. A few claims need GATEWAY_ADDR, an address of LOCAL
in a second network, or MIRROR_ADDR, a third host (docs/remote.md). With -hosts, a
file has several hosts and their addresses, and REMOTE_SSH chooses among them.
SSH_OPTIONS go to every ssh. SUDO is a command that makes root (sudo, doas), on both
hosts. KTRACE is a command to run each endpoint under (strace, ktrace); its traces
come into the folder of -o. NO_COLOR leaves colours out.

Exit status: for people, and for the readers that -as names:
               all PASS or   FAIL,   ERROR, could  nothing but SKIP, or a target
               XFAIL         XPASS   not start     that is named in full is SKIP
  (people)     0             1       2             0
  bisect       0             1       125           125
  kselftest    0             1       1             4
  sonobuoy     0             1       2             3
Where several hold, ERROR counts most for people, and FAIL for the others.`,
}

func init() { orchestratorRole.run = runOrchestrator }

// runFlags are the orchestrator's flags.
type runFlags struct {
	testbed.Options
	reports  []string // for each of report.Formats the file, "" for none
	out      string
	parallel int
	count    int
	duration time.Duration
	shuffle  uint64
	verbose  bool
	regress  bool
	evidence bool
	unsafe   bool     // targets that may crash the kernel are run
	as       *reader  // nil: people
	families bool     // compare the families
	require  bool     // a SKIP for something that the kernel lacks is a FAIL
	named    []string // targets that were asked for by their whole names
}

// runOrchestrator runs the targets. To a reader of exit statuses an error is not what the status 2
// is to people: 'git bisect run' would take it for a bad kernel.
func runOrchestrator(ctx context.Context, c *call) (int, error) {
	status, err := runTargets(ctx, c)
	as := readerIn(c.args)
	if as != nil && as.name == sonobuoy && !errors.Is(err, flag.ErrHelp) {
		return c.submit(ctx, status, err)
	}
	if err == nil || as == nil || errors.Is(err, flag.ErrHelp) {
		return status, err
	}
	if as.bailOut != "" {
		text, _, _ := strings.Cut(err.Error(), "\n")
		fmt.Fprintf(c.Out, "%s%s\n", as.bailOut, text)
	}
	terminal.PrintError(c.Err, err)
	return as.failed, nil
}

func runTargets(ctx context.Context, c *call) (int, error) {
	f := c.flags()
	o := runFlags{Options: c.testbed(), reports: make([]string, len(report.Formats))}
	for i, format := range report.Formats {
		f.StringVar(&o.reports[i], format.Flag, "", format.Usage)
	}
	f.StringVar(&o.HostsFile, "hosts", "", "test the hosts in `FILE` at once, or those of them that REMOTE_SSH names")
	kernelFlags(f, &o.Options)
	filterFlag(f, &o.Options)
	f.StringVar(&o.out, "o", "", "keep each target's transcripts (and traces) in the folder `DIR`")
	f.IntVar(&o.parallel, "parallel", 0, "run at most `N` targets at the same time; 0: all")
	f.BoolVar(&o.Single, "single", false, "one LOCAL and one FAKE address per family in the lab, as OpenBSD's suite has them")
	f.BoolVar(&o.Keep, "keep", false, "leave the program on the remote host, in ~/.cache/pfdivert, for later runs")
	f.IntVar(&o.Domain, "rdomain", 0, "test OpenBSD in the routing domain `N` of REMOTE, or of a lab's")
	f.BoolVar(&o.verbose, "v", false, "list the claims that no manual makes, the kernel's traces of failures and the round trips to the hosts")
	f.BoolVar(&o.regress, "regress", false, "print the lines of OpenBSD's bsd.regress.mk")
	f.Func("as", asUsage, func(s string) (err error) {
		o.as, err = readerOf(s)
		return err
	})
	f.BoolVar(&o.require, "require", false, "a SKIP for something that the kernel lacks is a FAIL")
	f.BoolVar(&o.families, "compare-families", false, "say where IPv4 and IPv6 differ; without a known reason it is a FAIL")
	f.BoolVar(&o.evidence, "evidence", false, "gather what the hosts show of passed targets too")
	f.IntVar(&o.count, "count", 1, "run each target `N` times, with fresh addresses and ports")
	f.DurationVar(&o.duration, "for", 0, "run the targets again and again for this `TIME`, such as 30s or 5m")
	f.BoolVar(&o.unsafe, "dangerous", false, "run targets that may crash the kernel under test as well")
	f.DurationVar(&o.Wait, "wait", labPatience, "wait this `TIME` at most, such as 10m, for another run that is using the remote host")
	f.Func("shuffle", "run in a random order, chosen by `SEED`, a number, or by chance: 'on'", func(s string) (err error) {
		if s == "on" {
			o.shuffle = 1 + rand.Uint64N(1<<32)
			return nil
		}
		if o.shuffle, err = strconv.ParseUint(s, 10, 64); err != nil {
			return errors.New("this is neither a number nor 'on'")
		}
		return nil
	})
	if err := c.parse(f); err != nil {
		return exitError, err
	}
	switch {
	case o.parallel < 0:
		return exitError, terminal.WithHint(fmt.Errorf("-parallel %d: there is no such number of targets", o.parallel),
			"0 runs all at once, 1 one after the other")
	case o.regress && (o.count > 1 || o.duration > 0):
		return exitError, terminal.WithHint(errors.New(
			"-regress prints each target once, and -count and -for run it again"), "leave one of them out")
	case o.regress && o.as != nil:
		return exitError, terminal.WithHint(errors.New("-regress and -as are two formats"), "leave one of them out")
	case o.Domain < 0 || o.Domain > bsd.MaxDomain:
		return exitError, terminal.WithHint(fmt.Errorf("-rdomain %d: there is no such routing domain", o.Domain),
			fmt.Sprintf("they go up to %d", bsd.MaxDomain))
	case o.count < 1:
		return exitError, terminal.WithHint(fmt.Errorf("-count %d: a target can't be run less than once", o.count),
			"-count 100, or -for 30s")
	}
	for _, arg := range f.Args() {
		if strings.HasPrefix(arg, "-") {
			return exitError, terminal.WithHint(fmt.Errorf("%s stands behind a pattern", arg),
				"flags come first: pfdivert run "+arg+" … PATTERN")
		}
	}
	targets, err := matrix.Select(f.Args())
	if err != nil {
		return exitError, err
	}
	o.named = wholeNames(f.Args())
	if o.as != nil && o.as.name == sonobuoy {
		if err := o.forSonobuoy(c.Getenv); err != nil {
			return exitError, err
		}
	}
	if err := o.check(c); err != nil {
		return exitError, err
	}
	return c.playRun(ctx, targets, o)
}

// check finds out before a run whether its results can be kept.
func (o *runFlags) check(c *call) error {
	if tracer := strings.Fields(c.Getenv("KTRACE")); len(tracer) > 0 {
		if name := filepath.Base(tracer[0]); name != "strace" && name != "ktrace" {
			return terminal.WithHint(fmt.Errorf("KTRACE: the program can't be run under %q", name),
				"KTRACE=strace or KTRACE=ktrace, with options if need be")
		}
		o.out = cmp.Or(o.out, "out")
	}
	if o.out != "" {
		if err := os.MkdirAll(o.out, 0o755); err != nil {
			return terminal.WithHint(fmt.Errorf("output folder: %w", err), "choose another folder with -o")
		}
		probe, err := os.CreateTemp(o.out, ".writable-")
		if err != nil {
			return terminal.WithHint(fmt.Errorf("output folder: %w", err), "choose another folder with -o")
		}
		probe.Close()
		os.Remove(probe.Name())
	}
	return nil
}

// playRun runs the targets and reports.
func (c *call) playRun(ctx context.Context, targets []matrix.Target, o runFlags) (int, error) {
	// Opened before the run: a run whose results can't be kept is in vain.
	files, err := report.OpenFiles(o.reports, c.Out)
	if err != nil {
		return exitError, err
	}
	defer files.Discard()
	to := output{text: c.Out, files: files}
	if files.Standard {
		to.text = c.Err
	}
	to.style = report.StyleOf(to.text, c.Getenv)
	to.style.Claims = o.verbose
	to.progress = c.progress(&o.Options)
	defer to.progress.Finish()

	if c.Getenv("REMOTE_SSH") == "" && o.HostsFile == "" && o.Kernel == "" {
		if why := noLab(runtime.GOOS, os.Geteuid(), o.Sudo); why != "" {
			return c.skipRun(to, targets, o, why)
		}
	}
	beds, err := testbed.Find(o.Options, targets)
	if err != nil {
		return exitError, err
	}
	if o.Filter == testbed.FilterAll && !pfconf.BPF.Built() {
		fmt.Fprintln(c.Err, "-filter all: without bpf and bpf-lookup, which make pfdivert-bpf builds in")
	}
	status, _, err := c.runOn(ctx, beds, targets, o, to)
	return status, err
}

// progress returns the progress of a run with these options, whose hosts show there what they do.
func (c *call) progress(o *testbed.Options) *report.Progress {
	p := report.NewProgress(c.Err, report.StyleOf(c.Err, c.Getenv).Live)
	o.Notices, o.Doing = p, p.Doing
	return p
}

// noLab says why a system can't be both hosts by itself, "" if it can.
func noLab(system string, euid int, sudo string) string {
	switch system {
	case "linux":
		return ""
	case "openbsd", "freebsd":
		if euid == 0 || sudo != "" {
			return ""
		}
		return "As root this machine can be both hosts by itself: set SUDO to doas or sudo."
	}
	return "This machine can't be both hosts by itself, as Linux, OpenBSD and FreeBSD can."
}

// skipRun tells what a run on this system needs, also in the reports that are wanted. Where
// there is no remote host, OpenBSD's suites skip their targets and succeed.
func (c *call) skipRun(to output, targets []matrix.Target, o runFlags, why string) (int, error) {
	run := report.Run{Version: c.version, Started: time.Now(), Skipped: "No remote host is given. " + why}
	if err := to.files.Write(report.NewResults(nil, false).Of(run)); err != nil {
		return exitError, err
	}
	if o.as != nil && o.as.write != nil {
		return o.as.untold, o.as.write(to.text, run, nil)
	}
	fmt.Fprintf(to.text, `%s
Or set REMOTE_SSH to a host whose packet filter is to be tested, and the addresses:
  REMOTE_SSH=root@host LOCAL_ADDR= REMOTE_ADDR= FAKE_ADDR= LOCAL_ADDR6= REMOTE_ADDR6= FAKE_ADDR6=
FAKE is configured nowhere. Not run: %s.
SKIPPED
`, run.Skipped, pfconf.Count(len(targets), "target"))
	if o.as != nil {
		return o.as.untold, nil
	}
	return exitOK, nil
}

// output is where the results go.
type output struct {
	text  io.Writer
	style report.Style
	files *report.Files
	// progress is drawn before the targets begin.
	progress *report.Progress
}

// runOn runs the targets on all testbeds at once, reports, and returns what was found.
func (c *call) runOn(ctx context.Context, beds []*testbed.Testbed, targets []matrix.Target, o runFlags,
	to output) (int, *report.Results, error) {
	run := report.Run{Version: c.version, Started: time.Now(), Seed: o.shuffle}
	for _, b := range beds {
		for _, t := range targets {
			run.Targets = append(run.Targets, b.Target(t.Name))
		}
	}
	plan := matrix.Plan{Targets: targets, Rounds: o.count, For: o.duration, Seed: o.shuffle}
	found := report.NewResults(run.Targets, plan.Repeats())

	defer testbed.Each(beds, (*testbed.Testbed).Close)
	errs := testbed.Each(beds, func(b *testbed.Testbed) error { return b.Reach(ctx) })
	if len(beds) == 1 && errs[0] != nil {
		return exitError, nil, errs[0]
	}
	testbed.Describe(beds, &run)
	total := 0
	for i, b := range beds {
		if errs[i] != nil {
			b.PrintError(to.progress, errs[i])
		} else if o.duration == 0 {
			total += len(targets) * o.count
		}
	}
	progress := to.progress
	progress.Start(total)
	done := func(r matrix.Result) {
		if o.require {
			r = require(r)
		}
		if found.Add(r) {
			progress.Done(r)
		}
	}
	change := func(opt *matrix.Options) {
		opt.Parallel, opt.Transcripts, opt.Trace = o.parallel, o.out != "" ||
			to.files.Has(report.HTMLFlag), c.Getenv("KTRACE")
		opt.Evidence, opt.Capture = o.evidence, o.evidence || !plan.Repeats()
		opt.Dangerous = opt.Dangerous || o.unsafe
	}
	ended := make([]time.Time, len(beds))
	left := testbed.Each(beds, func(b *testbed.Testbed) error {
		defer b.Turn()()
		ended[b.Index] = time.Now()
		if errs[b.Index] != nil {
			return nil
		}
		err := b.Run(ctx, plan, change, done)
		ended[b.Index] = time.Now()
		if err != nil && len(beds) > 1 {
			b.PrintError(progress, err)
		}
		errs[b.Index] = err
		// At once: another run may wait for this host, and hold one that this run waits for.
		left := b.Pair.Leave(ctx)
		if err != nil {
			return nil // the error of the host was printed
		}
		return left
	})
	progress.Finish()
	if len(beds) == 1 && errs[0] != nil {
		return exitError, nil, errs[0]
	}
	for i, b := range beds {
		if errs[i] != nil && ctx.Err() == nil {
			b.Lost(targets, errs[i], func(r matrix.Result) { found.Add(r) })
		}
	}
	run.Seconds = slices.MaxFunc(ended, time.Time.Compare).Sub(run.Started).Seconds()
	run.Interrupted = ctx.Err() != nil
	if err := c.report(run, found, beds, o, to); err != nil {
		return exitError, nil, err
	}
	differ, err := c.compare(run, found, o, to)
	if err != nil {
		return exitError, nil, err
	}
	status := found.ExitStatus()
	if status == exitOK && differ > 0 {
		status = exitFail
	}
	if run.Interrupted {
		status = exitError
	}
	if o.as != nil {
		status = o.as.exitStatus(found.Summaries(run), o.named)
	}
	if len(beds) == 1 && left[0] != nil {
		return exitError, found, left[0]
	}
	for i, b := range beds {
		if left[i] != nil {
			b.PrintError(c.Err, left[i])
			if status = exitError; o.as != nil {
				status = o.as.failed
			}
		}
		if errs[i] == nil { // else its error has it
			b.PrintStderr(c.Err)
		}
	}
	return status, found, nil
}

// compare says where the families differ, if that was asked for, and where engines do that were
// tested side by side. It returns how many differences of families have no known reason.
func (c *call) compare(run report.Run, found *report.Results, o runFlags, to output) (unknown int, err error) {
	all := found.Summaries(run)
	if slices.ContainsFunc(run.Tested, func(h report.Machine) bool { return h.Filter != "" }) && o.as == nil {
		err = report.WriteDisagreements(to.text, "The filters", report.EngineDisagreements(run, all))
	}
	if o.families {
		differ := report.FamilyDisagreements(run, all)
		unknown = report.Findings(differ)
		err = errors.Join(err, report.WriteDisagreements(to.text, "The families", differ))
	}
	return unknown, err
}

// report writes what was found: the files first, because whoever reads the text may go away
// before its end.
func (c *call) report(run report.Run, found *report.Results, beds []*testbed.Testbed, o runFlags, to output) error {
	err := to.files.Write(found.Of(run))
	if o.out != "" {
		err = errors.Join(err, report.WriteFolders(o.out, found.Kept()))
	}
	if o.as != nil && o.as.write != nil {
		err = errors.Join(err, o.as.write(to.text, run, found.Summaries(run)))
	} else if o.regress {
		err = errors.Join(err, report.WriteRegress(to.text, run, found.Kept(), len(run.Targets) == 1))
	} else {
		err = errors.Join(err, found.WriteText(to.text, to.style, run))
	}
	if o.verbose && err == nil {
		before := 0
		for _, b := range beds {
			if b.Pair != nil {
				before = max(before, b.Pair.Trips)
			}
		}
		fmt.Fprintln(to.text, found.RoundTrips(before))
		err = report.WriteTraces(to.text, found.Kept())
	}
	return err
}
