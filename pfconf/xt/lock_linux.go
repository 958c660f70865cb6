package xt

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// lockPath is where iptables-legacy has its lock, and lockPatience how long this program waits for
// it: a process of iptables' has it for less.
const (
	lockPath     = "/run/xtables.lock"
	lockPatience = 10 * time.Second
)

// Lock takes the lock by which iptables-legacy keeps its processes apart, and returns what frees
// it. A host without the file has run no iptables-legacy since it booted. The error is a
// *LockedError when another process keeps the lock.
func Lock() (unlock func(), err error) { return lock(lockPath, lockPatience) }

func lock(path string, patience time.Duration) (unlock func(), err error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) { // a user's own namespace
		return func() {}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("iptables' lock: %w", err)
	}
	taken := make(chan error, 1)
	go func() {
		err := error(unix.EINTR)
		for errors.Is(err, unix.EINTR) {
			err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		}
		taken <- err
	}()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case err = <-taken:
	case <-timer.C:
		err = &LockedError{path, patience, holder(f)}
		go func() { // a wait for a lock can't be ended
			<-taken
			_ = f.Close()
		}()
		return nil, err
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("iptables' lock: %w", err)
	}
	return func() { _ = f.Close() }, nil
}

// LockedError says that another process keeps iptables' lock.
type LockedError struct {
	Path   string
	Waited time.Duration
	Holder string // its number, and its name in parentheses; empty if that is not known
}

func (e *LockedError) Error() string {
	by := "another process"
	if e.Holder != "" {
		by = "process " + e.Holder
	}
	return fmt.Sprintf("iptables' lock %s is held by %s, for %v at least", e.Path, by, e.Waited)
}

// Hint is what to do about it, for a person.
func (e *LockedError) Hint() string {
	look := "see who holds it with: fuser -v " + e.Path
	if number, _, ok := strings.Cut(e.Holder, " "); ok {
		look = "see what it does with: ps -fp " + number
	}
	return look + ", and wait until it has ended, or use -filter nft or -filter xt, which need no lock"
}

// holder is who has the lock of the file.
func holder(f *os.File) string {
	var s unix.Stat_t
	locks, err := os.ReadFile("/proc/locks")
	if err != nil || unix.Fstat(int(f.Fd()), &s) != nil {
		return ""
	}
	dev := uint64(s.Dev) // 32 bits wide on MIPS
	pid := holderIn(string(locks), fmt.Sprintf("%02x:%02x:%d", unix.Major(dev), unix.Minor(dev), s.Ino))
	if pid == "" {
		return ""
	}
	name, err := os.ReadFile("/proc/" + pid + "/comm")
	if err != nil {
		return pid
	}
	return fmt.Sprintf("%s (%s)", pid, strings.TrimSpace(string(name)))
}

// holderIn finds who has a lock of the file in what /proc/locks says (proc_locks(5)):
//
//	1: FLOCK  ADVISORY  WRITE 1234 00:1a:567 0 EOF
//
// Those that wait for it have "->" behind the number.
func holderIn(locks, file string) string {
	for line := range strings.Lines(locks) {
		w := strings.Fields(line)
		if len(w) > 5 && w[1] == "FLOCK" && slices.Contains(w[5:], file) {
			return w[4]
		}
	}
	return ""
}
