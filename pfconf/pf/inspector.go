package pf

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"pfdivert/pfconf"
	"pfdivert/pfconf/program"
)

// Inspector is a pfconf.Inspector of the host's pf: this program's rules are those in DefaultAnchor
// and the anchors below it.
type Inspector struct{ *Control }

var _ pfconf.Inspector = (*Inspector)(nil)

// OpenInspector makes one. Run nil means program.Exec. rdrRules is as in Config.
func OpenInspector(run Runner, rdrRules bool) *Inspector {
	d := &Inspector{NewControl(run, 0)}
	d.rdrRules = rdrRules
	return d
}

// Close does nothing.
func (*Inspector) Close() error { return nil }

// Overview asks pf for it.
func (d *Inspector) Overview(ctx context.Context) (o pfconf.Overview, err error) {
	status, err := d.Status(ctx)
	if err != nil {
		return o, err
	}
	rules, err := d.OwnRules(ctx)
	return pfconf.Overview{Filter: "pf", Enabled: status.Enabled, States: status.States, Own: len(rules)}, err
}

// Places are the anchors: `pfctl -v -s Anchors` prints a line for each, indented, with
// those below it.
func (d *Inspector) Places(ctx context.Context) ([]pfconf.Place, error) {
	r, err := d.pfctl(ctx, "", nothing, "-v", "-s", "Anchors")
	if err != nil {
		return nil, err
	}
	var places []pfconf.Place
	for _, line := range program.Lines(r.Stdout) {
		name := strings.TrimSpace(line)
		places = append(places, pfconf.Place{Name: name, Own: ownAnchor(name)})
	}
	return places, nil
}

func ownAnchor(name string) bool {
	return name == DefaultAnchor || strings.HasPrefix(name, DefaultAnchor+"/")
}

// ownAnchors are this program's that are there.
func (d *Inspector) ownAnchors(ctx context.Context) ([]string, error) {
	places, err := d.Places(ctx)
	if err != nil {
		return nil, err
	}
	var own []string
	for _, p := range places {
		if p.Own {
			own = append(own, p.Name)
		}
	}
	return own, nil
}

// OwnRules are the rules in this program's anchors, with whatever label: no one else
// should have any there.
func (d *Inspector) OwnRules(ctx context.Context) ([]pfconf.LoadedRule, error) {
	anchors, err := d.ownAnchors(ctx)
	if err != nil {
		return nil, err
	}
	var all []pfconf.LoadedRule
	for _, a := range anchors {
		text, err := d.content(ctx, a)
		if err != nil {
			return nil, err
		}
		r, err := d.pfctl(ctx, "", nothing, "-a", a, "-s", "labels")
		if err != nil {
			return nil, err
		}
		counted, err := parseLabels(r.Stdout)
		if err != nil {
			return nil, err
		}
		for _, line := range program.Lines(text) {
			label := labelOf(line)
			all = append(all, pfconf.LoadedRule{Label: label, Packets: counted[label].Matched, Place: a, Text: line})
		}
	}
	return all, nil
}

// Kill removes the states by their ids.
func (d *Inspector) Kill(ctx context.Context, states []pfconf.State) (int, error) {
	killed := 0
	for _, s := range states {
		n, err := d.kill(ctx, "-k", "id", "-k", s.ID)
		if err != nil {
			return killed, fmt.Errorf("removing the state %q: %w", Line(s), err)
		}
		killed += n
	}
	return killed, nil
}

// KillLabel removes the states of one label of this program's, or of all that its rules carry.
func (d *Inspector) KillLabel(ctx context.Context, label string) (int, error) {
	labels := []string{label}
	if label == "" {
		var err error
		if labels, err = d.ownLabels(ctx); err != nil {
			return 0, err
		}
	}
	return d.KillLabels(ctx, labels)
}

// ownLabels are the labels of this program's rules.
func (d *Inspector) ownLabels(ctx context.Context) ([]string, error) {
	rules, err := d.OwnRules(ctx)
	if err != nil {
		return nil, err
	}
	var labels []string
	for _, r := range rules {
		if pfconf.ValidLabel(r.Label) {
			labels = append(labels, r.Label)
		}
	}
	slices.Sort(labels)
	return slices.Compact(labels), nil
}

// Flush empties this program's anchors, the innermost first: an anchor goes with its last
// rule. Then it removes the states of the labels that were there. It refuses when someone else
// has put a rule there.
func (d *Inspector) Flush(ctx context.Context) ([]string, error) {
	rules, err := d.OwnRules(ctx)
	if err != nil {
		return nil, err
	}
	held := map[string]int{} // rules by anchor
	var labels []string
	for _, r := range rules {
		switch {
		case pfconf.ValidLabel(r.Label):
			labels = append(labels, r.Label)
		case !strings.HasPrefix(r.Text, "anchor "): // the call of those below it
			return nil, hinted{
				fmt.Errorf("the anchor %s holds a rule that is not this program's: %q", r.Place, r.Text),
				d.lookAt(r.Place),
			}
		}
		held[r.Place]++
	}
	var done []string
	cleared := func(line string) bool { return line == "rules cleared" || line == "nat cleared" }
	innermost := func(a, b string) int { return cmp.Or(strings.Count(b, "/")-strings.Count(a, "/"), cmp.Compare(a, b)) }
	for _, a := range slices.SortedFunc(maps.Keys(held), innermost) {
		for _, list := range d.lists() {
			if _, err := d.pfctl(ctx, "", cleared, "-a", a, "-F", list); err != nil {
				return done, fmt.Errorf("emptying the anchor %s: %w", a, err)
			}
		}
		done = append(done, pfconf.Count(held[a], "rule")+" of anchor "+a)
	}
	slices.Sort(labels)
	killed, err := d.KillLabels(ctx, slices.Compact(labels))
	if killed > 0 {
		done = append(done, pfconf.Count(killed, "state"))
	}
	return done, err
}

var (
	timeoutLine = regexp.MustCompile(`^([a-z.]+) +([0-9]+)(s| states)$`)
	limitLine   = regexp.MustCompile(`^([a-z-]+) +hard limit +([0-9]+)$`)
)

// Timeouts are what `pfctl -s timeouts` prints, among them the numbers of states from
// which on the others shrink.
func (d *Inspector) Timeouts(ctx context.Context) ([]pfconf.Setting, error) {
	return d.settings(ctx, "timeouts", timeoutLine)
}

// Limits are what `pfctl -s memory` prints.
func (d *Inspector) Limits(ctx context.Context) ([]pfconf.Setting, error) {
	return d.settings(ctx, "memory", limitLine)
}

func (d *Inspector) settings(ctx context.Context, what string, form *regexp.Regexp) ([]pfconf.Setting, error) {
	r, err := d.pfctl(ctx, "", nothing, "-s", what)
	if err != nil {
		return nil, err
	}
	var all []pfconf.Setting
	for _, line := range program.Lines(r.Stdout) {
		m := form.FindStringSubmatch(line)
		if m == nil {
			return nil, fmt.Errorf("pfctl -s %s: not understood: %q", what, line)
		}
		n, err := strconv.ParseInt(m[2], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("pfctl -s %s: %q: %w", what, line, err)
		}
		s := pfconf.Setting{Name: m[1], Value: n, System: m[1]}
		if len(m) > 3 && m[3] == " states" {
			s.Unit = "states"
		}
		all = append(all, s)
	}
	return all, nil
}
