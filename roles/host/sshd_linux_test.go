package host_test

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pfdivert/roles/agent"
	"pfdivert/roles/host"
	"pfdivert/roles/host/sshtest"
)

// sshd is a host to reach, to which a small agent is sent.
type sshd struct {
	*sshtest.Server
	options string // for ssh
	agent   string // the file that is sent there
}

// startSSHD starts a host that the test ends.
func startSSHD(t testing.TB, w sshtest.World) *sshd {
	t.Helper()
	s := &sshd{Server: sshtest.Start(t, w), agent: filepath.Join(t.TempDir(), "agent")}
	mustWrite(t, s.agent, smallAgent+strings.Repeat("#\n", 100<<10))
	host.SetExecutable(s.agent)
	known := filepath.Join(filepath.Dir(s.Key), "known_hosts")
	mustWrite(t, known, s.KnownHosts("127.0.0.1"))
	s.options = fmt.Sprintf("-F none -p %d -i %s -o IdentitiesOnly=yes -o UserKnownHostsFile=%s -o GlobalKnownHostsFile=none", s.Port, s.Key, known)
	// Nothing of ssh may be left on this side either.
	dir := filepath.Join(filepath.Dir(s.Key), "t")
	t.Setenv("TMPDIR", dir)
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return s
}

// clean fails the test when something was left on one of the two sides.
func (s *sshd) clean(t testing.TB) {
	t.Helper()
	var left []string
	end := time.Now().Add(3 * time.Second)
	for {
		left, _ = filepath.Glob(filepath.Join(os.TempDir(), "pfdivert*"))
		for _, p := range []string{"/tmp/pfdivert*", "/var/tmp/pfdivert*", "/home/*/pfdivert*",
			"/home/*/.cache/pfdivert/pfdivert*", "/root/pfdivert*"} {
			left = append(left, s.Files(t, p)...)
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Errorf("left behind: %q", left)
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// copiedAgent is the program on the host: it says an agent's first word, what it
// is, and repeats lines.
func copiedAgent(args []string) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	fmt.Printf("%s%d %d %s\n", agent.Magic, os.Getpid(), os.Geteuid(), exe)
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		if in.Text() == "say" {
			fmt.Fprintln(os.Stderr, "hear")
		}
		fmt.Println(in.Text())
	}
	if len(args) == 2 && args[0] == "-remove" {
		return host.RemoveOwn(args[1])
	}
	return nil
}

func mustRead(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func mustWrite(t testing.TB, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
