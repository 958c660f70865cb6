package pf

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"pfdivert/pfconf"
)

// edit is one call of Change or Load on its way into the anchor.
type edit struct {
	whole  bool // add replaces all rules
	add    []pfconf.Rule
	remove []string
	done   chan error
}

// loadTimeout bounds one load with its tries at a busy anchor. Those who wait
// for it have deadlines of their own.
const loadTimeout = 30 * time.Second

var errClosed = errors.New("the anchor has been released")

// Change adds and removes rules; see pfconf.Firewall. The whole set is loaded
// each time. When ctx ends first, it is not known whether the change was made.
func (f *Firewall) Change(ctx context.Context, add []pfconf.Rule, remove []string) error {
	return f.submit(ctx, &edit{add: add, remove: remove})
}

// Load replaces all rules.
func (f *Firewall) Load(ctx context.Context, rules []pfconf.Rule) error {
	return f.submit(ctx, &edit{whole: true, add: rules})
}

func (f *Firewall) submit(ctx context.Context, e *edit) error {
	for _, r := range e.add {
		if err := r.Validate(); err != nil {
			return err
		}
		switch {
		case r.OnlyNetfilter():
			return fmt.Errorf("rule %q: pf has no bypass, no conntrack, and no match of sockets", r.Label)
		case r.OnlyOpenBSD() && f.rdrRules:
			return r.ForOpenBSD()
		case r.Tee || r.Number != 0:
			return fmt.Errorf("rule %q: pf delivers no copies, and its rules have no numbers of their own", r.Label)
		}
	}
	e.done = make(chan error, 1)
	f.mu.Lock()
	if f.closing {
		f.mu.Unlock()
		return errClosed
	}
	f.queue = append(f.queue, e)
	if !f.serving {
		f.serving = true
		go f.serve()
	}
	f.mu.Unlock()
	select {
	case err := <-e.done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("loading the anchor %s: %w", f.anchor, ctx.Err())
	}
}

// serve loads what is in the queue, all of it together, until the queue is empty.
func (f *Firewall) serve() {
	for {
		f.load.Lock()
		f.mu.Lock()
		batch := f.queue
		f.queue = nil
		f.serving = len(batch) > 0
		closing := f.closing
		f.mu.Unlock()
		if !closing {
			f.commit(batch)
		} else {
			answerAll(batch, errClosed)
		}
		f.load.Unlock()
		if len(batch) == 0 {
			return
		}
	}
}

// commit loads a batch. When pfctl refuses it, the edits are loaded one by one, so
// that each hears of its own mistakes only.
func (f *Firewall) commit(batch []*edit) {
	rules := f.rules
	var good []*edit
	for _, e := range batch {
		next, err := e.apply(rules)
		if err != nil {
			e.done <- err
			continue
		}
		rules = next
		good = append(good, e)
	}
	if len(good) == 0 {
		return
	}
	err := f.replace(rules)
	var refused *Error
	if len(good) > 1 && errors.As(err, &refused) && refused.Err == nil && !refused.busy() {
		for _, e := range good {
			f.commit([]*edit{e})
		}
		return
	}
	answerAll(good, err)
}

func answerAll(edits []*edit, err error) {
	for _, e := range edits {
		e.done <- err
	}
}

// apply returns the set after the edit and leaves rules as they are.
func (e *edit) apply(rules []pfconf.Rule) ([]pfconf.Rule, error) {
	if e.whole {
		rules = nil
	}
	return pfconf.Edit(rules, e.add, e.remove)
}

// replace loads the rules; on success they are the set.
func (f *Firewall) replace(rules []pfconf.Rule) error {
	ctx, cancel := context.WithTimeout(f.open, loadTimeout)
	defer cancel()
	if !f.begun && f.journal != nil {
		if err := f.journal(f.undo(f.anchor, f.former)); err != nil {
			return fmt.Errorf("recording how to put the anchor %s back: %w", f.anchor, err)
		}
	}
	f.begun = true
	if err := f.recordLabels(rules); err != nil {
		return err
	}
	given := writings(rules, f.rdrRules)
	r, err := f.loadSet(ctx, given)
	if err != nil {
		return err
	}
	if err := understood(given, r.Stdout); err != nil {
		_, errBack := f.loadSet(ctx, writings(f.rules, f.rdrRules))
		return errors.Join(err, errBack)
	}
	f.rules = rules
	return nil
}

// recordLabels notes which rules are loaded now for the first time: their states outlive them in
// the anchor.
func (f *Firewall) recordLabels(rules []pfconf.Rule) error {
	var labels []string
	for _, r := range rules {
		if !f.tried[r] {
			labels = append(labels, r.Label)
		}
		f.tried[r] = true
	}
	if labels == nil || f.journal == nil {
		return nil
	}
	slices.Sort(labels)
	undo := pfconf.Undo{Do: UndoLabels, Args: append([]string{strconv.Itoa(f.domain)}, slices.Compact(labels)...)}
	if err := f.journal(undo); err != nil {
		return fmt.Errorf("recording whose states are to be removed: %w", err)
	}
	return nil
}

func (f *Firewall) loadSet(ctx context.Context, given []written) (Result, error) {
	return f.loadText(ctx, f.backoff, document(given), "-v", "-a", f.anchor, "-f", "-")
}

// maxBackoff is the longest wait for a busy anchor between two tries.
const maxBackoff = 5 * time.Second

// loadText runs a pfctl that loads an anchor from text, again and again while another
// process is loading the same anchor. A load that begins makes one that is under way
// fail, so a waiter leaves the other at least the time that a load takes, and a part of it
// by chance, or the two would stop each other for ever.
func (c *Control) loadText(ctx context.Context, wait time.Duration, text string, args ...string) (Result, error) {
	var busy error
	for {
		begun := time.Now()
		r, err := c.pfctl(ctx, text, nothing, args...)
		if err != nil && ctx.Err() != nil && busy != nil {
			err = busy
		}
		var e *Error
		if err == nil || !errors.As(err, &e) || !e.busy() {
			return r, err
		}
		busy = err
		wait = min(max(wait, time.Since(begun)), maxBackoff)
		select {
		case <-ctx.Done():
			return r, fmt.Errorf("still busy when time was up: %w", err)
		case <-time.After(wait + rand.N(wait)):
			wait *= 2
		}
	}
}
