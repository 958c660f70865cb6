package host_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pfdivert/roles/agent"
	"pfdivert/roles/host"
	"pfdivert/roles/host/sshtest"
)

// reached is a Remote with its agent's first line read.
type reached struct {
	*host.Remote
	lines *bufio.Scanner
	pid   int
	euid  int
	exe   string
}

// smallAgent does on a host what the test program does there (copiedAgent). The
// rest of the file is room that it takes.
const smallAgent = `#!/bin/sh
if test "$2" = fails; then
	echo 'error: this agent fails' >&2
	exit 3
fi
printf '\000pfdivert agent\n'
echo "$$ $(id -u) $0"
while IFS= read -r line; do
	printf '%s\n' "$line"
done
test "$2" != -remove || rm -r "$3"
exit
`

func reach(ctx context.Context, o host.SSHOptions) (*reached, error) {
	if o.Args == nil {
		o.Args = []string{"copied"}
	}
	r, err := host.SSH(ctx, o)
	if err != nil {
		return nil, err
	}
	h := &reached{Remote: r, lines: bufio.NewScanner(r.Read)}
	magic := make([]byte, len(agent.Magic))
	if _, err := io.ReadFull(r.Read, magic); err != nil || string(magic) != agent.Magic {
		return nil, fmt.Errorf("first word %q, %v", magic, err)
	}
	h.lines.Scan()
	_, err = fmt.Sscan(h.lines.Text(), &h.pid, &h.euid, &h.exe)
	return h, err
}

func (s *sshd) mustReach(t testing.TB, o host.SSHOptions) *reached {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	o.Options = s.options + " " + o.Options
	r, err := reach(ctx, o)
	if err != nil {
		t.Fatal(full(err))
	}
	return r
}

func full(err error) string {
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		return fmt.Sprintf("error: %v\nhint: %s", err, h.Hint())
	}
	return fmt.Sprintf("error without a hint: %v", err)
}

func (r *reached) mustClose(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := r.Close(ctx); err != nil {
		t.Error(full(err))
	}
	if said := r.Stderr(); said != "" {
		t.Errorf("stderr: %q", said)
	}
	if err := r.Wait(ctx); err != nil {
		t.Error(err)
	}
}

func answer(secrets ...string) host.Ask {
	return func(context.Context, string) (string, error) {
		if len(secrets) == 0 {
			return "", errors.New("asked once more")
		}
		s := secrets[0]
		secrets = secrets[1:]
		return s, nil
	}
}

// An agent runs as root on a host, whoever logs in there by whichever shell.
func TestSSH(t *testing.T) {
	s := startSSHD(t, sshtest.World{})
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	host.SetExecutable(exe)
	for _, c := range []struct {
		user, sudo string
		ask        host.Ask
	}{
		{user: "root"},
		{user: "root", sudo: "sudo"},
		{user: "bash", sudo: "sudo"},
		{user: "csh", sudo: "sudo -u root"},
		{user: "fish", sudo: "sudo"},
		{user: "asked", sudo: "sudo", ask: answer(sshtest.Secret)},
		{user: "doas", sudo: "doas"},
	} {
		t.Run(c.user+c.sudo, func(t *testing.T) {
			sshtest.UserOf(c.user).Need(t, c.sudo)
			if c.user != "root" {
				host.SetExecutable(s.agent)
			}
			r := s.mustReach(t, host.SSHOptions{Destination: c.user + "@127.0.0.1", Sudo: c.sudo, Ask: c.ask})
			if r.euid != 0 {
				t.Errorf("the agent runs as %d", r.euid)
			}
			if r.User != c.user || r.GOOS != "linux" || len(r.Want) != 64 || r.Sent == 0 || r.Cached {
				t.Errorf("%+v", r.Remote)
			}
			for _, line := range []string{"hello", "\x03\x04\x1a~.", "", strings.Repeat("x", 60000)} {
				fmt.Fprintln(r.Write, line)
				if !r.lines.Scan() || r.lines.Text() != line {
					t.Errorf("%.20q came back as %.20q", line, r.lines.Text())
				}
			}
			r.mustClose(t)
			gone(t, r.pid)
			s.clean(t)
		})
	}
}

// A folder that is full is got round, as one that is mounted noexec or read-only is.
func TestSSHFull(t *testing.T) {
	s := startSSHD(t, sshtest.World{Mounts: map[string]string{"/tmp": "mode=1777,size=64k"}})
	for _, keep := range []bool{false, true} {
		r := s.mustReach(t, host.SSHOptions{Destination: "bash@127.0.0.1", Sudo: "sudo", Keep: keep})
		if !keep && !strings.HasPrefix(r.exe, "/var/tmp/pfdivert-") {
			t.Errorf("the agent is %s", r.exe)
		}
		r.mustClose(t)
	}
	s.clean(t)
}

