package host_test

import (
	"bufio"
	"context"
	"encoding/json"
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
)

// reacher is a program that reaches a host, tells the agent's process and
// waits to be killed.
func reacher(options, agent string) error {
	host.SetExecutable(agent)
	var o host.SSHOptions
	if err := json.Unmarshal([]byte(options), &o); err != nil {
		return err
	}
	r, err := reach(context.Background(), o)
	if err != nil {
		return err
	}
	fmt.Println(r.pid, r.exe)
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// sshOf returns the ssh processes that a process started and are still there.
func sshOf(t testing.TB, parent int) []int {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, name := range stats {
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		before, after, _ := strings.Cut(string(b), ") ")
		pid, comm, _ := strings.Cut(before, " (")
		fields := strings.Fields(after)
		if comm == "ssh" && len(fields) > 1 && fields[1] == strconv.Itoa(parent) && fields[0] != "Z" {
			n, _ := strconv.Atoi(pid)
			pids = append(pids, n)
		}
	}
	return pids
}

// Whatever is killed, the agent ends and nothing is left.
func TestSSHKill(t *testing.T) {
	s := startSSHD(t, sshtest.World{})
	t.Run("agent", func(t *testing.T) {
		r := s.mustReach(t, host.SSHOptions{Destination: "bash@127.0.0.1", Sudo: "sudo"})
		syscall.Kill(r.pid, syscall.SIGKILL)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := r.Wait(ctx); err == nil || ctx.Err() != nil {
			t.Errorf("agent killed: %v", err)
		}
		if len(s.Files(t, "/tmp/pfdivert-*")) != 1 {
			t.Error("the agent that was killed removed its file")
		}
		if err := r.Close(ctx); err != nil {
			t.Error(full(err))
		}
		s.clean(t)
	})
	t.Run("Kill", func(t *testing.T) {
		r := s.mustReach(t, host.SSHOptions{Destination: "bash@127.0.0.1", Sudo: "sudo"})
		r.Kill()
		gone(t, r.pid)
		if err := r.Close(t.Context()); err != nil {
			t.Error(full(err))
		}
		s.clean(t)
	})
	t.Run("ssh", func(t *testing.T) {
		r := s.mustReach(t, host.SSHOptions{Destination: "root@127.0.0.1"})
		pids := sshOf(t, os.Getpid())
		if len(pids) != 2 {
			t.Errorf("%d ssh processes", len(pids))
		}
		for _, pid := range pids {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		gone(t, r.pid)
		var e *host.Error
		if err := r.Close(t.Context()); !errors.As(err, &e) || e.Reason != host.Left {
			t.Errorf("no one could look after the copied file, Close says %v", err)
		}
		s.clean(t)
	})
	for _, c := range []struct {
		name   string
		signal syscall.Signal
	}{{"orchestrator", syscall.SIGKILL}, {"orchestrator stops", syscall.SIGTERM}} {
		t.Run(c.name, func(t *testing.T) {
			cmd, pid, _ := s.startReacher(t)
			pids := sshOf(t, cmd.Process.Pid)
			if len(pids) != 2 {
				t.Errorf("%d ssh processes", len(pids))
			}
			cmd.Process.Signal(c.signal)
			cmd.Wait()
			gone(t, append(pids, pid)...)
			// The folder for the socket is left, for the next run to remove.
			left, _ := filepath.Glob(filepath.Join(os.TempDir(), "pfdivert-ssh-*"))
			if len(left) != 1 {
				t.Fatalf("left: %q", left)
			}
			young := s.mustReach(t, host.SSHOptions{Destination: "root@127.0.0.1"})
			old := time.Now().Add(-2 * time.Minute)
			dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), "pfdivert-ssh-*"))
			if len(dirs) != 2 {
				t.Errorf("%q", dirs)
			}
			for _, d := range dirs { // one of them is in use
				if err := os.Chtimes(d, old, old); err != nil {
					t.Fatal(err)
				}
			}
			next := s.mustReach(t, host.SSHOptions{Destination: "root@127.0.0.1"})
			if _, err := os.Stat(left[0]); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the stale folder is still there: %v", err)
			}
			next.mustClose(t)
			fmt.Fprintln(young.Write, "hello")
			if !young.lines.Scan() || young.lines.Text() != "hello" {
				t.Error("the other connection was broken")
			}
			young.mustClose(t)
			s.clean(t)
		})
	}
	t.Run("interrupt", func(t *testing.T) {
		// A terminal sends it to all of the foreground: the connection must stay
		// for the agent to undo what it did.
		cmd, pid, in := s.startReacher(t)
		for _, ssh := range sshOf(t, cmd.Process.Pid) {
			if b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", ssh)); groupOf(string(b)) == cmd.Process.Pid {
				syscall.Kill(ssh, syscall.SIGINT)
			}
		}
		time.Sleep(50 * time.Millisecond)
		if n := len(sshOf(t, cmd.Process.Pid)); n != 2 {
			t.Errorf("%d ssh processes after an interrupt", n)
		}
		in.Close()
		cmd.Wait()
		gone(t, pid)
	})
}

