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

// maxFlows is how many flows there can be. The one that was used least makes room for a new one.
const maxFlows = 1 << 15

// Diverter has the programs, which the caller attaches to interfaces, and their maps.
type Diverter struct {
	entries
	flows           *ebpf.Map
	ingress, egress *ebpf.Program
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
	if err := Probe(); err != nil {
		return err
	}
	if err := d.open(); err != nil {
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
	assign := c.assign()
	var missing *need.MissingError
	d.ingress, err = load("pfdivert_in", d.program(assign).ingress())
	if errors.As(err, &missing) {
		d.noListener = err
		d.ingress, err = load("pfdivert_in", d.program(0).ingress())
	}
	return err
}

func (d *Diverter) program(assign asm.BuiltinFunc) *program {
	return &program{rules: d.rules, flows: d.flows, assign: assign}
}

// NoAssign returns a *need.MissingError if the kernel has no bpf_sk_assign: then no entry can have
// Divert.
func (d *Diverter) NoAssign() error { return d.noListener }

// assign is the helper that gives packets to sockets.
func (c Config) assign() asm.BuiltinFunc {
	if c.NoAssign {
		return noHelper
	}
	return asm.FnSkAssign
}

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
	return says(err, "invalid func ", "unknown func ", "program of this type cannot use helper")
}

// says reports whether a line of the verifier's has one of the words.
func says(err *ebpf.VerifierError, words ...string) bool {
	return slices.ContainsFunc(err.Log, func(line string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(line, w) })
	})
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
