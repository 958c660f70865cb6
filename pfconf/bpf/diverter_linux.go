//go:build bpf

package bpf

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"pfdivert/pfconf/need"
)

// How many entries and flows there can be. The kernel takes memory for entries as they come; the
// flow that was used least makes room for a new one.
const (
	maxEntries = 1 << 14
	maxFlows   = 1 << 15
)

// Diverter has the programs, which the caller attaches to interfaces, and their maps.
type Diverter struct {
	rules, flows    *ebpf.Map
	ingress, egress *ebpf.Program
	noAssign        error // a *need.MissingError if the kernel has no bpf_sk_assign
}

// Open loads the programs. The error can be a *need.MissingError or wrap fs.ErrPermission. The
// caller closes the Diverter; programs that are attached still go on. A kernel without
// bpf_sk_assign is no error before an entry needs it.
func Open(c Config) (*Diverter, error) {
	d := &Diverter{}
	if err := d.load(c); err != nil {
		return nil, errors.Join(fmt.Errorf("load programs of BPF: %w", err), d.Close())
	}
	return d, nil
}

func (d *Diverter) load(c Config) (err error) {
	// Before Linux 5.11 maps count as locked memory. A process that may load programs may set this.
	_ = unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY})
	if err := Probe(); err != nil {
		return err
	}
	d.rules, err = ebpf.NewMap(&ebpf.MapSpec{Name: "pfdivert_rules", Type: ebpf.Hash, KeySize: keySize,
		ValueSize: valueSize, MaxEntries: maxEntries, Flags: unix.BPF_F_NO_PREALLOC})
	if err != nil {
		return err
	}
	d.flows, err = ebpf.NewMap(&ebpf.MapSpec{Name: "pfdivert_flows", Type: ebpf.LRUHash, KeySize: flowKeySize,
		ValueSize: 4, MaxEntries: maxFlows})
	if err != nil {
		return err
	}
	if d.egress, err = load("pfdivert_out", d.program(0).egress()); err != nil {
		return err
	}
	assign := asm.FnSkAssign
	if c.NoAssign {
		assign = noHelper
	}
	var missing *need.MissingError
	d.ingress, err = load("pfdivert_in", d.program(assign).ingress())
	if errors.As(err, &missing) {
		d.noAssign = err
		d.ingress, err = load("pfdivert_in", d.program(0).ingress())
	}
	return err
}

func (d *Diverter) program(assign asm.BuiltinFunc) *program {
	return &program{rules: d.rules, flows: d.flows, assign: assign}
}

// NoAssign returns a *need.MissingError if the kernel has no bpf_sk_assign: then no entry can have
// Divert.
func (d *Diverter) NoAssign() error { return d.noAssign }

// noHelper is one that no kernel has.
const noHelper = asm.BuiltinFunc(1 << 20)

func load(name string, instructions asm.Instructions) (*ebpf.Program, error) {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: name, Type: ebpf.SchedCLS, Instructions: instructions,
		License: "ISC"})
	var refused *ebpf.VerifierError
	if errors.As(err, &refused) && unknownHelper(refused) {
		err = &need.MissingError{Feature: need.BPFAssign, Err: err}
	}
	return p, err
}

// unknownHelper reports whether a program was refused for a helper that the kernel does not have
// (check_helper_call, kernel/bpf/verifier.c).
func unknownHelper(err *ebpf.VerifierError) bool {
	for _, line := range err.Log {
		if strings.HasPrefix(line, "invalid func ") || strings.HasPrefix(line, "unknown func ") ||
			strings.Contains(line, "program of this type cannot use helper") {
			return true
		}
	}
	return false
}

// Probe returns nil if the kernel takes programs of BPF from this process, a *need.MissingError if
// it certainly does not, and another error if that is not known. Only the initial user namespace
// may load such programs.
func Probe() error {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "ISC",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}})
	switch {
	case err == nil:
		return p.Close()
	case errors.Is(err, unix.ENOSYS):
		return &need.MissingError{Feature: need.BPF, Err: err}
	case errors.Is(err, unix.EPERM) && !initialUsers():
		return &need.MissingError{Feature: need.BPF,
			Err: fmt.Errorf("bpf(2) outside of the initial user namespace: %w", unix.EPERM)}
	}
	return err
}

// initialUsers reports whether this is the initial user namespace, or may be: there each user is
// itself (user_namespaces(7)).
func initialUsers() bool {
	b, err := os.ReadFile("/proc/self/uid_map")
	return err != nil || slices.Equal(strings.Fields(string(b)), []string{"0", "0", "4294967295"})
}

// Programs returns the descriptors of the programs for ingress and egress.
func (d *Diverter) Programs() (ingress, egress int) { return d.ingress.FD(), d.egress.FD() }

// Change removes entries and adds others, all or none.
func (d *Diverter) Change(remove, add []Entry) error {
	gone := make([][]byte, 0, len(remove))
	putBack := func(err error) error {
		for i, value := range gone {
			err = errors.Join(err, d.rules.Put(remove[i].key(), value))
		}
		return err
	}
	for _, e := range remove {
		value := make([]byte, valueSize)
		err := d.rules.Lookup(e.key(), value)
		if err == nil {
			err = d.rules.Delete(e.key())
		}
		if err != nil {
			return putBack(fmt.Errorf("remove %v: %w", e, err))
		}
		gone = append(gone, value)
	}
	for i, e := range add {
		err := d.noAssign
		if !e.Divert.IsValid() || err == nil {
			err = d.rules.Update(e.key(), e.value(), ebpf.UpdateNoExist)
		}
		if err == nil {
			continue
		}
		err = fmt.Errorf("add %v: %w", e, err)
		for _, e := range add[:i] {
			err = errors.Join(err, d.rules.Delete(e.key()))
		}
		return putBack(err)
	}
	return nil
}

// Counters reads an entry's.
func (d *Diverter) Counters(e Entry) (Counters, error) {
	value := make([]byte, valueSize)
	if err := d.rules.Lookup(e.key(), value); err != nil {
		return Counters{}, fmt.Errorf("read %v: %w", e, err)
	}
	return countersOf(value), nil
}

// Forget removes those of the flows that there are.
func (d *Diverter) Forget(flows []Flow) error {
	for _, f := range flows {
		if err := d.flows.Delete(f.key()); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("forget a flow: %w", err)
		}
	}
	return nil
}

// Close frees maps and programs. Those that are attached to an interface work on.
func (d *Diverter) Close() error {
	return errors.Join(d.ingress.Close(), d.egress.Close(), d.rules.Close(), d.flows.Close())
}
