package roles

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pfdivert/roles/lab/labtest"
)

// sudoAsks is a sudo that wants a password.
const sudoAsks = `#!/bin/sh
case $1 in
-n) echo 'sudo: a password is required' >&2; exit 1 ;;
esac
`

// sshAsks is an ssh that asks for a passphrase, and is told to ignore an interrupt.
const sshAsks = `#!/bin/sh
exec </dev/tty
stty -echo
printf 'passphrase: ' >/dev/tty
read -r secret
`

// TestPromptEnds: an interrupt and SIGTERM end the program while it, or ssh, asks for a password,
// and the terminal shows again what is typed.
func TestPromptEnds(t *testing.T) {
	labtest.NeedUsers(t)
	bin := program(t)
	for name, text := range map[string]string{"sudo": sudoAsks, "ssh": sshAsks} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ name, ssh, prompt, typed string }{
		{"interrupt", "", "for sudo on this machine: ", "\x03"},
		{"SIGTERM", "", "for sudo on this machine: ", ""},
		{"interrupt of ssh", "REMOTE_SSH=pfhost", "passphrase: ", "\x03"},
		{"SIGTERM of ssh", "REMOTE_SSH=pfhost", "passphrase: ", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			terminal, tty := labtest.Terminal(t)
			var out bytes.Buffer
			// In a user namespace without ids, root is a user who needs sudo.
			cmd := exec.Command("unshare", "-U", "pfdivert", "cleanup")
			cmd.Env = []string{asProgram + "=1", "PATH=" + bin + ":" + os.Getenv("PATH"), "SUDO=sudo", c.ssh}
			cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, &out, &out
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: syscall.SIGKILL}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			shown := make(chan string)
			go func() { // ends when the terminal does
				b := make([]byte, 1000)
				for all := ""; ; {
					n, err := terminal.Read(b)
					if err != nil {
						return
					}
					if all += string(b[:n]); strings.Contains(all, c.prompt) {
						shown <- all
						return
					}
				}
			}()
			over := make(chan error, 1)
			go func() { over <- cmd.Wait() }()
			select {
			case <-shown:
			case err := <-over:
				t.Fatalf("%v before it asked: %s", err, out.String())
			}
			for echoes(t, tty) { // it is switched off behind the prompt
				time.Sleep(time.Millisecond)
			}
			if c.typed != "" {
				if _, err := terminal.WriteString(c.typed); err != nil {
					t.Fatal(err)
				}
			} else if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			select {
			case <-over:
			case <-time.After(20 * time.Second):
				_ = cmd.Process.Kill()
				<-over
				t.Fatalf("it goes on asking: %s", out.String())
			}
			if status := cmd.ProcessState.ExitCode(); status != 2 || !strings.HasPrefix(out.String(), "error: ") {
				t.Errorf("status %d: %s", status, out.String())
			}
			if !echoes(t, tty) {
				t.Error("the terminal does not show what is typed any more")
			}
			t.Log(out.String())
		})
	}
}

// echoes reports whether the terminal shows what is typed.
func echoes(t *testing.T, tty *os.File) bool {
	t.Helper()
	modes, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return modes.Lflag&unix.ECHO != 0
}
