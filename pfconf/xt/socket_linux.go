package xt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Options of linux/netfilter_ipv4/ip_tables.h; those of IPv6 have the same numbers.
const (
	getInfo    = 64 // IPT_SO_GET_INFO: struct ipt_getinfo
	getEntries = 65 // IPT_SO_GET_ENTRIES: struct ipt_get_entries
	getMatch   = 66 // IPT_SO_GET_REVISION_MATCH, and behind it that of targets
	getMatch6  = 68 // IP6T_SO_GET_REVISION_MATCH
	replace    = 64 // IPT_SO_SET_REPLACE: struct ipt_replace
	addCounts  = 65 // IPT_SO_SET_ADD_COUNTERS: struct xt_counters_info
)

const (
	nameSize = 32 // XT_TABLE_MAXNAMELEN
	// tries bounds how often a table is asked for that changes meanwhile.
	tries = 5
)

// InfoSize is the size of a struct ipt_getinfo: name, valid_hooks, hook_entry[5], underflow[5],
// num_entries, size.
const InfoSize = 84

// Socket asks for tables of a family, in the network namespace in which it was opened, and replaces
// them. It is not safe for concurrent use.
type Socket struct {
	fd, level int
	ipv6      bool
}

// Open opens one. It takes CAP_NET_RAW.
func Open(ipv6 bool) (*Socket, error) {
	s, domain := &Socket{level: unix.IPPROTO_IP, ipv6: ipv6}, unix.AF_INET
	if ipv6 {
		s.level, domain = unix.IPPROTO_IPV6, unix.AF_INET6
	}
	var err error
	if s.fd, err = unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW); err != nil {
		return nil, fmt.Errorf("raw socket: %w", err)
	}
	return s, nil
}

// Close closes it.
func (s *Socket) Close() error { return unix.Close(s.fd) }

// Read returns the table's head and entries. Asking makes a table that was not there, and loads its
// module.
func (s *Socket) Read(table string) (info, entries []byte, err error) {
	for range tries {
		info = make([]byte, InfoSize)
		copy(info[:nameSize-1], table)
		if err = s.get(getInfo, info); err != nil {
			break
		}
		size := binary.NativeEndian.Uint32(info[80:])
		// struct ipt_get_entries: name, size u32, entries
		head := Align(nameSize + 4)
		b := make([]byte, head+int(size))
		copy(b[:nameSize-1], table)
		binary.NativeEndian.PutUint32(b[nameSize:], size)
		if err = s.get(getEntries, b); err == nil {
			return info, b[head:], nil
		}
		if !errors.Is(err, unix.EAGAIN) { // EAGAIN: it changed meanwhile
			break
		}
	}
	return nil, nil, fmt.Errorf("table %s: %w", table, err)
}

// Replace replaces a table that has old entries by others, of which info tells. It returns what
// each of the old ones had counted: packets and bytes. EAGAIN says that there are not old entries
// any more.
func (s *Socket) Replace(table string, old uint32, info Info, entries []byte) ([]uint64, error) {
	counters := make([]uint64, 2*old+2)
	var pin runtime.Pinner
	pin.Pin(&counters[0])
	defer pin.Unpin()
	// struct ipt_replace: name, valid_hooks, num_entries, size, hook_entry[5], underflow[5],
	// num_counters, struct xt_counters *counters, entries
	b := make([]byte, nameSize, nameSize+Align(64)+len(entries))
	copy(b[:nameSize-1], table)
	b = append(b, words(info.Hooks, info.Number, info.EntrySize)...)
	b = append(b, words(info.Begin[:]...)...)
	b = append(b, words(info.End[:]...)...)
	b = append(b, words(old)...)
	if p := uintptr(unsafe.Pointer(&counters[0])); unsafe.Sizeof(p) == 8 {
		b = binary.NativeEndian.AppendUint64(b, uint64(p))
	} else {
		b = append(b, words(uint32(p))...)
	}
	for len(b) < Align(len(b)) {
		b = append(b, 0)
	}
	err := s.set(replace, append(b, entries...))
	if err != nil {
		return nil, fmt.Errorf("table %s: %w", table, err)
	}
	return counters, nil
}

// HasMatch and HasTarget ask for an extension. ENOENT and EPROTONOSUPPORT say that there is none
// of its name or revision; a kernel without iptables-legacy has no such socket option.
func (s *Socket) HasMatch(e Extension) error  { return s.has(getMatch, e) }
func (s *Socket) HasTarget(e Extension) error { return s.has(getMatch+1, e) }

func (s *Socket) has(option int, e Extension) error {
	if s.ipv6 {
		option += getMatch6 - getMatch
	}
	// struct xt_get_revision: name[29], revision u8
	b := make([]byte, 30)
	copy(b[:28], e.Name)
	b[29] = e.Revision
	return s.get(option, b)
}

// Table returns a table, taken apart.
func (s *Socket) Table(name string) (*Table, error) {
	info, entries, err := s.Read(name)
	if err != nil {
		return nil, err
	}
	t, err := Parse(name, s.ipv6, InfoOf(info), entries)
	if err != nil {
		return nil, fmt.Errorf("table %s: %w", name, err)
	}
	return t, nil
}

// Load puts a table that Table returned, and that was changed, in its place. Rules that were there
// keep what they have counted. Afterwards Packets is what the rules that were there had counted
// when they were replaced.
func (s *Socket) Load(t *Table) error {
	info, entries, err := t.Encode()
	if err != nil {
		return err
	}
	counters, err := s.Replace(t.Name, t.old, info, entries)
	if err != nil {
		return err
	}
	for i, c := range t.told {
		t.told[i].Packets = counters[2*(c.place-1)]
	}
	// struct xt_counters_info: name, num_counters u32, counters
	b := make([]byte, Align(nameSize+4), Align(nameSize+4)+16*int(info.Number))
	copy(b[:nameSize-1], t.Name)
	binary.NativeEndian.PutUint32(b[nameSize:], info.Number)
	kept := false
	add := func(n [2]uint64) {
		kept = kept || n[0] != 0
		b = binary.NativeEndian.AppendUint64(binary.NativeEndian.AppendUint64(b, n[0]), n[1])
	}
	for _, c := range t.Chains {
		if c.Hook < 0 {
			add([2]uint64{})
		}
		for _, e := range c.Rules {
			if e.old == 0 {
				add([2]uint64{})
			} else {
				add([2]uint64(counters[2*(e.old-1):]))
			}
		}
	}
	if add([2]uint64{}); kept {
		return s.set(addCounts, b)
	}
	return nil
}

// InfoOf reads what Read returns of a table's head.
func InfoOf(b []byte) (i Info) {
	word := func(at int) uint32 { return binary.NativeEndian.Uint32(b[at:]) }
	i.Hooks, i.Number, i.EntrySize = word(32), word(76), word(80)
	for hook := range Hooks {
		i.Begin[hook], i.End[hook] = word(36+4*hook), word(56+4*hook)
	}
	return i
}

func (s *Socket) get(option int, b []byte) error {
	n := uint32(len(b))
	if _, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(s.fd), uintptr(s.level), uintptr(option),
		uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&n)), 0); e != 0 {
		return e
	}
	return nil
}

func (s *Socket) set(option int, b []byte) error {
	if _, _, e := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(s.fd), uintptr(s.level), uintptr(option),
		uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), 0); e != 0 {
		return e
	}
	return nil
}
