package matrix

import (
	"fmt"

	"pfdivert/matrix/evidence"
	"pfdivert/matrix/explain"
)

// Verdict is what happened to a cell.
type Verdict string

// The verdicts. FAIL accuses the kernel under test and nothing else; ERROR is
// everything that kept the test from being done.
const (
	Pass  Verdict = "PASS"
	Fail  Verdict = "FAIL"
	XFail Verdict = "XFAIL" // failed as this kernel is known to
	XPass Verdict = "XPASS" // passed although it was known to fail
	Skip  Verdict = "SKIP"  // the kernel has no such feature: a probe proved it
	Error Verdict = "ERROR"
)

// Verdicts lists all, in the order in which reports count them.
var Verdicts = []Verdict{Pass, XFail, Skip, Fail, XPass, Error}

// ExitStatus is the exit status of a run with these verdicts: 0 when all are
// PASS, XFAIL or SKIP, 1 when one is FAIL or XPASS, 2 when one is ERROR.
func ExitStatus(verdicts ...Verdict) int {
	status := 0
	for _, v := range verdicts {
		switch v {
		case Pass, XFail, Skip:
		case Fail, XPass:
			status = max(status, 1)
		default:
			return 2
		}
	}
	return status
}

// Result is a cell's outcome.
type Result struct {
	Name    string  `json:"name"`
	Verdict Verdict `json:"verdict"`
	// Reason is a code for machines that never changes its meaning (see
	// docs/reasons.md), Detail a sentence for people. Both are empty for PASS.
	Reason string `json:"reason"`
	Detail string `json:"detail"`
	// Seconds is from the cell's start to its verdict.
	Seconds float64 `json:"seconds"`
	// RoundTrips is how many round trips to the agents had to wait for one another.
	RoundTrips int `json:"-"`
	// Transcript has the endpoints' log lines, host by host; filled when the
	// cell did not pass or when transcripts were asked for.
	Transcript []Transcript `json:"-"`
	// Evidence is what the hosts showed of the cell, nil when it was not asked for;
	// Explanation what that means, nil for a cell that passed.
	Evidence    *Evidence            `json:"-"`
	Explanation *explain.Explanation `json:"explanation,omitempty"`
	// Trace is Evidence.Remote.Trace.
	Trace []evidence.Traced `json:"trace,omitempty"`
}

// Evidence is what both hosts showed of a cell.
type Evidence struct {
	Local  evidence.Record `json:"local"`
	Remote evidence.Record `json:"remote"`
}

// Transcript is what one endpoint logged.
type Transcript struct {
	Host string // "local" or "remote"
	Name string // the endpoint's name in the cell, e.g. "server"
	Text string
}

// KernelLog is the Transcript's Name of what the kernel said of itself.
const KernelLog = "kernel.log"

// Splat returns the result as a FAIL for what the kernel's log has: its report's first line, and
// all of it. was is what the result was without.
func (r Result) Splat(title, text, was string) Result {
	r.Verdict, r.Reason = Fail, KernelSplat
	r.Detail = fmt.Sprintf("the kernel's log has %q while this target was under way; else it was %s", title, was)
	r.Transcript = append(r.Transcript, Transcript{Host: "remote", Name: KernelLog, Text: text})
	r.Explanation = explain.Explain(explain.Case{Reason: r.Reason, Detail: r.Detail})
	return r
}

func (r Result) String() string {
	if r.Reason == "" {
		return fmt.Sprintf("%s %s", r.Verdict, r.Name)
	}
	return fmt.Sprintf("%s %s (%s): %s", r.Verdict, r.Name, r.Reason, r.Detail)
}
