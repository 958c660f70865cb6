package ipfw

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"pfdivert/pfconf"
	"pfdivert/pfconf/program"
	"pfdivert/pfconf/shared"
)

// Config says what a Firewall works on.
type Config struct {
	// Families are those that rules will be about.
	Families []pfconf.Family
	// Run runs ipfw and sysctl; nil means program.Exec.
	Run program.Runner
	// Journal records how the changes are undone; nil means that no one could.
	Journal pfconf.Journal
}

// Firewall is two sets of the host's ipfw: the rules in force are in one, the other is
// disabled and takes the next load.
type Firewall struct {
	*Control
	pfconf.Stateless
	journal pfconf.Journal
	first   int  // the number of the host's own first rule
	exthdrs bool // the sysctl was changed
	counts  *shared.Question[map[string]uint64]
	shown   *shared.Question[[]entry]

	load   sync.Mutex // held while rules are changed; guards what follows
	active int
	idle   int
	begun  bool // the journal has been written
	closed bool
	pipes  map[uint16]bool // that were made

	mu    sync.Mutex // guards what follows; may be taken while load is held
	rules []pfconf.Rule
}

var _ pfconf.Firewall = (*Firewall)(nil)

// Open takes two free sets. It fails where Look does, and changes nothing but the treatment of
// unknown IPv6 protocols.
func Open(ctx context.Context, cfg Config) (*Firewall, error) {
	f := &Firewall{Control: NewControl(cfg.Run), journal: cfg.Journal}
	f.counts = shared.New(f.readCounters)
	f.shown = shared.New(f.list)
	host, err := f.Look(ctx, cfg.Families)
	if err != nil {
		return nil, err
	}
	f.active, f.idle, f.first = host.free[0], host.free[1], host.first
	if slices.Contains(cfg.Families, pfconf.Inet6) {
		if err := f.passUnknown(ctx); err != nil {
			return nil, errors.Join(err, f.Close(context.WithoutCancel(ctx)))
		}
	}
	return f, nil
}

// Name is "ipfw".
func (f *Firewall) Name() string { return "ipfw" }

// KeepsCounters is false: a load makes all rules anew.
func (f *Firewall) KeepsCounters() bool { return false }

// Change adds and removes rules; see pfconf.Firewall. The whole set is loaded each
// time. Changes take turns: the agent makes one of all that come together.
func (f *Firewall) Change(ctx context.Context, add []pfconf.Rule, remove []string) error {
	return f.change(ctx, add, func() ([]pfconf.Rule, error) { return pfconf.Edit(f.loaded(), add, remove) })
}

// Load replaces all rules.
func (f *Firewall) Load(ctx context.Context, rules []pfconf.Rule) error {
	return f.change(ctx, rules, func() ([]pfconf.Rule, error) { return pfconf.Edit(nil, rules, nil) })
}

func (f *Firewall) change(ctx context.Context, add []pfconf.Rule, edited func() ([]pfconf.Rule, error)) error {
	for _, r := range add {
		if err := r.Validate(); err != nil {
			return err
		}
		switch {
		case r.Action == pfconf.RdrTo || r.Action == pfconf.PFDivertTo || r.Action == pfconf.PFPass:
			return fmt.Errorf("rule %q: ipfw has no %v", r.Label, r.Action)
		case r.OnlyOpenBSD():
			return r.ForOpenBSD()
		case r.OnlyNetfilter():
			return fmt.Errorf("rule %q: ipfw has no bypass, no conntrack, and no match of sockets", r.Label)
		case int(r.Number) >= f.first:
			return hinted{
				fmt.Errorf("rule %q: ipfw has rules of the host's own from number %d on, and it must stand before them with the number %d", r.Label, f.first, r.Number),
				fmt.Sprintf("give the host's first rule a number higher than %d", r.Number),
			}
		}
	}
	f.load.Lock()
	defer f.load.Unlock()
	if f.closed {
		return errors.New("ipfw's sets have been released")
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	rules, err := edited()
	if err != nil {
		return err
	}
	return f.replace(ctx, rules)
}

func (f *Firewall) loaded() []pfconf.Rule {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rules
}

// loadTimeout bounds one load. Who waits for it has a deadline of his own, which does not end it
// in the middle.
const loadTimeout = 30 * time.Second

// replace loads the rules into the idle set and has the sets change places; f.load must be held.
// After an error in the last step it is not known which set is in force: the next load makes
// its own so, whichever it was.
func (f *Firewall) replace(ctx context.Context, rules []pfconf.Rule) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), loadTimeout)
	defer cancel()
	if !f.begun && f.journal != nil {
		if err := f.journal(undoSets(f.active, f.idle)); err != nil {
			return fmt.Errorf("recording how to remove the rules: %w", err)
		}
	}
	f.begun = true
	out, err := f.do(ctx, fmt.Sprintf("set disable %d\ndelete set %d\n", f.idle, f.idle)+adding(rules, f.idle))
	if err == nil {
		err = understood(rules, out)
	}
	if err != nil {
		return fmt.Errorf("loading ipfw's set %d: %w", f.idle, err)
	}
	if _, err := f.do(ctx, fmt.Sprintf("set disable %d enable %d\ndelete set %d\n", f.active, f.idle,
		f.active)); err != nil {
		return fmt.Errorf("putting ipfw's set %d in force: %w", f.idle, err)
	}
	f.active, f.idle = f.idle, f.active
	f.mu.Lock()
	f.rules = rules
	f.mu.Unlock()
	return nil
}