// groupOf returns the process group in a line of /proc/PID/stat.
func groupOf(stat string) int {
	_, after, _ := strings.Cut(stat, ") ")
	n, _ := strconv.Atoi(strings.Fields(after)[2])
	return n
}

func (s *sshd) startReacher(t testing.TB) (cmd *exec.Cmd, agent int, in io.Closer) {
	t.Helper()
	o, err := json.Marshal(map[string]any{"Destination": "bash@127.0.0.1", "Sudo": "sudo", "Options": s.options})
	if err != nil {
		t.Fatal(err)
	}
	cmd = exec.Command("/proc/self/exe", "reacher", string(o), s.agent)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err = cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var exe string
	if _, err := fmt.Sscan(line, &agent, &exe); err != nil {
		t.Fatal(err)
	}
	return cmd, agent, in
}

// ctx ends while the host is being reached: it is as if it had not begun.
func TestSSHInterrupted(t *testing.T) {
	s := startSSHD(t, sshtest.World{})
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, after := range []time.Duration{0, 50, 300, 500, 700, 900} {
		ctx, cancel := context.WithTimeout(t.Context(), after*time.Millisecond)
		_, err := reach(ctx, host.SSHOptions{Destination: "root@127.0.0.1",
			Options: s.options + fmt.Sprintf(" -o 'ProxyCommand=%s delay 127.0.0.1:%%p 50ms'", exe)})
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after %v: %v", after*time.Millisecond, err)
		}
		s.clean(t)
	}
	if pids := sshOf(t, os.Getpid()); len(pids) > 0 {
		t.Errorf("ssh is still there: %d", pids)
	}
	// Once it is reached, the end of the context does not matter any more.
	ctx, cancel := context.WithCancel(t.Context())
	r, err := reach(ctx, host.SSHOptions{Destination: "root@127.0.0.1", Options: s.options})
	if err != nil {
		t.Fatal(full(err))
	}
	cancel()
	time.Sleep(20 * time.Millisecond)
	fmt.Fprintln(r.Write, "hello")
	if !r.lines.Scan() || r.lines.Text() != "hello" {
		t.Error("the connection ended with the context")
	}
	r.mustClose(t)
}

// A host that says nothing any more is given up, and puts itself in order when it
// hears that the connection is gone.
func TestSSHDead(t *testing.T) {
	s := startSSHD(t, sshtest.World{})
	r := s.mustReach(t, host.SSHOptions{Destination: "root@127.0.0.1",
		Options: "-o ServerAliveInterval=1 -o ServerAliveCountMax=1"})
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", s.PID, s.PID))
	if err != nil {
		t.Fatal(err)
	}
	var sessions []int
	for _, f := range strings.Fields(string(b)) {
		pid, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		sessions = append(sessions, pid)
		syscall.Kill(pid, syscall.SIGSTOP)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := r.Wait(ctx); err == nil || ctx.Err() != nil {
		t.Errorf("the connection is not given up: %v", err)
	}
	for _, pid := range sessions {
		syscall.Kill(pid, syscall.SIGCONT)
	}
	gone(t, r.pid)
	var e *host.Error
	if err := r.Close(ctx); !errors.As(err, &e) || e.Reason != host.Left {
		t.Errorf("Close: %v", err)
	}
	s.clean(t)
}

// A host that allows one session on a connection gets another connection.
func TestSSHMaxSessions(t *testing.T) {
	s := startSSHD(t, sshtest.World{Config: "MaxSessions 1"})
	r := s.mustReach(t, host.SSHOptions{Destination: "root@127.0.0.1"})
	fmt.Fprintln(r.Write, "hello")
	if !r.lines.Scan() || r.lines.Text() != "hello" {
		t.Error("no agent")
	}
	r.Close(t.Context())
	t.Logf("%q", r.Stderr())
	s.clean(t)
}

// Under sudo, ssh runs as the user who called it.
func TestSSHInvoker(t *testing.T) {
	s := startSSHD(t, sshtest.World{})
	o := host.SSHOptions{Destination: "root@127.0.0.1"}
	env := map[string]string{"SUDO_UID": "65534"}
	var err error
	if o.Invoker, err = host.FindInvoker(func(k string) string { return env[k] }); err != nil {
		t.Fatal(err)
	}
	if i := o.Invoker; i == nil || i.Name != "nobody" || i.UID != 65534 || i.GID != 65534 || i.Home == "" {
		t.Fatalf("%+v", i)
	}
	// What root alone may read is of no use to them.
	if _, err := reach(t.Context(), host.SSHOptions{Destination: o.Destination, Options: s.options,
		Invoker: o.Invoker}); err == nil {
		t.Fatal("root's key is readable without privilege")
	}
	dir := filepath.Dir(s.Key)
	for d := dir; d != "/tmp" && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{s.Key, dir, os.TempDir()} {
		if err := os.Chown(f, 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}
	r := s.mustReach(t, o)
	for _, pid := range sshOf(t, os.Getpid()) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(b), "\nUid:\t65534\t65534\t65534\t65534\nGid:\t65534\t65534\t65534\t65534\n") {
			t.Errorf("ssh runs as\n%s", b)
		}
	}
	r.mustClose(t)
	s.clean(t)
}
