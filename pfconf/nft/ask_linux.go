package nft

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf/need"
)

// Ask finds out whether the kernel has the features, and whether Open would find its names
// and numbers unused in the current network namespace: the error is a *TakenError or a
// *ForeignRuleError if not, a *LoopbackDownError if lo is down, and a *MissingError without
// nf_tables. It changes nothing.
func Ask(ctx context.Context, c Config, features ...need.Name) (map[need.Name]ProbeResult, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	h, err := openHost()
	if err != nil {
		return nil, fmt.Errorf("ask nftables: %w", err)
	}
	f := &Firewall{config: c, host: h, tx: h.nf, rules: map[string]*loaded{}}
	f.changes.do, f.reads.do, f.lists.do = f.commitChanges, f.answer, f.list
	f.rx, err = openSocket()
	if err == nil {
		f.ct, err = openSocket()
	}
	answers := map[need.Name]ProbeResult{}
	if err == nil {
		for _, feature := range features {
			answers[feature] = f.Probe(feature)
		}
		err = f.unused()
	}
	if err != nil {
		err = fmt.Errorf("ask nftables: %w", err)
	}
	return answers, errors.Join(err, f.putBack())
}

// unused reports whether nothing has the table's name, the mark and the routing table's number, and
// lo is up.
func (f *Firewall) unused() error {
	for _, family := range f.config.families() {
		if err := f.host.routable(family); err != nil {
			return err
		}
	}
	// As in probe, a message that must fail keeps the rest from being done.
	r := f.rx.transaction()
	f.rx.mu.Lock()
	defer f.rx.mu.Unlock()
	table := r.newTable(own, exclusive)
	r.delTable(noTable, 0)
	rejected, err := f.rx.commit(r, noEcho)
	if rejected[table] == unix.EEXIST {
		return &TakenError{"table inet " + TableName}
	}
	return err
}
