package roles

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"pfdivert/matrix"
	"pfdivert/roles/report"
)

var orchestratorRole = Role{
	Name: "run", Usage: "[FLAGS] [PATTERN...]", Summary: "run the targets that match, or all, and judge the kernel",
	Help: `Patterns are names of targets with '*', '?' and '[...]'; 'pfdivert list' shows
the names. Without REMOTE_SSH the targets run between two network namespaces of
this machine.

Environment: REMOTE_SSH is the host to test, as ssh takes it; LOCAL_ADDR,
REMOTE_ADDR and FAKE_ADDR, and the same with 6 at the end, are the addresses to
use with it; FAKE may be a prefix. SSH_OPTIONS go to every ssh. SUDO is a command
that makes root (sudo, doas), on both hosts. KTRACE is a command to run each
endpoint under (strace, ktrace); its traces come into the folder of -o. NO_COLOR
leaves colours out.

Exit status: 0 when every target is PASS, XFAIL or SKIP; 1 when one is FAIL or
XPASS; 2 when one is ERROR, or the run could not start or was interrupted.`,
}

func init() { orchestratorRole.run = runOrchestrator }

// runFlags are the orchestrator's flags.
type runFlags struct {
	json     string
	out      string
	parallel int
	single   bool
	keep     bool
	sudo     string // $SUDO
	wait     time.Duration
	count    int
	duration time.Duration
	shuffle  uint64
	verbose  bool
	regress  bool
}

func runOrchestrator(ctx context.Context, c *call) (int, error) {
	f := c.flags()
	o := runFlags{sudo: c.Getenv("SUDO")}
	f.StringVar(&o.json, "json", "", "write the results as JSON to `FILE`, '-' for standard output")
	f.StringVar(&o.out, "o", "", "keep each target's transcripts (and traces) in the folder `DIR`")
	f.IntVar(&o.parallel, "parallel", 0, "play at most `N` targets at the same time; 0: all")
	f.BoolVar(&o.single, "single", false, "one LOCAL and one FAKE address per family in the lab, as OpenBSD's suite has them")
	f.BoolVar(&o.keep, "keep", false, "leave the program on the remote host, in ~/.cache/pfdivert, for later runs")
	f.BoolVar(&o.verbose, "v", false, "say how many round trips to the hosts there were")
	f.BoolVar(&o.regress, "regress", false, "print the lines of OpenBSD's bsd.regress.mk")
	f.IntVar(&o.count, "count", 1, "play each target `N` times, with fresh addresses and ports")
	f.DurationVar(&o.duration, "for", 0, "play the targets again and again for this `TIME` (30s, 5m)")
	f.DurationVar(&o.wait, "wait", 10*time.Minute, "wait this `TIME` at most for another run that is using the remote host")
	f.Func("shuffle", "play in a random order, chosen by `SEED`, a number, or by chance: 'on'", func(s string) (err error) {
		if s == "on" {
			o.shuffle = 1 + rand.Uint64N(1<<32)
			return nil
		}
		o.shuffle, err = strconv.ParseUint(s, 10, 64)
		return err
	})
	if err := c.parse(f); err != nil {
		return exitError, err
	}
	switch {
	case o.parallel < 0:
		return exitError, hinted{fmt.Errorf("-parallel %d: there is no such number of targets", o.parallel), "0 plays all at once, 1 one after the other"}
	case o.regress && (o.count > 1 || o.duration > 0):
		return exitError, hinted{errors.New("-regress prints each target once, and -count and -for play it again"), "leave one of them out"}
	case o.count < 1 || o.duration < 0:
		return exitError, hinted{fmt.Errorf("-count %d -for %v: a target can't be played less than once", o.count, o.duration), "-count 100, or -for 30s"}
	}
	targets, err := matrix.Select(f.Args())
	if err != nil {
		return exitError, err
	}
	if err := o.check(c); err != nil {
		return exitError, err
	}
	return c.playRun(ctx, targets, o)
}

// check finds out before a run whether its results can be kept.
func (o *runFlags) check(c *call) error {
	if c.Getenv("KTRACE") != "" && o.out == "" {
		o.out = "out"
	}
	if o.out != "" {
		if err := os.MkdirAll(o.out, 0o755); err != nil {
			return hinted{fmt.Errorf("output folder: %w", err), "choose another folder with -o"}
		}
		probe, err := os.CreateTemp(o.out, ".writable-")
		if err != nil {
			return hinted{fmt.Errorf("output folder: %w", err), "choose another folder with -o"}
		}
		probe.Close()
		os.Remove(probe.Name())
	}
	return nil
}

