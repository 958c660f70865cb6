package agent

import (
	"bytes"
	"encoding"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"pfdivert/matrix/script"
)

// typesWith returns the types of package script that have the method.
func typesWith(t *testing.T, method string) (names []string) {
	t.Helper()
	files, err := filepath.Glob("../../matrix/script/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv != nil && f.Name.Name == method {
				if of, ok := f.Recv.List[0].Type.(*ast.Ident); ok {
					names = append(names, of.Name)
				}
			}
		}
	}
	return names
}

// Every kind of step and of socket of package script can be sent, and a step of no kind can't.
func TestKinds(t *testing.T) {
	var steps []script.Step
	var stepNames, socketNames []string
	for _, k := range stepKinds {
		stepNames = append(stepNames, reflect.TypeOf(k).Name())
		if _, ok := k.(script.Open); !ok {
			steps = append(steps, k)
		}
	}
	for _, k := range socketKinds {
		socketNames = append(socketNames, reflect.TypeOf(k).Name())
		steps = append(steps, script.Open{Socket: "s", Spec: k})
	}
	for _, c := range []struct{ sent, there []string }{
		{stepNames, typesWith(t, "Name")}, {socketNames, typesWith(t, "String")},
	} {
		slices.Sort(c.sent)
		for _, name := range c.there {
			if _, ok := slices.BinarySearch(c.sent, name); !ok {
				t.Errorf("script.%s can't be sent", name)
			}
		}
		if len(c.there) < 5 {
			t.Errorf("only %q were found in package script", c.there)
		}
	}
	want := Request{ID: 2, Script: &script.Script{Steps: steps}}
	b, err := appendFrame(nil, &want)
	if err != nil {
		t.Fatal(err)
	}
	var got Request
	var buf []byte
	err = readFrame(bytes.NewReader(b), &buf, &got)
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{})); err != nil || diff != "" {
		t.Errorf("%v (-sent +received):\n%s", err, diff)
	}
	for _, bad := range []script.Step{nil, script.Open{Socket: "none"}} {
		if b, err := appendFrame(nil, &Request{Script: &script.Script{Steps: []script.Step{bad}}}); err == nil {
			t.Errorf("%+v was packed: %x", bad, b)
		}
	}
}

// fill sets all of a value that travels, no part to zero. Of an interface each kind is used in
// turn.
func fill(t *testing.T, v reflect.Value, n *int) {
	t.Helper()
	*n++
	switch x := v.Addr().Interface().(type) {
	case *netip.Addr:
		*x = netip.AddrFrom4([4]byte{192, 0, 2, byte(*n)})
		return
	case *netip.AddrPort:
		*x = netip.AddrPortFrom(netip.MustParseAddr("fe80::1%eth0"), uint16(*n))
		return
	case *netip.Prefix:
		*x = netip.MustParsePrefix("2001:db8::/33")
		return
	case *time.Time:
		*x = time.Unix(int64(*n), 5).UTC()
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(-int64(*n % 100))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(*n%100 + 1))
		for i := uint64(1); i < 256; i++ { // one that has a name, if any has
			e, ok := v.Interface().(encoding.TextMarshaler)
			if !ok {
				break
			}
			if _, err := e.MarshalText(); err == nil {
				break
			}
			v.SetUint(i)
		}
	case reflect.String:
		v.SetString(fmt.Sprint("text ", *n))
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fill(t, v.Index(i), n)
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(t, v.Index(i), n)
		}
	case reflect.Map:
		key, elem := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(t, key, n)
		fill(t, elem, n)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, elem)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem(), n)
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() && f.Tag.Get("json") != "-" {
				fill(t, v.Field(i), n)
			}
		}
	case reflect.Interface:
		switch x := v.Addr().Interface().(type) {
		case *script.Step:
			*x = filled(t, stepKinds[*n%len(stepKinds)], n)
		case *script.Socket:
			*x = filled(t, socketKinds[*n%len(socketKinds)], n)
		default:
			t.Fatalf("a %v travels, and is not known here", v.Type())
		}
	default:
		t.Fatalf("a %v travels, and can't be packed", v.Type())
	}
}

// filled returns a value of the same type as v with nothing in it that is zero.
func filled[T any](t *testing.T, v T, n *int) T {
	t.Helper()
	x := reflect.New(reflect.TypeOf(v)).Elem()
	fill(t, x, n)
	return x.Interface().(T)
}

// All that a request or an answer can have arrives as it was sent: each kind of step and of socket,
// an outcome, evidence, and all else.
func TestAllTravels(t *testing.T) {
	n := 0
	var steps []script.Step
	for _, k := range stepKinds {
		steps = append(steps, filled(t, k, &n))
	}
	for _, k := range socketKinds {
		steps = append(steps, script.Open{Socket: "s", Spec: filled(t, k, &n), Process: script.OtherProcess})
	}
	request := filled(t, Request{}, &n)
	request.Script.Steps = steps
	response, hello := filled(t, Response{}, &n), filled(t, Hello{}, &n)
	for _, c := range []struct{ sent, got any }{
		{&request, &Request{}}, {&response, &Response{}}, {&hello, &Hello{}},
	} {
		b, err := appendFrame(nil, c.sent)
		if err != nil {
			t.Errorf("a %T can't be sent: %v", c.sent, err)
			continue
		}
		var buf []byte
		err = readFrame(bytes.NewReader(b), &buf, c.got)
		if err != nil || !reflect.DeepEqual(c.sent, c.got) {
			t.Errorf("%v: sent\n%+v\nand received\n%+v", err, c.sent, c.got)
		}
	}
}
