package report

import (
	"fmt"
	"io"
	"sync"

	"pfdivert/matrix"
)

// Results gathers the results of a run: each of them, or statistics if the run repeats its targets.
// Add is safe for concurrent use; call the other methods when the run has ended.
type Results struct {
	stats   *Stats // nil for a run that runs each target once
	mu      sync.Mutex
	results []matrix.Result
	longest matrix.Result // of most round trips
}

// NewResults gathers the results of targets, which are named as in the report.
func NewResults(targets []string, repeats bool) *Results {
	if !repeats {
		return &Results{}
	}
	return &Results{stats: NewStats(targets)}
}

// Add takes a result. It reports whether the result counts: one that was interrupted before it was
// judged does not.
func (r *Results) Add(result matrix.Result) (counted bool) {
	if result.Reason == matrix.Interrupted {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if result.RoundTrips > r.longest.RoundTrips {
		r.longest = result
	}
	if r.stats != nil {
		r.stats.Add(result)
		return true
	}
	r.results = append(r.results, result)
	return true
}

// Kept returns the results whose transcripts are worth keeping.
func (r *Results) Kept() []matrix.Result {
	if r.stats == nil {
		return r.results
	}
	return r.stats.Shown()
}

// WriteText writes the report for people; see the functions of that name.
func (r *Results) WriteText(w io.Writer, style Style, run Run) error {
	if r.stats != nil {
		return r.stats.WriteText(w, style, run)
	}
	return WriteText(w, style, run, r.results)
}

// WriteJSON writes the report for programs; see the functions of that name.
func (r *Results) WriteJSON(w io.Writer, run Run) error {
	if r.stats != nil {
		return r.stats.WriteJSON(w, run)
	}
	return WriteJSON(w, run, r.results)
}

// Format is a report that can be written to a file.
type Format struct {
	Flag, Usage string // on the command line
}

// Formats are the reports, in the order of the names that OpenFiles takes.
var Formats = []Format{
	{"json", "write the results as JSON to `FILE`, '-' for standard output"},
	{"tap", "write the results as TAP 14 to `FILE`, or '-'"},
	{"junit", "write the results as JUnit's XML to `FILE`, or '-'"},
	{HTMLFlag, "write the results as one page of HTML to `FILE`, or '-'"},
}

// HTMLFlag is the flag of the report that shows what the sockets of all cells logged.
const HTMLFlag = "html"

// Report writes itself in the format that has a flag.
type Report interface {
	Write(w io.Writer, flag string) error
}

// Of returns the results as the report of a run.
func (r *Results) Of(run Run) Report { return resultsOf{r, run} }

type resultsOf struct {
	*Results
	run Run
}

func (r resultsOf) Write(w io.Writer, flag string) error {
	switch flag {
	case "json":
		return r.WriteJSON(w, r.run)
	case "tap":
		return WriteTAP(w, r.run, r.Summaries(r.run))
	case "junit":
		return WriteJUnit(w, r.run, r.Summaries(r.run))
	}
	return WriteHTML(w, r.run, r.Summaries(r.run))
}

// Summaries returns one verdict for each target.
func (r *Results) Summaries(run Run) []Summary {
	if r.stats != nil {
		return r.stats.Summaries(run)
	}
	return Summaries(run, r.results)
}

// RoundTrips returns a sentence about the longest chain of round trips that waited for one another;
// before is the number of round trips that preceded the first target.
func (r *Results) RoundTrips(before int) string {
	return fmt.Sprintf("control round trips in the longest chain: %d to prepare the hosts, %d for %s",
		before, r.longest.RoundTrips, r.longest.Name)
}

// ExitStatus returns 0, 1 or 2, according to the verdicts.
func (r *Results) ExitStatus() int {
	if r.stats != nil {
		return r.stats.ExitStatus()
	}
	var verdicts []matrix.Verdict
	for _, r := range r.results {
		verdicts = append(verdicts, r.Verdict)
	}
	return matrix.ExitStatus(verdicts...)
}
