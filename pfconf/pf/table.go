package pf

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"pfdivert/pfconf"
)

var _ pfconf.StateTable = (*Control)(nil)

func (c *Control) states(ctx context.Context, vv bool) ([]pfconf.State, error) {
	args := []string{"-ss"}
	if vv {
		args = append(args, "-vv")
	}
	r, err := c.pfctl(ctx, "", nothing, args...)
	if err != nil {
		return nil, err
	}
	states, err := ParseStates(strings.NewReader(r.Stdout), vv)
	if err != nil {
		return nil, fmt.Errorf("pfctl %s: %w", strings.Join(args, " "), err)
	}
	return states, nil
}

// States lists the whole table, of all routing domains.
func (c *Control) States(ctx context.Context) ([]pfconf.State, error) {
	return c.listVV.Get(ctx)
}

// Lookup returns the states of each flow in this routing domain, from one listing
// for all who ask. Their age and id are not known.
func (c *Control) Lookup(ctx context.Context, flows []pfconf.Flow) ([][]pfconf.State, error) {
	all, err := c.list.Get(ctx)
	if err != nil {
		return nil, err
	}
	found := make([][]pfconf.State, len(flows))
	for i, f := range flows {
		for _, s := range all {
			if c.of(s, f) {
				found[i] = append(found[i], s)
			}
		}
	}
	return found, nil
}

// of reports whether the state belongs to the flow.
func (c *Control) of(s pfconf.State, f pfconf.Flow) bool {
	if s.Domain != c.domain || s.Family != f.Family || s.Number != f.Proto.Number(f.Family) ||
		s.Near.Addr() != f.Near.Addr() || s.Far.Addr() != f.Far.Addr() {
		return false
	}
	switch {
	case f.Proto.HasPorts():
		return s.Near == f.Near && s.Far == f.Far
	case f.Proto == pfconf.ICMP && f.Echo != 0:
		// The id is on the side that began, the type on the other.
		if s.Direction == pfconf.In {
			return s.Far.Port() == f.Echo
		}
		return s.Near.Port() == f.Echo
	}
	return true
}

// KillFlows removes the states of the flows, one by one by their ids.
func (c *Control) KillFlows(ctx context.Context, flows []pfconf.Flow) (int, error) {
	if len(flows) == 0 {
		return 0, nil
	}
	all, err := c.listVV.Get(ctx)
	if err != nil {
		return 0, err
	}
	killed := 0
	for _, s := range all {
		for _, f := range flows {
			if !c.of(s, f) {
				continue
			}
			n, err := c.kill(ctx, "-k", "id", "-k", s.ID)
			if err != nil {
				return killed, fmt.Errorf("removing the state %q: %w", Line(s), err)
			}
			killed += n
			break
		}
	}
	return killed, nil
}

// KillLabels removes the states that rules with these labels created in this
// routing domain.
func (c *Control) KillLabels(ctx context.Context, labels []string) (int, error) {
	killed := 0
	for _, l := range labels {
		if !pfconf.ValidLabel(l) {
			return killed, fmt.Errorf("%q is no label of this program: its states are left alone", l)
		}
		n, err := c.kill(ctx, append(c.inDomain(), "-k", "label", "-k", l)...)
		if err != nil {
			return killed, fmt.Errorf("removing the states of label %s: %w", l, err)
		}
		killed += n
	}
	return killed, nil
}

// from reports whether the state was begun by an address of the first prefix with one of
// the second, and neither was translated.
func (c *Control) from(s pfconf.State, first, second netip.Prefix) bool {
	began, other := s.Near, s.Far
	if s.Direction == pfconf.In {
		began, other = other, began
	}
	return s.Domain == c.domain && !s.NearWas.IsValid() && !s.FarWas.IsValid() &&
		first.Contains(began.Addr()) && second.Contains(other.Addr())
}

// killBetween removes the states that an address of the first prefix began with one of
// the second.
func (c *Control) killBetween(ctx context.Context, first, second netip.Prefix) error {
	_, err := c.kill(ctx, append(c.inDomain(), "-k", first.String(), "-k", second.String())...)
	if err != nil {
		return fmt.Errorf("removing the states from %v to %v: %w", first, second, err)
	}
	return nil
}

// inDomain are the words that restrict a removal to the routing domain.
func (c *Control) inDomain() []string {
	if c.domain == 0 {
		return nil
	}
	return []string{"-V", strconv.Itoa(c.domain)}
}

// KillNetwork removes the states of this routing domain that have an end in the
// prefix. It is asked first whether there are any: a removal takes a pfctl each way.
func (c *Control) KillNetwork(ctx context.Context, p netip.Prefix) error {
	all, err := c.list.Get(ctx)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(all, func(s pfconf.State) bool {
		return s.Domain == c.domain && (p.Contains(s.Near.Addr()) || p.Contains(s.Far.Addr()))
	}) {
		return nil
	}
	everything := netip.PrefixFrom(pfconf.FamilyOf(p.Addr()).Unspecified(), 0)
	if err := c.killBetween(ctx, p, everything); err != nil {
		return err
	}
	return c.killBetween(ctx, everything, p)
}
