package matrix

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

// Each difference between kernels has its sentence, and no sentence is about nothing.
func TestDifferences(t *testing.T) {
	fields := map[string]bool{}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Kernel]()) {
		if f.Type.Kind() == reflect.Bool {
			fields[f.Name] = true
			if sentences[f.Name] == "" {
				t.Errorf("nothing is said of %s", f.Name)
			}
		}
	}
	for name := range sentences {
		if !fields[name] {
			t.Errorf("Kernel has no %s", name)
		}
	}
	k, ok := KernelOn("openbsd/amd64")
	if !ok || k.Firewall != "pf" {
		t.Fatalf("OpenBSD's kernel is %+v", k)
	}
	said := k.Differences()
	if !slices.Contains(said, sentences["TiesStates"]) || slices.Contains(said, sentences["RawOnFake"]) {
		t.Errorf("of pf it is said: %q", said)
	}
	if last := said[len(said)-1]; !strings.HasPrefix(last, "`reuse-rip-to-reply-to` is known to fail (`no-reply`): ") {
		t.Errorf("of pf's known failure it is said: %q", last)
	}
	if _, ok := KernelOn("plan9/386"); ok {
		t.Error("what to expect of Plan 9 is known")
	}
}
