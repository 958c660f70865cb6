package pf

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"sync"
	"time"

	"pfdivert/pfconf"
	"pfdivert/pfconf/shared"
)

// DefaultAnchor is the anchor of OpenBSD's regress suite.
const DefaultAnchor = "regress"

// Config says what a Firewall works on.
type Config struct {
	// Anchor holds the rules; empty means DefaultAnchor. The host's pf.conf must
	// call it: see MainRuleset.
	Anchor string
	// Run runs pfctl; nil means program.Exec.
	Run Runner
	// Journal records how to put the anchor back; nil means that no one could.
	Journal pfconf.Journal
	// Domain is the routing domain that flows and labels are looked for in.
	Domain int
	// RdrRules: an anchor has the rules that redirect in a list of their own, which `pfctl -s
	// rules` does not show (FreeBSD).
	RdrRules bool
	// Between are pairs of prefixes: all states from an address of one to one of the
	// other are this program's, whichever rule made them. Close removes them.
	Between [][2]netip.Prefix
}

// Firewall is an anchor of the host's pf.
type Firewall struct {
	*Control
	anchor  string
	journal pfconf.Journal
	between [][2]netip.Prefix
	former  string // what the anchor held before, as pfctl printed it
	counts  *shared.Question[map[string]pfconf.Counters]
	shows   *shared.Question[map[string]string]
	backoff time.Duration // the first wait for a busy anchor
	open    context.Context
	stop    context.CancelFunc // ends open: loads under way are given up

	mu      sync.Mutex
	queue   []*edit
	serving bool
	closing bool

	load   sync.Mutex // held while the anchor's rules are changed; guards what follows
	rules  []pfconf.Rule
	tried  map[pfconf.Rule]bool // all that a load was tried with
	begun  bool                 // the journal has been written
	closed bool
}

var _ pfconf.Firewall = (*Firewall)(nil)

// anchorName is what an anchor may be called: not what begins with '_', which
// pfctl refuses to change, nor a wildcard. 63 characters between slashes are
// PF_ANCHOR_NAME_SIZE - 1.
var anchorName = regexp.MustCompile(`^[A-Za-z0-9][-A-Za-z0-9_.]{0,62}(/[A-Za-z0-9][-A-Za-z0-9_.]{0,62})*$`)

// Open takes the anchor. It changes nothing yet; it fails when pf is switched off,
// when pfctl may not be used and when what is in the anchor could not be put back.
func Open(ctx context.Context, cfg Config) (*Firewall, error) {
	f := &Firewall{
		Control: NewControl(cfg.Run, cfg.Domain),
		anchor:  cfg.Anchor,
		journal: cfg.Journal,
		between: cfg.Between,
		backoff: 10 * time.Millisecond,
		tried:   map[pfconf.Rule]bool{},
	}
	if f.anchor == "" {
		f.anchor = DefaultAnchor
	}
	if !anchorName.MatchString(f.anchor) {
		return nil, fmt.Errorf("%q cannot be the name of the anchor", f.anchor)
	}
	f.rdrRules = cfg.RdrRules
	f.counts = shared.New(f.readCounters)
	f.shows = shared.New(f.readRules)
	f.open, f.stop = context.WithCancel(context.Background())
	status, err := f.Status(ctx)
	if err != nil {
		return nil, fmt.Errorf("asking whether pf is switched on: %w", err)
	}
	if !status.Enabled {
		return nil, hinted{errors.New("pf is switched off on this host"), "switch it on: pfctl -e"}
	}
	if f.former, err = f.content(ctx, f.anchor); err != nil {
		return nil, fmt.Errorf("reading what is in the anchor %s: %w", f.anchor, err)
	}
	if err := f.restorable(ctx, f.anchor, f.former); err != nil {
		return nil, err
	}
	return f, nil
}

// Name is "pf".
func (f *Firewall) Name() string { return "pf" }

// KeepsCounters is false: an anchor is always loaded as a whole.
func (f *Firewall) KeepsCounters() bool { return false }

