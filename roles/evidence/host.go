package evidence

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

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
}

// Host is the own host as something to ask. It may be asked by several at once.
type Host struct {
	opt      Options
	begun    time.Time
	before   map[string]int64 // protocol counters
	noBefore error            // why they are not known
	now      *shared.Question[map[string]int64]
	sockets  *shared.Question[[]Socket]
	chains   *shared.Question[string] // of other programs' packet filters
}

// Open begins: protocol counters are compared with what they are now.
func Open(opt Options) *Host {
	h := &Host{opt: opt, begun: time.Now(), now: shared.New(readCounters), sockets: shared.New(readSockets), chains: shared.New(readChains(opt.Own))}
	h.before, h.noBefore = readCounters(context.Background())
	return h
}

// Look gives what the host has of a cell, but for what its agent alone knows: rules, states
// and the cell's own endpoints.
func (h *Host) Look(ctx context.Context, a About) Cell {
	var c Cell
	miss := func(what string, err error) {
		if err != nil {
			c.Missing = append(c.Missing, what+": "+err.Error())
		}
	}
	all, err := h.sockets.Get(ctx)
	miss("sockets", err)
	for _, s := range all {
		if a.socket(s) {
			c.Sockets = append(c.Sockets, s)
		}
	}
	var errs []error
	c.Answers, errs = h.answers(ctx, a)
	for _, err := range errs {
		miss("routes and settings", err)
	}
	c.Moved, err = h.moved(ctx)
	miss("protocol counters", err)
	return c
}

// moved compares the protocol counters.
func (h *Host) moved(ctx context.Context) ([]Moved, error) {
	if h.noBefore != nil {
		return nil, h.noBefore
	}
	now, err := h.now.Get(ctx)
	if err != nil {
		return nil, err
	}
	var all []Moved
	for name, n := range now {
		if by := n - h.before[name]; by != 0 {
			all = append(all, Moved{name, by})
		}
	}
	slices.SortFunc(all, func(a, b Moved) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// asking collects answers and what could not be asked.
type asking struct {
	answers []Answer
	errs    []error
}

// answer notes what was said, or why nothing was.
func (q *asking) answer(command, text string, err error) {
	if err != nil {
		q.errs = append(q.errs, fmt.Errorf("%s: %w", command, err))
		return
	}
	q.answers = append(q.answers, Answer{command, text})
}