// Close removes the rules, and sets the sysctl back. When it fails it can be called again.
func (f *Firewall) Close(ctx context.Context) error {
	f.load.Lock()
	defer f.load.Unlock()
	if f.closed {
		return nil
	}
	var errs []error
	if f.begun {
		errs = append(errs, f.free(ctx, f.active, f.idle))
	}
	errs = append(errs, f.removePipes(ctx))
	if f.exthdrs {
		errs = append(errs, f.denyUnknown(ctx))
	}
	err := errors.Join(errs...)
	f.closed = err == nil
	return err
}

// Counters reads the counters of the rules with these labels, with one listing for all who ask at
// the same time.
func (f *Firewall) Counters(ctx context.Context, labels []string) (map[string]pfconf.Counters, error) {
	all, err := f.counts.Get(ctx)
	if err != nil {
		return nil, err
	}
	rules := map[string]pfconf.Rule{}
	for _, r := range f.loaded() {
		rules[r.Label] = r
	}
	found := make(map[string]pfconf.Counters, len(labels))
	for _, l := range labels {
		r, ok := rules[l]
		if !ok {
			return nil, fmt.Errorf("ipfw has no rule with the label %s", l)
		}
		n := make([]uint64, 0, 2)
		for _, text := range Text(r) {
			packets, ok := all[text]
			if !ok {
				return nil, fmt.Errorf("ipfw has no rule %q in force", text)
			}
			n = append(n, packets)
		}
		c := pfconf.Counters{Matched: n[0], Done: n[0]}
		switch {
		case r.Action == pfconf.DivertReply:
			c.Replies = n[0]
		case r.Both:
			c.Replies = n[1]
		}
		found[l] = c
	}
	return found, nil
}

var _ pfconf.Shower = (*Firewall)(nil)

// Show returns the rules with these labels as they are in force, each with its number and its
// packets.
func (f *Firewall) Show(ctx context.Context, labels []string) (map[string]string, error) {
	rules, err := f.shown.Get(ctx)
	if err != nil {
		return nil, err
	}
	return show(rules, labels)
}

func show(rules []entry, labels []string) (map[string]string, error) {
	found := make(map[string]string, len(labels))
	for _, l := range labels {
		var lines []string
		for _, e := range rules {
			if e.label() == l && !e.disabled {
				lines = append(lines, fmt.Sprintf("%05d %d packets: %s", e.number, e.packets, e.text))
			}
		}
		if lines == nil {
			return nil, fmt.Errorf("ipfw has no rule with the label %s in force", l)
		}
		found[l] = strings.Join(lines, "\n")
	}
	return found, nil
}

// readCounters returns the packets of the rules in force that carry a label, by their text.
func (f *Firewall) readCounters(ctx context.Context) (map[string]uint64, error) {
	rules, err := f.list(ctx)
	if err != nil {
		return nil, err
	}
	all := map[string]uint64{}
	for _, e := range rules {
		if e.label() != "" && !e.disabled {
			all[plain(e.text)] += e.packets
		}
	}
	return all, nil
}