// Close puts the anchor's former rules back and removes the states that rules of
// this Firewall created. When it fails it can be called again.
func (f *Firewall) Close(ctx context.Context) error {
	f.mu.Lock()
	f.closing = true
	f.mu.Unlock()
	f.stop()
	f.load.Lock()
	defer f.load.Unlock()
	if f.closed || !f.begun {
		f.closed = true
		return nil
	}
	err := f.restore(ctx, f.anchor, f.former, f.backoff)
	// After the rules, or they would go on creating states.
	err = errors.Join(err, f.killTried(ctx))
	f.closed = err == nil
	return err
}

// killTried removes the states between the addresses of Between, and of all rules that
// were ever loaded. Each removal takes a pfctl, so it is asked first which there
// is something for.
func (f *Firewall) killTried(ctx context.Context) error {
	states, err := f.states(ctx, false)
	if err != nil {
		return fmt.Errorf("looking for states to remove: %w", err)
	}
	for _, b := range f.between {
		for _, ends := range [][2]netip.Prefix{b, {b[1], b[0]}} {
			of := func(s pfconf.State) bool { return f.from(s, ends[0], ends[1]) }
			if !slices.ContainsFunc(states, of) {
				continue
			}
			if err := f.killBetween(ctx, ends[0], ends[1]); err != nil {
				return err
			}
			states = slices.DeleteFunc(states, of)
		}
	}
	var labels []string
	for r := range f.tried {
		if slices.ContainsFunc(states, func(s pfconf.State) bool { return f.mayHaveMade(r, s) }) {
			labels = append(labels, r.Label)
		}
	}
	slices.Sort(labels)
	_, err = f.KillLabels(ctx, slices.Compact(labels))
	return err
}

// Forget removes the states whose packets would not meet these rules, because a rule of the host's
// own made a state for them.
func (f *Firewall) Forget(ctx context.Context, rules []pfconf.Rule) error {
	states, err := f.listVV.Get(ctx)
	if err != nil {
		return fmt.Errorf("looking for states to remove: %w", err)
	}
	for _, s := range states {
		if !slices.ContainsFunc(rules, func(r pfconf.Rule) bool { return f.hides(s, r) }) {
			continue
		}
		if _, err := f.kill(ctx, "-k", "id", "-k", s.ID); err != nil {
			return fmt.Errorf("removing the state %q: %w", Line(s), err)
		}
	}
	return nil
}

// hides reports whether packets that the rule is about belong to the state. Of a translated end
// both names count: which one the packets have that meet the rule, the rule's kind decides.
func (f *Firewall) hides(s pfconf.State, r pfconf.Rule) bool {
	if s.Domain != f.domain || s.Family != r.Family || s.Number != r.Proto.Number(r.Family) ||
		s.Direction != r.Direction {
		return false
	}
	began, beganWas, other, otherWas := s.Near, s.NearWas, s.Far, s.FarWas
	if r.Direction == pfconf.In {
		began, beganWas, other, otherWas = other, otherWas, began, beganWas
	}
	isFrom := func(a netip.AddrPort) bool { return a.Addr() == r.From }
	isTo := func(a netip.AddrPort) bool { return a.Addr() == r.To && (r.Port == 0 || a.Port() == r.Port) }
	return (isFrom(began) || isFrom(beganWas)) && (isTo(other) || isTo(otherWas))
}

// mayHaveMade reports whether the state has the protocol, direction, addresses and port of
// the rule's packets. A translation by the host's own rules hides the latter.
func (f *Firewall) mayHaveMade(r pfconf.Rule, s pfconf.State) bool {
	if s.Domain != f.domain || s.Family != r.Family || s.Number != r.Proto.Number(r.Family) ||
		s.Direction != r.Direction {
		return false
	}
	near, far := r.From, r.To
	port := s.Far.Port()
	if r.Direction == pfconf.In {
		near, far = far, near
		port = s.Near.Port()
	}
	if s.NearWas.IsValid() || s.FarWas.IsValid() {
		port = r.Port
	}
	return (r.Port == 0 || port == r.Port) && (s.NearWas.IsValid() || s.Near.Addr() == near) &&
		(s.FarWas.IsValid() || s.Far.Addr() == far)
}
