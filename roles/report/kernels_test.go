package report

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// The page of runs of one host, of several, and of one with hostile text.
func TestWriteKernels(t *testing.T) {
	var runs []*Past
	for _, name := range []string{"mixed.json", "hosts.json", "hostile.json"} {
		f, err := os.Open("testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		run, err := ReadJSON(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		runs = append(runs, run)
	}
	var b bytes.Buffer
	if err := WriteKernels(&b, runs); err != nil {
		t.Fatal(err)
	}
	golden(t, "kernels.md", b.Bytes())
	width := 0
	for line := range strings.Lines(b.String()) {
		bars := strings.Count(line, "|") - strings.Count(line, `\|`)
		if !strings.HasPrefix(line, "|") {
			width = 0
		} else if width == 0 {
			width = bars
		}
		if strings.HasPrefix(line, "|") && bars != width {
			t.Errorf("a row of %d bars in a table of %d: %s", bars, width, line)
		}
	}
}
