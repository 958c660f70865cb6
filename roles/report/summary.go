package report

import (
	"fmt"
	"slices"
	"strings"

	"pfdivert/matrix"
	"pfdivert/pfconf"
)

// Summary is the one verdict for a target in reports that show one (TAP, JUnit, HTML): the result
// of its only run, or the worst of many.
type Summary struct {
	// Result's Name is the target's, without its host. The verdict is empty for a target
	// that was selected and not run, because the run was interrupted.
	matrix.Result
	Host string // empty when one host is tested
	// Of a target that was run again and again: how often, with which verdicts
	// ("294 PASS, 6 FAIL"), and which of the runs Result was, from 1. Its seconds are
	// the median of all runs then.
	Runs   uint64
	Counts string
	Run    uint64
	// repeats are its other numbers, of a run that was read.
	repeats *repeats
}

// severity orders the verdicts of a target that was run again and again: the
// worst is the target's. A known failure and a missing feature are news where others
// passed, so they are worse than PASS.
var severity = []matrix.Verdict{matrix.Pass, matrix.Skip, matrix.XFail, matrix.XPass, matrix.Fail, matrix.Error}

// worse compares two verdicts by severity.
func worse(a, b matrix.Verdict) int {
	return slices.Index(severity, a) - slices.Index(severity, b)
}

// Summaries returns the summaries of a run that ran each target once, in the order of the target
// list.
func Summaries(run Run, results []matrix.Result) []Summary {
	played := make(map[string]bool, len(results))
	for _, r := range results {
		played[r.Name] = true
	}
	results = slices.Clone(results)
	for _, name := range run.Targets {
		if !played[name] {
			results = append(results, matrix.Result{Name: name})
		}
	}
	all := make([]Summary, len(results))
	for i, r := range run.ordered(results) {
		all[i] = Summary{Result: r}
		all[i].Host, all[i].Name = run.splitHost(r.Name)
	}
	return all
}

// Summaries returns the summaries of targets that were run repeatedly.
func (s *Stats) Summaries(run Run) []Summary {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Summary, len(s.targets))
	for i, t := range s.targets {
		o := &all[i]
		o.Verdict = t.worst()
		switch k := t.shown(); {
		case k == nil:
		case k.Verdict == matrix.Pass:
			o.Transcript, o.Evidence = k.Transcript, k.Evidence
		default:
			o.Result, o.Run = k.Result, k.Run
		}
		o.Host, o.Name = run.splitHost(t.name)
		o.Seconds = t.times.quantile(quantiles[0]).Seconds()
		o.Runs, o.Counts = t.runs, verdictsOf(t.count)
		o.tellRuns()
	}
	return all
}

// tellRuns has the detail begin with how often the target was run, for reports without a place for
// that.
func (o *Summary) tellRuns() {
	if o.Run > 0 {
		o.Detail = fmt.Sprintf("%s of %s; run %d: %s", o.Counts, pfconf.Count(int(o.Runs), "run"), o.Run, o.Detail)
	}
}

// verdictsOf is "294 PASS, 6 FAIL", as Summary.Counts has it.
func verdictsOf(count map[matrix.Verdict]uint64) string {
	return strings.TrimPrefix(verdictCounts(count), ": ")
}

// notPlayed says why a target has no verdict.
const notPlayed = "the run was ended before this target was run"

// says is what the outcome's reason and detail say in one line.
func (o Summary) says() string {
	if o.Reason == "" {
		return o.Detail
	}
	return o.Reason + ": " + o.Detail
}

// explained is the explanation in lines, each with what it is about; nothing when there is
// none.
func (o Summary) explained() [][2]string {
	e := o.Explanation
	if e == nil {
		return nil
	}
	var lines [][2]string
	for _, line := range [][2]string{
		{"cause", e.Cause}, {"expected", e.Expected}, {"last seen", e.LastSeen},
		{"likely", e.Likely}, {"check", e.Check}, {"fix", e.Mend},
	} {
		if line[1] != "" {
			lines = append(lines, line)
		}
	}
	return lines
}
