package pf

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pfdivert/pfconf"
	"pfdivert/pfconf/program"
)

// anchor stands for the kernel where no transcript can: several loads at the same time.
// It holds what was loaded last and prints it as pfctl would.
type anchor struct {
	mu     sync.Mutex
	loads  [][]string    // the labels of each load
	begun  chan struct{} // when not nil, a load says that it has begun
	holdup chan struct{} // a load waits for it
	refuse string        // a label that pfctl does not like
}

func (a *anchor) run(ctx context.Context, c Command) (Result, error) {
	switch args := strings.Join(c.Argv[1:], " "); args {
	case "-s info":
		return Result{Stdout: "Status: Enabled\n  current entries   0\n"}, nil
	case "-a regress -s rules", "-o none -a regress -f -", "-ss":
		return Result{}, nil
	case "-v -a regress -f -":
		if a.begun != nil {
			a.begun <- struct{}{}
		}
		select {
		case <-a.holdup:
		case <-ctx.Done():
			return Result{}, ctx.Err()
		}
		var labels []string
		var out string
		for _, l := range program.Lines(c.Stdin) {
			rule, label, _ := strings.Cut(l, " divert-reply label ")
			labels = append(labels, label)
			out += fmt.Sprintf("%s label %q divert-reply\n", rule, label)
		}
		if slices.Contains(labels, a.refuse) {
			return Result{Stderr: "stdin:1: no\npfctl: Syntax error in config file: pf rules not loaded\n", Status: 1}, nil
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		a.loads = append(a.loads, labels)
		return Result{Stdout: out}, nil
	default:
		return Result{}, fmt.Errorf("unexpected %s", args)
	}
}

func numbered(n int) pfconf.Rule {
	r := reply(pfconf.Inet, pfconf.UDP, 4000)
	r.Label = fmt.Sprintf("regress-%d", n)
	return r
}

func openAnchor(t *testing.T, a *anchor) *Firewall {
	t.Helper()
	f, err := Open(t.Context(), Config{Run: a.run})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestChangesTogether proves that changes that arrive during a load are loaded together
// next, and that one that is refused harms no other.
func TestChangesTogether(t *testing.T) {
	const n = 50
	a := &anchor{begun: make(chan struct{}), holdup: make(chan struct{}), refuse: "regress-13"}
	f := openAnchor(t, a)
	errs := make([]error, n)
	var wg sync.WaitGroup
	submit := func(i int) {
		wg.Go(func() { errs[i] = f.Change(t.Context(), []pfconf.Rule{numbered(i)}, nil) })
	}
	submit(0)
	<-a.begun // alone
	for i := 1; i < n; i++ {
		submit(i)
	}
	for queued := 0; queued < n-1; time.Sleep(time.Millisecond) {
		f.mu.Lock()
		queued = len(f.queue)
		f.mu.Unlock()
	}
	go func() {
		for range a.begun {
		}
	}()
	defer close(a.begun)
	close(a.holdup)
	wg.Wait()
	for i, err := range errs {
		if (err != nil) != (i == 13) {
			t.Errorf("change %d: %v", i, err)
		}
	}
	last := a.loads[len(a.loads)-1]
	if len(last) != n-1 {
		t.Errorf("%d rules at the end, want %d", len(last), n-1)
	}
	if err := f.Change(t.Context(), []pfconf.Rule{numbered(13)}, []string{"regress-13"}); err == nil {
		t.Error("a rule that is not there was removed")
	}
	before := len(a.loads)
	for i := range 5 {
		wg.Go(func() {
			if err := f.Change(t.Context(), nil, []string{numbered(i).Label}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(a.loads) == before || len(a.loads[len(a.loads)-1]) != n-6 {
		t.Errorf("%d loads, the last of %d rules", len(a.loads)-before, len(a.loads[len(a.loads)-1]))
	}
	if err := f.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestChangeRefuses(t *testing.T) {
	a := &anchor{holdup: make(chan struct{})}
	close(a.holdup)
	f := openAnchor(t, a)
	ctx := t.Context()
	if err := f.Load(ctx, []pfconf.Rule{numbered(1), numbered(2)}); err != nil {
		t.Fatal(err)
	}
	invalid := numbered(3)
	invalid.Port = 0
	bypassed := numbered(4)
	bypassed.Action, bypassed.Divert, bypassed.Bypass = pfconf.DivertPacket, netip.AddrPortFrom(netip.Addr{}, 666), true
	copied, late := bypassed, bypassed
	copied.Bypass, copied.Tee = false, true
	late.Bypass, late.Number = false, 2
	for what, err := range map[string]error{
		"a rule that delivers copies": f.Change(ctx, []pfconf.Rule{copied}, nil),
		"a rule with a number":        f.Change(ctx, []pfconf.Rule{late}, nil),
		"a label that is there":       f.Change(ctx, []pfconf.Rule{numbered(1)}, nil),
		"a label twice":               f.Change(ctx, []pfconf.Rule{numbered(3), numbered(3)}, nil),
		"a label twice, whole":        f.Load(ctx, []pfconf.Rule{numbered(3), numbered(3)}),
		"a label that is not there":   f.Change(ctx, nil, []string{"regress-3"}),
		"a removal that fails, whole": f.Change(ctx, []pfconf.Rule{numbered(4)}, []string{"regress-1", "regress-3"}),
		"an invalid rule":             f.Change(ctx, []pfconf.Rule{invalid}, nil),
		"a bypassed rule":             f.Change(ctx, []pfconf.Rule{bypassed}, nil),
	} {
		if err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	if err := f.Change(ctx, []pfconf.Rule{numbered(1)}, []string{"regress-1"}); err != nil {
		t.Errorf("a rule in the place of another: %v", err)
	}
	if got := fmt.Sprint(a.loads); got != "[[regress-1 regress-2] [regress-2 regress-1]]" {
		t.Errorf("loads: %s", got)
	}
}

// TestWaiting proves that no one waits longer than he wants, and that Close ends a load.
func TestWaiting(t *testing.T) {
	a := &anchor{holdup: make(chan struct{})}
	f := openAnchor(t, a)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := f.Change(ctx, []pfconf.Rule{numbered(1)}, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want that time was up", err)
	}
	if err := f.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if len(a.loads) != 0 {
		t.Errorf("loads after Close: %v", a.loads)
	}
}

// TestNoJournalNoChange proves that nothing is changed that could not be undone.
func TestNoJournalNoChange(t *testing.T) {
	a := &anchor{holdup: make(chan struct{})}
	close(a.holdup)
	f := openAnchor(t, a)
	f.journal = func(pfconf.Undo) error { return errors.New("disk full") }
	if err := f.Load(t.Context(), []pfconf.Rule{numbered(1)}); err == nil ||
		!strings.Contains(err.Error(), "disk full") {
		t.Errorf("got %v, want the journal's error", err)
	}
	if len(a.loads) != 0 {
		t.Errorf("loaded %v without a journal", a.loads)
	}
}
