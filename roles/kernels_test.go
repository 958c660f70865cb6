package roles

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pfdivert/matrix"
)

// TestKernelsPage: docs/kernels.md is what the runs in docs/kernels make, and each of them
// has the suite's targets.
func TestKernelsPage(t *testing.T) {
	files, err := filepath.Glob("../docs/kernels/*.json")
	if err != nil || len(files) == 0 {
		t.Fatal("no runs: ", err)
	}
	for _, name := range files {
		run, err := new(call).readRun(name)
		if err != nil {
			t.Fatal(err)
		}
		var have []string
		for _, o := range run.Summaries {
			have = append(have, o.Name)
		}
		for _, target := range matrix.Targets() {
			if !slices.Contains(have, target.Name) {
				t.Errorf("%s lacks %s", name, target.Name)
			}
		}
	}
	status, out, said := callMain(append([]string{"pfdivert", "kernels"}, files...)...)
	if status != exitOK || said != "" {
		t.Fatalf("exit status %d, %s", status, said)
	}
	page, err := os.ReadFile("../docs/kernels.md")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(page), out); diff != "" {
		t.Errorf("docs/kernels.md is not what the runs say; 'make kernels' writes it (-is +must be):\n%s", diff)
	}
}

func TestKernelsRefuses(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.json")
	if err := os.WriteFile(bad, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ args, says string }{
		{"kernels", "error: kernels needs the results of a run\nhint: "},
		{"kernels nowhere.json", "error: open nowhere.json: no such file"},
		{"kernels " + bad, "error: " + bad + ": it is no report of a run"},
	} {
		status, out, said := callMain(append([]string{"pfdivert"}, strings.Fields(c.args)...)...)
		if status != exitError || out != "" || !strings.HasPrefix(said, c.says) {
			t.Errorf("%s: exit status %d, %q, %q", c.args, status, out, said)
		}
	}
}
