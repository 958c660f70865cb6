package roles

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"pfdivert/roles/lab/labtest"
)

// TestProgressOnTerminal: a terminal shows what a run does while its hosts are not reached yet, and
// how far it is afterwards, and nothing of that stays.
func TestProgressOnTerminal(t *testing.T) {
	labtest.Need(t)
	labtest.Programs(t, "script")
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	const ssh = "#!/bin/sh\nread answer <fifo\necho 'ssh: connect to host x: refused' >&2\nexit 255\n"
	if err := os.WriteFile(filepath.Join(dir, "ssh"), []byte(ssh), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	addresses := "LOCAL_ADDR=10.188.1.1 REMOTE_ADDR=10.188.1.2 FAKE_ADDR=10.188.2.9 "
	for _, c := range []struct {
		command string
		shows   []string // one after the other
		last    string   // what stays
	}{
		{"pfdivert run inet-args-tcp-to", []string{"making two hosts on this machine ... ", "0/1"},
			"1 target: 1 PASS in"},
		{"REMOTE_SSH=root@x " + addresses + "pfdivert run inet-args-tcp-to", []string{"reaching root@x ... ", "FIFO"},
			"hint:"},
	} {
		cmd := exec.Command("script", "-qec", c.command, "/dev/null")
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "PATH="+dir+":"+program(t)+":"+os.Getenv("PATH"), asProgram+"=1", "TERM=xterm",
			"NO_COLOR=1", "CI=")
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		// The line of a run has no end: it is read as it grows.
		r, seen := bufio.NewReader(out), ""
		for _, text := range c.shows {
			if text == "FIFO" { // the host answers
				if err := os.WriteFile(fifo, []byte("go on\n"), 0); err != nil {
					t.Error(err)
				}
				continue
			}
			for !strings.HasSuffix(seen, "\r\x1b[K"+text) {
				b, err := r.ReadByte()
				if err != nil {
					t.Fatalf("%s: %q comes not behind %q", c.command, text, seen)
				}
				seen += string(b)
			}
		}
		for {
			b, err := r.ReadByte()
			if err != nil {
				break
			}
			seen += string(b)
		}
		_ = cmd.Wait()
		_, stays, _ := strings.Cut(seen[strings.LastIndex(seen, "\r\x1b[K"):], "K")
		if !strings.Contains(stays, c.last) {
			t.Errorf("%s: no %q in what stays, %q", c.command, c.last, stays)
		}
	}
}
