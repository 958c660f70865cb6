package wire

import (
	"encoding"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"sync/atomic"
)

func packBool(p *packer, v reflect.Value) {
	b := byte(0)
	if v.Bool() {
		b = 1
	}
	p.out = append(p.out, b)
}

func unpackBool(u *unpacker, v reflect.Value) {
	x := u.uvarint()
	if x > 1 {
		u.fail(errNumber)
	}
	v.SetBool(x == 1)
}

func packUint(p *packer, v reflect.Value) { p.out = binary.AppendUvarint(p.out, v.Uint()) }

func unpackUint(u *unpacker, v reflect.Value) {
	x := u.uvarint()
	if v.OverflowUint(x) {
		u.fail(errNumber)
		return
	}
	v.SetUint(x)
}

func packInt(p *packer, v reflect.Value) { p.out = binary.AppendVarint(p.out, v.Int()) }

func unpackInt(u *unpacker, v reflect.Value) {
	x := u.uvarint()
	n := int64(x>>1) ^ -int64(x&1)
	if v.OverflowInt(n) {
		u.fail(errNumber)
		return
	}
	v.SetInt(n)
}

// choice is the coder of an enumeration of few values: numbers that have a name, and 0. A number is
// looked up when it first comes: all would take a short run longer than its messages do.
func choice(t reflect.Type) coder {
	var known [256]atomic.Int32 // 1 for a number that has a name, -1 for one that has none
	known[0].Store(1)
	has := func(x uint64) bool {
		if x >= uint64(len(known)) {
			return false
		}
		if known[x].Load() == 0 {
			v := reflect.New(t).Elem()
			v.SetUint(x)
			if _, err := v.Interface().(encoding.TextMarshaler).MarshalText(); err == nil {
				known[x].Store(1)
			} else {
				known[x].Store(-1)
			}
		}
		return known[x].Load() > 0
	}
	return coder{
		pack: func(p *packer, v reflect.Value) {
			if !has(v.Uint()) {
				p.err = errChoice
			}
			packUint(p, v)
		},
		unpack: func(u *unpacker, v reflect.Value) {
			x := u.uvarint()
			if !has(x) {
				u.fail(errChoice)
				return
			}
			v.SetUint(x)
		},
	}
}

func packString(p *packer, v reflect.Value) {
	s := v.String()
	p.out = append(binary.AppendUvarint(p.out, uint64(len(s))), s...)
}

func unpackString(u *unpacker, v reflect.Value) { v.SetString(u.take(u.uvarint())) }

// length packs the length of bytes, a list or a map.
func (p *packer) length(v reflect.Value) {
	n := uint64(0)
	if !v.IsNil() {
		n = uint64(v.Len()) + 1
	}
	p.out = binary.AppendUvarint(p.out, n)
}

func packBytes(p *packer, v reflect.Value) {
	p.length(v)
	p.out = append(p.out, v.Bytes()...)
}

func unpackBytes(u *unpacker, v reflect.Value) {
	if n, ok := u.length(1); ok {
		v.SetBytes([]byte(u.take(uint64(n))))
	}
}

// packBinary packs what packs itself, behind its length.
func packBinary(p *packer, v reflect.Value) {
	b, err := v.Interface().(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		p.err = err
	}
	p.out = append(binary.AppendUvarint(p.out, uint64(len(b))), b...)
}

func unpackBinary(u *unpacker, v reflect.Value) {
	s := u.take(u.uvarint())
	if u.err != nil {
		return
	}
	if err := v.Addr().Interface().(encoding.BinaryUnmarshaler).UnmarshalBinary([]byte(s)); err != nil {
		u.fail(err)
	}
}

// zoned is the length that stands before an IPv6 address with a zone.
const zoned = 255

// appendAddr appends an address as its length, 0 for an invalid one, its bytes and its zone.
func appendAddr(out []byte, a netip.Addr) []byte {
	switch {
	case !a.IsValid():
		return append(out, 0)
	case a.Is4():
		b := a.As4()
		return append(append(out, 4), b[:]...)
	}
	b, zone := a.As16(), a.Zone()
	if zone == "" {
		return append(append(out, 16), b[:]...)
	}
	out = append(append(out, zoned), b[:]...)
	return append(binary.AppendUvarint(out, uint64(len(zone))), zone...)
}

