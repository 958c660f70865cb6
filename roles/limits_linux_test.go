package roles

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"pfdivert/roles/lab/labtest"
)

// raceWarning is what a program built with -race says first where there is no /proc.
var raceWarning = regexp.MustCompile(`(?m)^==\d+==WARNING: reading executable name failed.*\n`)

// TestLimits: what the system lacks or limits is told in a sentence with a hint that works, and not
// by a stack trace of Go's runtime.
func TestLimits(t *testing.T) {
	labtest.Need(t)
	pfdivert := filepath.Join(program(t), "pfdivert")
	for _, c := range []struct {
		name, script, want string
		root               bool // a user's own processes would count
	}{
		{"files", "ulimit -n 8; exec $0 run",
			"error: this process may open 8 files, and needs 64\nhint: in a new shell, or as root: ulimit -n 1024\n", false},
		{"few files", "ulimit -n 20; exec $0 run inet-args-tcp-to",
			"error: this process may open 20 files, and needs 64\nhint: in a new shell, or as root: ulimit -n 1024\n", false},
		{"processes", "exec unshare -U prlimit --nproc=10 $0 run",
			"error: this user may have 10 processes, and needs 64\nhint: in a new shell, or as root: ulimit -u 1024\n", true},
		{"no proc", "exec unshare -m sh -c 'umount -l /proc; exec $0 run' $0",
			"error: start the lab's agents: fork/exec /proc/self/exe: no such file or directory\n" +
				"hint: mount -t proc proc /proc\n", true},
		{"read-only run", "exec unshare -m -n sh -c 'mount -t tmpfs none /run; mount -o remount,ro /run; exec $0 pf-setup" +
			" -from 10.188.1.1 -to 10.188.2.9 -port 4000' $0",
			"error: take the host: the folder for what undoes this program's changes: mkdir /var/run/pfdivert: read-only file system\n" +
				"hint: it must be on a file system to which root may write: mount -o remount,rw /run\n", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.root {
				labtest.Root(t)
			}
			if strings.Contains(c.script, "unshare -U") {
				labtest.NeedUsers(t)
			}
			cmd := exec.CommandContext(t.Context(), "sh", "-c", c.script, pfdivert)
			cmd.Env = append(os.Environ(), asProgram+"=1")
			var stderr, stdout limited
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			_ = cmd.Run()
			said := raceWarning.ReplaceAllString(string(stderr), "")
			if status := cmd.ProcessState.ExitCode(); status != 2 || said != c.want {
				t.Errorf("status %d, stderr\n%s\nwant\n%s", status, said, c.want)
			}
		})
	}
}

// limited keeps the beginning of what is written.
type limited []byte

func (l *limited) Write(b []byte) (int, error) {
	*l = append(*l, b[:min(len(b), 4096-min(4096, len(*l)))]...)
	return len(b), nil
}
