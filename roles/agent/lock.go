package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"pfdivert/matrix/script"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// StateDir is where agents keep their journals and locks. It does not survive a boot (the BSDs
// empty /var/run, on Linux it is in memory), and neither does any change that an agent makes to a
// host.
const StateDir = "/var/run/pfdivert"

// stateDir is a directory of journals and locks.
type stateDir string

// errHeld: another process holds the lock.
var errHeld = errors.New("held by another process")

// errRemoved: another process, the last in the directory, has removed it meanwhile.
var errRemoved = errors.New("removed by another process")

// lockPoll is how often a lock that is held is tried again: flock(2) has no timeout.
const lockPoll = 20 * time.Millisecond

// open makes the directory, and /var/run where there is none, as in an initramfs. It must be no one
// else's: what journals say is done as root.
func (d stateDir) open() error {
	err := os.Mkdir(string(d), 0o700)
	if errors.Is(err, fs.ErrNotExist) {
		if err = makeAll(filepath.Dir(string(d))); err == nil {
			err = os.Mkdir(string(d), 0o700)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return hinted{fmt.Errorf("the folder for what undoes this program's changes: %w", err),
			"it must be on a file system to which root may write: mount -o remount,rw " + mountPoint(filepath.Dir(string(d)))}
	}
	info, err := os.Lstat(string(d))
	if errors.Is(err, fs.ErrNotExist) {
		return errRemoved
	}
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || info.Mode().Perm()&0o077 != 0 || int(stat.Uid) != os.Geteuid() {
		return hinted{fmt.Errorf("%s is not a directory that only this user (uid %d) may use: %v", d, os.Geteuid(),
			info.Mode()),
			"look what it is, and remove it: rm -r " + string(d)}
	}
	return nil
}

// mountPoint returns the directory on which the file system of a directory is mounted.
func mountPoint(dir string) string {
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	device := func(name string) any {
		info, err := os.Stat(name)
		if err != nil {
			return nil
		}
		return info.Sys().(*syscall.Stat_t).Dev
	}
	for here := device(dir); filepath.Dir(dir) != dir && device(filepath.Dir(dir)) == here; {
		dir = filepath.Dir(dir)
	}
	return dir
}

// makeAll makes a directory that all may read, with those above it. One may be a symbolic link
// whose target is missing: /var/run is one to /run on Linux.
func makeAll(dir string) error {
	if to, err := os.Readlink(dir); err == nil {
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(dir), to)
		}
		return makeAll(to)
	}
	return os.MkdirAll(dir, 0o755)
}

func (d stateDir) file(name string) string { return filepath.Join(string(d), name) }

// turn is the lock for short pieces of work on the directory and on what its files
// are about. No file of the directory is made or removed without it.
const (
	turn       = "turn" + lockSuffix
	lockSuffix = ".lock"
)

// locked does something while no other process does something locked. Afterwards a
// directory in which nothing is left is removed.
func (d stateDir) locked(ctx context.Context, do func() error) error {
	for {
		err := d.open()
		if errors.Is(err, errRemoved) {
			continue
		}
		if err != nil {
			return err
		}
		f, err := lockFile(d.file(turn), unix.LOCK_EX)
		switch {
		case err == nil:
			return errors.Join(do(), d.tidy(), f.Close())
		case !errors.Is(err, errHeld) && !errors.Is(err, fs.ErrNotExist): // the last one to leave has removed it
			return err
		}
		select {
		case <-time.After(lockPoll):
		case <-ctx.Done():
			return fmt.Errorf("wait for the lock in %s: %w", d, context.Cause(ctx))
		}
	}
}

// tidy removes the locks that no one holds, which killed processes leave, and the directory
// if nothing else is in it.
func (d stateDir) tidy() error {
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return err
	}
	left := len(entries)
	for _, e := range entries {
		if e.Name() == turn || !strings.HasSuffix(e.Name(), lockSuffix) {
			continue
		}
		f, err := lockFile(d.file(e.Name()), unix.LOCK_EX)
		if errors.Is(err, errHeld) {
			continue
		}
		if err == nil {
			err = errors.Join(os.Remove(f.Name()), f.Close())
		}
		if err != nil {
			return err
		}
		left--
	}
	if left > 1 {
		return nil
	}
	if err := os.Remove(d.file(turn)); err != nil {
		return err
	}
	err = os.Remove(string(d))
	if errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) {
		return nil // the next one is in it already, or has left it
	}
	return err
}