func (u *unpacker) addr() (a netip.Addr) {
	n := u.take(1)
	if n == "" {
		return a
	}
	switch n[0] {
	case 0:
	case 4:
		if s := u.take(4); s != "" {
			a = netip.AddrFrom4([4]byte([]byte(s)))
		}
	case 16, zoned:
		s, zone := u.take(16), ""
		if n[0] == zoned {
			zone = u.take(u.uvarint())
		}
		if u.err == nil {
			a = netip.AddrFrom16([16]byte([]byte(s))).WithZone(zone)
		}
	default:
		u.fail(errAddress)
	}
	return a
}

func packAddr(p *packer, v reflect.Value) {
	p.out = appendAddr(p.out, *v.Addr().Interface().(*netip.Addr))
}

func unpackAddr(u *unpacker, v reflect.Value) { *v.Addr().Interface().(*netip.Addr) = u.addr() }

func packAddrPort(p *packer, v reflect.Value) {
	a := *v.Addr().Interface().(*netip.AddrPort)
	p.out = binary.AppendUvarint(appendAddr(p.out, a.Addr()), uint64(a.Port()))
}

func unpackAddrPort(u *unpacker, v reflect.Value) {
	a, port := u.addr(), u.uvarint()
	if port > 0xffff {
		u.fail(errNumber)
		return
	}
	*v.Addr().Interface().(*netip.AddrPort) = netip.AddrPortFrom(a, uint16(port))
}

func (c *coder) slice(t reflect.Type, made map[reflect.Type]*coder) error {
	elem, err := makeCoder(t.Elem(), made)
	size := t.Elem().Size()
	c.pack = func(p *packer, v reflect.Value) {
		p.length(v)
		for i := range v.Len() {
			elem.pack(p, v.Index(i))
		}
	}
	c.unpack = func(u *unpacker, v reflect.Value) {
		n, ok := u.length(size)
		if !ok {
			return
		}
		v.Set(reflect.MakeSlice(t, n, n))
		for i := 0; i < n && u.err == nil; i++ {
			elem.unpack(u, v.Index(i))
		}
	}
	return err
}

// array is of an array, whose length is its type's.
func (c *coder) array(t reflect.Type, made map[reflect.Type]*coder) error {
	if t.Len() == 0 {
		return fmt.Errorf("a %v can't be packed: it would take no room", t) // see unpacker.length
	}
	elem, err := makeCoder(t.Elem(), made)
	c.pack = func(p *packer, v reflect.Value) {
		for i := range t.Len() {
			elem.pack(p, v.Index(i))
		}
	}
	c.unpack = func(u *unpacker, v reflect.Value) {
		for i := 0; i < t.Len() && u.err == nil; i++ {
			elem.unpack(u, v.Index(i))
		}
	}
	return err
}

// mapping is of a map, whose entries are sorted by their packed keys: equal maps are packed alike.
func (c *coder) mapping(t reflect.Type, made map[reflect.Type]*coder) error {
	key, err := makeCoder(t.Key(), made)
	if err != nil {
		return err
	}
	elem, err := makeCoder(t.Elem(), made)
	const overhead = 16 // of an entry, about
	size := t.Key().Size() + t.Elem().Size() + overhead
	c.pack = func(p *packer, v reflect.Value) {
		p.length(v)
		byKey := make(map[string]reflect.Value, v.Len())
		for i := v.MapRange(); i.Next(); {
			k := packer{}
			key.pack(&k, addressable(i.Key()))
			if k.err != nil {
				p.err = k.err
			}
			byKey[string(k.out)] = i.Value()
		}
		for _, k := range slices.Sorted(maps.Keys(byKey)) {
			p.out = append(p.out, k...)
			elem.pack(p, addressable(byKey[k]))
		}
	}
	c.unpack = func(u *unpacker, v reflect.Value) {
		n, ok := u.length(size)
		if !ok {
			return
		}
		v.Set(reflect.MakeMap(t)) // which grows as it is filled
		for i := 0; i < n && u.err == nil; i++ {
			k, e := reflect.New(t.Key()).Elem(), reflect.New(t.Elem()).Elem()
			key.unpack(u, k)
			elem.unpack(u, e)
			v.SetMapIndex(k, e)
		}
		if u.err == nil && v.Len() != n {
			u.fail(errKey)
		}
	}
	return err
}