// playRun runs the targets and reports.
func (c *call) playRun(ctx context.Context, targets []matrix.Target, o runFlags) (int, error) {
	// Opened before the run: a run whose results can't be kept is in vain.
	jsonTo, err := c.openJSON(o.json)
	if err != nil {
		return exitError, err
	}
	if jsonTo != nil {
		defer jsonTo.Close()
	}
	text := c.Out
	if o.json == "-" {
		text = c.Err
	}
	style := report.StyleOf(text, c.Getenv)

	if !hasLab && c.Getenv("REMOTE_SSH") == "" {
		return c.skipRun(text, targets)
	}
	run := report.Run{Version: c.version, Started: time.Now()}
	for _, t := range targets {
		run.Targets = append(run.Targets, t.Name)
	}
	pair, err := reachHosts(ctx, c, o, targets)
	if err != nil {
		return exitError, err
	}
	defer pair.close()
	if err := pair.check(ctx); err != nil {
		return exitError, err
	}
	pair.describe(&run)

	opt := pair.options
	opt.Parallel, opt.Transcripts, opt.Trace = o.parallel, o.out != "", c.Getenv("KTRACE")
	plan := matrix.Plan{Targets: targets, Rounds: o.count, For: o.duration, Seed: o.shuffle}
	run.Seed = o.shuffle
	total := len(targets) * o.count
	if o.duration > 0 {
		total = 0
	}
	found := newFindings(plan)
	progress := report.NewProgress(c.Err, total, report.StyleOf(c.Err, c.Getenv).Live)
	err = matrix.Run(ctx, pair.hosts, plan, opt, func(r matrix.Result) {
		if found.add(r) {
			progress.Done(r)
		}
	})
	progress.Finish()
	if err != nil {
		return exitError, pair.explain(err)
	}
	run.Seconds = time.Since(run.Started).Seconds()
	run.Interrupted = ctx.Err() != nil
	if o.regress {
		err = report.WriteRegress(text, run, found.results)
	} else {
		err = found.writeText(text, style, run)
	}
	if err != nil {
		return exitError, err
	}
	if o.verbose {
		fmt.Fprintln(text, found.tripsText(pair.trips))
	}
	if jsonTo != nil {
		if err := found.writeJSON(jsonTo, run); err != nil {
			return exitError, fmt.Errorf("results: %w", err)
		}
	}
	if o.out != "" {
		if err := keep(o.out, found.kept()); err != nil {
			return exitError, err
		}
	}
	if err := pair.leave(ctx); err != nil {
		return exitError, err
	}
	if tail := pair.stderr(); tail != "" {
		fmt.Fprintf(c.Err, "the agents said:\n%s", tail)
	}
	if run.Interrupted {
		return exitError, nil
	}
	return found.exitStatus(), nil
}

// hasLab tells whether this system can be both hosts by itself.
const hasLab = runtime.GOOS == "linux"

// skipRun tells what a run on this system needs. Where there is no remote host,
// OpenBSD's suites skip their targets and succeed.
func (c *call) skipRun(text io.Writer, targets []matrix.Target) (int, error) {
	fmt.Fprintf(text, `No remote host is given. Set REMOTE_SSH to a host whose packet filter is to be
tested, and the addresses:
  REMOTE_SSH=root@host LOCAL_ADDR= REMOTE_ADDR= FAKE_ADDR= LOCAL_ADDR6= REMOTE_ADDR6= FAKE_ADDR6=
FAKE is configured nowhere. %d targets were not run.
SKIPPED
`, len(targets))
	return exitOK, nil
}

// openJSON opens where the JSON goes, nil for nowhere.
func (c *call) openJSON(name string) (io.WriteCloser, error) {
	switch name {
	case "":
		return nil, nil
	case "-":
		return nopCloser{c.Out}, nil
	}
	f, err := os.Create(name)
	if err != nil {
		return nil, hinted{fmt.Errorf("results: %w", err), "choose another file with -json"}
	}
	return f, nil
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// keep writes the transcripts: DIR/TARGET/HOST-ENDPOINT.
func keep(dir string, results []matrix.Result) error {
	var errs []error
	for _, r := range results {
		folder := filepath.Join(dir, r.Name)
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return fmt.Errorf("transcripts: %w", err)
		}
		for _, t := range r.Transcript {
			// The names are this program's own, but they came from another host.
			name := strings.Map(fileLetter, t.Host+"-"+t.Name)
			if !strings.Contains(name, ".") {
				name += ".log"
			}
			errs = append(errs, os.WriteFile(filepath.Join(folder, name), []byte(t.Text), 0o644))
		}
		errs = append(errs, os.WriteFile(filepath.Join(folder, "verdict"), []byte(r.String()+"\n"), 0o644))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("transcripts: %w", err)
	}
	return nil
}

func fileLetter(r rune) rune {
	if 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '.' {
		return r
	}
	return '_'
}
