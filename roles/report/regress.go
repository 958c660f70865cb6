package report

import (
	"bytes"
	"fmt"
	"io"

	"pfdivert/matrix"
)

// The words that bsd.regress.mk and the tools that read its output know. A
// target begins with "==== run-regress-name ====" and ends with an empty line;
// between them a line of its own says what happened to it: bsd.regress.mk prints
// FAILED when the target's exit status is not 0, EXPECTED_FAIL or
// UNEXPECTED_PASS for those in REGRESS_EXPECTED_FAILURES, SKIPPED for those in
// REGRESS_SKIP_TARGETS, and no word for a success. A test itself prints SKIPPED
// behind its reason when something that it needs is missing, and exits with 0;
// regress-all counts the word DISABLED as a success. Sources: OpenBSD
// share/mk/bsd.regress.mk 1.24 and bsd.regress.mk(5), "GUIDELINES".
var regressWord = map[matrix.Verdict]string{
	matrix.Fail:  "FAILED",
	matrix.Error: "FAILED",
	matrix.XFail: "EXPECTED_FAIL",
	matrix.XPass: "UNEXPECTED_PASS",
	matrix.Skip:  "SKIPPED",
}

// WriteRegress writes the results in the form of "make regress" in OpenBSD's source tree. alone:
// they are of one target that bsd.regress.mk runs, which prints the target's name and FAILED.
func WriteRegress(w io.Writer, run Run, results []matrix.Result, alone bool) error {
	var b bytes.Buffer
	for _, r := range run.ordered(results) {
		if !alone {
			fmt.Fprintf(&b, "==== run-%s ====\n", printable(r.Name))
		}
		if word, ok := regressWord[r.Verdict]; ok {
			// The line before FAILED is what regress-all's summary quotes.
			fmt.Fprintf(&b, "%s\n", printable(r.String()))
			if !alone || r.Verdict == matrix.XFail || r.Verdict == matrix.Skip {
				fmt.Fprintf(&b, "%s\n", word)
			}
		}
		if !alone {
			b.WriteByte('\n')
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}
