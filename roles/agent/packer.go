package agent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// packer packs values one behind the other, or unpacks them: one function for each type does
// both, so that the two can't differ. Numbers are varints, zigzag where they have a sign; text,
// bytes and lists begin with their length, and what may be missing with 0 or 1. An empty
// list is unpacked as nil.
type packer struct {
	out    []byte // when packing
	in     string // to unpack; a string, so that text in it needs no copy
	at     int    // where in it the next value begins
	unpack bool
	err    error // the first; what is unpacked behind it is zero
}

var (
	errShort   = errors.New("it ends within a value")
	errNumber  = errors.New("a number does not fit its field")
	errChoice  = errors.New("a number has no name")
	errAddress = errors.New("an address of no known length")
)

func (p *packer) fail(err error) {
	if p.err == nil {
		p.err = err
	}
	p.at = len(p.in)
}

func (p *packer) left() uint64 { return uint64(len(p.in) - p.at) }

func (p *packer) uvarint(v uint64) uint64 {
	if !p.unpack {
		p.out = binary.AppendUvarint(p.out, v)
		return v
	}
	if p.at < len(p.in) && p.in[p.at] < 0x80 { // nearly all
		p.at++
		return uint64(p.in[p.at-1])
	}
	var x uint64
	for i, b := range []byte(p.in[p.at:min(len(p.in), p.at+binary.MaxVarintLen64)]) {
		if i == binary.MaxVarintLen64-1 && b > 1 {
			p.fail(errNumber)
			return 0
		}
		x |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			p.at += i + 1
			return x
		}
	}
	p.fail(errShort)
	return 0
}

// take returns the next n bytes.
func (p *packer) take(n uint64) string {
	if n > p.left() {
		p.fail(errShort)
		return ""
	}
	p.at += int(n)
	return p.in[p.at-int(n) : p.at]
}

func count[T ~uint8 | ~uint16 | ~uint32 | ~uint64](p *packer, v *T) {
	x := p.uvarint(uint64(*v))
	if !p.unpack {
		return
	}
	if *v = T(x); uint64(*v) != x {
		p.fail(errNumber)
	}
}

func integer[T ~int | ~int64](p *packer, v *T) {
	x := int64(*v)
	x = int64(p.uvarint(uint64(x)<<1 ^ uint64(x>>63)))
	if !p.unpack {
		return
	}
	x = int64(uint64(x)>>1) ^ -(x & 1)
	if *v = T(x); int64(*v) != x {
		p.fail(errNumber)
	}
}

// choice is a number that is one of those known, or 0.
func choice[T ~uint8](p *packer, v *T, known []T) {
	count(p, v)
	if *v != 0 && !slices.Contains(known, *v) {
		p.fail(errChoice)
	}
}

func (p *packer) flag(v *bool) {
	var x uint64
	if *v {
		x = 1
	}
	x = p.uvarint(x)
	if !p.unpack {
		return
	}
	if x > 1 {
		p.fail(errNumber)
	}
	*v = x == 1
}

// any packs whether one of some fields is set, and tells so: none of them follows if not.
func (p *packer) any(set bool) bool {
	p.flag(&set)
	return set
}

func text[T ~string](p *packer, v *T) {
	n := p.uvarint(uint64(len(*v)))
	if !p.unpack {
		p.out = append(p.out, *v...)
		return
	}
	*v = T(p.take(n))
}

func (p *packer) bytes(v *[]byte) {
	n := p.uvarint(uint64(len(*v)))
	if !p.unpack {
		p.out = append(p.out, *v...)
		return
	}
	*v = nil
	if s := p.take(n); s != "" {
		*v = []byte(s)
	}
}

// list packs a list, each element with the function given. An element takes at least one byte, so
// a list is never longer than its frame, nor than maxList.
func list[T any](p *packer, v *[]T, each func(*packer, *T)) {
	n := p.uvarint(uint64(len(*v)))
	if p.unpack {
		*v = nil
		if n > min(p.left(), maxList) {
			p.fail(errShort)
			return
		}
		if n > 0 {
			*v = make([]T, 0, min(n, maxAtOnce))
		}
	}
	for i := range n {
		if p.err != nil {
			return
		}
		if p.unpack {
			var zero T
			*v = append(*v, zero)
		}
		each(p, &(*v)[i])
	}
}

// maxAtOnce bounds what a list's length alone makes the reader allocate.
const (
	maxList   = 1 << 16
	maxAtOnce = 64
)

// maybe packs what may be nil.
func maybe[T any](p *packer, v **T, each func(*packer, *T)) {
	there := *v != nil
	p.flag(&there)
	if p.unpack {
		*v = nil
		if there {
			*v = new(T)
		}
	}
	if there {
		each(p, *v)
	}
}

// zoned is the length that stands before an IPv6 address with a zone.
const zoned = 255

// addr packs an address as its length, 0 for an invalid one, its bytes and its zone.
func (p *packer) addr(a *netip.Addr) {
	if !p.unpack {
		zone := a.Zone()
		switch {
		case !a.IsValid():
			p.out = append(p.out, 0)
		case a.Is4():
			b := a.As4()
			p.out = append(append(p.out, 4), b[:]...)
		default:
			b, n := a.As16(), byte(16)
			if zone != "" {
				n = zoned
			}
			p.out = append(append(p.out, n), b[:]...)
		}
		if zone != "" {
			text(p, &zone)
		}
		return
	}
	*a = netip.Addr{}
	n := p.take(1)
	if n == "" {
		return
	}
	switch n[0] {
	case 0:
	case 4:
		if s := p.take(4); s != "" {
			*a = netip.AddrFrom4([4]byte([]byte(s)))
		}
	case 16, zoned:
		s, zone := p.take(16), ""
		if n[0] == zoned {
			text(p, &zone)
		}
		if p.err == nil {
			*a = netip.AddrFrom16([16]byte([]byte(s))).WithZone(zone)
		}
	default:
		p.fail(errAddress)
	}
}

func (p *packer) addrPort(v *netip.AddrPort) {
	a, port := v.Addr(), v.Port()
	p.addr(&a)
	count(p, &port)
	if p.unpack {
		*v = netip.AddrPortFrom(a, port)
	}
}

// end tells what went wrong, and that all was unpacked.
func (p *packer) end() error {
	if n := p.left(); p.err == nil && n > 0 {
		return fmt.Errorf("%d bytes are behind its end", n)
	}
	return p.err
}
