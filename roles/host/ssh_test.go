//go:build unix

package host

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestSplitWords(t *testing.T) {
	for _, c := range []struct {
		in   string
		want []string
		bad  bool
	}{
		{"", nil, false},
		{"  \t ", nil, false},
		{"-p 2222  -i key", []string{"-p", "2222", "-i", "key"}, false},
		{`-o "ProxyCommand=nc -x 'a b' %h"`, []string{"-o", "ProxyCommand=nc -x 'a b' %h"}, false},
		{`a'b c'd "" ''`, []string{"ab cd", "", ""}, false},
		{`a\ b "c\"d\e" '\'`, []string{"a b", `c"d\e`, `\`}, false},
		{`'a`, nil, true},
		{`"a`, nil, true},
		{`a\`, nil, true},
	} {
		got, err := splitWords(c.in)
		if (err != nil) != c.bad || !slices.Equal(got, c.want) {
			t.Errorf("%q gives %q, %v", c.in, got, err)
		}
		if c.bad {
			continue
		}
		// It is what a shell would make of it.
		out, err := exec.Command("sh", "-c", `for w in `+c.in+`; do printf '%s\n' "$w"; done`).Output()
		if lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n"); err != nil || len(c.want) > 0 &&
			!slices.Equal(lines, c.want) {
			t.Errorf("sh makes %q of %q, %v", lines, c.in, err)
		}
	}
}

// A command means the same to every login shell.
func TestCommand(t *testing.T) {
	words := []string{"printf", "%s\n", "a b", "", `"$HOME" $(id) <>|&;*?[]{}~#^`, "/tmp/x.y@z_+-", "`id`", "%self",
		"(a)"}
	line, err := command(words...)
	if err == nil {
		t.Errorf("the line end was taken: %q", line)
	}
	words[1] = "%s,"
	if line, err = command(words...); err != nil {
		t.Fatal(err)
	}
	want := strings.Join(words[2:], ",") + ","
	for _, shell := range []string{"sh", "bash", "ksh", "zsh", "csh", "tcsh", "fish"} {
		path, err := exec.LookPath(shell)
		if err != nil {
			continue
		}
		if out, err := exec.Command(path, "-c", line).Output(); err != nil || string(out) != want {
			t.Errorf("%s: %q, %v", shell, out, err)
		}
	}
	for _, bad := range []string{"it's", "now!", `a\b`, "a\nb", "a\x00b"} {
		if _, err := command(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// The probe's script is for a POSIX sh: every one at hand gives the same.
func TestProbe(t *testing.T) {
	for _, shell := range []string{"sh", "bash", "ksh", "mksh", "zsh", "busybox"} {
		path, err := exec.LookPath(shell)
		if err != nil {
			continue
		}
		home := t.TempDir()
		cmd := exec.Command(path)
		switch shell {
		case "busybox":
			cmd.Args = append(cmd.Args, "sh")
		case "zsh":
			cmd.Args[0] = "sh" // as which it is called, and is a POSIX sh then
		}
		cmd.Env = []string{"HOME=" + home, "TMPDIR=/a dir that is not plain", "PATH=" + os.Getenv("PATH")}
		cmd.Stdin = strings.NewReader(probeOf("yes", nil) + "ls -ld \"$dir\"\n")
		out, err := cmd.Output()
		if err != nil {
			t.Errorf("%s: %v", shell, err)
		}
		f, err := parseFacts(string(out))
		if err != nil {
			t.Fatalf("%s: %v", shell, err)
		}
		if f.uid != os.Getuid() || f.tools["gzip"] == "" || !strings.HasPrefix(f.dir,
			home+"/.cache/pfdivert/pfdivert-") {
			t.Errorf("%s: %+v", shell, f)
		}
		if !strings.Contains(string(out), "\ndrwx------ ") {
			t.Errorf("%s: %s", shell, out)
		}
		if _, err := os.Stat(f.dir); err == nil {
			t.Errorf("%s left %s", shell, f.dir)
		}
	}
}

// TestSSHError: what ssh says before it has logged in, with a command that logs in by hand.
func TestSSHError(t *testing.T) {
	exit := func(status string) error { return exec.Command("sh", "-c", "exit "+status).Run() }
	for _, c := range []struct {
		said, status string
		reason       Reason
		text, hint   string
	}{
		{"jumphost loop via pfhost\n", "255", Destination, "by way of itself",
			"'ssh -J pfhost -p 22 root@pfhost true'"},
		{"Can't open user config file /x: No such file or directory\n", "255", Destination, "ssh did not log in",
			"'ssh -J pfhost -p 22 root@pfhost true'"},
		{"Bad port 'x'\n", "255", Destination, "ssh did not log in", "SSH_OPTIONS"},
		{"Host key for [pfhost]:22 has changed and you have requested strict checking.\n", "255", HostKeyNew,
			"known before", "ssh-keygen -R '[pfhost]:22'"},
		{"This account is not available.\n", "1", NoShell, "no shell", "'ssh -J pfhost -p 22 root@pfhost uname -a'"},
	} {
		e := sshError("root@pfhost", "-J pfhost -p 22 root@pfhost", c.said, exit(c.status))
		if e.Reason != c.reason || !strings.Contains(e.Error(), c.text) || !strings.Contains(e.Hint(), c.hint) {
			t.Errorf("%q: %s: %v\nhint: %s", c.said, e.Reason, e, e.Hint())
		}
	}
}

func TestParseFacts(t *testing.T) {
	const sum = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	// Of OpenBSD 7.7-current.
	f, err := parseFacts("system=OpenBSD\nmachine=amd64\nuid=1000\nuser=test\ntool=/usr/bin/doas\ntool=/usr/bin/gzip\ntool=/sbin/pfctl\ntool=/usr/bin/kdump\n" +
		"cached=/home/test/.cache/pfdivert/" + sum + "/pfdivert\nno=/a: Permission denied\nnoexec=/tmp\ndir=/var/tmp/pfdivert-0cVhMR4vKk\n")
	if err != nil || f.system != "OpenBSD" || f.machine != "amd64" || f.uid != 1000 || f.user != "test" ||
		len(f.tools) != 4 ||
		f.tools["pfctl"] != "/sbin/pfctl" || len(f.cached) != 1 || f.dir != "/var/tmp/pfdivert-0cVhMR4vKk" {
		t.Errorf("%+v, %v", f, err)
	}
	const start = "system=Linux\nmachine=x86_64\nuid=0\n"
	for _, bad := range []string{"", "system=Linux\n", "system=Linux\nmachine=x86_64\nuid=-1\n", start + "dir=/tmp\n",
		start + "dir=/tmp/pfdivert-0123 56789\n", start + "dir=pfdivert-0123456789\n"} {
		if _, err := parseFacts(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	f, err = parseFacts(start + "tool=alias gzip='rm -r'\ntool=/usr/bin/gz;ip\ncached=/home/a/.cache/pfdivert/" +
		sum[1:] + "/pfdivert\ncached=/home/a b/.cache/pfdivert/" + sum + "/pfdivert\n")
	if err != nil || len(f.tools) != 0 || len(f.cached) != 0 {
		t.Errorf("%+v, %v", f, err)
	}
}

// Whatever a host answers, what gets into a command line is plain.
func FuzzParseFacts(f *testing.F) {
	f.Add("system=Linux\nmachine=x86_64\nuid=0\ntool=/usr/bin/gzip\ndir=/tmp/pfdivert-0123456789\ncached=/a/.cache/pfdivert/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef/pfdivert\n")
	f.Fuzz(func(t *testing.T, out string) {
		facts, err := parseFacts(out)
		if err != nil {
			return
		}
		for _, p := range append(facts.cached, facts.dir) {
			if !plain(p) {
				t.Errorf("path %q", p)
			}
		}
		for name, p := range facts.tools {
			if !plain(p) || !plain(name) {
				t.Errorf("tool %q %q", name, p)
			}
		}
	})
}

func TestRemoveOwn(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(dir string) error
		ok   bool
	}{
		{"pfdivert-0123456789", func(string) error { return nil }, true}, // gone already
		{"pfdivert-0123456789", func(dir string) error { return os.Mkdir(dir, 0o700) }, true},
		{"pfdivert-0123456789", func(dir string) error {
			return os.WriteFile(filepath.Join(mkdir(dir), "pfdivert"), nil, 0o700)
		}, true},
		{"pfdivert-0123456789", func(dir string) error {
			return os.WriteFile(filepath.Join(mkdir(dir), "data"), nil, 0o700)
		}, false},
		{"pfdivert-0123456789", func(dir string) error {
			return os.Mkdir(filepath.Join(mkdir(dir), "pfdivert"),
				0o700)
		}, false},
		{"pfdivert-0123456789", func(dir string) error { return os.Mkdir(dir, 0o755) }, false},
		{"pfdivert-0123456789", func(dir string) error { return os.Symlink(mkdir(dir+".real"), dir) }, false},
		{"pfdivert-0123456789", func(dir string) error { return os.WriteFile(dir, nil, 0o700) }, false},
		{"pfdivert", func(dir string) error { return os.Mkdir(dir, 0o700) }, false},
		{"pfdivert-01234567890", func(dir string) error { return os.Mkdir(dir, 0o700) }, false},
	} {
		dir := filepath.Join(t.TempDir(), c.name)
		if err := c.make(dir); err != nil {
			t.Fatal(err)
		}
		err := RemoveOwn(dir)
		_, stat := os.Lstat(dir)
		if (err == nil) != c.ok || os.IsNotExist(stat) != c.ok {
			t.Errorf("%s: %v; %v", c.name, err, stat)
		}
	}
	if err := RemoveOwn("pfdivert-0123456789"); err == nil {
		t.Error("a relative path was taken")
	}
}

func mkdir(dir string) string {
	if err := os.Mkdir(dir, 0o700); err != nil {
		panic(err)
	}
	return dir
}

// The name of the socket fits into a sockaddr_un everywhere, whatever TMPDIR.
func TestControlDir(t *testing.T) {
	for _, tmp := range []string{t.TempDir(), "/" + strings.Repeat("long/", 20)} {
		t.Setenv("TMPDIR", tmp)
		d, err := newControlDir(nil)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(d.socket()); n > maxControlPath {
			t.Errorf("%s has %d bytes", d.socket(), n)
		}
		if info, err := os.Stat(d.path); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%v, %v", info, err)
		}
		if err := d.remove(); err != nil {
			t.Error(err)
		}
	}
}
