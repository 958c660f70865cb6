package agent

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFullDisk: TMPDIR is named where it decides where a file is, and only there.
func TestFullDisk(t *testing.T) {
	t.Setenv("TMPDIR", "/scratch/")
	const other = "name another folder for temporary files: TMPDIR=/DIR"
	for _, c := range []struct {
		path string
		err  error
		hint string
	}{
		{filepath.Join(os.TempDir(), "pfdivert-ssh-1/c"), unix.ENOSPC, "make room there, or " + other},
		{"/scratch/pfdivert-trace-1", unix.EDQUOT, "make room there, or " + other},
		{"/scratch/pfdivert-trace-1", unix.EROFS, other},
		{"/scratch/results.json", unix.ENOSPC, "see how full it is, and make room there: df /scratch"},
		{"run.json", unix.ENOSPC, "see how full it is, and make room there: df ."},
		{"/srv/pfdivert-1/run.json", unix.EDQUOT, "see how full it is, and make room there: df /srv/pfdivert-1"},
		{"/srv/run.json", unix.EROFS, ""},
	} {
		err := fmt.Errorf("results: %w", &fs.PathError{Op: "write", Path: c.path, Err: c.err})
		if got := HintOf(err); got != c.hint {
			t.Errorf("%v: hint %q, not %q", err, got, c.hint)
		}
	}
}
