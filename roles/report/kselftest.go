package report

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"pfdivert/matrix"
)

// WriteKselftest writes the summaries as the programs of the kernel's tree below
// tools/testing/selftests print theirs (kselftest.h; Documentation/dev-tools/ktap.rst). Diagnostics
// stand before their target's line.
func WriteKselftest(w io.Writer, run Run, summaries []Summary) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "TAP version 13\n1..%d\n", len(summaries))
	if run.Skipped != "" {
		fmt.Fprintf(&b, "# %s\n", printable(run.Skipped))
	}
	for _, line := range run.kernels() {
		fmt.Fprintf(&b, "# %s\n", line)
	}
	count := map[matrix.Verdict]int{}
	for i, o := range summaries {
		if o.Verdict == "" {
			continue
		}
		count[o.Verdict]++
		name := o.Name
		if o.Host != "" {
			name = OnHost(o.Host, o.Name)
		}
		name = tapText(name)
		if o.Verdict != matrix.Pass {
			comment(&b, o.says())
			for _, line := range o.explained() {
				comment(&b, line[0]+": "+line[1])
			}
			for _, t := range o.Transcript {
				if t.Name == matrix.KernelLog {
					comment(&b, t.Text)
				}
			}
		}
		switch o.Verdict {
		case matrix.Pass:
			fmt.Fprintf(&b, "ok %d %s # time=%.0fms\n", i+1, name, o.Seconds*1e3)
		case matrix.XFail:
			fmt.Fprintf(&b, "ok %d # XFAIL %s\n", i+1, name)
		case matrix.XPass:
			fmt.Fprintf(&b, "ok %d # XPASS %s\n", i+1, name)
		case matrix.Skip:
			fmt.Fprintf(&b, "ok %d # SKIP %s %s\n", i+1, name, tapText(o.Reason))
		case matrix.Fail:
			fmt.Fprintf(&b, "not ok %d %s\n", i+1, name)
		default:
			fmt.Fprintf(&b, "not ok %d # error %s\n", i+1, name)
		}
	}
	if run.Interrupted {
		b.WriteString("Bail out! the run was interrupted\n")
	}
	fmt.Fprintf(&b, "# Totals: pass:%d fail:%d xfail:%d xpass:%d skip:%d error:%d\n",
		count[matrix.Pass], count[matrix.Fail], count[matrix.XFail], count[matrix.XPass], count[matrix.Skip],
		count[matrix.Error])
	_, err := w.Write(b.Bytes())
	return err
}

// comment writes text as lines that a reader of TAP takes for none of its own.
func comment(b *bytes.Buffer, text string) {
	for line := range strings.Lines(text) {
		fmt.Fprintf(b, "# %s\n", printable(strings.TrimRight(line, "\n")))
	}
}
