package roles

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"pfdivert/matrix"
	"pfdivert/roles/report"
)

// output is where the results go.
type output struct {
	text  io.Writer
	style report.Style
	files *reportFiles
}

// playHosts runs the targets on all hosts at once and reports.
func (c *call) playHosts(ctx context.Context, hosts []*tested, targets []matrix.Target, o runFlags, to output) (int, error) {
	run := report.Run{Version: c.version, Started: time.Now(), Seed: o.shuffle}
	for _, h := range hosts {
		for _, t := range targets {
			run.Targets = append(run.Targets, h.target(t.Name))
		}
	}
	plan := matrix.Plan{Targets: targets, Rounds: o.count, For: o.duration, Seed: o.shuffle}
	found := newFindings(run.Targets, plan.Repeats())

	defer each(hosts, (*tested).close)
	errs := each(hosts, func(h *tested) (err error) {
		h.pair, err = h.reach(ctx)
		return err
	})
	if len(hosts) == 1 && errs[0] != nil {
		return exitError, errs[0]
	}
	describe(hosts, &run)
	total := 0
	for i, h := range hosts {
		if errs[i] != nil {
			h.tell(c.Err, errs[i])
		} else if o.duration == 0 {
			total += len(targets) * o.count
		}
	}
	// Not before: someone may have been asked for passwords.
	progress := report.NewProgress(c.Err, total, report.StyleOf(c.Err, c.Getenv).Live)
	done := func(r matrix.Result) {
		if o.require {
			r = require(r)
		}
		if found.add(r) {
			progress.Done(r)
		}
	}
	change := func(opt *matrix.Options) {
		opt.Parallel, opt.Transcripts, opt.Trace = o.parallel, o.out != "" || to.files.has(htmlFlag), c.Getenv("KTRACE")
		opt.Evidence, opt.Capture = o.evidence, o.evidence || !plan.Repeats()
	}
	ended := make([]time.Time, len(hosts))
	left := each(hosts, func(h *tested) error {
		ended[h.index] = time.Now()
		if errs[h.index] != nil {
			return nil
		}
		err := h.play(ctx, plan, change, done)
		ended[h.index] = time.Now()
		if err != nil && len(hosts) > 1 {
			h.tell(progress, err)
		}
		errs[h.index] = err
		// At once: another run may wait for this host, and hold one that this run waits for.
		left := h.pair.leave(ctx)
		if err != nil {
			return nil // it was told what is wrong with the host
		}
		return left
	})
	progress.Finish()
	if len(hosts) == 1 && errs[0] != nil {
		return exitError, errs[0]
	}
	for i, h := range hosts {
		if errs[i] != nil && ctx.Err() == nil {
			h.lost(targets, errs[i], func(r matrix.Result) { found.add(r) })
		}
	}
	run.Seconds = slices.MaxFunc(ended, time.Time.Compare).Sub(run.Started).Seconds()
	run.Interrupted = ctx.Err() != nil
	if err := c.report(run, found, hosts, o, to); err != nil {
		return exitError, err
	}
	status := found.exitStatus()
	if run.Interrupted {
		status = exitError
	}
	if o.as != nil {
		status = o.as.exitStatus(found.outcomes(run), o.named)
	}
	if len(hosts) == 1 && left[0] != nil {
		return exitError, left[0]
	}
	for i, h := range hosts {
		if left[i] != nil {
			h.tell(c.Err, left[i])
			if status = exitError; o.as != nil {
				status = o.as.failed
			}
		}
		if errs[i] == nil { // else it was told
			h.tellStderr(c.Err)
		}
	}
	return status, nil
}

// report writes what was found: the files first, because whoever reads the text may go away
// before its end.
func (c *call) report(run report.Run, found *findings, hosts []*tested, o runFlags, to output) error {
	err := to.files.write(found, run)
	if o.out != "" {
		err = errors.Join(err, keep(o.out, found.kept()))
	}
	if o.as != nil && o.as.write != nil {
		err = errors.Join(err, o.as.write(to.text, run, found.outcomes(run)))
	} else if o.regress {
		err = errors.Join(err, report.WriteRegress(to.text, run, found.results))
	} else {
		err = errors.Join(err, found.writeText(to.text, to.style, run))
	}
	if o.verbose && err == nil {
		before := 0
		for _, h := range hosts {
			if h.pair != nil {
				before = max(before, h.pair.trips)
			}
		}
		fmt.Fprintln(to.text, found.tripsText(before))
	}
	return err
}

// keep writes the transcripts and the evidence: DIR/TARGET/HOST-ENDPOINT; with several hosts under
// test the target's name begins with a folder for each.
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
		if r.Evidence != nil {
			errs = append(errs,
				writeFile(filepath.Join(folder, "evidence.txt"), r, report.WriteEvidence),
				writeFile(filepath.Join(folder, "capture.pcapng"), r, report.WritePcapng))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("transcripts: %w", err)
	}
	return nil
}

// writeFile writes a result's file.
func writeFile(name string, r matrix.Result, write func(io.Writer, matrix.Result) error) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(write(f, r), f.Close())
}

func fileLetter(r rune) rune {
	if 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '.' {
		return r
	}
	return '_'
}
