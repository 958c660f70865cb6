package ipfw

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"pfdivert/pfconf"
	"pfdivert/pfconf/program"
)

// Inspector is a pfconf.Inspector of the host's ipfw: this program's rules are those whose comment
// is one of its labels. They keep no states, so there are none to show or to remove.
type Inspector struct {
	*Control
	pfconf.Stateless
}

var _ pfconf.Inspector = (*Inspector)(nil)

// OpenInspector makes one. Run nil means program.Exec.
func OpenInspector(run program.Runner) *Inspector { return &Inspector{Control: NewControl(run)} }

// Close does nothing.
func (*Inspector) Close() error { return nil }

// Overview asks ipfw for it. The states are those of the host's dynamic rules.
func (d *Inspector) Overview(ctx context.Context) (o pfconf.Overview, err error) {
	rules, err := d.OwnRules(ctx)
	if err != nil {
		return o, err
	}
	enabled, err := d.sysctl(ctx, enableName(pfconf.Inet))
	if err != nil {
		return o, err
	}
	o = pfconf.Overview{Filter: "ipfw", Enabled: enabled != 0, Own: len(rules)}
	o.States, err = d.sysctl(ctx, "net.inet.ip.fw.dyn_count")
	return o, err
}

// Places are the sets that have rules. One is this program's if all its rules are.
func (d *Inspector) Places(ctx context.Context) ([]pfconf.Place, error) {
	rules, err := d.list(ctx)
	if err != nil {
		return nil, err
	}
	foreign := map[int]bool{}
	var sets []int
	for _, e := range rules {
		foreign[e.set] = foreign[e.set] || e.label() == ""
		sets = append(sets, e.set)
	}
	slices.Sort(sets)
	var places []pfconf.Place
	for _, set := range slices.Compact(sets) {
		places = append(places, pfconf.Place{Name: setName(set), Own: !foreign[set]})
	}
	return places, nil
}

func setName(set int) string { return fmt.Sprintf("set %d", set) }

// OwnRules are the rules with a label of this program.
func (d *Inspector) OwnRules(ctx context.Context) ([]pfconf.LoadedRule, error) {
	rules, err := d.list(ctx)
	if err != nil {
		return nil, err
	}
	var own []pfconf.LoadedRule
	for _, e := range rules {
		if l := e.label(); l != "" {
			own = append(own, pfconf.LoadedRule{Label: l, Packets: e.packets, Place: setName(e.set),
				Text: fmt.Sprintf("%05d %s", e.number, e.text)})
		}
	}
	return own, nil
}

// Kill fails unless there is nothing to remove.
func (d *Inspector) Kill(_ context.Context, states []pfconf.State) (int, error) {
	if len(states) > 0 {
		return 0, errors.New("ipfw's static rules keep no states")
	}
	return 0, nil
}

// KillLabel has nothing to remove.
func (d *Inspector) KillLabel(context.Context, string) (int, error) { return 0, nil }

// Flush deletes the sets in which all rules are this program's.
func (d *Inspector) Flush(ctx context.Context) ([]string, error) {
	rules, err := d.list(ctx)
	if err != nil {
		return nil, err
	}
	own, foreign := map[int]int{}, map[int]bool{}
	for _, e := range rules {
		if e.label() == "" {
			foreign[e.set] = true
		} else {
			own[e.set]++
		}
	}
	var done []string
	for set := range lastSet + 1 {
		switch {
		case own[set] == 0:
			continue
		case foreign[set]:
			return done, hinted{
				fmt.Errorf("ipfw's set %d has rules of this program and others", set),
				"look at `ipfw -S list`, and remove those whose comment begins with " + pfconf.LabelPrefix,
			}
		}
		if _, err := d.do(ctx, fmt.Sprintf("delete set %d\nset enable %[1]d\n", set)); err != nil {
			return done, fmt.Errorf("emptying ipfw's set %d: %w", set, err)
		}
		done = append(done, fmt.Sprintf("%s of set %d", pfconf.Count(own[set], "rule"), set))
	}
	return done, nil
}

// Names of ipfw's settings, by pf.conf(5)'s for the same.
var (
	timeoutNames = [][2]string{
		{"tcp.first", "dyn_syn_lifetime"}, {"tcp.established", "dyn_ack_lifetime"},
		{"tcp.closing", "dyn_fin_lifetime"}, {"tcp.closed", "dyn_rst_lifetime"},
		{"udp.multiple", "dyn_udp_lifetime"}, {"other.first", "dyn_short_lifetime"},
	}
	limitNames = [][2]string{{"states", "dyn_max"}, {"src-nodes", "dyn_parent_max"}}
)

// Timeouts are those of the host's dynamic rules.
func (d *Inspector) Timeouts(ctx context.Context) ([]pfconf.Setting, error) {
	return d.settings(ctx, timeoutNames)
}

// Limits are the most dynamic rules.
func (d *Inspector) Limits(ctx context.Context) ([]pfconf.Setting, error) {
	return d.settings(ctx, limitNames)
}

func (d *Inspector) settings(ctx context.Context, names [][2]string) ([]pfconf.Setting, error) {
	var all []pfconf.Setting
	for _, n := range names {
		name := "net.inet.ip.fw." + n[1]
		value, err := d.sysctl(ctx, name)
		if err != nil {
			return nil, err
		}
		all = append(all, pfconf.Setting{Name: n[0], Value: int64(value), System: name})
	}
	return all, nil
}
