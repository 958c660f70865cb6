//go:build bpf

package nft

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"pfdivert/pfconf"
	"pfdivert/roles/lab/labtest"
)

// What a killed driver left is undone from its journal: the filters go, and the qdisc with them
// unless it was there before.
func TestUndoBPF(t *testing.T) {
	for _, before := range []string{"", "qdisc add dev v0 clsact"} {
		l, config := newLab(t), testConfig()
		config.Engine, config.Interface = pfconf.BPF, "v0"
		tc := func(args string) (out []byte) {
			path := labtest.Program(t, "tc")
			l.remote.do(t, func() { out, _ = exec.Command(path, strings.Fields(args)...).CombinedOutput() })
			return out
		}
		tc(before)
		var journal []pfconf.Undo
		config.Journal = func(u pfconf.Undo) error {
			journal = append(journal, u)
			return nil
		}
		l.remote.open(t, config)
		if got := string(tc("filter show dev v0 ingress")); !strings.Contains(got, TableName) {
			t.Fatalf("%q: no filter is there: %s", before, got)
		}
		l.remote.do(t, func() {
			for _, u := range slices.Backward(journal) {
				check(t, Undo(t.Context(), u))
				check(t, Undo(t.Context(), u))
			}
		})
		for _, hook := range []string{"ingress", "egress"} {
			if got := string(tc("filter show dev v0 " + hook)); strings.Contains(got, TableName) {
				t.Errorf("%q: a filter is left: %s", before, got)
			}
		}
		left := strings.Contains(string(tc("qdisc show dev v0")), clsact)
		if want := before != ""; want != left {
			t.Errorf("%q: the qdisc is left: %v", before, left)
		}
	}
}
