package agent

import (
	"context"

	"pfdivert/pfconf"
)

// noStates is the state table of a LOCAL that does not filter, or whose filter keeps
// no state in the suite's way: there is nothing in it.
type noStates struct{}

func (noStates) States(context.Context) ([]pfconf.State, error) { return nil, nil }

func (noStates) Lookup(_ context.Context, flows []pfconf.Flow) ([][]pfconf.State, error) {
	return make([][]pfconf.State, len(flows)), nil
}

func (noStates) KillFlows(context.Context, []pfconf.Flow) (int, error) { return 0, nil }

func (noStates) KillLabels(context.Context, []string) (int, error) { return 0, nil }
