//go:build linux

package host_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"pfdivert/roles/host"
	"pfdivert/roles/host/sshtest"
	"pfdivert/roles/lab"
	"pfdivert/roles/lab/labtest"
	"pfdivert/roles/lab/namespace"
)

// The test program runs every process of a lab, by its first argument.
func TestMain(m *testing.M) {
	sshtest.Main()
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "agent":
			os.Exit(labAgent(os.Args[2:]))
		case "orchestrator":
			os.Exit(orchestrator())
		case "copied":
			fail(copiedAgent(os.Args[2:]))
			os.Exit(0)
		case "reacher":
			fail(reacher(os.Args[2], os.Args[3]))
			os.Exit(0)
		case "privileged":
			fail(privileged(os.Args[2], os.Args[3]))
			os.Exit(0)
		}
	}
	os.Exit(labtest.Main(m))
}

// fail ends the program if there is an error.
func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(3)
	}
}

// labAgent tells its process id and namespace, then echoes lines. On the line
// "status" it gives its CPUs, on "exit N" it ends.
func labAgent(args []string) int {
	ctx := context.Background()
	if len(args) >= 2 {
		r, err := host.StartRemoteAgent(ctx, args[1], []string{"agent"})
		if err != nil {
			fmt.Fprintln(os.Stderr, "error:", err)
			return 3
		}
		defer func() {
			if err := r.Close(ctx); err != nil {
				fmt.Fprintln(os.Stderr, "error:", err)
			}
		}()
	}
	ns, _ := os.Readlink("/proc/self/ns/net")
	fmt.Println(os.Getpid(), ns)
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var code int
		switch _, err := fmt.Sscanf(in.Text(), "exit %d", &code); {
		case err == nil:
			fmt.Fprint(os.Stderr, "leaving\x1b[2J\x00\u202e\xff\n")
			return code
		case in.Text() == "cpus":
			b, _ := os.ReadFile("/proc/self/status")
			_, s, _ := strings.Cut(string(b), "Cpus_allowed_list:")
			s, _, _ = strings.Cut(s, "\n")
			fmt.Println(strings.TrimSpace(s))
		default:
			fmt.Println(in.Text())
		}
	}
	return 0
}

// orchestrator starts a lab, tells the agents' process ids and waits to be
// killed.
func orchestrator() int {
	a, b, err := startLab(context.Background())
	if err != nil {
		var f *namespace.ForbiddenError
		if errors.As(err, &f) {
			fmt.Println("forbidden:", f.Cause, "|", f.Cure)
			return 4
		}
		fmt.Println(err)
		return 1
	}
	fmt.Println(a.pid, b.pid)
	io.Copy(io.Discard, os.Stdin)
	return 0
}

// linked is an agent with its first line read.
type linked struct {
	*host.Process
	lines *bufio.Scanner
	pid   int
	ns    string
}

func (l *linked) ask(t testing.TB, line string) string {
	t.Helper()
	if _, err := io.WriteString(l.Write, line+"\n"); err != nil {
		t.Fatal(err)
	}
	if !l.lines.Scan() {
		t.Fatalf("no answer to %q; stderr: %s", line, l.Stderr())
	}
	return l.lines.Text()
}

func startLab(ctx context.Context, sudo ...string) (local, remote *linked, err error) {
	a, b, err := host.Lab(ctx, host.LabOptions{Args: []string{"agent", "-lab"}, Config: lab.Config{}, Sudo: sudo})
	if err != nil {
		return nil, nil, err
	}
	if local, err = hear(a); err != nil {
		return nil, nil, err
	}
	remote, err = hear(b)
	return local, remote, err
}

func hear(l *host.Process) (*linked, error) {
	h := &linked{Process: l, lines: bufio.NewScanner(l.Read)}
	if !h.lines.Scan() {
		err := l.Wait(context.Background())
		return nil, fmt.Errorf("agent said nothing: %v: %s", err, l.Stderr())
	}
	_, err := fmt.Sscan(h.lines.Text(), &h.pid, &h.ns)
	return h, err
}

func mustLab(t testing.TB, sudo ...string) (ctx context.Context, local, remote *linked) {
	t.Helper()
	labtest.Need(t)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(cancel)
	local, remote, err := startLab(ctx, sudo...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		local.Kill()
		remote.Kill()
		local.Read.Close()
		remote.Read.Close()
	})
	return ctx, local, remote
}

func TestLabAgents(t *testing.T) { labAgents(t) }

