//go:build unix

package host

import (
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func child(t *testing.T, script string) (context.Context, *Process) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	l, err := Child(ctx, []string{"sh", "-c", script})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l.Kill()
		l.Read.Close()
	})
	return ctx, l
}

func TestChild(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	ctx, l := child(t, "cat; echo leaving >&2; exit 3")
	io.WriteString(l.Write, "hello\n")
	if s, err := bufio.NewReader(l.Read).ReadString('\n'); s != "hello\n" || err != nil {
		t.Errorf("%q, %v", s, err)
	}
	l.Write.Close() // is how an agent is told to end
	var exit *exec.ExitError
	if err := l.Wait(ctx); !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("Wait: %v", err)
	}
	if got := l.Stderr(); got != "leaving\n" {
		t.Errorf("stderr %q", got)
	}
}

func TestChildKill(t *testing.T) {
	ctx, l := child(t, "exec sleep 60")
	short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	if err := l.Wait(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Wait: %v", err)
	}
	l.Kill()
	if err := l.Wait(ctx); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("Wait: %v", err)
	}
	l.Kill()
}

func TestChildContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	l, err := Child(ctx, []string{"sleep", "60"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Read.Close()
	cancel()
	if err := l.Wait(t.Context()); err == nil {
		t.Error("a child outlived its context")
	}
	if _, err := Child(ctx, []string{"true"}); !errors.Is(err, context.Canceled) {
		t.Errorf("a child was started after the end: %v", err)
	}
}

func TestChildMissing(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	if _, err := Child(t.Context(), []string{"/no/such/program"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// A process that the agent left behind does not hold up its end.
func TestChildStderrHeld(t *testing.T) {
	ctx, l := child(t, "sleep 60 >/dev/null & echo $! >&2")
	start := time.Now()
	if err := l.Wait(ctx); err != nil || time.Since(start) > 5*time.Second {
		t.Errorf("after %v: %v", time.Since(start), err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(l.Stderr()))
	if err == nil {
		err = syscall.Kill(pid, syscall.SIGKILL)
	}
	if err != nil {
		t.Errorf("stderr %q: %v", l.Stderr(), err)
	}
}

func TestTail(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"one\n\ttwo\n", "one\n\ttwo\n"},
		{"\x1b[2Jred\a\r\x00\u009b\u202e!\n", "[2Jred!\n"},
		{"a\xff\xfeb", "a?b"},
		{"runtime: failed to create new OS thread (have 2 already; errno=11)\nfatal error: newosproc\n" +
			strings.Repeat("goroutine 1\n", maxTail), starvedText},
		{strings.Repeat("x", maxTail) + "end", "..." + strings.Repeat("x", maxTail-3) + "end"},
	} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		tail := readTail(r)
		io.WriteString(w, c.in)
		w.Close()
		<-tail.over
		if got := tail.String(); got != c.want {
			t.Errorf("%.40q became %.40q, want %.40q", c.in, got, c.want)
		}
	}
}