// lockFile opens the file, makes it if it is not there, and takes a lock on it
// (unix.LOCK_EX, LOCK_SH), which ends with the process or the file's Close. It
// does not wait: the error is errHeld then.
func lockFile(path string, how int) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		if err := relock(f, how); err != nil {
			_ = f.Close()
			return nil, err
		}
		// It may have been removed since it was opened, and made again by another.
		now, err := os.Lstat(path)
		if err == nil {
			var mine os.FileInfo
			if mine, err = f.Stat(); err == nil && os.SameFile(now, mine) {
				return f, nil
			}
		}
		_ = f.Close()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
}

// relock takes or changes the lock on an open file, without waiting.
func relock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EWOULDBLOCK):
			return errHeld
		case !errors.Is(err, unix.EINTR):
			return &fs.PathError{Op: "flock", Path: f.Name(), Err: err}
		}
	}
}

// holder says who holds a host.
type holder struct {
	PID   int       `json:"pid"`
	By    string    `json:"by,omitempty"`
	Since time.Time `json:"since"`
}

func (h holder) String() string {
	s := fmt.Sprintf("agent %d since %s", h.PID, h.Since.Format(time.DateTime))
	if h.By != "" {
		s = h.By + ", " + s
	}
	return s
}

// What a host is held for. A lab's own agents are REMOTE and LOCAL beside the one that
// holds the host for the lab.
const (
	asRemote = "remote"
	forLab   = "lab"
)

// hostLock is the lock that an agent holds as long as it works as REMOTE or has a lab.
type hostLock struct {
	dir  stateDir
	file *os.File
}

// hold takes the host for its agent: rules of two runs at once would disturb each other. While
// another has it, it waits, at most for patience; tell is told once for whom.
func (d stateDir) hold(ctx context.Context, what string, me holder, patience time.Duration,
	tell func(string)) (*hostLock, error) {
	path := d.file(what + netSuffix() + lockSuffix)
	end := time.Now().Add(patience)
	told := false
	for {
		var f *os.File
		err := d.locked(ctx, func() (err error) {
			if f, err = lockFile(path, unix.LOCK_EX); err == nil {
				err = sign(f, me)
			}
			return err
		})
		if err == nil {
			return &hostLock{d, f}, nil
		}
		if f != nil {
			_ = f.Close()
		}
		if !errors.Is(err, errHeld) {
			return nil, fmt.Errorf("take the host: %w", err)
		}
		who := holderOf(path)
		if left := time.Until(end); left <= 0 {
			return nil, &script.Error{Code: script.CodeBusy, Text: "another run is using this host: " + who,
				Hint: "start again when it has ended"}
		} else if !told {
			tell(fmt.Sprintf("another run is using this host (%s): waiting %v for it at most", who,
				left.Round(time.Second)))
			told = true
		}
		select {
		case <-time.After(5 * lockPoll):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// sign writes who holds the lock into its file.
func sign(f *os.File, me holder) error {
	b, err := json.Marshal(me)
	if err != nil {
		return err
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err = f.WriteAt(append(b, '\n'), 0)
	return err
}

func (l *hostLock) release(ctx context.Context) error {
	return l.dir.locked(ctx, func() error {
		return errors.Join(os.Remove(l.file.Name()), l.file.Close())
	})
}

// holderOf tells who holds the lock, as well as that is known: only people read it.
func holderOf(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return "it is just ending"
	}
	defer f.Close()
	var h holder
	if err := json.NewDecoder(io.LimitReader(f, 4096)).Decode(&h); err != nil {
		return "it is just beginning"
	}
	h.By = printable(h.By)
	return h.String()
}
