package agent

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

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
