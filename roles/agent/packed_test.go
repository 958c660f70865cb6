package agent

import (
	"encoding"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"regexp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// fill sets all that v holds, and each thing to another value.
func fill(t *testing.T, v reflect.Value, n *int) {
	t.Helper()
	*n++
	switch x := v.Addr().Interface().(type) {
	case *netip.Addr:
		*x = netip.AddrFrom4([4]byte{10, 0, byte(*n >> 8), byte(*n)})
		return
	case *netip.AddrPort:
		*x = netip.AddrPortFrom(netip.MustParseAddr(fmt.Sprintf("fe80::%x%%eth%d", *n, *n)), uint16(*n))
		return
	case encoding.TextUnmarshaler: // an enumeration: its first value; TestPackedChoices has them all
		for i := uint64(1); ; i++ {
			v.SetUint(i)
			if _, err := v.Interface().(encoding.TextMarshaler).MarshalText(); err == nil {
				return
			}
		}
	}
	switch v.Kind() {
	case reflect.Interface: // the first kind; TestPackedKinds has them all
		switch v.Type() {
		case reflect.TypeFor[script.Step]():
			v.Set(filled(t, stepKinds[0].zero, n))
		case reflect.TypeFor[script.Socket]():
			v.Set(filled(t, socketKinds[0].zero, n))
		default:
			t.Fatalf("a %v can't be filled", v.Type())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i), n)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem(), n)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(t, v.Index(0), n)
		fill(t, v.Index(1), n)
	case reflect.String:
		v.SetString(fmt.Sprint("text ", *n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(-*n))
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(*n))
		if v.Uint() == 0 {
			v.SetUint(1)
		}
	default:
		t.Fatalf("a %v can't be filled", v.Type())
	}
}

// filled is a value of zero's type, filled.
func filled(t *testing.T, zero any, n *int) reflect.Value {
	t.Helper()
	v := reflect.New(reflect.TypeOf(zero)).Elem()
	fill(t, v, n)
	return v
}

// throughFrame packs v and unpacks it into to.
func throughFrame(t *testing.T, v, to any) {
	t.Helper()
	wire, err := appendFrame(nil, v)
	if err == nil {
		err = unpack(wire[frameHead:], to)
	}
	if err != nil || wire[frameHead] != byHand {
		t.Fatalf("%v: %x", err, wire)
	}
}

var exactly = cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{})

// Every field of what is packed by hand arrives, whatever else is set.
func TestPacked(t *testing.T) {
	var steps script.Script
	var rules Rules
	var outcomes []script.Outcome
	var faults []*script.Fault
	n := 0
	for _, v := range []any{&steps, &rules, &outcomes, &faults} {
		fill(t, reflect.ValueOf(v).Elem(), &n)
	}
	faults[0] = nil
	for _, want := range []Request{{ID: 1<<64 - 1, Script: &steps}, {ID: 1, Rules: &rules}, {Script: &script.Script{}}, {Rules: &Rules{}}} {
		var got Request
		throughFrame(t, &want, &got)
		if diff := cmp.Diff(want, got, exactly); diff != "" {
			t.Errorf("(-sent +received):\n%s", diff)
		}
	}
	// Each field of an outcome arrives when it is the only one, too.
	for i := range reflect.TypeFor[script.Outcome]().NumField() {
		var one script.Outcome
		reflect.ValueOf(&one).Elem().Field(i).Set(reflect.ValueOf(outcomes[0]).Field(i))
		outcomes = append(outcomes, one)
	}
	for _, want := range []Answer{{ID: 1<<64 - 1, Outcomes: outcomes}, {ID: 1, Fault: &script.Fault{Code: "a", Text: "b", Hint: "c"}, Faults: faults}} {
		var got Answer
		throughFrame(t, &want, &got)
		if diff := cmp.Diff(want, got, exactly); diff != "" {
			t.Errorf("(-sent +received):\n%s", diff)
		}
	}
}

