package program

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"testing"
	"time"
)

// TestExec runs this test program as the command, so that it needs nothing of the host.
func TestExec(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	argv := []string{self, "-test.run=TestExecChild", "-test.v=false", "--"}
	r, err := Exec(t.Context(), Command{Argv: append(argv, "3"), Stdin: "some input"})
	if want := (Output{Stdout: "C some input", Stderr: "to stderr", Status: 3}); err != nil || r != want {
		t.Errorf("got %+v, %v, want %+v", r, err, want)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if r, err := Exec(ctx, Command{Argv: append(argv, "hang")}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a command that hangs: %+v, %v", r, err)
	}
	if r, err := Exec(t.Context(), Command{Argv: append(argv, "kill")}); err == nil {
		t.Errorf("a command that was killed: %+v", r)
	}
	if _, err := Exec(t.Context(), Command{Argv: []string{"/nonexistent/pfctl"}}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a path that does not exist: %v", err)
	}
}

// TestExecChild is the command that TestExec runs.
func TestExecChild(t *testing.T) {
	switch os.Args[len(os.Args)-1] {
	case "3":
		var in [100]byte
		n, _ := os.Stdin.Read(in[:])
		os.Stdout.WriteString(os.Getenv("LC_ALL") + " " + string(in[:n]))
		os.Stderr.WriteString("to stderr")
		os.Exit(3)
	case "hang":
		time.Sleep(time.Minute)
	case "kill":
		if p, err := os.FindProcess(os.Getpid()); err == nil {
			p.Kill()
			time.Sleep(time.Minute)
		}
	}
}

func TestBounded(t *testing.T) {
	b := bounded{left: 5}
	if n, err := b.Write([]byte("four")); n != 4 || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
	if _, err := b.Write([]byte("to")); err == nil || !b.over || b.String() != "four" {
		t.Errorf("got %v, %v, %q", err, b.over, b.String())
	}
}