// A kept program is sent once; a run without -keep takes it, too.
func TestSSHKeep(t *testing.T) {
	s := startSSHD(t, sshtest.World{})
	o := host.SSHOptions{Destination: "bash@127.0.0.1", Sudo: "sudo", Keep: true}
	first := s.mustReach(t, o)
	first.mustClose(t)
	if first.Sent == 0 || first.Cached {
		t.Errorf("first: sent %d, cached %t", first.Sent, first.Cached)
	}
	for _, keep := range []bool{true, false} {
		o.Keep = keep
		r := s.mustReach(t, o)
		r.mustClose(t)
		if r.Sent != 0 || !r.Cached || r.exe != first.exe || r.Trips != 3 {
			t.Errorf("second: sent %d, cached %t, %s, %d trips", r.Sent, r.Cached, r.exe, r.Trips)
		}
	}
	kept := s.Files(t, "/home/bash/.cache/pfdivert/*/*")
	if len(kept) != 1 || !strings.HasSuffix(kept[0], first.exe) {
		t.Errorf("kept: %q, the agent was %s", kept, first.exe)
	}
	s.clean(t)
	// Another file in its place is not believed.
	mustWrite(t, kept[0], "#!/bin/sh\nprintf '\\000pfdivert agent\\n0 0 changed\\n'; read x; exit 0\n")
	r := s.mustReach(t, o)
	var e *host.Error
	if err := r.CheckSum(strings.Repeat("0", 64)); !errors.As(err, &e) || e.Reason != host.WrongSum ||
		!strings.Contains(e.Hint(), "rm -r") {
		t.Errorf("%v", err)
	}
	if err := r.CheckSum(r.Want); err != nil {
		t.Error(err)
	}
	fmt.Fprintln(r.Write)
	r.mustClose(t)
}

// A way to the host on which everything takes 50 ms in each direction.
func TestSSHDelay(t *testing.T) {
	s := startSSHD(t, sshtest.World{})
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	o := host.SSHOptions{Destination: "root@127.0.0.1", Keep: true,
		Options: fmt.Sprintf("-o 'ProxyCommand=%s delay 127.0.0.1:%%p 25ms'", exe)}
	s.mustReach(t, o).mustClose(t)
	began := time.Now()
	r := s.mustReach(t, o)
	t.Logf("%v until the first word, %d trips", time.Since(began), r.Trips)
	if !r.Cached {
		t.Error("not cached")
	}
	r.mustClose(t)
	t.Logf("%v with the end", time.Since(began))
	s.clean(t)
}