// Every kind of step and of socket arrives with all of its fields, and there is no kind that can't
// be packed.
func TestPackedKinds(t *testing.T) {
	n := 0
	var steps []script.Step
	for _, k := range stepKinds {
		steps = append(steps, filled(t, k.zero, &n).Interface().(script.Step))
	}
	for _, k := range socketKinds {
		steps = append(steps, script.Open{Socket: "s", Spec: filled(t, k.zero, &n).Interface().(script.Socket)})
	}
	for _, s := range slices.Clone(steps) { // and empty ones
		if _, ok := s.(script.Open); !ok {
			steps = append(steps, reflect.Zero(reflect.TypeOf(s)).Interface().(script.Step))
		}
	}
	want := Request{ID: 2, Script: &script.Script{Steps: steps}}
	var got Request
	throughFrame(t, &want, &got)
	if diff := cmp.Diff(want, got, exactly); diff != "" {
		t.Errorf("(-sent +received):\n%s", diff)
	}
	files, err := os.ReadDir("../../matrix/script")
	if err != nil {
		t.Fatal(err)
	}
	methods := map[string]int{}
	for _, f := range files {
		text, err := os.ReadFile("../../matrix/script/" + f.Name())
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^func \((?:\w+ )?\w+\) (Name|String)\(\) string`).FindAllSubmatch(text, -1) {
			methods[string(m[1])]++
		}
	}
	if methods["Name"] != len(stepKinds) || methods["String"] != len(socketKinds) {
		t.Errorf("matrix/script has %d kinds of steps and %d of sockets, of which %d and %d can be packed",
			methods["Name"], methods["String"], len(stepKinds), len(socketKinds))
	}
	for _, bad := range []script.Step{nil, script.Open{Socket: "none"}} {
		if wire, err := appendFrame(nil, &Request{Script: &script.Script{Steps: []script.Step{bad}}}); err == nil {
			t.Errorf("%+v was packed: %x", bad, wire)
		}
	}
}

// Every value of an enumeration arrives, and none that has no name.
func TestPackedChoices(t *testing.T) {
	for i := range 256 {
		for _, r := range []pfconf.Rule{
			{Direction: pfconf.Direction(i)}, {Family: pfconf.Family(i)}, {Proto: pfconf.Proto(i)}, {Action: pfconf.Action(i)},
		} {
			known := i == 0
			for _, e := range []encoding.TextMarshaler{r.Direction, r.Family, r.Proto, r.Action} {
				_, err := e.MarshalText()
				known = known || err == nil
			}
			want := Request{Rules: &Rules{[]script.Change{{Add: []pfconf.Rule{r}}}}}
			wire, err := appendFrame(nil, &want)
			if (err == nil) != known {
				t.Errorf("%+v packed: %v", r, err)
			}
			if !known {
				continue
			}
			var got Request
			if err := unpack(wire[frameHead:], &got); err != nil || got.Rules.Changes[0].Add[0] != r {
				t.Errorf("%+v received as %+v: %v", r, got.Rules, err)
			}
		}
	}
	var p packer
	p.rules(&Rules{[]script.Change{{Add: []pfconf.Rule{{}}}}})
	for i := range p.out { // wherever a number without a name comes to stand, it does not get through
		bad := packer{unpack: true, in: string(p.out[:i]) + "\x7f" + string(p.out[i+1:])}
		var r Rules
		bad.rules(&r)
		if bad.end() != nil {
			continue
		}
		for _, c := range r.Changes {
			for _, rule := range c.Add {
				for _, e := range []uint8{uint8(rule.Direction), uint8(rule.Family), uint8(rule.Proto), uint8(rule.Action)} {
					if e != 0 {
						t.Errorf("byte %d made %+v", i, rule)
					}
				}
			}
		}
	}
}

// How long packing takes, of a script and of its answer as a cell has them.
func BenchmarkPacked(b *testing.B) {
	request := &someRequests()[2]
	answer := &Answer{ID: 3, Outcomes: make([]script.Outcome, len(request.Script.Steps))}
	answer.Outcomes[0].Local = request.Script.Steps[0].(script.Open).Spec.(script.Stream).Local
	var wire []byte
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if wire, err = appendFrame(wire[:0], request); err != nil {
			b.Fatal(err)
		}
		var r Request
		if err := unpack(wire[frameHead:], &r); err != nil {
			b.Fatal(err)
		}
		if wire, err = appendFrame(wire[:0], answer); err != nil {
			b.Fatal(err)
		}
		var a Answer
		if err := unpack(wire[frameHead:], &a); err != nil {
			b.Fatal(err)
		}
	}
}