// pointer is of what may be nil: 0, or 1 and what it points to.
func (c *coder) pointer(t reflect.Type, made map[reflect.Type]*coder) error {
	elem, err := makeCoder(t.Elem(), made)
	size := t.Elem().Size()
	c.pack = func(p *packer, v reflect.Value) {
		if v.IsNil() {
			p.out = append(p.out, 0)
			return
		}
		p.out = append(p.out, 1)
		elem.pack(p, v.Elem())
	}
	c.unpack = func(u *unpacker, v reflect.Value) {
		switch u.uvarint() {
		case 0:
		case 1:
			if u.grow(uint64(size)); u.err == nil {
				v.Set(reflect.New(t.Elem()))
				elem.unpack(u, v.Elem())
			}
		default:
			u.fail(errNumber)
		}
	}
	return err
}

// union is of an interface, whose values are of the types.
func (c *coder) union(types []reflect.Type, made map[reflect.Type]*coder) error {
	kinds := make([]*coder, len(types))
	for i, t := range types {
		var err error
		if kinds[i], err = makeCoder(t, made); err != nil {
			return err
		}
	}
	c.pack = func(p *packer, v reflect.Value) {
		if v.IsNil() {
			p.err = errKind
			return
		}
		i := slices.Index(types, v.Elem().Type())
		if i < 0 {
			p.err = errKind
			return
		}
		p.out = binary.AppendUvarint(p.out, uint64(i))
		kinds[i].pack(p, addressable(v.Elem()))
	}
	c.unpack = func(u *unpacker, v reflect.Value) {
		i := u.uvarint()
		if i >= uint64(len(kinds)) {
			u.fail(errKind)
			return
		}
		u.grow(uint64(types[i].Size()))
		x := reflect.New(types[i]).Elem()
		kinds[i].unpack(u, x)
		v.Set(x)
	}
	return nil
}

// addressable returns a copy of v that has an address, which some coders need.
func addressable(v reflect.Value) reflect.Value {
	x := reflect.New(v.Type()).Elem()
	x.Set(v)
	return x
}

// structure is of a struct's fields.
func (c *coder) structure(t reflect.Type, made map[reflect.Type]*coder) error {
	type field struct {
		index int
		coder *coder
		must  bool // it is never nil
	}
	var fields []field
	for i := range t.NumField() {
		f := t.Field(i)
		if !f.IsExported() || f.Tag.Get("json") == "-" {
			continue
		}
		coder, err := makeCoder(f.Type, made)
		if err != nil {
			return fmt.Errorf("%v: %w", t, err)
		}
		fields = append(fields, field{i, coder, f.Type.Kind() == reflect.Interface})
	}
	if len(fields) > 63 {
		return fmt.Errorf("%v has %d fields, more than can be packed", t, len(fields))
	}
	var none [8]byte
	width := max(1, (len(fields)+7)/8) // of the bits, in bytes: a list's elements take at least one
	c.pack = func(p *packer, v reflect.Value) {
		at := len(p.out)
		p.out = append(p.out, none[:width]...)
		for i := range fields {
			f := &fields[i]
			if value := v.Field(f.index); f.must || !value.IsZero() {
				p.out[at+i/8] |= 1 << (i % 8)
				f.coder.pack(p, value)
			}
		}
	}
	c.unpack = func(u *unpacker, v reflect.Value) {
		var set uint64
		for i, b := range []byte(u.take(uint64(width))) {
			set |= uint64(b) << (8 * i)
		}
		if set>>len(fields) != 0 {
			u.fail(errField)
			return
		}
		for i := range fields {
			f := &fields[i]
			if (set&(1<<i) != 0 || f.must) && u.err == nil {
				f.coder.unpack(u, v.Field(f.index))
			}
		}
	}
	return nil
}
