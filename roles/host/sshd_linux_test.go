package host_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pfdivert/roles/agent"
	"pfdivert/roles/host"
	"pfdivert/roles/lab/namespace"
)

// sshd is a host of its own as far as files go: Debian's sshd in a mount
// namespace with own users, home folders and /tmp.
type sshd struct {
	pid     int
	port    int
	key     string // the user's, on this side
	options string // for ssh
	agent   string // the file that is sent there
}

// world is what an sshd is started with.
type world struct {
	Port    int
	UserKey string // public
	HostKey string // the private key's file
	// Mounts are options of tmpfs for folders that get one.
	Mounts map[string]string
	// Without are commands that the host lacks.
	Without []string
	// Config is more of sshd_config.
	Config string
	// Run is a command to run in place of sshd, as the user As. The test program
	// is there as /run/pfdivert-test.
	Run []string
	As  string
	// Uname is what uname -s and -m say, if they should say something else.
	Uname []string
}

// secret is the password of all users of a world; secretHash is made by
// openssl passwd -6.
const (
	secret     = "secret"
	secretHash = "$6$pfdivert$iRH6Alt2AElYf0vfCs3UTkL/ykuiRqC4lEOLFIa5N9wSWFuORtXeBkZD3UPnAPaH5/sZKt.0LA6fpAAmGWZ/g1"
)

type user struct{ name, shell, rc, noise, sudoers, doas string }

// users are a world's users besides root: the login shell, its rc file and that
// file's noise, the line in sudoers, the line in doas.conf.
var users = []user{
	{name: "bash", shell: "/bin/bash", rc: ".bashrc", noise: "echo Welcome to this host; echo error >&2; printf 'no line end'\n", sudoers: "bash ALL=(ALL) NOPASSWD: ALL"},
	{name: "csh", shell: "/bin/tcsh", rc: ".cshrc", noise: "echo 'Welcome to csh'\necho -n 'no line end'\nalias sh false\n", sudoers: "csh ALL=(ALL) NOPASSWD: ALL"},
	{name: "fish", shell: "/usr/bin/fish", rc: ".config/fish/config.fish", noise: "echo Welcome to fish\n", sudoers: "fish ALL=(ALL) NOPASSWD: ALL"},
	{name: "asked", shell: "/bin/sh", sudoers: "asked ALL=(ALL) ALL"},
	{name: "norights", shell: "/bin/sh"},
	{name: "requiretty", shell: "/bin/sh", sudoers: "Defaults:requiretty requiretty\nrequiretty ALL=(ALL) NOPASSWD: ALL"},
	{name: "doas", shell: "/bin/sh", doas: "permit nopass doas"},
	{name: "doasked", shell: "/bin/sh", doas: "permit doasked"},
	{name: "homeless", shell: "/bin/sh"},
	{name: "nologin", shell: "/usr/sbin/nologin"},
}

// startSSHD starts a host that the test ends.
func startSSHD(t testing.TB, w world) *sshd {
	t.Helper()
	needSeveralUsers(t)
	needTools(t, "/usr/sbin/sshd", "/usr/bin/ssh", "/usr/bin/sudo")
	loopback(t)
	dir := t.TempDir()
	agent := filepath.Join(dir, "agent")
	mustWrite(t, agent, smallAgent+strings.Repeat("#\n", 100<<10))
	host.SetExecutable(agent)
	s := &sshd{key: filepath.Join(dir, "id"), agent: agent}
	for _, f := range []string{s.key, filepath.Join(dir, "hostkey")} {
		mustRun(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f)
	}
	w.HostKey = filepath.Join(dir, "hostkey")
	w.UserKey = mustRead(t, s.key+".pub")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.Port = l.Addr().(*net.TCPAddr).Port
	s.port = w.Port
	l.Close()
	settings, err := json.Marshal(w)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", "world", string(settings))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
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
	s.pid = cmd.Process.Pid
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-ended
		if t.Failed() {
			t.Logf("sshd said:\n%s", log.String())
		}
	})
	for {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", w.Port))
		if err == nil {
			c.Close()
			break
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("sshd: %v\n%s", err, log.String())
		case <-time.After(5 * time.Millisecond):
		}
	}
	known := filepath.Join(dir, "known_hosts")
	fields := strings.Fields(mustRead(t, w.HostKey+".pub"))
	mustWrite(t, known, fmt.Sprintf("[127.0.0.1]:%d %s %s\n", w.Port, fields[0], fields[1]))
	s.options = fmt.Sprintf("-F none -p %d -i %s -o IdentitiesOnly=yes -o UserKnownHostsFile=%s -o GlobalKnownHostsFile=none", w.Port, s.key, known)
	// Nothing of ssh may be left on this side either.
	t.Setenv("TMPDIR", filepath.Join(dir, "t"))
	if err := os.Mkdir(filepath.Join(dir, "t"), 0o777); err != nil {
		t.Fatal(err)
	}
	return s
}

