package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// Hold is a real host that this process may change: the journal of its changes and, on REMOTE, the
// host's lock. End it when done.
type Hold struct {
	dir     stateDir
	lock    *hostLock
	journal *journal
	routes  []*addedRoute
}

// HoldOptions are how Take takes a host.
type HoldOptions struct {
	Dir    string // of journals and locks; empty means StateDir
	Remote bool   // no one else may be REMOTE here at the same time
	Lab    bool   // no one else may have a lab here that outlives its processes
	// By is who runs the program, and where, for those who have to wait.
	By string
	// Patience is how long to wait for another run; Tell is told of it.
	Patience time.Duration
	Tell     func(string)
}

// Take takes the host for this process. It first undoes what the journals of killed agents record.
func Take(ctx context.Context, o HoldOptions) (h *Hold, err error) {
	h = &Hold{dir: stateDir(o.Dir)}
	if o.Dir == "" {
		h.dir = StateDir
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.End(context.WithoutCancel(ctx), true))
			h = nil
		}
	}()
	if os.Geteuid() != 0 {
		return h, hinted{fmt.Errorf("this host's packet filter and routes can't be changed by user %d", os.Geteuid()),
			"it takes root: set SUDO to sudo or doas"}
	}
	if o.Remote || o.Lab {
		what := asRemote
		if o.Lab {
			what = forLab
		}
		me := holder{PID: os.Getpid(), By: o.By, Since: time.Now()}
		if h.lock, err = h.dir.hold(ctx, what, me, o.Patience, o.Tell); err != nil {
			return h, err
		}
	}
	err = h.dir.locked(ctx, func() error {
		if err := h.dir.restoreAll(ctx, o.Tell); err != nil {
			return err
		}
		h.journal, err = h.dir.begin(o.By)
		return err
	})
	return h, err
}

// restoreAll undoes what agents left that are gone.
func (d stateDir) restoreAll(ctx context.Context, tell func(string)) error {
	found, files, err := d.journals()
	if err != nil {
		return err
	}
	defer closeAll(files)
	for _, l := range found {
		if !l.Stale() {
			continue
		}
		d.restore(ctx, l)
		if l.Err != "" {
			return &script.Error{Code: script.CodeStale,
				Text: fmt.Sprintf("%s was killed, and what it left can't be undone: %s", l, l.Err),
				Hint: CleanUp + " tries it again; with -n it shows what was left"}
		}
		tell(fmt.Sprintf("%s was killed; undone on this host: %s", l, pfconf.Count(len(l.Undone), "change")))
	}
	return nil
}

// Journal records a change before it is made. It is a pfconf.Journal.
func (h *Hold) Journal(u pfconf.Undo) error { return h.journal.record(u) }

// addRoutes sees to it that packets to FAKE, and to hosts behind REMOTE, go to REMOTE.
func (h *Hold) addRoutes(ctx context.Context, rs []route) error {
	return h.dir.locked(ctx, func() error {
		for _, r := range rs {
			f, err := h.dir.addRoute(ctx, hostRoutes, r, h.Journal)
			if f != nil {
				h.routes = append(h.routes, f)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// End releases the host. undone says that all changes but the routes, which End removes, have been
// undone; otherwise the journal stays for a cleanup.
func (h *Hold) End(ctx context.Context, undone bool) error {
	if h.lock == nil && h.journal == nil {
		return nil
	}
	err := h.dir.locked(ctx, func() error {
		var errs []error
		for _, f := range slices.Backward(h.routes) {
			err := f.close()
			if err == nil {
				_, err = h.dir.undoRoute(ctx, f.undo)
			}
			errs = append(errs, err)
		}
		h.routes = nil
		if h.journal != nil {
			if undone && errors.Join(errs...) == nil {
				errs = append(errs, h.journal.end())
			} else {
				errs = append(errs, h.journal.leave())
			}
		}
		return errors.Join(errs...)
	})
	if h.lock != nil {
		err = errors.Join(err, h.lock.release(ctx))
	}
	return err
}
