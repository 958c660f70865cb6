package report

import (
	"bytes"
	"testing"
)

// TestKselftest: the report for the readers of the kernel's own tests.
func TestKselftest(t *testing.T) {
	for name, summaries := range map[string][]Summary{
		"mixed.ktap":   Summaries(run26, mixed()),
		"hostile.ktap": Summaries(with(run26, func(r *Run) { r.Targets = args26[:1] }), hostile),
	} {
		var b bytes.Buffer
		if err := WriteKselftest(&b, run26, summaries); err != nil {
			t.Fatal(err)
		}
		golden(t, name, b.Bytes())
		assertClean(t, b.String())
	}
}
