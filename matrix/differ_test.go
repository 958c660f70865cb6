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
	k, ok := KernelOn("openbsd/amd64", "OpenBSD 7.7")
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
	fbsd12, _ := KernelOn("freebsd/amd64", "FreeBSD 12.1-STABLE")
	fbsd14, _ := KernelOn("freebsd/amd64", "FreeBSD 14.1-RELEASE-p3")
	if a, b := len(fbsd12.Differences()), len(fbsd14.Differences()); a != b+1 {
		t.Errorf("%d sentences on FreeBSD 12 and %d on 14", a, b)
	}
	if _, ok := KernelOn("plan9/386", "Plan 9"); ok {
		t.Error("what to expect of Plan 9 is known")
	}
}