// needTools skips the test where a program is missing; on CI that is a failure.
func needTools(t testing.TB, paths ...string) {
	t.Helper()
	for _, p := range paths {
		if _, err := os.Stat(p); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
}

// needTools is needTools for the user's shell and what makes them root.
func (u *user) needTools(t testing.TB, sudo string) {
	t.Helper()
	needTools(t, u.shell)
	if strings.HasSuffix(sudo, "doas") {
		needTools(t, "/usr/bin/doas")
	}
}

// userOf gives the user of a destination; root is none of the list.
func userOf(destination string) *user {
	name, _, _ := strings.Cut(destination, "@")
	for i := range users {
		if users[i].name == name {
			return &users[i]
		}
	}
	return &user{shell: "/bin/sh"}
}

// files gives what matches a pattern on the host.
func (s *sshd) files(t testing.TB, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(fmt.Sprintf("/proc/%d/root%s", s.pid, pattern))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// clean fails the test when something was left on one of the two sides.
func (s *sshd) clean(t testing.TB) {
	t.Helper()
	var left []string
	end := time.Now().Add(3 * time.Second)
	for {
		left, _ = filepath.Glob(filepath.Join(os.TempDir(), "pfdivert*"))
		for _, p := range []string{"/tmp/pfdivert*", "/var/tmp/pfdivert*", "/home/*/pfdivert*", "/home/*/.cache/pfdivert/pfdivert*", "/root/pfdivert*"} {
			left = append(left, s.files(t, p)...)
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

// enterWorld becomes the sshd, in the new mount namespace.
func enterWorld(settings string) error {
	var w world
	if err := json.Unmarshal([]byte(settings), &w); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	var hostKey []byte
	if w.HostKey != "" {
		var err error
		if hostKey, err = os.ReadFile(w.HostKey); err != nil {
			return err
		}
	}
	mounts := map[string]string{"/run": "mode=755", "/home": "mode=755", "/root": "mode=700", "/tmp": "mode=1777", "/var/tmp": "mode=1777", "/var/lib/sudo": "mode=700"}
	for dir, o := range w.Mounts {
		mounts[dir] = o
	}
	mount := func(dir string) error {
		var flags uintptr
		var data []string
		for _, o := range strings.Split(mounts[dir], ",") {
			if o == "noexec" {
				flags |= unix.MS_NOEXEC
			} else {
				data = append(data, o)
			}
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", flags, strings.Join(data, ",")); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
		return nil
	}
	if err := mount("/run"); err != nil {
		return err
	}
	if out, err := exec.Command("cp", "-a", "/etc", "/run/etc").CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	if err := unix.Mount("/run/etc", "/etc", "", unix.MS_BIND, ""); err != nil {
		return err
	}
	for dir := range mounts {
		if dir != "/run" {
			if err := mount(dir); err != nil {
				return err
			}
		}
	}
	if err := w.write(hostKey); err != nil {
		return err
	}
	for _, name := range w.Without {
		p, err := exec.LookPath(name)
		if err != nil {
			return err
		}
		if err := unix.Mount("/run/nothing", p, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	if len(w.Uname) > 0 {
		script := fmt.Sprintf("#!/bin/sh\ncase $1 in -s) echo %s;; -m) echo %s;; esac\n", w.Uname[0], w.Uname[1])
		if err := os.WriteFile("/run/uname", []byte(script), 0o755); err != nil {
			return err
		}
		if err := unix.Mount("/run/uname", "/usr/bin/uname", "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	if len(w.Run) > 0 {
		return w.run()
	}
	return syscall.Exec("/usr/sbin/sshd", []string{"/usr/sbin/sshd", "-D", "-e", "-f", "/etc/ssh/test_config"}, os.Environ())
}

// run becomes the command, as a user.
func (w *world) run() error {
	b, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile("/run/pfdivert-test", b, 0o755)
	}
	if err != nil {
		return err
	}
	i := slices.IndexFunc(users, func(u user) bool { return u.name == w.As })
	if i < 0 {
		return fmt.Errorf("no user %q", w.As)
	}
	if err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(65534), syscall.Setuid(61001+i)); err != nil {
		return err
	}
	return syscall.Exec(w.Run[0], w.Run, append(os.Environ(), "USER="+w.As))
}

// write fills the namespace's own /etc and /home.
func (w *world) write(hostKey []byte) error {
	passwd, shadow := "", ""
	sudoers := "Defaults env_reset, use_pty, lecture=always\nroot ALL=(ALL:ALL) ALL\n"
	doas := ""
	for i, u := range users {
		home := "/home/" + u.name
		uid := 61001 + i
		passwd += fmt.Sprintf("%s:x:%d:65534::%s:%s\n", u.name, uid, home, u.shell)
		shadow += fmt.Sprintf("%s:%s:19000:0:99999:7:::\n", u.name, secretHash)
		if u.sudoers != "" {
			sudoers += u.sudoers + "\n"
		}
		if u.doas != "" {
			doas += u.doas + "\n"
		}
		if u.name == "homeless" {
			continue
		}
		if err := os.Mkdir(home, 0o755); err != nil {
			return err
		}
		if err := os.Chown(home, uid, 65534); err != nil {
			return err
		}
		if u.rc != "" {
			rc := filepath.Join(home, u.rc)
			if err := os.MkdirAll(filepath.Dir(rc), 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(rc, []byte(u.noise), 0o644); err != nil {
				return err
			}
		}
	}
	for _, dir := range []string{"/run/sshd", "/run/sudo"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	for _, f := range []struct {
		name string
		mode os.FileMode
		text string
		more bool
	}{
		{"/etc/passwd", 0o644, passwd, true},
		{"/etc/shadow", 0o640, shadow, true},
		{"/etc/sudoers", 0o440, sudoers, false},
		{"/etc/doas.conf", 0o600, doas, false},
		{"/etc/ssh/test_host_key", 0o600, string(hostKey), false},
		{"/etc/ssh/test_keys", 0o644, w.UserKey, false},
		{"/run/nothing", 0o644, "", false},
		{"/etc/ssh/test_config", 0o644, fmt.Sprintf(`Port %d
ListenAddress 127.0.0.1
HostKey /etc/ssh/test_host_key
AuthorizedKeysFile /etc/ssh/test_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PidFile none
LogLevel ERROR
Banner /etc/issue.net
%s
`, w.Port, w.Config), false},
	} {
		flags := os.O_WRONLY | os.O_CREATE | os.O_TRUNC
		if f.more {
			flags = os.O_WRONLY | os.O_APPEND
		}
		file, err := os.OpenFile(f.name, flags, f.mode)
		if err != nil {
			return err
		}
		if err := file.Chmod(f.mode); err != nil {
			return err
		}
		if _, err := file.WriteString(f.text); err != nil {
			return err
		}
		if err := file.Close(); err != nil {
			return err
		}
	}
	return nil
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

// delay is a ProxyCommand over which everything takes its time.
func delay(address string, each time.Duration) error {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	type piece struct {
		at time.Time
		b  []byte
	}
	late := func(w io.Writer, r io.Reader, end func()) {
		pieces := make(chan piece, 1000)
		go func() {
			defer close(pieces)
			for {
				b := make([]byte, 32<<10)
				n, err := r.Read(b)
				if n > 0 {
					pieces <- piece{time.Now().Add(each), b[:n]}
				}
				if err != nil {
					return
				}
			}
		}()
		for p := range pieces {
			time.Sleep(time.Until(p.at))
			if _, err := w.Write(p.b); err != nil {
				break
			}
		}
		end()
	}
	go late(c, os.Stdin, func() { c.(*net.TCPConn).CloseWrite() })
	late(os.Stdout, c, func() {})
	return nil
}

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

func mustRun(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
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
