package testbed

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"pfdivert/matrix"
	"pfdivert/pfconf"
	"pfdivert/roles/terminal"
)

// FilterAll stands for all engines, each in a column of its own.
const FilterAll = "all"

// Filters lists what -filter and filter= take.
func Filters() (all []string) {
	for _, e := range pfconf.Engines {
		all = append(all, string(e))
	}
	return append(all, FilterAll)
}

// ValidFilter refuses a filter that there is not; "" is the system's own.
func ValidFilter(name string) error {
	if all := Filters(); name != "" && !slices.Contains(all, name) {
		return terminal.WithHint(fmt.Errorf("there is no filter %q", name),
			matrix.Suggest(name, all)+"known are "+strings.Join(all, ", "))
	}
	if !pfconf.Engine(name).Built() {
		return terminal.WithHint(fmt.Errorf("this build of pfdivert has no filter %q", name),
			"make pfdivert-bpf builds one that has it: ./pfdivert-bpf")
	}
	return nil
}

// built are the engines of this build.
func built() []pfconf.Engine {
	return slices.DeleteFunc(slices.Clone(pfconf.Engines), func(e pfconf.Engine) bool { return !e.Built() })
}

// byFilter makes several testbeds of one whose host is tested with several engines. They take
// turns, because the host is the same.
func byFilter(beds []*Testbed) []*Testbed {
	var all []*Testbed
	for _, b := range beds {
		engines := []pfconf.Engine{pfconf.Engine(b.filter)}
		if b.filter == FilterAll {
			engines, b.turn = built(), &sync.Mutex{}
		}
		for _, e := range engines {
			one := *b
			one.Index = len(all)
			if b.filter == FilterAll {
				one.Name = strings.TrimPrefix(b.Name+"-"+string(e), "-")
			}
			one.Dial = func(ctx context.Context) (*Pair, error) {
				p, err := b.Dial(ctx)
				if p != nil {
					p.Options.Filter = e
				}
				return p, err
			}
			all = append(all, &one)
		}
	}
	return all
}

// Turn waits until no other testbed uses the same host, and returns what lets the next one.
func (b *Testbed) Turn() (done func()) {
	if b.turn == nil {
		return func() {}
	}
	b.turn.Lock()
	return b.turn.Unlock
}
