package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"pfdivert/matrix/script"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience bounds what these tests wait for; nothing in them takes that long.
const patience = 10 * time.Second

// slow is a heartbeat that never comes in a test.
const slow = time.Hour

// noLeaks looks, after the test and its cleanups, for goroutines that are left.
func noLeaks(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
}

// cable is the orchestrator's side of a connection whose other side a test runs.
type cable struct {
	in  *bufio.Reader // what the orchestrator sent
	out io.WriteCloser
	buf []byte

	// The orchestrator's ends.
	read  io.Reader
	write io.WriteCloser
}

func newCable(t *testing.T) *cable {
	requests, write := io.Pipe()
	read, out := io.Pipe()
	t.Cleanup(func() {
		requests.Close()
		out.Close()
	})
	return &cable{in: bufio.NewReader(requests), out: out, read: read, write: write}
}

// say writes what a test has an agent say: text as it is, the rest as frames.
func (w *cable) say(t *testing.T, what ...any) {
	t.Helper()
	for _, v := range what {
		b, isText := v.(string)
		out := []byte(b)
		if !isText {
			var err error
			if out, err = appendFrame(nil, v); err != nil {
				t.Error(err)
			}
		}
		if _, err := w.out.Write(out); err != nil {
			return // the orchestrator has hung up
		}
	}
}

// hear returns the next request.
func (w *cable) hear() (Request, error) {
	var r Request
	return r, readFrame(w.in, &w.buf, &r)
}

// dial connects to the agent that say runs.
func (w *cable) dial(t *testing.T, heartbeat time.Duration, say ...any) (*Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), patience, errors.New("the test was too slow"))
	defer cancel()
	go w.say(t, say...)
	return Dial(ctx, w.read, w.write, heartbeat)
}

var hello = Hello{Protocol: Protocol, GOOS: "linux", Host: "there"}

func TestHello(t *testing.T) {
	noLeaks(t)
	for _, c := range []struct {
		name string
		say  []any
		want string // in the error; "" for none
	}{
		{"at once", []any{Magic, hello}, ""},
		{"behind a greeting", []any{"Last login: today\r\nYou have mail.\n\x1b[31m", Magic, hello}, ""},
		{"behind half a magic", []any{Magic[:len(Magic)-1], Magic, hello}, ""},
		{"behind the most noise", []any{strings.Repeat("x", maxNoise-len(Magic)), Magic, hello}, ""},
		{"behind more noise", []any{strings.Repeat("x", maxNoise+1), Magic, hello}, "bytes without a hello"},
		{"of an old agent", []any{Magic, Hello{Protocol: Protocol + 1}},
			fmt.Sprintf("speaks protocol %d, not %d", Protocol+1, Protocol)},
		{"that is no hello", []any{Magic, "\x00\x00\x00\x01x"}, "frame: "},
		{"too long", []any{Magic, "\xff\xff\xff\xff"}, "over the limit"},
		{"of one that can't", []any{Magic, Hello{Protocol: Protocol,
			Failed: &script.Error{Code: "EPERM", Text: "not allowed"}}}, "not allowed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newCable(t)
			conn, err := w.dial(t, slow, c.say...)
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				if conn.Hello.Host != hello.Host {
					t.Errorf("hello %+v", conn.Hello)
				}
				conn.Close()
			} else if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

// What a program that is no agent said is in the error, for it says what is wrong.
func TestNoHello(t *testing.T) {
	noLeaks(t)
	w := newCable(t)
	time.AfterFunc(0, func() {
		w.say(t, "sudo: a password is required\n")
		w.out.Close()
	})
	_, err := w.dial(t, slow)
	var lost *script.LostError
	if !errors.As(err, &lost) || lost.Noise != "sudo: a password is required\n" {
		t.Errorf("%v", err)
	}
	if s := fmt.Sprint(err); !strings.Contains(s, "ended before its hello") ||
		!strings.Contains(s, "a password is required") {
		t.Errorf("error %q", s)
	}
}

func TestHelloTooLate(t *testing.T) {
	noLeaks(t)
	w := newCable(t)
	cause := errors.New("no hello in time")
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Millisecond, cause)
	defer cancel()
	_, err := Dial(ctx, w.read, w.write, slow)
	var lost *script.LostError
	if !errors.As(err, &lost) || !errors.Is(err, cause) {
		t.Errorf("%v, want a lost connection: %v", err, cause)
	}
	// The agent is told to end.
	if _, err := w.hear(); err != io.EOF {
		t.Errorf("the agent reads %v", err)
	}
	w.out.Close()
}

// connect returns a connection to an agent that answers by f, until the
// connection ends.
func connect(t *testing.T, heartbeat time.Duration, f func(w *cable, r Request)) (*Conn, *cable) {
	t.Helper()
	w := newCable(t)
	conn, err := w.dial(t, heartbeat, Magic, hello)
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() {
		for {
			r, err := w.hear()
			if err != nil {
				return
			}
			f(w, r)
		}
	})
	t.Cleanup(func() {
		conn.Close()
		w.out.Close()
		served.Wait()
	})
	return conn, w
}

