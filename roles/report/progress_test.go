package report

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pfdivert/matrix"
)

// screen is a buffer for several goroutines.
type screen struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

// take returns what was written since the last time.
func (s *screen) take() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.b.Reset()
	return s.b.String()
}

// TestProgress follows a run with a clock of its own: what is drawn when.
func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b screen
		expect := func(when, want string) {
			t.Helper()
			synctest.Wait()
			if got := b.take(); got != want {
				t.Errorf("%s: %q, want %q", when, got, want)
			}
		}
		pass := matrix.Result{Verdict: matrix.Pass}
		p := NewProgress(&b, true)
		if _, err := p.Write([]byte("a notice\n")); err != nil {
			t.Error(err)
		}
		expect("before anything is done", "a notice\n")
		p.Doing("reaching x")
		expect("before the targets", eraseLine+"reaching x ... ")
		time.Sleep(time.Second)
		expect("behind it a password may be asked for", "")
		p.Start(26)
		expect("at the start", eraseLine+"0/26")
		p.Done(pass)
		p.Done(pass)
		p.Done(matrix.Result{Verdict: matrix.Fail})
		expect("too soon", "")
		time.Sleep(redrawEvery)
		expect("then once", eraseLine+"3/26, 1 FAIL")
		time.Sleep(redrawEvery)
		expect("nothing new", "")
		p.Done(pass)
		expect("at once after a while", eraseLine+"4/26, 1 FAIL")
		if _, err := p.Write([]byte("a log line\n")); err != nil {
			t.Error(err)
		}
		expect("a log line", eraseLine+"a log line\n"+eraseLine+"4/26, 1 FAIL")
		p.Done(pass)
		p.Finish()
		expect("at the end", eraseLine)
		p.Done(pass)
		p.Finish()
		time.Sleep(time.Second)
		expect("after the end", "")
	})
}

func TestProgressUnknownTotal(t *testing.T) {
	var b bytes.Buffer
	NewProgress(&b, true).Start(0)
	if got, want := b.String(), eraseLine+"0"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestProgressNoTerminal: nothing but what others write, from many goroutines.
func TestProgressNoTerminal(t *testing.T) {
	for _, live := range []bool{false, true} {
		var b bytes.Buffer
		p := NewProgress(&b, live)
		p.Start(1000)
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				for range 100 {
					p.Done(matrix.Result{Verdict: matrix.Pass})
				}
			})
		}
		wg.Wait()
		if p.done != 1000 {
			t.Errorf("counted %d of 1000", p.done)
		}
		p.Finish()
		if _, err := p.Write([]byte("log\n")); err != nil {
			t.Error(err)
		}
		if got := b.String(); !live && got != "log\n" || live && !strings.HasSuffix(got, eraseLine+"log\n") {
			t.Errorf("live %v: wrote %q", live, got)
		}
	}
}
