package roles

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"pfdivert/matrix"
	"pfdivert/roles/lab/labtest"
)

// TestScripts runs what people type: testdata/script needs nothing of the machine, testdata/lab the
// right to make namespaces, testdata/lack kernels that lack something, testdata/kernel too, and no
// QEMU, testdata/trace strace.
func TestScripts(t *testing.T) {
	t.Run("plain", func(t *testing.T) { playScripts(t, "testdata/script") })
	t.Run("lab", func(t *testing.T) {
		labtest.Need(t)
		playScripts(t, "testdata/lab")
	})
	t.Run("lack", func(t *testing.T) {
		labtest.Need(t)
		playScripts(t, "testdata/lack")
	})
	t.Run("kernel", func(t *testing.T) {
		labtest.Need(t)
		playScripts(t, "testdata/kernel")
	})
	t.Run("trace", func(t *testing.T) {
		labtest.Need(t)
		labtest.Programs(t, "strace")
		playScripts(t, "testdata/trace")
	})
}

func playScripts(t *testing.T, dir string) {
	bin := program(t)
	testscript.Run(t, testscript.Params{
		Dir: dir,
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", bin+string(filepath.ListSeparator)+e.Getenv("PATH"))
			e.Setenv(asProgram, "1")
			e.Setenv("GORACE", os.Getenv("GORACE"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "bzimage": bzimage, "results": results, "sum": sum,
		},
		Condition:           func(condition string) (bool, error) { return labtest.Lack(t.Name(), condition) },
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
	})
}

// program makes a folder in which the test binary is called pfdivert.
func program(t testing.TB) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if err := os.Symlink(exe, filepath.Join(bin, "pfdivert")); err != nil {
		t.Fatal(err)
	}
	for _, m := range []string{"x86_64", "aarch64"} {
		if err := os.Symlink(exe, filepath.Join(bin, "qemu-system-"+m)); err != nil {
			t.Fatal(err)
		}
	}
	return bin
}

// bzimage is a script's command: "bzimage FILE" writes a file that has a kernel's header for this
// machine's processor, and no modules beside it.
func bzimage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: bzimage FILE")
	}
	head := make([]byte, 0x1000)
	copy(head[0x202:], "HdrS\x0f\x02")
	head[0x236] = 1
	if runtime.GOARCH == "arm64" {
		clear(head)
		copy(head[0x38:], "ARM\x64")
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), head, 0o644))
}

// exits is a script's command: "exits STATUS COMMAND...".
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *exec.ExitError
	switch err := ts.Exec(args[1], args[2:]...); {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

// results is a script's command: "results FILE TARGETS VERDICT": FILE, which may be
// stdout, is a run's JSON, with so many targets in the suite's order, each of
// the verdict.
func results(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: results FILE TARGETS VERDICT")
	}
	var got struct {
		Run struct {
			Kernel, System, Version, Started string
			Seconds                          float64
			Hosts                            []any
			Interrupted                      bool
		}
		Targets []matrix.Result
	}
	d := json.NewDecoder(strings.NewReader(ts.ReadFile(args[0])))
	d.DisallowUnknownFields()
	ts.Check(d.Decode(&got))
	if d.More() {
		ts.Fatalf("there is more behind the JSON")
	}
	if r := got.Run; r.Kernel == "" || r.System == "" || r.Version != "test" || r.Started == "" || r.Seconds <= 0 {
		ts.Fatalf("the run is not described: %+v", r)
	}
	if n := strconv.Itoa(len(got.Targets)); n != args[1] {
		ts.Fatalf("%s targets, want %s", n, args[1])
	}
	order := map[string]int{}
	for i, t := range matrix.Targets() {
		order[t.Name] = i + 1
	}
	last := 0
	for _, r := range got.Targets {
		if string(r.Verdict) != args[2] || r.Seconds < 0 {
			ts.Fatalf("%v, want %s", r, args[2])
		}
		if order[r.Name] <= last {
			ts.Fatalf("%s is unknown or not in its place", r.Name)
		}
		last = order[r.Name]
	}
}

// sum is a script's command: the sha256 of the program itself is in stdout.
func sum(ts *testscript.TestScript, neg bool, args []string) {
	want, err := ownSum()
	ts.Check(err)
	if !strings.Contains(ts.ReadFile("stdout"), fmt.Sprintf("sha256 %s\n", want)) {
		ts.Fatalf("stdout has no sha256 %s", want)
	}
}
