package roles

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pfdivert/matrix"
	"pfdivert/roles/report"
)

// gone is a reader that went away.
type gone struct{}

var errGone = errors.New("broken pipe")

func (gone) Write([]byte) (int, error) { return 0, errGone }

// TestReportsBeforeText: that the text can't be written does not keep the run's files from it, and
// neither does a file that can't.
func TestReportsBeforeText(t *testing.T) {
	dir := t.TempDir()
	names := make([]string, len(formats))
	for i, f := range formats {
		names[i] = filepath.Join(dir, f.flag)
	}
	names[0] = "-"
	files, err := openReports(names, gone{})
	if err != nil {
		t.Fatal(err)
	}
	found := newFindings([]string{"inet-args-tcp-to"}, false)
	found.add(matrix.Result{Name: "inet-args-tcp-to", Verdict: matrix.Pass})
	run := report.Run{Version: "v1", Targets: []string{"inet-args-tcp-to"}}
	err = new(call).report(run, found, nil, runFlags{out: filepath.Join(dir, "out")}, output{text: gone{}, files: files})
	if !errors.Is(err, errGone) || !strings.Contains(err.Error(), "results, -json -: ") {
		t.Errorf("%v", err)
	}
	for _, name := range append(names[1:], filepath.Join(dir, "out", "inet-args-tcp-to", "verdict")) {
		if text, err := os.ReadFile(name); err != nil || !strings.Contains(string(text), "inet-args-tcp-to") {
			t.Errorf("%v, %q", err, text)
		}
	}
}
