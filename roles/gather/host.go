// Package gather asks the own host for what it shows of a test case and of rules that divert. The
// answers are values of package matrix/evidence.
package gather

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"sync"
	"time"

	"pfdivert/matrix/evidence"
	"pfdivert/pfconf/program"
	"pfdivert/pfconf/shared"
)

// Options say which host is asked.
type Options struct {
	// Interface is the one towards the other host, "" if it is not known.
	Interface string
	// Mark and Table send diverted packets to their sockets, on a REMOTE that needs them.
	Mark  uint32
	Table int
	// Own is the table of packet filter rules that is this program's own.
	Own string
	// Remote: this host is REMOTE.
	Remote bool
	// Run runs the system's programs, where it is asked through them.
	Run program.Runner
	// Capture says which packets of Interface to capture, nil for none.
	Capture *Filter
	// Ephemeral: the host ends with this process.
	Ephemeral bool
}

// Host is the own host as something to ask. It may be asked by several at once.
type Host struct {
	opt      Options
	before   counters      // of protocols
	noBefore error         // why they are not known
	began    chan struct{} // closed when those of the beginning are read
	now      *shared.Question[counters]
	sockets  map[string]*shared.Question[[]evidence.SocketEntry] // by protocol, as the system's tables are named
	filters  *shared.Question[asking]                            // the host's own rules

	capture   *capture
	noCapture error // why there is none
}

// counters understands protocol counters that were read, once for all cells.
type counters func() (map[string]int64, error)

// Open begins: protocol counters are compared with what they are now.
func Open(opt Options) *Host {
	if opt.Run != nil {
		opt.Run = oneByOne(opt.Run)
	}
	h := &Host{opt: opt, began: make(chan struct{}), sockets: map[string]*shared.Question[[]evidence.SocketEntry]{},
		filters: shared.New(readFilters(opt))}
	for _, proto := range []string{"tcp", "udp", "raw", evidence.ProtoDivert} {
		h.sockets[proto] = shared.New(func(ctx context.Context) ([]evidence.SocketEntry, error) {
			return readSockets(ctx, opt, proto)
		})
	}
	h.now = shared.New(func(ctx context.Context) (counters, error) { return readCounters(ctx, opt) })
	read := func() {
		defer close(h.began)
		h.before, h.noBefore = readCounters(context.Background(), opt)
	}
	if countersTakeLong {
		go read()
	} else {
		read()
	}
	if opt.Capture == nil {
		h.noCapture = errors.New("not captured: the run was not asked to")
		return h
	}
	h.capture, h.noCapture = openCapture(opt.Interface, *opt.Capture, opt.Ephemeral)
	return h
}

// oneByOne has a runner run one program at a time: many at once keep a small machine from all else,
// and none of them ends the sooner.
func oneByOne(run program.Runner) program.Runner {
	turn := make(chan struct{}, 1)
	return func(ctx context.Context, c program.Command) (program.Output, error) {
		select {
		case turn <- struct{}{}:
		case <-ctx.Done():
			return program.Output{}, ctx.Err()
		}
		defer func() { <-turn }()
		return run(ctx, c)
	}
}

// Close ends the capture.
func (h *Host) Close() error {
	if h.capture == nil {
		return nil
	}
	return h.capture.close()
}

// Look returns what the host has of a cell, but for what its agent alone knows: rules, states
// and the cell's own endpoints. The cell began then.
func (h *Host) Look(ctx context.Context, a evidence.About, began time.Time) evidence.Record {
	if !h.opt.Remote {
		a.Divert = 0 // LOCAL diverts nothing, and its table of queues may be another user's
	}
	var c evidence.Record
	var missing [4][]string
	// All is asked at once: what takes a program is asked for many cells together, and each
	// question waits for its next turn but once.
	var wg sync.WaitGroup
	ask := func(what int, f func(miss func(string, error))) {
		wg.Go(func() {
			f(func(name string, err error) {
				if err != nil {
					missing[what] = append(missing[what], name+": "+err.Error())
				}
			})
		})
	}
	ask(0, func(miss func(string, error)) {
		for _, proto := range tables(a) {
			some, err := h.socketsOf(ctx, a, proto)
			miss("sockets of "+proto, err)
			c.Sockets = append(c.Sockets, some...)
		}
	})
	ask(1, func(miss func(string, error)) {
		var err error
		c.Moved, err = h.moved(ctx)
		miss("protocol counters", err)
	})
	ask(2, func(miss func(string, error)) {
		err := h.noCapture
		if err == nil {
			c.Packets, err = h.capture.look(a, began)
		}
		miss("packets", err)
		if n := len(c.Packets) - evidence.MaxPackets; n > 0 {
			c.Packets, c.Cut = bound(c.Packets), true
			miss("packets", fmt.Errorf("%d in the middle were left out", n))
		}
	})
	ask(3, func(miss func(string, error)) {
		var errs []error
		c.Answers, errs = h.answers(ctx, a)
		for _, err := range errs {
			miss("routes and settings", err)
		}
	})
	wg.Wait()
	c.Missing = slices.Concat(missing[:]...)
	return c
}

// socketsOf returns the cell's sockets out of a system's table. A table that is read piece by piece
// may lack one of the cell's own, and is read again.
func (h *Host) socketsOf(ctx context.Context, a evidence.About, proto string) (some []evidence.SocketEntry, err error) {
	for range tableTries {
		var all []evidence.SocketEntry
		if all, err = h.sockets[proto].Get(ctx); err != nil {
			return nil, err
		}
		some = nil
		for _, s := range all {
			if a.Socket(s) {
				some = append(some, s)
			}
		}
		if proto != evidence.ProtoDivert && a.Complete(some) || proto == evidence.ProtoDivert &&
			(len(some) > 0 || !slices.Contains(a.Ports, a.Divert)) {
			break
		}
	}
	return some, nil
}

// moved compares the protocol counters.
func (h *Host) moved(ctx context.Context) ([]evidence.Moved, error) {
	select {
	case <-h.began:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if h.noBefore != nil {
		return nil, h.noBefore
	}
	was, err := h.before()
	if err != nil {
		return nil, err
	}
	read, err := h.now.Get(ctx)
	if err != nil {
		return nil, err
	}
	now, err := read()
	if err != nil {
		return nil, err
	}
	var all []evidence.Moved
	for name, n := range now {
		if by := n - was[name]; by != 0 {
			all = append(all, evidence.Moved{Name: name, By: by})
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Name < all[j].Name })
	return all, nil
}

// asking collects answers and what could not be asked.
type asking struct {
	answers []evidence.Answer
	errs    []error
}

// answer notes what was said, or why nothing was.
func (q *asking) answer(command, text string, err error) {
	if err != nil {
		q.errs = append(q.errs, fmt.Errorf("%s: %w", command, err))
		return
	}
	q.answers = append(q.answers, evidence.Answer{Command: command, Text: text})
}

// nobodys is the answer of a question whose list is empty.
const nobodys = "(none)"

// askFilters adds what the host's packet filters say of rules that are not this program's.
func (h *Host) askFilters(ctx context.Context, q *asking) {
	said, err := h.filters.Get(ctx)
	if err != nil {
		q.answer("packet filters", "", err)
		return
	}
	q.answers = append(q.answers, said.answers...)
	q.errs = append(q.errs, said.errs...)
}
