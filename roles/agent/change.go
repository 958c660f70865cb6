package agent

import (
	"context"
	"errors"
	"io/fs"
	"sync"
	"syscall"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// change makes the changes and gives each its own fault. On a filter whose rules begin to
// count again with every load there must be one load only: all succeed or fail together.
// What goes to the pf beside it is made apart.
func (a *agent) change(ctx context.Context, changes []script.RuleChange) []*script.Error {
	faults := make([]*script.Error, len(changes))
	fw, err := a.filter()
	if err != nil {
		for i := range faults {
			faults[i] = ErrorOf(err)
		}
		return faults
	}
	if each, ok := fw.(pfconf.Gatherer); ok {
		changeEach(ctx, fw, each, changes, faults)
		return faults
	}
	var all script.RuleChange
	var together []int
	var apart sync.WaitGroup
	b, _ := fw.(*filterPair)
	for i, c := range changes {
		if b != nil && b.forPF(c) {
			apart.Go(func() { faults[i] = ErrorOf(changeOne(ctx, fw, c)) })
			continue
		}
		together = append(together, i)
		all.Kill = append(all.Kill, c.Kill...)
		all.Add = append(all.Add, c.Add...)
		all.Remove = append(all.Remove, c.Remove...)
	}
	fault := ErrorOf(changeOne(ctx, fw, all))
	for _, i := range together {
		faults[i] = fault
	}
	apart.Wait()
	return faults
}

// changeEach makes the changes in one load, without those whose states can't be killed.
func changeEach(ctx context.Context, fw pfconf.Firewall, each pfconf.Gatherer, changes []script.RuleChange,
	faults []*script.Error) {
	var load []pfconf.Change
	var at []int // in changes
	for i, c := range changes {
		if err := begin(ctx, fw, c); err != nil {
			faults[i] = ErrorOf(err)
			continue
		}
		load, at = append(load, pfconf.Change{Add: c.Add, Remove: c.Remove}), append(at, i)
	}
	for n, err := range each.ChangeEach(ctx, load) {
		faults[at[n]] = ErrorOf(err)
	}
}

func changeOne(ctx context.Context, fw pfconf.Firewall, c script.RuleChange) error {
	if err := begin(ctx, fw, c); err != nil || len(c.Add)+len(c.Remove) == 0 {
		return err
	}
	return fw.Change(ctx, c.Add, c.Remove)
}

// begin does what goes before the load.
func begin(ctx context.Context, fw pfconf.Firewall, c script.RuleChange) error {
	for _, r := range c.Add {
		if err := r.Validate(); err != nil {
			return err
		}
	}
	if len(c.Kill) == 0 {
		return nil
	}
	_, err := fw.KillFlows(ctx, c.Kill)
	return err
}

// filter returns the packet filter that Setup opened.
func (a *agent) filter() (pfconf.Firewall, error) {
	a.setup.Lock()
	defer a.setup.Unlock()
	if a.fw == nil {
		return nil, errors.New("this host is not set up as REMOTE: it has no packet filter open")
	}
	return a.fw, nil
}

// states returns the host's state table.
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

// tellSplats tells the orchestrator what the kernel has reported of itself.
func (a *agent) tellSplats() {
	if log := a.log.Load(); log != nil {
		if texts := log.Take(); len(texts) > 0 {
			_ = a.out.send(&Response{Splats: texts})
		}
	}
}

// notice tells the orchestrator something that is no answer.
func (a *agent) notice(text string) { _ = a.out.send(&Response{Notice: text}) }

// Natlook asks the packet filter of this host for the other side of a translated connection. The
// error is pfconf.ErrNoState if it knows none.
func Natlook(q pfconf.NATQuery) (pfconf.NATAnswer, error) {
	answer, err := natlook(q)
	switch {
	case errors.Is(err, pfconf.ErrNoState):
		err = hinted{err, "ask while the connection lives, with the addresses that this side of the filter sees; 'pfdivert pf-setup states' lists them"}
	case errors.Is(err, fs.ErrPermission):
		err = hinted{err, "only root may ask the packet filter: start it with sudo or doas"}
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENXIO):
		err = hinted{err, "this kernel offers no pf here: is it loaded, and /dev/pf visible in this jail?"}
	}
	return answer, err
}