// A program like sudo is between, which changes the environment and closes
// what it does not know.
func TestLabSudo(t *testing.T) {
	t.Run("env", func(t *testing.T) { labAgents(t, "env", "-i") })
	t.Run("sudo", func(t *testing.T) {
		if out, err := exec.Command("sudo", "-n", "true").CombinedOutput(); err != nil {
			t.Skipf("sudo -n: %v: %s", err, out)
		}
		labAgents(t, "sudo", "-n")
	})
	t.Run("kill", func(t *testing.T) {
		ctx, local, remote := mustLab(t, "env", "-i")
		syscall.Kill(remote.pid, syscall.SIGKILL)
		if err := local.Wait(ctx); err != nil {
			t.Error(err)
		}
		gone(t, local.pid)
	})
	t.Run("fails", func(t *testing.T) {
		labtest.Need(t)
		local, remote, err := host.Lab(t.Context(), host.LabOptions{Args: []string{"agent"}, Sudo: []string{"false"}})
		if err != nil {
			t.Fatal(err)
		}
		local.Wait(t.Context())
		for _, l := range []*host.Process{remote, local} {
			if b, err := io.ReadAll(l.Read); len(b) != 0 || err != nil {
				t.Errorf("%q, %v", b, err)
			}
		}
		if err := remote.Wait(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func labAgents(t *testing.T, sudo ...string) {
	t.Helper()
	ctx, local, remote := mustLab(t, sudo...)
	own, _ := os.Readlink("/proc/self/ns/net")
	if local.ns == remote.ns || local.ns == own || remote.ns == own {
		t.Errorf("namespaces: own %s, LOCAL %s, REMOTE %s", own, local.ns, remote.ns)
	}
	for _, l := range []*linked{local, remote} {
		if got := l.ask(t, "hello"); got != "hello" {
			t.Errorf("echo gave %q", got)
		}
	}
	if cpus := local.ask(t, "cpus"); allowedCPUs(t) > 1 && (strings.ContainsAny(cpus, "-,") ||
		cpus == remote.ask(t, "cpus")) {
		t.Errorf("both agents run on CPU %s", cpus)
	}
	local.Write.Close()
	remote.Write.Close()
	for _, l := range []*linked{local, remote} {
		if err := l.Wait(ctx); err != nil {
			t.Errorf("%v; stderr: %s", err, l.Stderr())
		}
		gone(t, l.pid)
	}
}

func allowedCPUs(t *testing.T) int {
	t.Helper()
	out, err := exec.Command("nproc").Output()
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Why LOCAL's agent could not begin is on its standard error.
func TestLabFails(t *testing.T) {
	labtest.Need(t)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	// The program exits with 3 when a lab is asked for with wrong settings.
	local, remote, err := host.Lab(ctx, host.LabOptions{Args: []string{"agent", "-lab", "{"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range []*host.Process{local, remote} {
		if b, err := io.ReadAll(l.Read); len(b) != 0 || err != nil {
			t.Errorf("read %q, %v", b, err)
		}
	}
	if err := local.Wait(ctx); err == nil || !strings.Contains(err.Error(), "exit status 3") ||
		!strings.Contains(local.Stderr(), "error: settings of the lab") {
		t.Errorf("%v; stderr: %s", err, local.Stderr())
	}
	if err := remote.Wait(ctx); err != nil {
		t.Error(err)
	}
}

// When one of the three processes is killed, the others end.
func TestLabKill(t *testing.T) {
	t.Run("LOCAL", func(t *testing.T) {
		ctx, local, remote := mustLab(t)
		syscall.Kill(local.pid, syscall.SIGKILL)
		if err := local.Wait(ctx); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Errorf("LOCAL's agent was killed, Wait says %v", err)
		}
		if err := remote.Wait(ctx); err != nil {
			t.Error(err)
		}
		gone(t, remote.pid)
	})
	t.Run("REMOTE", func(t *testing.T) {
		ctx, local, remote := mustLab(t)
		syscall.Kill(remote.pid, syscall.SIGKILL)
		if err := remote.Wait(ctx); err != nil {
			t.Error(err)
		}
		if err := local.Wait(ctx); err != nil {
			t.Error(err)
		}
		if got := local.Stderr(); !strings.Contains(got, "REMOTE's agent: signal: killed") {
			t.Errorf("LOCAL's agent says %q", got)
		}
		gone(t, local.pid)
	})
	t.Run("Kill", func(t *testing.T) {
		ctx, local, remote := mustLab(t)
		remote.Kill()
		remote.Wait(ctx)
		local.Wait(ctx)
		gone(t, local.pid, remote.pid)
	})
	t.Run("context", func(t *testing.T) {
		labtest.Need(t)
		ctx, cancel := context.WithCancel(context.Background())
		local, remote, err := startLab(ctx)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		remote.Wait(context.Background())
		local.Wait(context.Background())
		gone(t, local.pid, remote.pid)
	})
	t.Run("orchestrator", func(t *testing.T) {
		labtest.Need(t)
		cmd := exec.Command("/proc/self/exe", "orchestrator")
		out, _ := cmd.StdoutPipe()
		in, _ := cmd.StdinPipe()
		defer in.Close()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var local, remote int
		if _, err := fmt.Fscan(out, &local, &remote); err != nil {
			t.Fatal(err)
		}
		cmd.Process.Kill()
		cmd.Wait()
		gone(t, local, remote)
	})
}

func TestAsNobody(t *testing.T) {
	labtest.AsNobody(t, "^(TestLabAgents|TestLabKill|TestLabFails)$")
}

// gone waits for processes to end. No one may be there to reap them.
func gone(t *testing.T, pids ...int) {
	t.Helper()
	for _, pid := range pids {
		end := time.Now().Add(2 * time.Second)
		for alive(pid) {
			if time.Now().After(end) {
				t.Errorf("process %d is still there", pid)
				syscall.Kill(pid, syscall.SIGKILL)
				break
			}
			time.Sleep(time.Millisecond)
		}
	}
}

func alive(pid int) bool {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(state, "Z") && !strings.HasPrefix(state, "X")
}

func BenchmarkLab(b *testing.B) {
	labtest.Need(b)
	ctx := context.Background()
	for b.Loop() {
		local, remote, err := startLab(ctx)
		if err != nil {
			b.Fatal(err)
		}
		for _, l := range []*linked{local, remote} {
			l.Write.Close()
		}
		for _, l := range []*linked{local, remote} {
			if err := l.Wait(ctx); err != nil {
				b.Fatal(err)
			}
			l.Read.Close()
		}
	}
}
