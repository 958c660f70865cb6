package agent

import (
	"context"
	"errors"
	"sync"

	"pfdivert/pfconf"
)

// change makes the changes side by side, so that the filter can make them in
// one load, and gives each its own fault. On a filter whose rules begin to count again
// with every load there must be one only: all succeed or fail together. What goes to the pf beside it is made apart.
func (a *agent) change(ctx context.Context, changes []Change) []*Fault {
	faults := make([]*Fault, len(changes))
	if fw, err := a.filter(); err == nil && !fw.KeepsCounters() {
		var all Change
		var together []int
		var apart sync.WaitGroup
		b, _ := fw.(*beside)
		for i, c := range changes {
			if b != nil && b.forPF(c) {
				apart.Go(func() { faults[i] = FaultOf(a.changeOne(ctx, c)) })
				continue
			}
			together = append(together, i)
			all.Kill = append(all.Kill, c.Kill...)
			all.Add = append(all.Add, c.Add...)
			all.Remove = append(all.Remove, c.Remove...)
		}
		fault := FaultOf(a.changeOne(ctx, all))
		for _, i := range together {
			faults[i] = fault
		}
		apart.Wait()
		return faults
	}
	var all sync.WaitGroup
	for i, c := range changes {
		all.Go(func() {
			faults[i] = FaultOf(a.changeOne(ctx, c))
		})
	}
	all.Wait()
	return faults
}

func (a *agent) changeOne(ctx context.Context, c Change) error {
	fw, err := a.filter()
	if err != nil {
		return err
	}
	for _, r := range c.Add {
		if err := r.Validate(); err != nil {
			return err
		}
	}
	if len(c.Kill) > 0 {
		if _, err := fw.KillFlows(ctx, c.Kill); err != nil {
			return err
		}
	}
	if len(c.Add)+len(c.Remove) == 0 {
		return nil
	}
	return fw.Change(ctx, c.Add, c.Remove)
}

// filter gives the packet filter that Setup opened.
func (a *agent) filter() (pfconf.Firewall, error) {
	a.setup.Lock()
	defer a.setup.Unlock()
	if a.fw == nil {
		return nil, errors.New("this host is not set up as REMOTE: it has no packet filter open")
	}
	return a.fw, nil
}

// states gives the host's state table.
func (a *agent) states() (pfconf.StateTable, error) {
	a.setup.Lock()
	defer a.setup.Unlock()
	switch {
	case a.fw != nil:
		return a.fw, nil
	case a.table != nil:
		return a.table, nil
	}
	return nil, errors.New("this host is not set up: its states are not known")
}

// stateDir is where journals and locks are.
func (a *agent) stateDir() string {
	if a.opt.StateDir != "" {
		return a.opt.StateDir
	}
	return StateDir
}

// notice tells the orchestrator something that is no answer.
func (a *agent) notice(text string) { _ = a.out.send(&Answer{Notice: text}) }
