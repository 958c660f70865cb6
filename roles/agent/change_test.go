package agent

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// gatherer stands for a filter that makes many changes in one load. It refuses a rule with the
// label regress-bad, and can't kill the states of a flow without a family.
type gatherer struct {
	mainFilter
	loads [][]pfconf.Change
}

func (g *gatherer) ChangeEach(_ context.Context, changes []pfconf.Change) []error {
	g.loads = append(g.loads, changes)
	errs := make([]error, len(changes))
	for i, c := range changes {
		if len(c.Add) > 0 && c.Add[0].Label == "regress-bad" {
			errs[i] = errors.New("refused")
		}
	}
	return errs
}

func (g *gatherer) KillFlows(_ context.Context, flows []pfconf.Flow) (int, error) {
	if flows[0].Family == 0 {
		return 0, errors.New("no such states")
	}
	g.note("kill %d", len(flows))
	return len(flows), nil
}

// A filter that can gets all changes of a request in one load, behind the killing of
// states; one that is wrong leaves the others' alone.
func TestChangesInOneLoad(t *testing.T) {
	g := &gatherer{}
	a := &agent{fw: g}
	rule := func(label string) []pfconf.Rule {
		r := besideRule("regress-a", pfconf.DivertPacket)
		r.Label = label
		return []pfconf.Rule{r}
	}
	flow := pfconf.Flow{Family: pfconf.Inet, Proto: pfconf.UDP, Near: netip.MustParseAddrPort("10.0.0.1:1"),
		Far: netip.MustParseAddrPort("10.0.0.2:2")}
	faults := a.change(t.Context(), []script.RuleChange{
		{Remove: []string{"regress-old"}},
		{Kill: []pfconf.Flow{flow, flow}, Add: rule("regress-a")},
		{Add: rule("regress-bad")},
		{Add: rule("no label of ours")},
		{Kill: []pfconf.Flow{{}}, Add: rule("regress-b")},
		{Add: rule("regress-c")},
	})
	for i, want := range []string{"", "", "refused", "the label must begin", "no such states", ""} {
		if f := faults[i]; (f != nil) != (want != "") || f != nil && !strings.Contains(f.Text, want) {
			t.Errorf("change %d: %v, want %q", i, f, want)
		}
	}
	if len(g.loads) != 1 || len(g.loads[0]) != 4 || !slices.Equal(g.said, []string{"kill 2"}) {
		t.Errorf("%d loads: %+v, and %q", len(g.loads), g.loads, g.said)
	}
}
