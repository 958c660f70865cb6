//go:build bpf

package bpf

import (
	"encoding/binary"

	"pfdivert/pfconf"
)

// The sizes of the maps' keys and values. The numbers of both are in the host's order but for ports
// and addresses, which are as in packets.
const (
	keySize     = 40 // kind, family, protocol, 0, port, 0, 0, 16 bytes from, 16 bytes to
	valueSize   = 56 // three counters, flags, interface, 16 bytes address, port, 0, mark
	flowKeySize = 40 // family, protocol, 0, 0, near and far port, 16 bytes near, 16 bytes far
)

// Where the numbers are in a value.
const (
	atMatched = 0
	atDone    = 8
	atOwn     = 16
	atFlags   = 24
	atIndex   = 28
	atAddr    = 32
	atPort    = 48
	atMark    = 52
)

// What the program that looks for a listener is run with, in place of a packet: behind the Ethernet
// header the key of the entry, and the tuple to look for.
const (
	findKey   = 14
	findTuple = findKey + keySize
	findSize  = findTuple + 40
)

// Flags of a value.
const (
	flagAssign = 1 << iota
	flagEstablished
	flagRemember
	flagOwnFlows
)

// key is the map's key for the entry.
func (e Entry) key() []byte {
	b := make([]byte, keySize)
	b[0], b[1], b[2] = byte(e.Kind), byte(e.Family), byte(e.Proto.Number(e.Family))
	binary.BigEndian.PutUint16(b[4:], e.Port)
	copy(b[8:], e.From.AsSlice())
	copy(b[24:], e.To.AsSlice())
	return b
}

// value is the map's value for the entry before it has counted anything.
func (e Entry) value() []byte {
	b := make([]byte, valueSize)
	var flags uint32
	for flag, set := range map[uint32]bool{flagAssign: e.Divert.IsValid(), flagEstablished: e.Established,
		flagRemember: e.Remember, flagOwnFlows: e.OwnFlows} {
		if set {
			flags |= flag
		}
	}
	binary.NativeEndian.PutUint32(b[atFlags:], flags)
	binary.NativeEndian.PutUint32(b[atIndex:], uint32(e.Index))
	copy(b[atAddr:], e.Divert.Addr().AsSlice())
	binary.BigEndian.PutUint16(b[atPort:], e.Divert.Port())
	binary.NativeEndian.PutUint32(b[atMark:], e.Mark)
	return b
}

// countersOf reads those of a value.
func countersOf(value []byte) Counters {
	return Counters{Matched: binary.NativeEndian.Uint64(value[atMatched:]),
		Done: binary.NativeEndian.Uint64(value[atDone:]), Own: binary.NativeEndian.Uint64(value[atOwn:])}
}

// key is the flow's in the map of flows.
func (f Flow) key() []byte {
	b := make([]byte, flowKeySize)
	b[0], b[1] = byte(pfconf.FamilyOf(f.Near.Addr())), f.Number
	binary.BigEndian.PutUint16(b[4:], f.Near.Port())
	binary.BigEndian.PutUint16(b[6:], f.Far.Port())
	copy(b[8:], f.Near.Addr().AsSlice())
	copy(b[24:], f.Far.Addr().AsSlice())
	return b
}
