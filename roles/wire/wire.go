// Package wire packs values of Go into bytes and unpacks them on the other end of a connection,
// where the same program runs: nothing names or numbers the fields, which follow one another as
// their struct has them.
//
// Numbers are varints, zigzag where they have a sign. Texts begin with their length; bytes, lists
// and maps with their length and one more, 0 for nil; arrays have none. A struct begins with a bit
// for each field, set for those that are not zero, and only these follow. What implements
// encoding.BinaryMarshaler, such as netip.Prefix and time.Time, packs itself. Enumerations that
// implement encoding.TextMarshaler pass only with numbers that have a name. Fields that are not
// exported or that JSON leaves out stay. A value of an interface that Union knows begins with the
// number of its kind, and is never nil. Other interfaces, functions, channels, floats and types
// that contain themselves can't be packed.
package wire

import (
	"encoding"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"sync"
)

var (
	errShort   = errors.New("it ends within a value")
	errNumber  = errors.New("a number does not fit its field")
	errChoice  = errors.New("a number has no name")
	errAddress = errors.New("an address of no known length")
	errField   = errors.New("it has fields that are not known")
	errLarge   = errors.New("it would take too much memory")
	errKey     = errors.New("a map has the same key twice")
	errKind    = errors.New("a value is of no kind that is known")
)

// maxMemory bounds what unpacked lists and what pointers point to take, in bytes: far more than any
// honest value, whose size on the wire is bounded besides.
const maxMemory = 64 << 20

// Append packs v, or what it points to, and appends it to b.
func Append(b []byte, v any) ([]byte, error) {
	if value := reflect.ValueOf(v); value.IsValid() && value.Kind() != reflect.Pointer {
		pointer := reflect.New(value.Type())
		pointer.Elem().Set(value)
		v = pointer.Interface()
	}
	value, c, err := coderFor(v)
	if err != nil {
		return b, err
	}
	p := packer{out: b}
	c.pack(&p, value)
	if p.err != nil {
		return b, fmt.Errorf("pack a %v: %w", value.Type(), p.err)
	}
	return p.out, nil
}

// Unpack unpacks b, all of it, into what v points to. What v has besides stays.
func Unpack(b []byte, v any) error {
	value, c, err := coderFor(v)
	if err != nil {
		return err
	}
	u := unpacker{in: string(b)}
	c.unpack(&u, value)
	if n := len(u.in) - u.at; u.err == nil && n > 0 {
		u.err = fmt.Errorf("%d bytes are behind its end", n)
	}
	if u.err != nil {
		return fmt.Errorf("unpack a %v: %w", value.Type(), u.err)
	}
	return nil
}

// packer is what is packed so far.
type packer struct {
	out []byte
	err error // the first
}

// unpacker is what is not yet unpacked.
type unpacker struct {
	in    string // a string, so that texts in it need no copy
	at    int    // where in it the next value begins
	taken uint64 // memory, in bytes
	err   error  // the first; what is unpacked behind it is zero
}

func (u *unpacker) fail(err error) {
	if u.err == nil {
		u.err = err
	}
	u.at = len(u.in)
}

func (u *unpacker) uvarint() uint64 {
	if u.at < len(u.in) && u.in[u.at] < 0x80 { // nearly all
		u.at++
		return uint64(u.in[u.at-1])
	}
	var x uint64
	for i, b := range []byte(u.in[u.at:min(len(u.in), u.at+binary.MaxVarintLen64)]) {
		if i == binary.MaxVarintLen64-1 && b > 1 {
			u.fail(errNumber)
			return 0
		}
		x |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			u.at += i + 1
			return x
		}
	}
	u.fail(errShort)
	return 0
}

// take returns the next n bytes.
func (u *unpacker) take(n uint64) string {
	if n > uint64(len(u.in)-u.at) {
		u.fail(errShort)
		return ""
	}
	u.at += int(n)
	return u.in[u.at-int(n) : u.at]
}

