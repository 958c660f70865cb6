package nft

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf"
	"pfdivert/pfconf/netlink"
)

// KillFlows removes the flows' states; see pfconf.StateTable.
func (f *Firewall) KillFlows(ctx context.Context, flows []pfconf.Flow) (int, error) {
	s, err := search(flows)
	if err != nil {
		return 0, fmt.Errorf("kill states: %w", err)
	}
	killed, err := f.kill(s.tuples, nil)
	if err != nil || len(s.listed) == 0 {
		return killed, err
	}
	n, err := f.killListed(ctx, func(e entry) bool {
		return slices.ContainsFunc(s.listed, func(i int) bool { return e.of(flows[i]) })
	})
	return killed + n, err
}

// KillLabels removes the states that packets in the direction of the rules
// began; see pfconf.StateTable. A label that is not loaded is an error.
func (f *Firewall) KillLabels(ctx context.Context, labels []string) (int, error) {
	f.mu.RLock()
	rules := f.rules
	f.mu.RUnlock()
	for _, label := range labels {
		if rules[label] == nil {
			return 0, fmt.Errorf("kill states: no rule %q is loaded", label)
		}
	}
	return f.killListed(ctx, func(e entry) bool {
		return slices.ContainsFunc(labels, func(label string) bool {
			r := rules[label].rule
			return e.orig.family == r.Family && int(e.orig.number) == r.Proto.Number(r.Family) &&
				e.orig.src.Addr() == r.From && e.orig.dst.Addr() == r.To && e.orig.dst.Port() == r.Port
		})
	})
}

// killListed removes the entries of the table that are wanted.
func (f *Firewall) killListed(ctx context.Context, wanted func(entry) bool) (int, error) {
	entries, err := f.entries(ctx)
	if err != nil {
		return 0, err
	}
	var tuples []tuple
	var ids [][]byte
	for _, e := range entries {
		if wanted(e) {
			tuples, ids = append(tuples, e.orig), append(ids, e.id)
		}
	}
	return f.kill(tuples, ids)
}

// kill removes the entries with the tuples, and with the ids where they are
// given: then not a later entry of the same flow.
func (f *Firewall) kill(tuples []tuple, ids [][]byte) (int, error) {
	if f.bpf != nil {
		if err := f.bpf.forget(tuples); err != nil {
			return 0, fmt.Errorf("kill states: %w", err)
		}
	}
	return f.ct.kill(tuples, ids)
}

func (s *socket) kill(tuples []tuple, ids [][]byte) (int, error) {
	killed := 0
	var failed error
	s.mu.Lock()
	err := s.each(ctDelete, unix.NLM_F_ACK, tuples, ids, func(_ int, m netlink.Message) {
		switch m.Errno {
		case 0:
			killed++
		case unix.ENOENT:
		default:
			failed = m.Errno
		}
	})
	s.mu.Unlock()
	if err == nil {
		err = failed
	}
	if err != nil {
		return killed, fmt.Errorf("kill states: %w", noConntrack(err))
	}
	return killed, nil
}
