package wire

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// color is an enumeration with the values 1 and 3.
type color uint8

func (c color) MarshalText() ([]byte, error) {
	if c == 1 || c == 3 {
		return []byte("a color"), nil
	}
	return nil, fmt.Errorf("%d is no color", uint8(c))
}

type inner struct {
	N    int64
	Back []string
}

// shape is of one of three types, the last of which is not said to Union.
type shape interface{ area() int }

type (
	square struct{ Side int }
	empty  struct{}
	other  struct{}
)

func (s square) area() int { return s.Side * s.Side }
func (empty) area() int    { return 0 }
func (other) area() int    { return 1 }

var _ = Union[shape](square{}, empty{})

// shapes has values of an interface.
type shapes struct {
	First shape
	All   []shape
}

// Values of interfaces arrive as the types that they were; nil and types that are not known do not.
func TestUnion(t *testing.T) {
	want := shapes{empty{}, []shape{square{3}, empty{}, square{}}}
	b, err := Append(nil, &want)
	if err != nil {
		t.Fatal(err)
	}
	var got shapes
	if err := Unpack(b, &got); err != nil || !cmp.Equal(want, got) {
		t.Errorf("%+v, not %+v; %v", got, want, err)
	}
	for _, bad := range []shapes{{}, {empty{}, []shape{nil}}, {other{}, nil}} {
		if b, err := Append(nil, &bad); err == nil || !strings.Contains(err.Error(), "no kind") {
			t.Errorf("%+v: %x, %v", bad, b, err)
		}
	}
	for _, bad := range [][]byte{{0}, {1, 2}, {3, 1, 2, 2}} {
		if err := Unpack(bad, &got); err == nil {
			t.Errorf("%x was unpacked", bad)
		}
	}
}

// all has a field of each kind.
type all struct {
	Flag     bool
	I8       int8
	I        int
	U16      uint16
	U64      uint64
	Text     string
	Bytes    []byte
	Color    color
	Addr     netip.Addr
	AddrPort netip.AddrPort
	Prefix   netip.Prefix
	Time     time.Time
	Duration time.Duration
	List     []inner
	Pointers []*inner
	Map      map[color]netip.Addr
	Pointer  *inner
	Empty    *struct{}
	Lists    [][]byte
	Array    [2][3]inner
	Word     [4]byte
	ByName   map[[2]uint16]int
	//lint:ignore U1000 wire leaves out what is not exported
	inner int
	Left  func() `json:"-"`
}

func samples() []all {
	v6 := netip.MustParseAddr("fe80::1%eth0")
	return []all{
		{},
		{
			Flag: true, I8: math.MinInt8, I: math.MinInt, U16: math.MaxUint16, U64: math.MaxUint64,
			Text: "text\x00ü", Bytes: []byte{0, 255},
			Color: 3, Addr: v6, AddrPort: netip.MustParseAddrPort("192.0.2.1:65535"),
			Prefix: netip.MustParsePrefix("2001:db8::/33"),
			Time:   time.Date(2026, 1, 2, 3, 4, 5, 678901234, time.UTC), Duration: -time.Second,
			List: []inner{{1, nil}, {}, {-1, []string{"", "x"}}}, Pointers: []*inner{nil, {5, nil}},
			Map: map[color]netip.Addr{1: v6, 3: {}}, Pointer: &inner{}, Empty: &struct{}{},
			Lists: [][]byte{nil, {}, {1}}, Array: [2][3]inner{{{1, nil}}, {{}, {2, []string{"x"}}, {-3, nil}}},
			Word: [4]byte{0, 255, 0, 1}, ByName: map[[2]uint16]int{{1, 2}: 3, {}: 4},
		},
		{
			Bytes: []byte{}, List: []inner{}, Map: map[color]netip.Addr{}, I8: math.MaxInt8, I: math.MaxInt,
			AddrPort: netip.AddrPortFrom(netip.Addr{}, 1),
		},
	}
}

// What is packed is unpacked as the same, nil lists as nil and empty ones as empty; each field
// arrives when it is the only one, too.
func TestRoundTrip(t *testing.T) {
	for _, want := range samples() {
		b, err := Append([]byte("before"), &want)
		if err != nil {
			t.Fatal(err)
		}
		if value, err := Append([]byte("before"), want); err != nil || !bytes.Equal(value, b) {
			t.Errorf("without a pointer: %x, not %x; %v", value, b, err)
		}
		var got all
		if err := Unpack(b[len("before"):], &got); err != nil {
			t.Fatal(err)
		}
		same := cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}, netip.Prefix{})
		if diff := cmp.Diff(want, got, same, cmpopts.IgnoreUnexported(all{})); diff != "" {
			t.Errorf("(-packed +unpacked):\n%s", diff)
		}
	}
}

// Fields that are zero take no room.
func TestSmall(t *testing.T) {
	for want, v := range map[string]any{
		"000000": &all{}, "010000" + "01": &all{Flag: true}, "040000" + "03": &all{I: -2},
		"01" + "0700": &struct{ A [2]uint8 }{[2]uint8{7, 0}},
		"0002" + "0204" + "02" + "00" + "00": &struct {
			A, B, C, D, E, F, G, H, I int
			List                      [][]inner
			K, L                      int
		}{List: [][]inner{{{}, {}, {}}}},
	} {
		b, err := Append(nil, v)
		if got := hex.EncodeToString(b); err != nil || !strings.HasPrefix(want, got[:2]) || len(got) > len(want) {
			t.Errorf("%+v: %s, want %s; %v", v, got, want, err)
		}
	}
}