// length reads the length of a list, whose elements take at least one byte each on the wire and
// size bytes of memory; ok is false for nil, and when it fails.
func (u *unpacker) length(size uintptr) (n int, ok bool) {
	x := u.uvarint()
	if x == 0 {
		return 0, false
	}
	if x-1 > uint64(len(u.in)-u.at) {
		u.fail(errShort)
		return 0, false
	}
	u.grow((x - 1) * uint64(size))
	return int(x - 1), u.err == nil
}

func (u *unpacker) grow(size uint64) {
	if u.taken += size; u.taken > maxMemory {
		u.fail(errLarge)
	}
}

// coder packs and unpacks the values of a type. What it unpacks into is zero.
type coder struct {
	pack   func(*packer, reflect.Value)
	unpack func(*unpacker, reflect.Value)
}

// unions has the types of each interface that can be packed.
var unions = map[reflect.Type][]reflect.Type{}

// Union says of which types a value of the interface I is that is packed, given as zero values.
// Their order is part of what is on the wire. It is called before anything is packed, when
// packages are initialized.
func Union[I any](kinds ...I) struct{} {
	var types []reflect.Type
	for _, k := range kinds {
		types = append(types, reflect.TypeOf(k))
	}
	unions[reflect.TypeFor[I]()] = types
	return struct{}{}
}

// coders are the coders made so far, by reflect.Type.
var coders sync.Map

func coderFor(v any) (reflect.Value, *coder, error) {
	value := reflect.ValueOf(v)
	if value.Kind() != reflect.Pointer || value.IsNil() {
		return value, nil, fmt.Errorf("a %T points to nothing", v)
	}
	value = value.Elem()
	if c, ok := coders.Load(value.Type()); ok {
		return value, c.(*coder), nil
	}
	made := map[reflect.Type]*coder{}
	c, err := makeCoder(value.Type(), made)
	if err != nil {
		return value, nil, err
	}
	for t, c := range made {
		coders.Store(t, c)
	}
	return value, c, nil
}

var (
	addrType     = reflect.TypeFor[netip.Addr]()
	addrPortType = reflect.TypeFor[netip.AddrPort]()
	binaryType   = reflect.TypeFor[encoding.BinaryMarshaler]()
	unbinaryType = reflect.TypeFor[encoding.BinaryUnmarshaler]()
	textType     = reflect.TypeFor[encoding.TextMarshaler]()
)

// makeCoder makes the coder of a type and those of its parts.
func makeCoder(t reflect.Type, made map[reflect.Type]*coder) (*coder, error) {
	if c := made[t]; c != nil {
		if c.pack == nil {
			return nil, fmt.Errorf("a %v contains itself: it could be of any depth", t)
		}
		return c, nil
	}
	c := &coder{}
	made[t] = c
	var err error
	switch kind := t.Kind(); {
	case t == addrType:
		*c = coder{packAddr, unpackAddr}
	case t == addrPortType:
		*c = coder{packAddrPort, unpackAddrPort}
	case t.Implements(binaryType) && reflect.PointerTo(t).Implements(unbinaryType):
		*c = coder{packBinary, unpackBinary}
	case kind == reflect.Bool:
		*c = coder{packBool, unpackBool}
	case kind >= reflect.Int && kind <= reflect.Int64:
		*c = coder{packInt, unpackInt}
	case kind >= reflect.Uint && kind <= reflect.Uint64:
		*c = coder{packUint, unpackUint}
		if t.Implements(textType) {
			*c = choice(t)
		}
	case kind == reflect.String:
		*c = coder{packString, unpackString}
	case kind == reflect.Slice && t.Elem().Kind() == reflect.Uint8:
		*c = coder{packBytes, unpackBytes}
	case kind == reflect.Slice:
		err = c.slice(t, made)
	case kind == reflect.Array:
		err = c.array(t, made)
	case kind == reflect.Map:
		err = c.mapping(t, made)
	case kind == reflect.Pointer:
		err = c.pointer(t, made)
	case kind == reflect.Struct:
		err = c.structure(t, made)
	case kind == reflect.Interface && unions[t] != nil:
		err = c.union(unions[t], made)
	default:
		err = fmt.Errorf("a %v can't be packed", t)
	}
	return c, err
}
