package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"pfdivert/roles/lab/labtest"
)

// run runs a shell command in a lab.
func run(t *testing.T, h HostName, script, stdin string) (exit int, out, errOut string) {
	t.Helper()
	labtest.Need(t)
	var stdout, stderr bytes.Buffer
	exit, err := Run(t.Context(), nil, RunOptions{Host: h, Command: []string{"sh", "-c", script}},
		Stdio{strings.NewReader(stdin), &stdout, &stderr})
	if err != nil {
		t.Fatal(err)
	}
	return exit, stdout.String(), stderr.String()
}

func TestRun(t *testing.T) {
	for _, c := range []struct {
		name   string
		host   HostName
		script string
		exit   int
		out    string // is in the output
	}{
		{"status", Local, "exit 7", 7, ""},
		{"signal", Local, "kill -TERM $$", 128 + 15, ""},
		{"LOCAL", Local, "ip -brief addr", 0, "10.188.1.1/24"},
		{"REMOTE", Remote, "ip -brief addr", 0, "10.188.1.2/24"},
		{"IPv6", Remote, "ip -brief addr", 0, "fd00:188:1::2/64"},
		{"input", Remote, "cat", 0, "some input"},
		{"root", Remote, "id -u", 0, "0\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if program, _, _ := strings.Cut(c.script, " "); program == "ip" {
				labtest.Programs(t, program)
			}
			exit, out, errOut := run(t, c.host, c.script, "some input")
			if exit != c.exit || !strings.Contains(out, c.out) || errOut != "" {
				t.Errorf("exit status %d, want %d; output %q, want %q in it; errors %q", exit, c.exit, out, c.out, errOut)
			}
		})
	}
	t.Run("errors", func(t *testing.T) {
		labtest.Need(t)
		var stderr bytes.Buffer
		exit, err := Run(t.Context(), nil, RunOptions{Host: Local, Command: []string{"/no/such/program"}},
			Stdio{nil, io.Discard, &stderr})
		if exit != 2 || err != nil || !strings.Contains(stderr.String(), "/no/such/program") {
			t.Errorf("%d, %v, %q", exit, err, stderr.String())
		}
		for _, args := range [][]string{nil, {"{"}, {"{}", "x"}, {`{"host":"elsewhere","command":["true"]}`}} {
			if _, err := Inner(t.Context(), args, Stdio{}); err == nil {
				t.Errorf("no error for %q", args)
			}
		}
	})
}

// What the command leaves running ends with it, even with a session of its own.
func TestRunReaps(t *testing.T) {
	exit, out, _ := run(t, Remote, "setsid sleep 60 >/dev/null 2>&1 & sleep 60 >/dev/null 2>&1 & echo $!; pgrep -P $$ | head -1", "")
	if exit != 0 {
		t.Fatal(exit, out)
	}
	for _, s := range strings.Fields(out) {
		pid, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
			t.Errorf("process %d is still there: %v", pid, err)
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// The end of the context kills the inner process; the command dies with it.
func TestRunKilled(t *testing.T) {
	labtest.Need(t)
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	go func() {
		io.ReadFull(r, make([]byte, 2))
		cancel()
		io.Copy(io.Discard, r)
	}()
	start := time.Now()
	exit, err := Run(ctx, nil, RunOptions{Host: Remote, Command: []string{"sh", "-c", "echo x; exec sleep 60"}},
		Stdio{nil, w, io.Discard})
	if err != nil || exit != 128+9 || time.Since(start) > 10*time.Second {
		t.Errorf("%d, %v after %v", exit, err, time.Since(start))
	}
}

// Signals for one process are passed on; those of a terminal are not.
func TestRunSignals(t *testing.T) {
	labtest.Need(t)
	o, err := json.Marshal(RunOptions{Host: Remote, Command: []string{"sh", "-c",
		"trap 'exit 5' TERM; trap 'exit 6' INT; echo x; while :; do sleep 0.01; done"}})
	if err != nil {
		t.Fatal(err)
	}
	// Inner shares follow with Run.
	cmd, err := labtest.Command("/proc/self/exe", InnerArgument, string(o))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin, cmd.Stdout = nil, nil
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	io.ReadFull(out, make([]byte, 2))
	cmd.Process.Signal(os.Interrupt)
	time.Sleep(50 * time.Millisecond)
	cmd.Process.Signal(syscall.SIGTERM)
	cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != 5 {
		t.Errorf("exit status %d, want that of SIGTERM", got)
	}
}

// The description has the way to the other host.
func TestDescribe(t *testing.T) {
	labtest.Programs(t, "nsenter", "ip")
	l := build(t, Config{})
	s := l.describe(Remote)
	for _, want := range []string{"10.188.1.1", "fd00:188:1::2", "10.208.0.0/12", "This is REMOTE"} {
		if !strings.Contains(s, want) {
			t.Errorf("no %q in\n%s", want, s)
		}
	}
	_, path, _ := strings.Cut(s, "--net=")
	path, _, _ = strings.Cut(path, " ")
	out, err := exec.Command("nsenter", "--net="+path, "ip", "-brief", "addr").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "10.188.1.1/24") {
		t.Errorf("the other host, by %s: %v: %s", path, err, out)
	}
}
