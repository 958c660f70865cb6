package host_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"pfdivert/roles/agent"
	"pfdivert/roles/host"
	"pfdivert/roles/host/sshtest"
	"pfdivert/roles/lab/labtest"
)

// privileged starts an agent by $SUDO, with the password if it is asked for, and
// tells what it is and how it ended.
func privileged(sudo, password string) error {
	var ask host.Ask
	if password != "" {
		ask = func(context.Context, string) (string, error) { return password, nil }
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	l, err := host.Privileged(ctx, []string{"/run/pfdivert-test", "copied"}, sudo, ask)
	if err != nil {
		cancel()
		var e *host.Error
		if errors.As(err, &e) {
			fmt.Println(e.Reason, full(err))
			return nil
		}
		return err
	}
	cancel() // does not matter any more
	lines := bufio.NewScanner(l.Read)
	if _, err := io.ReadFull(l.Read, make([]byte, len(agent.Magic))); err != nil {
		return err
	}
	lines.Scan()
	var pid, euid int
	if _, err := fmt.Sscan(lines.Text(), &pid, &euid); err != nil {
		return err
	}
	for _, line := range []string{"hello", "\x03\x04\x1a\x7f", "say"} {
		fmt.Fprintln(l.Write, line)
		if !lines.Scan() || lines.Text() != line {
			return fmt.Errorf("%q came back as %q", line, lines.Text())
		}
	}
	l.Write.Close()
	err = l.Wait(context.Background())
	fmt.Printf("euid %d, stderr %q, %v\n", euid, l.Stderr(), err)
	return nil
}

// On this machine, too, an agent becomes root by sudo or doas, and what these
// say is understood.
func TestPrivileged(t *testing.T) {
	const works = `euid 0, stderr "hear\n", <nil>`
	for _, c := range []struct {
		user, sudo, password string
		want                 string
	}{
		{"bash", "sudo", "", works},
		{"bash", "sudo", "not needed", works},
		{"bash", "sudo -u norights", "", `euid 61005, stderr "hear\n", <nil>`},
		{"asked", "sudo", sshtest.Secret, works},
		{"asked", "sudo", "wrong", string(host.SudoWrong)},
		{"asked", "sudo", "", string(host.SudoPassword)},
		{"norights", "sudo", sshtest.Secret, string(host.SudoDenied)},
		{"requiretty", "sudo", "", string(host.SudoTTY)},
		{"doas", "doas", "", works},
		{"doas", "/usr/bin/doas", "", works},
		{"doasked", "doas", "", string(host.SudoPassword)},
		{"bash", "doas", "", string(host.SudoDenied)},
		{"bash", "env", "", `euid 61001, stderr "hear\n", <nil>`},
		{"bash", "no-such-command", "", string(host.NoSudo)},
		{"bash", "sudo '", "", string(host.Destination)},
	} {
		t.Run(c.user+" "+c.sudo+" "+c.password, func(t *testing.T) {
			sshtest.NeedUsers(t)
			sshtest.UserOf(c.user).Need(t, c.sudo)
			cmd := sshtest.Command(t, sshtest.World{As: c.user,
				Run: []string{sshtest.Program, "privileged", c.sudo, c.password}})
			cmd.Dir = "/"
			cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.HasPrefix(string(out), c.want) {
				t.Errorf("%v: %s", err, out)
			}
			t.Logf("%s", out)
		})
	}
}

// With a terminal, sudo puts a pseudo-terminal between (use_pty, which Debian
// sets), and doas asks on it.
func TestPrivilegedTerminal(t *testing.T) {
	const works = `euid 0, stderr "hear\n", <nil>`
	for _, c := range []struct {
		user, sudo, password, typed string
		want                        string
	}{
		{"bash", "sudo", "", "", works},
		{"asked", "sudo", sshtest.Secret, "", works},
		{"requiretty", "sudo", "", "", works},
		{"doasked", "doas", "any", sshtest.Secret, works},
		{"doasked", "doas", "any", "wrong", string(host.SudoWrong)},
	} {
		t.Run(c.user+" "+c.typed, func(t *testing.T) {
			sshtest.NeedUsers(t)
			sshtest.UserOf(c.user).Need(t, c.sudo)
			terminal, tty := labtest.Terminal(t)
			var out strings.Builder
			cmd := sshtest.Command(t, sshtest.World{As: c.user,
				Run: []string{sshtest.Program, "privileged", c.sudo, c.password}})
			cmd.SysProcAttr.Setsid, cmd.SysProcAttr.Setctty = true, true
			cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = "/", tty, &out, &out
			cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			tty.Close()
			shown := make(chan string)
			go func() {
				var all []byte
				b := make([]byte, 1000)
				for {
					n, err := terminal.Read(b)
					all = append(all, b[:n]...)
					if strings.Contains(string(all[len(all)-n:]), "assword") && c.typed != "" {
						fmt.Fprintln(terminal, c.typed)
					}
					if err != nil {
						shown <- string(all)
						return
					}
				}
			}()
			err := cmd.Wait()
			seen := <-shown
			if err != nil || !strings.HasPrefix(out.String(), c.want) {
				t.Errorf("%v: %s", err, out.String())
			}
			t.Logf("%s; the terminal showed %q", out.String(), seen)
		})
	}
}

// Root needs no sudo.
func TestPrivilegedRoot(t *testing.T) {
	labtest.Root(t)
	l, err := host.Privileged(t.Context(), []string{"/proc/self/exe", "copied"}, "no-such-command", nil)
	if err != nil {
		t.Fatal(err)
	}
	l.Write.Close()
	io.Copy(io.Discard, l.Read)
	if err := l.Wait(t.Context()); err != nil {
		t.Error(err)
	}
}
