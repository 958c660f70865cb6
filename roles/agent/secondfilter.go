package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
	"pfdivert/pfconf/ipfw"
	"pfdivert/pfconf/pf"
	"pfdivert/pfconf/program"
)

// filterPair is a packet filter with FreeBSD's pf beside it, which has the rules with PFDivertTo,
// PFPass and RdrTo and no others.
type filterPair struct {
	pfconf.Firewall
	// pf is nil where it can't be used, and noPF says why.
	pf   *pf.Firewall
	noPF string
	// noRdr says why pf can't redirect, empty where it can.
	noRdr string
	// unknown: one of them is a question that failed.
	unknown bool
	on      bool                     // pf is switched on
	nics    map[pfconf.Family]string // towards the other host

	mu sync.Mutex
	in map[string]bool // pf's rules, by their labels: whether they make states
}

var (
	_ pfconf.Shower = (*filterPair)(nil)
	_ pfconf.Shaper = (*filterPair)(nil)
)

// Pipe has the filter make a pipe, which pf's rules can name as well.
func (b *filterPair) Pipe(ctx context.Context, number uint16, lossy bool) error {
	s, ok := b.Firewall.(pfconf.Shaper)
	if !ok {
		return fmt.Errorf("%s has no pipes", b.Name())
	}
	return s.Pipe(ctx, number, lossy)
}

// put opens pf beside the filter. That it can't be used is no error.
func put(ctx context.Context, fw pfconf.Firewall, s *script.Setup, run program.Runner,
	journal pfconf.Journal) *filterPair {
	b := &filterPair{Firewall: fw, in: map[string]bool{}, nics: map[pfconf.Family]string{}}
	for _, p := range s.Paths {
		nic, err := interfaceOf(p.Here)
		if err != nil {
			b.noPF, b.unknown = reason(err), true
			return b
		}
		if nic != "" {
			b.nics[pfconf.FamilyOf(p.Here)] = nic
		}
	}
	control := pf.NewControl(run, 0)
	status, err := control.Status(ctx)
	b.on = err == nil && status.Enabled
	var c checks
	c.pf(ctx, control, s, slices.Compact(slices.Sorted(maps.Values(b.nics))))
	if err = unfit(c); err == nil {
		// All that the anchor holds must be such that it can be put back.
		b.pf, err = pf.Open(ctx, pf.Config{Run: run, Journal: journal, RdrRules: true})
	}
	if err != nil {
		b.noPF, b.unknown = reason(err), c.failed()
		return b
	}
	var r checks
	if r.redirects(ctx, control, s); len(r) > 0 {
		b.noRdr, b.unknown = reason(unfit(r)), r.failed()
	}
	return b
}

// reason is an error with its hint.
func reason(err error) string {
	f := ErrorOf(err)
	if f.Hint == "" {
		return f.Text
	}
	return f.Text + " (" + f.Hint + ")"
}

// ofPF reports whether pf has the rule.
func ofPF(r pfconf.Rule) bool {
	return r.Action == pfconf.PFDivertTo || r.Action == pfconf.PFPass || r.Action == pfconf.RdrTo
}

// forPF reports whether pf has the rules of the change, and the other filter no part in it.
func (b *filterPair) forPF(c script.RuleChange) bool {
	return len(c.Add) > 0 && !slices.ContainsFunc(c.Add, func(r pfconf.Rule) bool { return !ofPF(r) })
}

// Load replaces the rules of each filter by those that are for it.
func (b *filterPair) Load(ctx context.Context, rules []pfconf.Rule) error {
	toPF, others := divide(rules)
	b.mu.Lock()
	had := slices.Collect(maps.Keys(b.in))
	b.mu.Unlock()
	err := b.Firewall.Load(ctx, others)
	if len(toPF)+len(had) > 0 {
		err = errors.Join(err, b.changePF(ctx, toPF, had))
	}
	return err
}

// divide tells the rules that pf has from the others.
func divide(rules []pfconf.Rule) (toPF, others []pfconf.Rule) {
	for _, r := range rules {
		if ofPF(r) {
			toPF = append(toPF, r)
		} else {
			others = append(others, r)
		}
	}
	return toPF, others
}

// Change has each filter make its part of the change. The parts are not one step.
func (b *filterPair) Change(ctx context.Context, add []pfconf.Rule, remove []string) error {
	toPF, others := divide(add)
	fromPF, rest := b.split(remove)
	var errs []error
	if len(others)+len(rest) > 0 {
		errs = append(errs, b.Firewall.Change(ctx, others, rest))
	}
	if len(toPF)+len(fromPF) > 0 {
		errs = append(errs, b.changePF(ctx, toPF, fromPF))
	}
	return errors.Join(errs...)
}

func (b *filterPair) changePF(ctx context.Context, add []pfconf.Rule, remove []string) error {
	if b.pf == nil {
		return fmt.Errorf("pf can't be used: %s", b.noPF)
	}
	redirects := func(r pfconf.Rule) bool {
		_, ok := r.RedirectsTo()
		return ok
	}
	if b.noRdr != "" && slices.ContainsFunc(add, redirects) {
		return fmt.Errorf("pf can't redirect: %s", b.noRdr)
	}
	if len(add) > 0 {
		if err := b.pf.Forget(ctx, add); err != nil {
			return err
		}
	}
	if err := b.pf.Change(ctx, add, remove); err != nil {
		return err
	}
	b.mu.Lock()
	var made []string
	for _, l := range remove {
		if b.in[l] {
			made = append(made, l)
		}
		delete(b.in, l)
	}
	for _, r := range add {
		b.in[r.Label] = r.Keep || r.Action == pfconf.RdrTo
	}
	b.mu.Unlock()
	// States go with their rules: were the agent killed, no one would know their labels.
	_, err := b.pf.KillLabels(ctx, made)
	return err
}

