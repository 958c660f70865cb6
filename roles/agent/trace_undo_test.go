package agent

import (
	"os"
	"path/filepath"
	"testing"

	"pfdivert/pfconf"
)

// TestTraceFolder: how the folder of traces is removed is recorded before it is made, and nothing
// else is removed by such a step.
func TestTraceFolder(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	var undo pfconf.Undo
	tracer, err := newTracer("sh", func(u pfconf.Undo) error {
		if _, err := os.Stat(u.Args[0]); err == nil {
			t.Error("it was there before it was recorded")
		}
		undo = u
		return nil
	}, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tracer.dir, "1.trace"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := undoTraces(undo); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(tracer.dir); err == nil {
		t.Error("the folder is there still")
	}
	if err := undoTraces(undo); err != nil { // it is gone already
		t.Error(err)
	}
	for _, args := range [][]string{
		nil, {"/etc"}, {"/tmp/pfdivert-trace-1/../../etc"}, {"pfdivert-trace-1"}, {"/tmp/pfdivert-trace-1", "/etc"},
	} {
		if err := undoTraces(pfconf.Undo{Do: undoTraceFolder, Args: args}); err == nil {
			t.Errorf("%q was removed", args)
		}
	}
}
