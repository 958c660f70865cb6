package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// controlPrefix begins the names of folders with a master's socket.
const controlPrefix = "pfdivert-ssh-"

// maxControlPath is the longest ControlPath, in bytes: ssh appends a dot and 16
// random characters while it binds the socket (mux.c, muxserver_listen), and
// sun_path has 104 bytes on the BSDs (unix(4)).
const maxControlPath = 104 - 1 - 17

// controlDir is a private folder for the master's socket. It is locked as long
// as this process lives, so that a later run knows that it is stale.
type controlDir struct {
	path string
	lock *os.File
}

// newControlDir makes one, for the invoker if there is one, and removes those
// that killed runs have left.
func newControlDir(i *Invoker) (*controlDir, error) {
	base := os.TempDir()
	if len(filepath.Join(base, controlPrefix+"0123456789", "m")) > maxControlPath {
		base = "/tmp"
	}
	owner := os.Geteuid()
	if i != nil {
		owner = int(i.UID)
	}
	removeStale(base, owner)
	path, err := os.MkdirTemp(base, controlPrefix) // mode 0700
	if err != nil {
		return nil, fmt.Errorf("folder for ssh's socket: %w", err)
	}
	d := &controlDir{path: path}
	if d.lock, err = os.Open(path); err == nil {
		if err = unix.Flock(int(d.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil && i != nil {
			err = d.lock.Chown(owner, int(i.GID))
		}
	}
	if err != nil {
		d.remove()
		return nil, fmt.Errorf("folder for ssh's socket: %w", err)
	}
	return d, nil
}

func (d *controlDir) socket() string { return filepath.Join(d.path, "m") }

func (d *controlDir) remove() error {
	err := os.RemoveAll(d.path)
	if d.lock != nil {
		err = errors.Join(err, d.lock.Close())
	}
	return err
}

// removeStale removes the folders of owner whose process is gone. One that is
// a minute old at most may not be locked yet.
func removeStale(base string, owner int) {
	found, _ := filepath.Glob(filepath.Join(base, controlPrefix+"*"))
	for _, path := range found {
		info, err := os.Lstat(path)
		if err != nil || !info.IsDir() || time.Since(info.ModTime()) < time.Minute {
			continue
		}
		if st, ok := info.Sys().(*syscall.Stat_t); !ok || int(st.Uid) != owner {
			continue
		}
		f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_DIRECTORY, 0)
		if err != nil {
			continue
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = os.RemoveAll(path)
		}
		f.Close()
	}
}
