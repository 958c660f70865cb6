package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

func TestReadJournal(t *testing.T) {
	const head = `{"pid":7,"boot":"b","started":"2026-11-22T02:00:00Z","by":"anna@laptop"}` + "\n"
	const step = `{"do":"nft/table"}` + "\n"
	for _, c := range []struct {
		name, text string
		steps      int
		err        string
	}{
		{"whole", head + step + step, 2, ""},
		{"the last line is half written", head + step + step[:9], 1, ""},
		{"only a head", head, 0, ""},
		{"half a head", head[:20], 0, ""},
		{"empty", "", 0, ""},
		{"garbage in between", head + "nft/table\n" + step, 0, "line 2"},
		{"garbage", "\x00\x01\n", 0, "line 1"},
	} {
		h, steps, err := readJournal(strings.NewReader(c.text))
		switch {
		case c.err == "" && (err != nil || len(steps) != c.steps):
			t.Errorf("%s: %d steps, %v", c.name, len(steps), err)
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
			t.Errorf("%s: error %v, want %s", c.name, err, c.err)
		case c.steps > 0 && h.PID != 7:
			t.Errorf("%s: head %+v", c.name, h)
		}
	}
}

func FuzzReadJournal(f *testing.F) {
	f.Add(`{"pid":7,"boot":"b","started":"2026-11-22T02:00:00Z"}` + "\n" +
		`{"do":"route/to","args":["10.0.0.0/8","10.1.1.1"]}` + "\n")
	f.Fuzz(func(_ *testing.T, text string) {
		h, steps, err := readJournal(strings.NewReader(text))
		if err != nil {
			return
		}
		_ = (&Left{Head: h}).String()
		for _, u := range steps {
			_ = Describe(u)
			_, _ = routeOf(u)
		}
	})
}

// newState makes a state directory that belongs to the test.
func newState(t *testing.T) stateDir { return stateDir(filepath.Join(t.TempDir(), "state")) }

// A journal is someone's as long as the file is open, and stale afterwards.
func TestJournalIsStale(t *testing.T) {
	ctx := context.Background()
	d := newState(t)
	var j *journal
	check(t, d.locked(ctx, func() (err error) {
		j, err = d.begin("anna@laptop")
		return err
	}))
	unknown := pfconf.Undo{Do: "future/step", Args: []string{"x"}}
	check(t, j.record(unknown))
	left, err := Cleanup(ctx, string(d), false)
	check(t, err)
	if len(left) != 1 || !left[0].Alive || left[0].Undone != nil {
		t.Fatalf("of a process at work: %+v", left)
	}
	check(t, j.leave())
	if err := j.record(unknown); err == nil {
		t.Error("a closed journal takes an entry")
	}
	// What can't be undone keeps the journal.
	for range 2 {
		left, err = Cleanup(ctx, string(d), false)
		check(t, err)
		if len(left) != 1 || !left[0].Stale() || !strings.Contains(left[0].Err,
			`"future/step" ["x"]: not a step of this program`) {
			t.Fatalf("%+v", left)
		}
	}
	// The directory's turn is over, and nothing else holds it.
	err = d.locked(ctx, func() error { return d.restoreAll(ctx, func(string) {}) })
	var fault *script.Error
	if !errors.As(err, &fault) || fault.Code != script.CodeStale || !strings.Contains(fault.Hint, "pfdivert cleanup") {
		t.Errorf("a run that begins: %v", err)
	}
}

// After a boot nothing of a journal is left to undo.
func TestJournalOfAnotherBoot(t *testing.T) {
	d := newState(t)
	check(t, d.open())
	text := `{"pid":7,"boot":"1","started":"2026-11-22T02:00:00Z"}` + "\n" + `{"do":"future/step"}` + "\n"
	check(t, os.WriteFile(d.file("agent-1"+journalSuffix), []byte(text), 0o600))
	left, err := Cleanup(context.Background(), string(d), false)
	check(t, err)
	if len(left) != 1 || !left[0].Rebooted || left[0].Err != "" || left[0].Undone != nil {
		t.Fatalf("%+v", left)
	}
	if _, err := os.Stat(string(d)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is left: %v", err)
	}
}

// Journals say what is done as root: no one else may write them.
func TestStateDirOfOthers(t *testing.T) {
	for name, make := range map[string]func(d string) error{
		"others may read": func(d string) error { return os.Mkdir(d, 0o755) },
		"a link":          func(d string) error { return os.Symlink(os.TempDir(), d) },
		"a file":          func(d string) error { return os.WriteFile(d, nil, 0o600) },
	} {
		d := newState(t)
		check(t, make(string(d)))
		err := d.open()
		if h := (hinted{}); !errors.As(err, &h) || h.hint == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A lock on a file that was removed meanwhile is no lock.
func TestLockFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := lockFile(path, unix.LOCK_SH)
	check(t, err)
	if _, err := lockFile(path, unix.LOCK_EX); !errors.Is(err, errHeld) {
		t.Errorf("exclusive beside a shared one: %v", err)
	}
	second, err := lockFile(path, unix.LOCK_SH)
	check(t, err)
	check(t, os.Remove(path))
	third, err := lockFile(path, unix.LOCK_EX)
	if err != nil {
		t.Fatalf("a new file of the name: %v", err)
	}
	for _, f := range []*os.File{first, second, third} {
		check(t, f.Close())
	}
}

// Who waits for a turn does not wait for ever.
func TestTurnEnds(t *testing.T) {
	d := newState(t)
	check(t, d.locked(context.Background(), func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		if err := d.locked(ctx, func() error { return nil }); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a second turn in the first: %v", err)
		}
		return nil
	}))
}

// A host without /var/run, or whose link to /run leads nowhere, is taken as any other.
func TestStateDirParent(t *testing.T) {
	for name, prepare := range map[string]func(root string) error{
		"nothing":        func(string) error { return nil },
		"a dead link":    func(root string) error { return os.Symlink("elsewhere/run", filepath.Join(root, "var")) },
		"an empty place": func(root string) error { return os.Mkdir(filepath.Join(root, "var"), 0o755) },
	} {
		root := t.TempDir()
		if err := prepare(root); err != nil {
			t.Fatal(err)
		}
		d := stateDir(filepath.Join(root, "var", "pfdivert"))
		ran := false
		if err := d.locked(t.Context(), func() error { ran = true; return nil }); err != nil || !ran {
			t.Errorf("%s: %v, ran %v", name, err, ran)
		}
		if _, err := os.Lstat(string(d)); err == nil {
			t.Errorf("%s: %s is left", name, d)
		}
	}
}

// Many come and go, and each that is the last removes the directory while another one enters it.
func TestComeAndGo(t *testing.T) {
	d := newState(t)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 200 {
				if err := d.locked(t.Context(), func() error { return nil }); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	if _, err := os.Stat(string(d)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the last one has left the directory: %v", err)
	}
}
