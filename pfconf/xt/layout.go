package xt

import (
	"encoding/binary"
	"runtime"
)

// alignment is that of numbers of 64 bits in C: 4 on i386 alone. Go's is 4 on all systems of 32
// bits.
var alignment = map[bool]int{true: 4, false: 8}[runtime.GOARCH == "386"]

// Align is XT_ALIGN: what is behind an extension's struct, or a table's head, begins there.
func Align(n int) int { return (n + alignment - 1) &^ (alignment - 1) }

// Head is the size of struct xt_entry_match and xt_entry_target: size u16, name[29], revision u8.
const Head = 32

// Bytes is the extension with its head, as a table has it.
func (e Extension) Bytes() []byte {
	b := make([]byte, Head+Align(len(e.Data)))
	binary.NativeEndian.PutUint16(b, uint16(len(b)))
	copy(b[2:30], e.Name)
	b[31] = e.Revision
	copy(b[Head:], e.Data)
	return b
}

// Layout has the offsets in a struct ipt_entry or ip6t_entry, which begins a rule.
type Layout struct {
	Address  int // size of one: source, destination and their masks begin the struct
	NICs     int // names[2][16], masks[2][16]
	Proto    int // u16
	Flags    int // u8
	Inverted int // u8
	Target   int // u16: the offset of the target; behind it u16: that of the next entry
	Counters int // two u64: packets, bytes
	Size     int
}

// LayoutOf returns the layout of a family's entries.
func LayoutOf(ipv6 bool) Layout {
	if ipv6 {
		return Layout{16, 64, 128, 131, 132, 140, Align(148), Align(148) + 16}
	}
	return Layout{4, 16, 80, 82, 83, 88, 96, 112}
}
