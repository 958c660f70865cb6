package xt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A lock that another process keeps is waited for, but not without end, and the error names who
// keeps it. Afterwards the lock is no one's.
func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	if unlock, err := lock(path, 0); err != nil {
		t.Errorf("without the file: %v", err)
	} else {
		unlock()
	}
	other, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(other.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	_, err = lock(path, 0)
	var locked *LockedError
	if !errors.As(err, &locked) {
		t.Fatalf("a lock that is kept: %v", err)
	}
	name, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("process %d (%s)", os.Getpid(), strings.TrimSpace(string(name)))
	if !strings.Contains(locked.Error(), want) {
		t.Errorf("%v: want %q", locked, want)
	}
	if want := fmt.Sprintf("ps -fp %d, ", os.Getpid()); !strings.Contains(locked.Hint(), want) {
		t.Errorf("hint %q: want %q", locked.Hint(), want)
	}
	done := make(chan error)
	go func() {
		unlock, err := lock(path, time.Minute)
		if err == nil {
			unlock()
		}
		done <- err
	}()
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("a lock that was kept for a while: %v", err)
	}
	unlock, err := lock(path, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

// Who waits for a lock does not hold it, and locks of other files and kinds are not asked about.
func TestHolderIn(t *testing.T) {
	const locks = `1: POSIX  ADVISORY  WRITE 100 00:1a:567 0 EOF
2: FLOCK  ADVISORY  WRITE 200 00:1a:568 0 EOF
3: -> FLOCK  ADVISORY  WRITE 300 00:1a:567 0 EOF
4: FLOCK  ADVISORY  WRITE 400 00:1a:567 0 EOF
4: -> FLOCK  ADVISORY  WRITE 500 00:1a:567 0 EOF
`
	for file, want := range map[string]string{"00:1a:567": "400", "00:1a:568": "200", "00:1a:569": ""} {
		if got := holderIn(locks, file); got != want {
			t.Errorf("%s: %q, want %q", file, got, want)
		}
	}
}
