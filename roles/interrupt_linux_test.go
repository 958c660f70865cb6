package roles

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"pfdivert/roles/lab/labtest"
)

// soon bounds what must happen after a signal; most of it takes milliseconds.
const soon = 10 * time.Second

// running is an orchestrator that runs all targets again and again.
type running struct {
	cmd           *exec.Cmd
	stdout        bytes.Buffer
	stderr        bytes.Buffer
	ended         chan struct{}
	local, remote int    // the agents' processes
	mark          string // in the environment of all of the run's processes
}

// startRun starts a run and waits until cells have been run.
func startRun(t *testing.T, args ...string) *running {
	t.Helper()
	labtest.Need(t)
	r := &running{ended: make(chan struct{}), mark: fmt.Sprintf("PFDIVERT_TEST_RUN=%d.%d", os.Getpid(),
		time.Now().UnixNano())}
	r.cmd = exec.Command(filepath.Join(program(t), "pfdivert"), append([]string{"run", "-for", "1m"}, args...)...)
	r.cmd.Env = []string{r.mark, asProgram + "=1", "GORACE=" + os.Getenv("GORACE"), "PATH=" + os.Getenv("PATH")}
	r.cmd.Stdout, r.cmd.Stderr = &r.stdout, &r.stderr
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = r.cmd.Wait()
		close(r.ended)
	}()
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill()
		<-r.ended
	})
	eventually(t, "the run begins", func() bool {
		if r.local = onlyChild(r.cmd.Process.Pid); r.local == 0 {
			return false
		}
		r.remote = onlyChild(r.local)
		// LOCAL receives 40 in a round.
		return r.remote != 0 && received(r.local) > 100
	})
	if n := len(r.processes()); n < 3 {
		t.Errorf("the run has %d processes, not 3: its mark is lost", n)
	}
	return r
}

// eventually waits for something to be so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(soon); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", soon, what)
		}
	}
}

// onlyChild returns the child of a process, 0 if it has none.
func onlyChild(pid int) int {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, l := range lists {
		b, _ := os.ReadFile(l)
		if f := strings.Fields(string(b)); len(f) > 0 {
			child, _ := strconv.Atoi(f[0])
			return child
		}
	}
	return 0
}

// received counts the UDP datagrams that sockets of a process's host received.
func received(pid int) (n int) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/net/snmp", pid))
	if err != nil {
		return 0
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if f := strings.Fields(s.Text()); len(f) > 1 && f[0] == "Udp:" {
			n, _ = strconv.Atoi(f[1]) // its second line has the numbers
		}
	}
	return n
}

// alive reports whether a process runs. One that has ended and waits for its parent
// to notice does not.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(state, "Z") && !strings.HasPrefix(state, "X")
}

// exit waits for the orchestrator's end and gives its status.
func (r *running) exit(t *testing.T) int {
	t.Helper()
	select {
	case <-r.ended:
		return r.cmd.ProcessState.ExitCode()
	case <-time.After(soon):
		t.Fatalf("the orchestrator does not end; it printed\n%s%s", &r.stdout, &r.stderr)
		return 0
	}
}

// gone judges that no process of the run is left. Namespaces that no file is
// bound to, as the lab's, end with their processes.
func (r *running) gone(t *testing.T) {
	t.Helper()
	eventually(t, "the processes are gone", func() bool { return len(r.processes()) == 0 })
}

// processes are those of the run that are alive.
func (r *running) processes() (pids []int) {
	all, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, path := range all {
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if b, err := os.ReadFile(path); err == nil && bytes.Contains(b, []byte(r.mark)) && alive(pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// An interrupted run says what it has found so far.
func TestInterrupted(t *testing.T) {
	for _, signal := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		t.Run(signal.String(), func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "results.json")
			r := startRun(t, "-json", file)
			if err := r.cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			if status := r.exit(t); status != exitError {
				t.Errorf("exit status %d", status)
			}
			r.gone(t)
			found := regexp.MustCompile(`(?m)^interrupted after ([1-9][0-9]*) cells of [0-9]+ targets: ([1-9][0-9]*) PASS in .*$`)
			if m := found.FindStringSubmatch(r.stdout.String()); m == nil || m[1] != m[2] {
				t.Errorf("it printed\n%s", &r.stdout)
			}
			if r.stderr.Len() > 0 {
				t.Errorf("on standard error: %s", &r.stderr)
			}
			if b, err := os.ReadFile(file); err != nil || !bytes.Contains(b, []byte(`"interrupted":true`)) {
				t.Errorf("results: %v %s", err, b)
			}
		})
	}
}

// Whichever process is killed, the others end and nothing is left of the lab.
func TestKilled(t *testing.T) {
	for _, c := range []struct {
		name   string
		pid    func(*running) int
		signal syscall.Signal
	}{
		{"orchestrator", func(r *running) int { return r.cmd.Process.Pid }, syscall.SIGKILL},
		{"local", func(r *running) int { return r.local }, syscall.SIGKILL},
		{"remote", func(r *running) int { return r.remote }, syscall.SIGKILL},
		{"local", func(r *running) int { return r.local }, syscall.SIGTERM},
		{"remote", func(r *running) int { return r.remote }, syscall.SIGTERM},
	} {
		t.Run(c.name+" "+c.signal.String(), func(t *testing.T) {
			r := startRun(t)
			victim := c.pid(r)
			if err := syscall.Kill(victim, c.signal); err != nil {
				t.Fatal(err)
			}
			status := r.exit(t)
			r.gone(t)
			if victim == r.cmd.Process.Pid {
				return
			}
			if status != exitError {
				t.Errorf("exit status %d", status)
			}
			// Each target that was being run is an ERROR, and one line sums it up.
			sum := regexp.MustCompile(`(?m)^[0-9]+ cells of [0-9]+ targets: [0-9]+ PASS, [1-9][0-9]* ERROR in `)
			if out := r.stdout.String(); !sum.MatchString(out) || !strings.Contains(out, "(agent-lost)") ||
				strings.Contains(out, " FAIL ") {
				t.Errorf("it printed\n%s%s", out, &r.stderr)
			}
		})
	}
}