// Answers find who asked, in whatever order they come.
func TestAnswersOutOfOrder(t *testing.T) {
	noLeaks(t)
	const many = 50
	var heard []Request
	conn, _ := connect(t, slow, func(w *cable, r Request) {
		if heard = append(heard, r); len(heard) < many {
			return
		}
		for i := range heard {
			r := heard[(i*7+3)%many]
			w.say(t, Response{ID: r.ID + 1<<32}, Response{ID: r.ID,
				Log: []script.Transcript{{End: r.Log.Cell, Text: "x"}}},
				Response{ID: r.ID})
		}
	})
	var all sync.WaitGroup
	for i := range many {
		all.Go(func() {
			cell := fmt.Sprint("cell ", i)
			log, err := conn.Log(t.Context(), cell)
			if err != nil || len(log) != 1 || log[0].End != cell {
				t.Errorf("%s: answered %v, %v", cell, log, err)
			}
		})
	}
	all.Wait()
	if n := conn.Requests(); n != many {
		t.Errorf("%d requests, want %d", n, many)
	}
}

// An agent that answers something else than what was asked is not believed.
func TestWrongAnswers(t *testing.T) {
	conn, _ := connect(t, slow, func(w *cable, r Request) { w.say(t, Response{ID: r.ID}) })
	if _, err := conn.Setup(t.Context(), script.Setup{}); err == nil {
		t.Error("a set-up without facts was taken")
	}
	if _, err := conn.Script(t.Context(), script.Script{Steps: make([]script.Step, 2)}); err == nil {
		t.Error("a script without outcomes was taken")
	}
	if _, err := conn.Change(t.Context(), make([]script.RuleChange, 2)); err == nil {
		t.Error("changes without faults were taken")
	}
}

// A fault comes through with its code and hint.
func TestFaultOfRequest(t *testing.T) {
	want := script.Error{Code: "EPERM", Text: "no", Hint: "be root"}
	conn, _ := connect(t, slow, func(w *cable, r Request) { w.say(t, Response{ID: r.ID, Err: &want}) })
	var got *script.Error
	if err := conn.Bye(t.Context()); !errors.As(err, &got) || *got != want {
		t.Errorf("%#v", err)
	}
}

