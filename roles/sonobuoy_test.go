package roles

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pfdivert/roles/terminal"
)

// TestSubmit: however a run ended, the worker is told where its results are, and finds an error
// there unless the kernel was judged. contrib/kubernetes tests it with Sonobuoy's own worker.
func TestSubmit(t *testing.T) {
	for _, c := range []struct {
		name   string
		status int
		err    error
		want   int
		says   string // in error.xml; "" for no such file
	}{
		{"passed", exitOK, nil, exitOK, ""},
		{"failed", exitFail, nil, exitFail, ""},
		{"could not start", exitError, terminal.WithHint(os.ErrPermission, "be root"), exitError, "permission denied"},
		{"nothing but SKIP", 3, nil, 3, "nothing is told of this kernel"},
	} {
		t.Run(c.name, func(t *testing.T) {
			worker := t.TempDir()
			getenv := func(name string) string {
				return map[string]string{"SONOBUOY_RESULTS_DIR": worker}[name]
			}
			var o runFlags
			for range 2 { // as a container that is started again
				o = runFlags{reports: make([]string, 4)}
				if err := o.forSonobuoy(getenv); err != nil {
					t.Fatal(err)
				}
				if _, err := os.Stat(filepath.Join(worker, "done")); err == nil {
					t.Fatal("the worker is told of results before they are there")
				}
				ctx, cancel := context.WithCancel(context.Background())
				cancel() // ended by a signal, so that it does not wait
				var errors strings.Builder
				status, err := (&call{IO: IO{Err: &errors, Getenv: getenv}}).submit(ctx, c.status, c.err)
				if status != c.want || err != nil {
					t.Errorf("exit status %d, %v, want %d", status, err, c.want)
				}
			}
			done, err := os.ReadFile(filepath.Join(worker, "done"))
			if want := filepath.Join(worker, "pfdivert"); err != nil || string(done) != want || o.out != want {
				t.Errorf("done is %q, %v, and the results are in %s", done, err, o.out)
			}
			text, err := os.ReadFile(filepath.Join(worker, "pfdivert", "error.xml"))
			if c.says == "" != os.IsNotExist(err) || !strings.Contains(string(text), c.says) {
				t.Errorf("error.xml: %v, %s", err, text)
			}
		})
	}
}