// What no peer of this program sends is refused.
func TestRefused(t *testing.T) {
	million := []byte{1, 0x81, 0x80, 0x40} // a list's length
	for _, c := range []struct {
		name string
		b    []byte
		to   any
		want string
	}{
		{"nothing", nil, &all{}, "ends within"},
		{"half a number", []byte{0x80}, &all{}, "ends within"},
		{"a number of 65 bits", append(append([]byte{1}, bytes.Repeat([]byte{0xff}, 9)...), 2),
			&struct{ N uint64 }{}, "does not fit"},
		{"a number that is too large", []byte{1, 0x80, 2}, &struct{ N uint8 }{}, "does not fit"},
		{"a number that is too small", []byte{1, 0x81, 2}, &struct{ N int8 }{}, "does not fit"},
		{"neither true nor false", []byte{1, 0, 0, 2}, &all{}, "does not fit"},
		{"neither there nor not", []byte{1, 2}, &struct{ P *inner }{}, "does not fit"},
		{"a field that is not known", []byte{2}, &struct{ N int }{}, "not known"},
		{"a number without a name", []byte{1, 2}, &struct{ C color }{}, "no name"},
		{"a number of more values than any enumeration", []byte{1, 0x83, 2}, &struct{ C color }{}, "no name"},
		{"a text longer than it all", []byte{1, 9, 'x'}, &struct{ S string }{}, "ends within"},
		{"bytes longer than it all", []byte{1, 9, 'x'}, &struct{ B []byte }{}, "ends within"},
		{"a list longer than it all", []byte{1, 0xff, 0xff, 3}, &struct{ L []inner }{}, "ends within"},
		{"a map longer than it all", []byte{1, 0xff, 0xff, 3}, &struct{ M map[color]int }{}, "ends within"},
		{"an array that ends early", []byte{1, 1, 2}, &struct{ A [3]int }{}, "ends within"},
		{"a list that ends early", []byte{1, 3, 0}, &struct{ L []inner }{}, "ends within"},
		{"the same key twice", []byte{1, 3, 1, 0, 1, 0}, &struct{ M map[color]int }{}, "same key"},
		{"an address of five bytes", []byte{1, 5, 1, 2, 3, 4, 5}, &struct{ A netip.Addr }{}, "no known length"},
		{"a port of 17 bits", []byte{1, 0, 0x80, 0x80, 4}, &struct{ A netip.AddrPort }{}, "does not fit"},
		{"no prefix", []byte{1, 3, 1, 2, 3}, &struct{ P netip.Prefix }{}, "unexpected"},
		{"two values", []byte{0, 0, 0, 0}, &all{}, "1 bytes are behind its end"},
		{"a list that takes too much memory", append(million, make([]byte, 1<<20)...),
			&struct{ L []all }{}, "too much memory"},
		{"pointers to what takes too much memory", append(million, bytes.Repeat([]byte{1, 0, 0, 0}, 1<<20)...),
			&struct{ L []*all }{}, "too much memory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := Unpack(c.b, c.to); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

type list struct{ Next *list }

// Types and values that can't be packed are errors, each time.
func TestUnpackable(t *testing.T) {
	for want, v := range map[string]any{
		"points to nothing": (*all)(nil),
		"a <nil> points":    nil,
		"can't be packed":   &struct{ F func() }{},
		"a float64 can't":   &struct{ F []float64 }{},
		"take no room":      &struct{ F [0]int }{},
		"contains itself":   &list{},
		"has no name":       &all{Color: 2},
		"70 fields":         &fields70{},
	} {
		for range 2 {
			if b, err := Append([]byte("x"), v); err == nil || !strings.Contains(err.Error(), want) ||
				string(b) != "x" {
				t.Errorf("%T: %q, %v; want %q", v, b, err, want)
			}
		}
	}
}

// fields70 has more fields than there are bits for.
type fields70 struct {
	A0, A1, A2, A3, A4, A5, A6, A7, A8, A9 int
	B0, B1, B2, B3, B4, B5, B6, B7, B8, B9 int
	C0, C1, C2, C3, C4, C5, C6, C7, C8, C9 int
	D0, D1, D2, D3, D4, D5, D6, D7, D8, D9 int
	E0, E1, E2, E3, E4, E5, E6, E7, E8, E9 int
	F0, F1, F2, F3, F4, F5, F6, F7, F8, F9 int
	G0, G1, G2, G3, G4, G5, G6, G7, G8, G9 int
}

// FuzzUnpack: whatever comes, unpacking it does not panic, and what was understood is understood
// again when it is packed.
func FuzzUnpack(f *testing.F) {
	for _, v := range samples() {
		b, err := Append(nil, &v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var v, again all
		if Unpack(b, &v) != nil {
			return
		}
		out, err := Append(nil, &v)
		if err == nil {
			err = Unpack(out, &again)
		}
		if err != nil {
			t.Fatalf("%v: packed again as %x", err, out)
		}
	})
}
