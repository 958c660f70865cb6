// Package sshtest is for tests that need a real host to reach: Debian's sshd, or
// any command, in a mount namespace with users, home folders and /tmp of its own,
// and in a network namespace of its own where a test wants one.
package sshtest

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pfdivert/roles/lab/namespace"
)

// Main does the test program's part in a World, if its arguments say so, and does
// not return then. A package that uses this one calls it before its tests run:
// "world SETTINGS" becomes a world's command, and "delay ADDRESS TIME" is a
// ProxyCommand over which everything takes TIME.
func Main() {
	if len(os.Args) < 3 {
		return
	}
	var err error
	switch os.Args[1] {
	case "world":
		err = enter(os.Args[2])
	case "delay":
		var each time.Duration
		if each, err = time.ParseDuration(os.Args[3]); err == nil {
			err = delay(os.Args[2], each)
		}
	default:
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(3)
	}
	os.Exit(0)
}

// Program is where the test program is in a World that has a command to Run.
const Program = "/run/pfdivert-test"

// Server is a World that was started.
type Server struct {
	PID  int    // of its sshd or command
	Port int    // of its sshd
	Key  string // the file of the key with which its sshd lets everybody in
	host string // the file of the host's own public key
}

// Start starts a host, which the test ends.
func Start(t testing.TB, w World) *Server {
	t.Helper()
	NeedUsers(t)
	Need(t, "/usr/sbin/sshd", "/usr/bin/ssh", "/usr/bin/sudo")
	dir := t.TempDir()
	h := &Server{Key: filepath.Join(dir, "id"), host: filepath.Join(dir, "hostkey.pub")}
	if len(w.Run) == 0 {
		h.prepare(t, &w, dir)
	}
	cmd := Command(t, w)
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.WaitDelay = time.Second
	begun, ended := make(chan error), make(chan error, 1)
	namespace.OwnThread(func() { // Pdeathsig is of a thread
		err := cmd.Start()
		begun <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	})
	if err := <-begun; err != nil {
		t.Fatal(err)
	}
	h.PID = cmd.Process.Pid
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if t.Failed() {
			t.Logf("the host said:\n%s", log.String())
		}
	})
	for !h.ready(w) {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("the host: %v\n%s", err, log.String())
		case <-time.After(5 * time.Millisecond):
		}
	}
	return h
}

// Command is the command that becomes a World's sshd or its command to Run.
func Command(t testing.TB, w World) *exec.Cmd {
	t.Helper()
	settings, err := json.Marshal(w)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", "world", string(settings))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if w.OwnNetwork {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWNET
	}
	return cmd
}

// prepare makes the keys and finds the port.
func (h *Server) prepare(t testing.TB, w *World, dir string) {
	t.Helper()
	w.HostKey = filepath.Join(dir, "hostkey")
	for _, f := range []string{h.Key, w.HostKey} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f",
			f).CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen: %v\n%s", err, out)
		}
	}
	key, err := os.ReadFile(h.Key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	w.UserKey = string(key)
	if w.OwnNetwork {
		w.Port = 22
	} else {
		loopback(t)
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		w.Port = l.Addr().(*net.TCPAddr).Port
		_ = l.Close()
	}
	h.Port = w.Port
}

// ready reports whether sshd listens, or the command runs.
func (h *Server) ready(w World) bool {
	if len(w.Run) > 0 {
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", h.PID))
		return err == nil && filepath.Base(exe) == filepath.Base(w.Run[0])
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/tcp", h.PID))
	return err == nil && strings.Contains(string(b), fmt.Sprintf(":%04X 00000000:0000 0A", h.Port))
}

// KnownHosts is a line of known_hosts for the host at an address.
func (h *Server) KnownHosts(address string) string {
	b, _ := os.ReadFile(h.host)
	fields := strings.Fields(string(b))
	if h.Port != 22 {
		address = fmt.Sprintf("[%s]:%d", address, h.Port)
	}
	return fmt.Sprintf("%s %s %s\n", address, fields[0], fields[1])
}

// Path is how this process reaches a file of the host.
func (h *Server) Path(name string) string { return fmt.Sprintf("/proc/%d/root%s", h.PID, name) }

// Files returns what matches a pattern on the host, as Path would.
func (h *Server) Files(t testing.TB, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(h.Path(pattern))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// loopback sets the interface lo of this namespace up.
func loopback(t testing.TB) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		t.Fatal(err)
	}
	req.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		t.Fatal(err)
	}
}