// However the connection ends, all who wait are told that it is lost, and so is
// who asks later.
func TestLost(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, w *cable, c *Conn){
		"its end":         func(t *testing.T, w *cable, c *Conn) { w.out.Close() },
		"an end in frame": func(t *testing.T, w *cable, c *Conn) { w.say(t, "\x00\x00\x00\x09abc"); w.out.Close() },
		"garbage":         func(t *testing.T, w *cable, c *Conn) { w.say(t, "Segmentation fault\n") },
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			const many = 20
			asked := make(chan struct{}, many)
			conn, w := connect(t, slow, func(*cable, Request) { asked <- struct{}{} })
			if conn.Lost() {
				t.Error("lost before its end")
			}
			var all sync.WaitGroup
			for range many {
				all.Go(func() {
					_, err := conn.Script(t.Context(), script.Script{Steps: []script.Step{script.Fence{}}})
					var lost *script.LostError
					if !errors.As(err, &lost) {
						t.Errorf("%v, want a lost connection", err)
					}
				})
			}
			for range many {
				<-asked
			}
			end(t, w, conn)
			all.Wait()
			var lost *script.LostError
			if _, err := conn.Log(t.Context(), ""); !errors.As(err, &lost) || !conn.Lost() {
				t.Errorf("a later request: %v, lost: %v", err, conn.Lost())
			}
			conn.Close()
		})
	}
}

// An agent that is there and says nothing any more is lost as well. What stops within an answer is
// told apart from an agent that hangs, and what came before in whole answers does not count.
func TestHeartbeatUnanswered(t *testing.T) {
	part := "\x00\x10\x00\x00" + strings.Repeat("x", 3000)
	for name, c := range map[string]struct {
		says   []any
		stalls bool
	}{
		"nothing":           {nil, false},
		"a whole answer":    {[]any{Response{ID: 1 << 32}}, false},
		"a part of one":     {[]any{part}, true},
		"one and a half":    {[]any{Response{ID: 1 << 32}, part}, true},
		"both in one piece": {[]any{mustFrame(t, Response{ID: 1 << 32}) + part}, true},
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			first := true
			conn, _ := connect(t, 10*time.Millisecond, func(w *cable, _ Request) {
				if first {
					w.say(t, c.says...)
				}
				first = false
			})
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			_, err := conn.Log(ctx, "")
			var lost *script.LostError
			if !errors.As(err, &lost) || !conn.Lost() {
				t.Errorf("%v, want a lost connection", err)
			}
			if got := strings.Contains(fmt.Sprint(err), "stalls at 3 KB of an answer"); got != c.stalls {
				t.Errorf("%v", err)
			}
		})
	}
}

// mustFrame is what an agent says, as text.
func mustFrame(t *testing.T, v any) string {
	t.Helper()
	b, err := appendFrame(nil, v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A heartbeat that is answered goes on.
func TestHeartbeat(t *testing.T) {
	noLeaks(t)
	beats := make(chan struct{})
	conn, _ := connect(t, 200*time.Millisecond, func(w *cable, r Request) {
		w.say(t, Response{ID: r.ID})
		if r.Ping != nil {
			select {
			case beats <- struct{}{}:
			case <-t.Context().Done():
			}
		}
	})
	for range 3 {
		<-beats
	}
	if conn.Lost() {
		t.Error("lost")
	}
	conn.Close()
	go func() { // one may be under way
		for range beats {
		}
	}()
	defer close(beats)
}

// A call ends with its context and leaves nothing behind; an answer that
// comes later is no one's.
func TestCallEnds(t *testing.T) {
	noLeaks(t)
	asked := make(chan Request, 1)
	conn, w := connect(t, slow, func(_ *cable, r Request) { asked <- r })
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	time.AfterFunc(time.Millisecond, func() { cancel(cause) })
	if _, err := conn.Log(ctx, ""); !errors.Is(err, cause) {
		t.Errorf("%v, want %v", err, cause)
	}
	late := <-asked
	w.say(t, Response{ID: late.ID})
	time.AfterFunc(time.Millisecond, func() {
		next := <-asked
		w.say(t, Response{ID: next.ID, Log: []script.Transcript{{End: "a", Text: "b"}}})
	})
	if log, err := conn.Log(t.Context(), ""); err != nil || len(log) != 1 {
		t.Errorf("%v, %v", log, err)
	}
	conn.mu.Lock()
	defer conn.mu.Unlock()
	if n := len(conn.waiting); n != 0 {
		t.Errorf("%d calls are still waited for", n)
	}
}
