//go:build !(linux && bpf)

package bpf

// Diverter is what a build with the tag bpf has.
type Diverter struct{}

// Open returns ErrNotBuilt.
func Open(Config) (*Diverter, error) { return nil, ErrNotBuilt }

// Lookup is what a build with the tag bpf has.
type Lookup struct{}

// OpenLookup returns ErrNotBuilt.
func OpenLookup(Config) (*Lookup, error) { return nil, ErrNotBuilt }

// Change returns ErrNotBuilt.
func (*Lookup) Change(remove, add []Entry) error { return ErrNotBuilt }

// Counters returns ErrNotBuilt.
func (*Lookup) Counters(Entry) (Counters, error) { return Counters{}, ErrNotBuilt }

// Close returns ErrNotBuilt.
func (*Lookup) Close() error { return ErrNotBuilt }

// Probe returns ErrNotBuilt, as the others do.
func Probe() error { return ErrNotBuilt }

// Programs is for nothing.
func (*Diverter) Programs() (ingress, egress int) { return -1, -1 }

// NoAssign returns ErrNotBuilt.
func (*Diverter) NoAssign() error { return ErrNotBuilt }

// Change returns ErrNotBuilt.
func (*Diverter) Change(remove, add []Entry) error { return ErrNotBuilt }

// Counters returns ErrNotBuilt.
func (*Diverter) Counters(Entry) (Counters, error) { return Counters{}, ErrNotBuilt }

// Forget returns ErrNotBuilt.
func (*Diverter) Forget([]Flow) error { return ErrNotBuilt }

// Close returns ErrNotBuilt.
func (*Diverter) Close() error { return ErrNotBuilt }