// What keeps a host from being used is said with what to do, and nothing is
// left on either side.
func TestSSHFaults(t *testing.T) {
	for _, c := range []struct {
		name   string
		world  sshtest.World
		o      host.SSHOptions
		env    string // of this side
		reason host.Reason
		text   string // part of the error
		hint   string // part of the hint
	}{
		{name: "options", o: host.SSHOptions{Options: "-i 'key"}, reason: host.Destination, text: "SSH_OPTIONS",
			hint: "SSH_OPTIONS="},
		{name: "bad option", o: host.SSHOptions{Options: "-o NoSuch=1"}, reason: host.Destination, text: "nosuch",
			hint: "SSH_OPTIONS"},
		{name: "sudo words", o: host.SSHOptions{Destination: "bash@127.0.0.1", Sudo: "sudo 'a"},
			reason: host.Destination, text: "SUDO", hint: "SUDO="},
		{name: "destination", o: host.SSHOptions{Destination: "-oProxyCommand=touch /tmp/x"}, reason: host.Destination,
			text: "no ssh destination", hint: "root@pfhost"},
		{name: "no ssh", env: "PATH=/nowhere", reason: host.NoSSH, text: "no ssh", hint: "install"},
		{name: "host key unknown", o: host.SSHOptions{Options: "-o UserKnownHostsFile=none"}, reason: host.HostKey,
			text: "not known", hint: "log in once by hand"},
		{name: "host key changed", o: host.SSHOptions{Options: "-o HostKeyAlias=changed"}, reason: host.HostKeyNew,
			text: "known before", hint: "ssh-keygen -R 'changed'"},
		{name: "key refused", o: host.SSHOptions{Options: "-i /nowhere"}, reason: host.KeyRefused,
			text: "Permission denied", hint: "ssh-copy-id"},
		{name: "no process listens", o: host.SSHOptions{Options: "-p 1"}, reason: host.Unreachable, text: "refused",
			hint: "sshd runs"},
		{name: "unknown name", o: host.SSHOptions{Destination: "root@no-such-host.invalid"}, reason: host.Unreachable,
			text: "name", hint: "REMOTE_SSH"},
		{name: "broken proxy", o: host.SSHOptions{Options: "-o ProxyCommand=false"}, reason: host.Unreachable,
			text: "answer", hint: "ProxyCommand"},
		{name: "no shell", o: host.SSHOptions{Destination: "nologin@127.0.0.1"}, reason: host.NoShell,
			text: "no shell", hint: "login shell"},
		{name: "not root", o: host.SSHOptions{Destination: "bash@127.0.0.1"}, reason: host.NotRoot,
			text: "bash is not root", hint: "SUDO=sudo"},
		{name: "no sudo", world: sshtest.World{Without: []string{"sudo"}},
			o: host.SSHOptions{Destination: "bash@127.0.0.1",
				Sudo: "sudo"}, reason: host.NoSudo, text: "no sudo", hint: "doas"},
		{name: "no such command", o: host.SSHOptions{Destination: "bash@127.0.0.1", Sudo: "become-root"},
			reason: host.NoSudo, text: "become-root", hint: "SUDO=sudo"},
		{name: "no password to be had", o: host.SSHOptions{Destination: "asked@127.0.0.1", Sudo: "sudo"},
			reason: host.SudoPassword, text: "password of asked", hint: "NOPASSWD"},
		{name: "wrong password", o: host.SSHOptions{Destination: "asked@127.0.0.1", Sudo: "sudo",
			Ask: answer("wrong")}, reason: host.SudoWrong, text: "did not take", hint: "password of asked"},
		{name: "not asked", o: host.SSHOptions{Destination: "asked@127.0.0.1", Sudo: "sudo", Ask: answer()},
			reason: host.SudoPassword, text: "asked once more", hint: "NOPASSWD"},
		{name: "no right", o: host.SSHOptions{Destination: "norights@127.0.0.1", Sudo: "sudo",
			Ask: answer(sshtest.Secret)}, reason: host.SudoDenied, text: "no right", hint: "norights ALL=(root)"},
		{name: "tty required", o: host.SSHOptions{Destination: "requiretty@127.0.0.1", Sudo: "sudo"},
			reason: host.SudoTTY, text: "terminal", hint: "!requiretty"},
		{name: "doas with password", o: host.SSHOptions{Destination: "doasked@127.0.0.1", Sudo: "doas",
			Ask: answer(sshtest.Secret)}, reason: host.SudoPassword, text: "doas needs",
			hint: "permit nopass doasked as root"},
		{name: "no right for doas", o: host.SSHOptions{Destination: "bash@127.0.0.1", Sudo: "doas"},
			reason: host.SudoDenied, text: "no right", hint: "doas.conf"},
		{name: "noexec", world: sshtest.World{Mounts: map[string]string{"/tmp": "mode=1777,noexec",
			"/var/tmp": "mode=1777,noexec", "/root": "mode=700,noexec"}}, reason: host.NoExec, text: "/var/tmp",
			hint: "noexec"},
		{name: "no folder", world: sshtest.World{Mounts: map[string]string{"/tmp": "mode=755",
			"/var/tmp": "mode=755"}}, o: host.SSHOptions{Destination: "homeless@127.0.0.1", Sudo: "sudo"},
			reason: host.NoFolder, text: "ermission denied", hint: "folder of their own"},
		{name: "no inode", world: sshtest.World{Mounts: map[string]string{"/tmp": "mode=1777,nr_inodes=1",
			"/var/tmp": "mode=1777,nr_inodes=1", "/root": "mode=700,nr_inodes=1"}}, reason: host.DiskFull,
			text: "No space", hint: "make room"},
		{name: "disk full", world: sshtest.World{Mounts: map[string]string{"/tmp": "mode=1777,size=64k",
			"/var/tmp": "mode=1777,size=64k", "/root": "mode=700,size=64k"}}, reason: host.DiskFull,
			text: "/tmp: No space left on device; /var/tmp: No space", hint: "SetEnv=TMPDIR=/DIR"},
		{name: "other system", world: sshtest.World{Uname: []string{"Plan9", "mips"}}, reason: host.SystemOther,
			text: "Plan9 on mips", hint: "OpenBSD"},
		{name: "no binary", world: sshtest.World{Uname: []string{"OpenBSD", "i386"}},
			o: host.SSHOptions{Dist: []string{"/nowhere"}}, reason: host.NoBinary,
			text: "no pfdivert-openbsd-386 in /nowhere", hint: "make dist"},
		{name: "agent fails", o: host.SSHOptions{Args: []string{"copied", "fails"}}, reason: host.AgentFailed,
			text: "this agent fails", hint: ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			sshtest.UserOf(c.o.Destination).Need(t, c.o.Sudo)
			s := startSSHD(t, c.world)
			if name, value, ok := strings.Cut(c.env, "="); ok {
				t.Setenv(name, value)
			}
			o := c.o
			if o.Destination == "" {
				o.Destination = "root@127.0.0.1"
			}
			o.Options += " " + s.options
			switch c.name {
			case "host key changed":
				known := filepath.Join(filepath.Dir(s.Key), "known_hosts")
				mustWrite(t, known, "changed "+strings.Join(strings.Fields(mustRead(t, s.Key+".pub"))[:2], " ")+"\n")
			case "key refused": // the first -i would not hide the second
				o.Options = strings.ReplaceAll(o.Options, s.Key, "/nowhere")
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			_, err := reach(ctx, o)
			if err == nil {
				t.Fatal("no error")
			}
			t.Log(full(err))
			var e *host.Error
			if !errors.As(err, &e) || e.Reason != c.reason || !strings.Contains(err.Error(), c.text) ||
				!strings.Contains(e.Hint(), c.hint) || strings.Contains(e.Hint(), "ssh root@127.0.0.1") {
				t.Errorf("should be %q with %q and hint %q", c.reason, c.text, c.hint)
			}
			s.clean(t)
		})
	}
}
