package pfconf

import "context"

// Stateless is the state table of a filter that keeps no states, or none in this
// program's way: there is nothing in it.
type Stateless struct{}

var _ StateTable = Stateless{}

// States lists nothing.
func (Stateless) States(context.Context) ([]State, error) { return nil, nil }

// Lookup finds no state of any flow.
func (Stateless) Lookup(_ context.Context, flows []Flow) ([][]State, error) {
	return make([][]State, len(flows)), nil
}

// KillFlows has nothing to remove.
func (Stateless) KillFlows(context.Context, []Flow) (int, error) { return 0, nil }

// KillLabels has nothing to remove.
func (Stateless) KillLabels(context.Context, []string) (int, error) { return 0, nil }
