//go:build bpf

package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// maxEntries is how many entries there can be. The kernel takes memory for them as they come.
const maxEntries = 1 << 14

// entries are the map of rules, which a program looks packets up in.
type entries struct {
	rules *ebpf.Map
	// noListener, if not nil, is why no entry can have Divert.
	noListener error
}

func (e *entries) open() (err error) {
	// Before Linux 5.11 maps count as locked memory. A process that may load programs may set this.
	_ = unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY})
	e.rules, err = ebpf.NewMap(&ebpf.MapSpec{Name: "pfdivert_rules", Type: ebpf.Hash, KeySize: keySize,
		ValueSize: valueSize, MaxEntries: maxEntries, Flags: unix.BPF_F_NO_PREALLOC})
	return err
}

// Change removes entries and adds others, all or none.
func (m *entries) Change(remove, add []Entry) error {
	gone := make([][]byte, 0, len(remove))
	putBack := func(err error) error {
		for i, value := range gone {
			err = errors.Join(err, m.rules.Put(remove[i].key(), value))
		}
		return err
	}
	for _, e := range remove {
		value := make([]byte, valueSize)
		err := m.rules.Lookup(e.key(), value)
		if err == nil {
			err = m.rules.Delete(e.key())
		}
		if err != nil {
			return putBack(fmt.Errorf("remove %v: %w", e, err))
		}
		gone = append(gone, value)
	}
	for i, e := range add {
		err := m.noListener
		if !e.Divert.IsValid() || err == nil {
			err = m.rules.Update(e.key(), e.value(), ebpf.UpdateNoExist)
		}
		if err == nil {
			continue
		}
		err = fmt.Errorf("add %v: %w", e, err)
		for _, e := range add[:i] {
			err = errors.Join(err, m.rules.Delete(e.key()))
		}
		return putBack(err)
	}
	return nil
}

// Counters reads an entry's.
func (m *entries) Counters(e Entry) (Counters, error) {
	value := make([]byte, valueSize)
	if err := m.rules.Lookup(e.key(), value); err != nil {
		return Counters{}, fmt.Errorf("read %v: %w", e, err)
	}
	return countersOf(value), nil
}
