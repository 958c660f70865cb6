package report

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"unicode"

	"pfdivert/matrix"
	"pfdivert/pfconf"
)

// WriteTAP writes the summaries in version 14 of the Test Anything Protocol
// (https://testanything.org/tap-version-14-specification.html). Each target is a test point with a
// block of YAML. FAIL, ERROR and XPASS are not ok, as for the exit status; SKIP has the directive
// SKIP, and XFAIL has TODO, which marks known failures. The report of an interrupted run bails out,
// even if each target was run once: the run has failed.
func WriteTAP(w io.Writer, run Run, summaries []Summary) error {
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, "TAP version 14\n1..%d", len(summaries))
	if run.Skipped != "" {
		b.WriteString(" # SKIP " + printable(run.Skipped))
	}
	fmt.Fprintf(b, "\n# pfdivert %s\n", printable(run.Version))
	for _, line := range run.kernels() {
		fmt.Fprintf(b, "# %s\n", line)
	}
	played := 0
	for i, o := range summaries {
		if o.Verdict == "" {
			continue
		}
		played++
		name := o.Name
		if o.Host != "" {
			name = OnHost(o.Host, o.Name)
		}
		ok, directive := "not ok", ""
		switch o.Verdict {
		case matrix.Pass:
			ok = "ok"
		case matrix.Skip:
			ok, directive = "ok", " # SKIP "+tapText(o.says())
		case matrix.XFail:
			directive = " # TODO known failure: " + tapText(o.says())
		}
		fmt.Fprintf(b, "%s %d - %s%s\n", ok, i+1, tapText(name), directive)
		tapBlock(b, o)
	}
	switch {
	case played < len(summaries):
		fmt.Fprintf(b, "Bail out! interrupted after %d of %s\n", played, pfconf.Count(len(summaries), "target"))
	case run.Interrupted:
		b.WriteString("Bail out! the run was interrupted\n")
	}
	return b.Flush()
}

// tapEscapes escapes what TAP takes for a directive.
var tapEscapes = strings.NewReplacer(`\`, `\\`, `#`, `\#`)

func tapText(text string) string { return tapEscapes.Replace(printable(text)) }

// tapBlock writes what else is known of a target. All strings are quoted, so that none can
// end its scalar or the block. A transcript is a literal block: prove's reader of YAML
// knows no list of strings with a colon.
func tapBlock(b *bufio.Writer, o Summary) {
	b.WriteString("  ---\n")
	field := func(indent, key, value string) { fmt.Fprintf(b, "  %s%s: %s\n", indent, key, yamlString(value)) }
	field("", "verdict", string(o.Verdict))
	fmt.Fprintf(b, "  duration_ms: %.3f\n", o.Seconds*1e3)
	if o.Counts != "" {
		field("", "runs", o.Counts)
	}
	if o.Verdict != matrix.Pass {
		field("", "reason", o.Reason)
		field("", "message", o.Detail)
		if lines := o.explained(); lines != nil {
			b.WriteString("  explanation:\n")
			for _, line := range lines {
				key := strings.ReplaceAll(line[0], " ", "_")
				if key == "fix" {
					key = "mend" // the key of JSON, which never changes
				}
				field("  ", key, line[1])
			}
		}
		if len(o.Transcript) > 0 {
			b.WriteString("  transcripts:\n")
		}
		for _, t := range o.Transcript {
			if t.Text == "" {
				continue
			}
			field("  - ", "of", t.Host+" "+t.Name)
			b.WriteString("      text: |\n")
			for line := range strings.Lines(t.Text) {
				line = printable(strings.TrimSuffix(line, "\n"))
				if rest, ok := strings.CutPrefix(line, " "); ok {
					line = `\x20` + rest // a space would be indentation
				}
				fmt.Fprintf(b, "        %s\n", line)
			}
		}
	}
	b.WriteString("  ...\n")
}

// yamlString is a string in YAML's double quotes, with what is not printable as
// YAML 1.2 escapes it; bytes that are no UTF-8 are replaced.
func yamlString(text string) string {
	out := []byte{'"'}
	for _, r := range text {
		switch {
		case r == '"' || r == '\\':
			out = append(out, '\\', byte(r))
		case unicode.IsPrint(r):
			out = append(out, string(r)...)
		case r == '\n':
			out = append(out, `\n`...)
		case r == '\t':
			out = append(out, `\t`...)
		case r < 0x100:
			out = fmt.Appendf(out, `\x%02x`, r)
		case r < 0x10000:
			out = fmt.Appendf(out, `\u%04x`, r)
		default:
			out = fmt.Appendf(out, `\U%08x`, r)
		}
	}
	return string(append(out, '"'))
}