// split tells the labels of pf's rules from others.
func (b *filterPair) split(labels []string) (inPF, others []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range labels {
		if _, ok := b.in[l]; ok {
			inPF = append(inPF, l)
		} else {
			others = append(others, l)
		}
	}
	return inPF, others
}

// Counters asks each filter for those of its own rules.
func (b *filterPair) Counters(ctx context.Context, labels []string) (map[string]pfconf.Counters, error) {
	return ask(b, labels, func(fw pfconf.Firewall, labels []string) (map[string]pfconf.Counters, error) {
		return fw.Counters(ctx, labels)
	})
}

// Show has each filter show its own rules.
func (b *filterPair) Show(ctx context.Context, labels []string) (map[string]string, error) {
	return ask(b, labels, func(fw pfconf.Firewall, labels []string) (map[string]string, error) {
		if s, ok := fw.(pfconf.Shower); ok {
			return s.Show(ctx, labels)
		}
		return nil, nil
	})
}

// ask asks each filter about its own rules.
func ask[T any](b *filterPair, labels []string,
	of func(pfconf.Firewall, []string) (map[string]T, error)) (map[string]T, error) {
	all := map[string]T{}
	inPF, others := b.split(labels)
	for _, part := range []struct {
		fw     pfconf.Firewall
		labels []string
	}{{b.pf, inPF}, {b.Firewall, others}} {
		if len(part.labels) == 0 {
			continue
		}
		some, err := of(part.fw, part.labels)
		if err != nil {
			return nil, err
		}
		for l, v := range some {
			all[l] = v
		}
	}
	return all, nil
}

// Close closes both.
func (b *filterPair) Close(ctx context.Context) error {
	var err error
	if b.pf != nil {
		err = b.pf.Close(ctx)
	}
	return errors.Join(err, b.Firewall.Close(ctx))
}

// inspectors is ipfw with FreeBSD's pf beside it, as this program uses both: what one has stands
// behind what the other has. Only pf has states.
type inspectors struct {
	*ipfw.Inspector
	pf *pf.Inspector
}

var _ pfconf.Inspector = (*inspectors)(nil)

// openInspectors opens ipfw's inspector, with pf's where pf is switched on. Run nil means
// program.Exec.
func openInspectors(ctx context.Context, run program.Runner) (pfconf.Inspector, error) {
	d := &inspectors{ipfw.OpenInspector(run), pf.OpenInspector(run, true)}
	status, err := d.pf.Status(ctx)
	var failed *pf.Error
	switch {
	case errors.As(err, &failed) && failed.Absent():
		return d.Inspector, nil
	case err != nil:
		return nil, fmt.Errorf("asking whether pf is switched on: %w", err)
	case !status.Enabled:
		return d.Inspector, nil
	}
	return d, nil
}

// Overview is that of both: switched on if both are, and the states of both.
func (d *inspectors) Overview(ctx context.Context) (pfconf.Overview, error) {
	one, err := d.Inspector.Overview(ctx)
	if err != nil {
		return one, err
	}
	other, err := d.pf.Overview(ctx)
	return pfconf.Overview{
		Filter: one.Filter + ", " + other.Filter, Enabled: one.Enabled && other.Enabled,
		States: one.States + other.States, Own: one.Own + other.Own,
	}, err
}

// concat asks both and gives what they say one behind the other.
func concat[T any](ctx context.Context, of ...func(context.Context) ([]T, error)) ([]T, error) {
	var all []T
	for _, ask := range of {
		some, err := ask(ctx)
		all = append(all, some...)
		if err != nil {
			return all, err
		}
	}
	return all, nil
}

// Places are ipfw's sets and pf's anchors.
func (d *inspectors) Places(ctx context.Context) ([]pfconf.Place, error) {
	return concat(ctx, d.Inspector.Places, d.pf.Places)
}

// OwnRules are this program's in both.
func (d *inspectors) OwnRules(ctx context.Context) ([]pfconf.LoadedRule, error) {
	return concat(ctx, d.Inspector.OwnRules, d.pf.OwnRules)
}

// States are pf's.
func (d *inspectors) States(ctx context.Context) ([]pfconf.State, error) { return d.pf.States(ctx) }

// Kill removes states of pf's.
func (d *inspectors) Kill(ctx context.Context, states []pfconf.State) (int, error) {
	return d.pf.Kill(ctx, states)
}

// KillLabel removes states of pf's.
func (d *inspectors) KillLabel(ctx context.Context, label string) (int, error) {
	return d.pf.KillLabel(ctx, label)
}

// Flush removes this program's rules from both.
func (d *inspectors) Flush(ctx context.Context) ([]string, error) {
	return concat(ctx, d.Inspector.Flush, d.pf.Flush)
}

// Timeouts are those of both. What a system calls its own tells them apart.
func (d *inspectors) Timeouts(ctx context.Context) ([]pfconf.Setting, error) {
	return concat(ctx, d.Inspector.Timeouts, d.pf.Timeouts)
}

// Limits are those of both.
func (d *inspectors) Limits(ctx context.Context) ([]pfconf.Setting, error) {
	return concat(ctx, d.Inspector.Limits, d.pf.Limits)
}
