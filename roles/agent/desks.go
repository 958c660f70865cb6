package agent

import (
	"context"
	"errors"
	"fmt"

	"pfdivert/pfconf"
	"pfdivert/pfconf/ipfw"
	"pfdivert/pfconf/pf"
	"pfdivert/pfconf/program"
)

// desks is ipfw with FreeBSD's pf beside it, as this program uses both: what one has stands behind
// what the other has. Only pf has states.
type desks struct {
	*ipfw.Desk
	pf *pf.Desk
}

var _ pfconf.Desk = (*desks)(nil)

// openDesks opens ipfw's desk, with pf's where pf is switched on. Run nil means program.Exec.
func openDesks(ctx context.Context, run program.Runner) (pfconf.Desk, error) {
	d := &desks{ipfw.OpenDesk(run), pf.OpenDesk(run, true)}
	status, err := d.pf.Status(ctx)
	var failed *pf.Error
	switch {
	case errors.As(err, &failed) && failed.Absent():
		return d.Desk, nil
	case err != nil:
		return nil, fmt.Errorf("asking whether pf is switched on: %w", err)
	case !status.Enabled:
		return d.Desk, nil
	}
	return d, nil
}

// Overview is that of both: switched on if both are, and the states of both.
func (d *desks) Overview(ctx context.Context) (pfconf.Overview, error) {
	one, err := d.Desk.Overview(ctx)
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
func (d *desks) Places(ctx context.Context) ([]pfconf.Place, error) {
	return concat(ctx, d.Desk.Places, d.pf.Places)
}

// OwnRules are this program's in both.
func (d *desks) OwnRules(ctx context.Context) ([]pfconf.LoadedRule, error) {
	return concat(ctx, d.Desk.OwnRules, d.pf.OwnRules)
}

// States are pf's.
func (d *desks) States(ctx context.Context) ([]pfconf.State, error) { return d.pf.States(ctx) }

// Kill removes states of pf's.
func (d *desks) Kill(ctx context.Context, states []pfconf.State) (int, error) {
	return d.pf.Kill(ctx, states)
}

// KillLabel removes states of pf's.
func (d *desks) KillLabel(ctx context.Context, label string) (int, error) {
	return d.pf.KillLabel(ctx, label)
}

// Flush removes this program's rules from both.
func (d *desks) Flush(ctx context.Context) ([]string, error) {
	return concat(ctx, d.Desk.Flush, d.pf.Flush)
}

// Timeouts are those of both. What a system calls its own tells them apart.
func (d *desks) Timeouts(ctx context.Context) ([]pfconf.Setting, error) {
	return concat(ctx, d.Desk.Timeouts, d.pf.Timeouts)
}

// Limits are those of both.
func (d *desks) Limits(ctx context.Context) ([]pfconf.Setting, error) {
	return concat(ctx, d.Desk.Limits, d.pf.Limits)
}
