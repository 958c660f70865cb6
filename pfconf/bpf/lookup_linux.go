//go:build bpf

package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"pfdivert/pfconf/need"
)

// Lookup has the program that chooses sockets in a network namespace, and its maps. The link to the
// namespace goes with this process, however it ends: nothing is pinned.
type Lookup struct {
	entries
	socks           *ebpf.Map // listeners, by the key of their entry
	program, finder *ebpf.Program
	link            *link.NetNsLink
	netns           *os.File
	empty           bool // see Config.NoSocks
}

// OpenLookup loads the programs, and attaches the one that chooses to the network namespace of the
// caller's thread. The error can be a *need.MissingError or wrap fs.ErrPermission. The caller
// closes the Lookup, and with it detaches the program.
func OpenLookup(c Config) (*Lookup, error) {
	l := &Lookup{empty: c.NoSocks}
	if err := l.load(c); err != nil {
		return nil, errors.Join(fmt.Errorf("load programs of BPF: %w", err), l.Close())
	}
	return l, nil
}

func (l *Lookup) load(c Config) (err error) {
	if err := Probe(); err != nil {
		return err
	}
	if l.netns, err = os.Open(ownNetns); err != nil {
		return err
	}
	if err := l.open(); err != nil {
		return err
	}
	l.socks, err = ebpf.NewMap(&ebpf.MapSpec{Name: "pfdivert_socks", Type: ebpf.SockHash, KeySize: keySize,
		ValueSize: 8, MaxEntries: maxEntries})
	if err != nil {
		return lacksLookup(err)
	}
	p := &program{rules: l.rules, socks: l.socks, assign: c.assign()}
	l.program, err = loadLookup(p.look(true))
	var refused *ebpf.VerifierError
	if errors.As(err, &refused) && !unknownHelper(refused) { // Linux before 5.17 does not tell the interface
		p := &program{rules: l.rules, socks: l.socks, assign: c.assign()}
		l.program, err = loadLookup(p.look(false))
	}
	if err != nil {
		return lacksLookup(err)
	}
	p = &program{rules: l.rules, socks: l.socks}
	if l.finder, err = load("pfdivert_find", p.finder()); err != nil {
		return lacksLookup(err)
	}
	if c.Detached {
		return nil
	}
	l.link, err = link.AttachNetNs(int(l.netns.Fd()), l.program)
	return err
}

func loadLookup(instructions asm.Instructions) (*ebpf.Program, error) {
	return ebpf.NewProgram(&ebpf.ProgramSpec{Name: "pfdivert_look", Type: ebpf.SkLookup,
		AttachType: ebpf.AttachSkLookup, Instructions: instructions, License: "ISC"})
}

// lacksLookup makes a *need.MissingError of the error with which a kernel refuses what it does not
// know: a kind of map or of program, or to put a socket into the map from a program.
func lacksLookup(err error) error {
	var refused *ebpf.VerifierError
	switch {
	case errors.Is(err, fs.ErrPermission):
	case errors.As(err, &refused) && (unknownHelper(refused) || says(refused, "cannot pass map_type")),
		!errors.As(err, &refused) && errors.Is(err, unix.EINVAL), errors.Is(err, ebpf.ErrNotSupported):
		return &need.MissingError{Feature: need.BPFLookup, Err: err}
	}
	return err
}

// Change removes entries and adds others, all or none. An entry's listener must listen before.
func (l *Lookup) Change(remove, add []Entry) error {
	if err := l.entries.Change(remove, add); err != nil {
		return err
	}
	for _, e := range remove {
		if err := l.socks.Delete(e.key()); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("forget the listener of %v: %w", e, err)
		}
	}
	return l.inNetns(func() error {
		for _, e := range add {
			if l.empty || !e.Divert.IsValid() {
				continue
			}
			if err := l.find(e); err != nil {
				return fmt.Errorf("look for the listener of %v: %w", e, err)
			}
		}
		return nil
	})
}

// find puts the socket that listens at the entry's address into the map. That there is none is no
// error. All programs in the search for sockets are asked about that, too.
func (l *Lookup) find(e Entry) error {
	b := make([]byte, findSize)
	copy(b[findKey:], e.key())
	n := len(e.From.AsSlice())
	copy(b[findTuple:], e.From.AsSlice())
	copy(b[findTuple+n:], e.Divert.Addr().AsSlice())
	binary.BigEndian.PutUint16(b[findTuple+2*n+2:], e.Divert.Port())
	returned, err := l.finder.Run(&ebpf.RunOptions{Data: b})
	if err == nil && int32(returned) < 0 {
		err = unix.Errno(-int32(returned))
	}
	return err
}

// ownNetns is the thread's network namespace.
const ownNetns = "/proc/thread-self/ns/net"

// inNetns does it in the network namespace that the program is attached to.
func (l *Lookup) inNetns(do func() error) error {
	runtime.LockOSThread()
	before, err := os.Open(ownNetns)
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer before.Close()
	if same(before, l.netns) {
		defer runtime.UnlockOSThread()
		return do()
	}
	if err := unix.Setns(int(l.netns.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	err = do()
	if back := unix.Setns(int(before.Fd()), unix.CLONE_NEWNET); back != nil {
		return errors.Join(err, back) // the thread stays locked, so no one else uses it
	}
	runtime.UnlockOSThread()
	return err
}

func same(a, b *os.File) bool {
	x, err := a.Stat()
	y, err2 := b.Stat()
	return err == nil && err2 == nil && os.SameFile(x, y)
}

// Close detaches the program and frees it and the maps.
func (l *Lookup) Close() error {
	err := errors.Join(l.finder.Close(), l.program.Close(), l.socks.Close(), l.rules.Close())
	if l.link != nil {
		err = errors.Join(l.link.Close(), err)
	}
	if l.netns != nil {
		err = errors.Join(err, l.netns.Close())
	}
	return err
}
