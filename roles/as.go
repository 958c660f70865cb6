package roles

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"pfdivert/matrix"
	"pfdivert/roles/report"
)

// reader is a program that reads a run's results: its format, and the exit statuses that
// it understands.
type reader struct {
	name string
	// write writes the results; nil for those that are not read.
	write func(io.Writer, report.Run, []report.Summary) error
	// bailOut is what is printed, before the error, when a run could not start; empty for nothing.
	bailOut string
	// The exit statuses beside 0 and 1: when a target is ERROR or the run could not start, and when
	// nothing is told of the kernel, because all or a target that was named is SKIP.
	failed, untold int
}

// readers are what -as takes.
var readers = []reader{
	// git-bisect(1): 125 is a commit that can't be tested.
	{name: "bisect", failed: 125, untold: 125},
	// tools/testing/selftests/kselftest.h: KSFT_FAIL is 1, KSFT_SKIP is 4.
	{name: "kselftest", write: report.WriteKselftest, bailOut: "TAP version 13\nBail out! ", failed: 1, untold: 4},
	// It reads no exit status; see sonobuoy.go.
	{name: sonobuoy, failed: exitError, untold: 3},
}

// asUsage is the usage of -as.
const asUsage = "print and exit for the `READER` bisect (git bisect run), kselftest or sonobuoy"

// readerOf returns the reader of a name.
func readerOf(name string) (*reader, error) {
	var names []string
	for i := range readers {
		if readers[i].name == name {
			return &readers[i], nil
		}
		names = append(names, readers[i].name)
	}
	return nil, fmt.Errorf("the readers are %s", strings.Join(names, ", "))
}

// readerIn finds -as among arguments that are not all understood: what could not be read must not
// be taken for a verdict.
func readerIn(args []string) *reader {
	for i, arg := range args {
		name, ok := strings.CutPrefix(strings.TrimPrefix(arg, "-"), "-as=")
		if !ok && (arg == "-as" || arg == "--as") && i+1 < len(args) {
			name, ok = args[i+1], true
		}
		if r, err := readerOf(name); ok && err == nil {
			return r
		}
	}
	return nil
}

// exitStatus is that of a run with these summaries; named are the targets that were asked for by
// their whole names. What is proved counts more than what could not be tested.
func (r *reader) exitStatus(summaries []report.Summary, named []string) int {
	all := map[matrix.Verdict]int{}
	skipped := false
	for _, o := range summaries {
		all[o.Verdict]++
		skipped = skipped || o.Verdict == matrix.Skip && slices.Contains(named, o.Name)
	}
	switch {
	case all[matrix.Fail]+all[matrix.XPass] > 0:
		return exitFail
	case all[matrix.Error]+all[""] > 0: // no verdict: the run was interrupted
		return r.failed
	case skipped || all[matrix.Pass]+all[matrix.XFail] == 0:
		return r.untold
	}
	return exitOK
}

// wholeNames returns the patterns that are names.
func wholeNames(patterns []string) (names []string) {
	for _, p := range patterns {
		if !strings.ContainsAny(p, `*?[\`) {
			names = append(names, strings.TrimPrefix(p, "run-"))
		}
	}
	return names
}

// require makes a FAIL of a SKIP for something that the kernel lacks.
func require(r matrix.Result) matrix.Result {
	if r.Verdict == matrix.Skip && (r.Reason == matrix.NoFeature || r.Reason == matrix.NoFamily) {
		r.Verdict, r.Detail = matrix.Fail, "required: "+r.Detail
	}
	return r
}
