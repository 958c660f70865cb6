package report

import (
	"bytes"
	"fmt"
	"io"
	"time"

	"pfdivert/matrix"
	"pfdivert/pfconf"
)

// quantiles are the times that are reported of each target; the slowest is
// reported too.
var quantiles = [...]float64{0.50, 0.95, 0.99}

// WriteText writes a row for each target with its runs, passes, other verdicts and times in
// milliseconds, then the first failures, then the totals. Quantiles are within 1/32 of the true
// value; max is exact.
func (s *Stats) WriteText(w io.Writer, style Style, run Run) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b bytes.Buffer
	if style.Terminal {
		run.writeKernels(&b)
	}
	name := len("target")
	for _, t := range s.targets {
		name = max(name, len(printable(t.name)))
	}
	const row = "%-*s %7v %7v %5v %6s %6s %6s %6s"
	head := fmt.Sprintf(row, name, "target", "runs", "PASS", "other", "p50", "p95", "p99", "max")
	b.WriteString(style.bold(head) + " ms\n")
	for _, t := range s.targets {
		pass := t.count[matrix.Pass]
		fmt.Fprintf(&b, row+"\n", name, printable(t.name), t.runs, pass, t.runs-pass,
			millis(t.times.quantile(quantiles[0])), millis(t.times.quantile(quantiles[1])),
			millis(t.times.quantile(quantiles[2])), millis(t.times.max))
	}
	b.WriteByte('\n')
	for _, t := range s.targets {
		for _, k := range t.kept {
			fmt.Fprintf(&b, "%s %s, run %d", style.verdict(k.Verdict, 0), printable(k.Name), k.Run)
			if k.Reason != "" {
				fmt.Fprintf(&b, " (%s)", printable(k.Reason))
			}
			b.WriteString("\n" + wrap(printable(k.Detail), "  ", min(style.Width, maxText)) + "\n")
		}
	}
	run.writeHostTotals(&b, "cell", func(host string) (int, string) { return s.hostCounts(run, host) })
	if run.Interrupted {
		b.WriteString("interrupted after ")
	}
	on := ""
	if len(run.Tested) > 0 {
		on = run.tested()
	}
	fmt.Fprintf(&b, "%s of %s%s%s in %s, %.0f cells/s", pluralCells(s.cells), pfconf.Count(len(s.targets),
		"target"), on,
		verdictCounts(s.countAll()), duration(run.Seconds), rate(s.cells, run.Seconds))
	if run.Seed != 0 {
		fmt.Fprintf(&b, ", shuffled by %d", run.Seed)
	}
	b.WriteByte('\n')
	_, err := w.Write(b.Bytes())
	return err
}

func pluralCells(n uint64) string { return pfconf.Count(int(n), "cell") }

// rate is cells per second, 0 when no time has passed.
func rate(cells uint64, seconds float64) float64 {
	if seconds <= 0 {
		return 0
	}
	return float64(cells) / seconds
}

// millis is a time in milliseconds in at most six characters up to 1000 s.
func millis(d time.Duration) string {
	ms := float64(d) / 1e6
	switch {
	case ms < 9.995:
		return fmt.Sprintf("%.2f", ms)
	case ms < 99.95:
		return fmt.Sprintf("%.1f", ms)
	}
	return fmt.Sprintf("%.0f", ms)
}

// times are those of a target's runs in JSON, in seconds.
type times struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// statsTarget is a target in JSON that was run repeatedly.
type statsTarget struct {
	Name     string                    `json:"name"`
	Host     string                    `json:"host,omitempty"`
	Runs     uint64                    `json:"runs"`
	Passes   uint64                    `json:"passes"`
	Verdicts map[matrix.Verdict]uint64 `json:"verdicts"` // encoded in the keys' order
	Seconds  times                     `json:"seconds"`
	Kept     []Kept                    `json:"not_passed"`
}

// WriteJSON writes one JSON object and a newline. "run" is as in the report of a single run, with
// "cells" and "cells_per_second"; each of "targets" has its runs, passes, the count of each
// verdict, times in seconds and the first failures.
func (s *Stats) WriteJSON(w io.Writer, run Run) error {
	type total struct {
		Run
		Cells uint64  `json:"cells"`
		Rate  float64 `json:"cells_per_second"`
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	targets := make([]statsTarget, len(s.targets)) // [] and not null
	for i, t := range s.targets {
		q := func(share float64) float64 { return micro(t.times.quantile(share).Seconds()) }
		host, name := run.splitHost(t.name)
		targets[i] = statsTarget{
			Name: name, Host: host, Runs: t.runs, Passes: t.count[matrix.Pass], Verdicts: t.count,
			Seconds: times{q(quantiles[0]), q(quantiles[1]), q(quantiles[2]), micro(t.times.max.Seconds())},
			Kept:    make([]Kept, len(t.kept)),
		}
		for j, k := range t.kept {
			k.Name, k.Seconds = name, micro(k.Seconds)
			targets[i].Kept[j] = k
		}
	}
	return encode(w, struct {
		Run     total         `json:"run"`
		Hosts   []Machine     `json:"hosts,omitempty"`
		Targets []statsTarget `json:"targets"`
	}{total{run.forJSON(), s.cells, micro(rate(s.cells, run.Seconds))}, run.Tested, targets})
}
