package roles

import (
	"fmt"
	"io"
	"sync"

	"pfdivert/matrix"
	"pfdivert/roles/report"
)

// findings gathers the results of a run: each of them, or, of a run that
// plays targets again and again, statistics.
type findings struct {
	stats   *report.Stats // nil for a run that plays each target once
	mu      sync.Mutex
	results []matrix.Result
	longest matrix.Result // of most round trips
}

// newFindings gathers the results of targets, which are named as in the report.
func newFindings(targets []string, repeats bool) *findings {
	if !repeats {
		return &findings{}
	}
	return &findings{stats: report.NewStats(targets)}
}

// add takes a result, from any goroutine. What an interrupted run did not get
// to judge is left out, and add says so.
func (f *findings) add(r matrix.Result) (counted bool) {
	if r.Reason == matrix.Interrupted {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.Trips > f.longest.Trips {
		f.longest = r
	}
	if f.stats != nil {
		f.stats.Add(r)
		return true
	}
	f.results = append(f.results, r)
	return true
}

// kept are the results whose transcripts are worth keeping.
func (f *findings) kept() []matrix.Result {
	if f.stats == nil {
		return f.results
	}
	return f.stats.Shown()
}

func (f *findings) writeText(w io.Writer, style report.Style, run report.Run) error {
	if f.stats != nil {
		return f.stats.WriteText(w, style, run)
	}
	return report.WriteText(w, style, run, f.results)
}

func (f *findings) writeJSON(w io.Writer, run report.Run) error {
	if f.stats != nil {
		return f.stats.WriteJSON(w, run)
	}
	return report.WriteJSON(w, run, f.results)
}

// formats are the reports that a run can write to files, by the names of their flags.
var formats = []struct {
	flag, usage string
	write       func(*findings, io.Writer, report.Run) error
}{
	{"json", "write the results as JSON to `FILE`, '-' for standard output", (*findings).writeJSON},
	{"tap", "write the results as TAP 14 to `FILE`, or '-'", func(f *findings, w io.Writer, run report.Run) error {
		return report.WriteTAP(w, run, f.outcomes(run))
	}},
	{"junit", "write the results as JUnit's XML to `FILE`, or '-'", func(f *findings, w io.Writer, run report.Run) error {
		return report.WriteJUnit(w, run, f.outcomes(run))
	}},
	{htmlFlag, "write the results as one page of HTML to `FILE`, or '-'", func(f *findings, w io.Writer, run report.Run) error {
		return report.WriteHTML(w, run, f.outcomes(run))
	}},
}

// htmlFlag is that of the report that shows what the sockets of all cells logged.
const htmlFlag = "html"

// outcomes are the findings for reports that show one verdict for each target.
func (f *findings) outcomes(run report.Run) []report.Outcome {
	if f.stats != nil {
		return f.stats.Outcomes(run)
	}
	return report.Outcomes(run, f.results)
}

// tripsText says how many round trips waited for one another; before is how many
// came before the first target.
func (f *findings) tripsText(before int) string {
	return fmt.Sprintf("control round trips in the longest chain: %d to prepare the hosts, %d for %s",
		before, f.longest.Trips, f.longest.Name)
}

func (f *findings) exitStatus() int {
	if f.stats != nil {
		return f.stats.ExitStatus()
	}
	var verdicts []matrix.Verdict
	for _, r := range f.results {
		verdicts = append(verdicts, r.Verdict)
	}
	return matrix.ExitStatus(verdicts...)
}
