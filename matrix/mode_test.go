package matrix

import (
	"slices"
	"testing"

	"pfdivert/matrix/explain"
	"pfdivert/pfconf"
)

// TestModes: each mode says all that depends on it, and each of the suite's targets has a function
// that runs it.
func TestModes(t *testing.T) {
	seen := map[string]bool{}
	for _, m := range modes {
		switch {
		case m.name == "" || seen[m.name]:
			t.Errorf("%+v: no name, or one that is there twice", *m.mode)
		case m.mechanism == "" || m.ofClaims == "" || m.client == 0 || m.server == 0 || m.client == m.server:
			t.Errorf("%v: %+v: it does not say what is diverted and between whom", m, *m.mode)
		case m.direction == 0 || m.action == 0 || (m.divertsTo == nil) != (m.action == pfconf.DivertReply):
			t.Errorf("%v: %+v: it does not say what its rule is", m, *m.mode)
		case m.requests < 1 || m.proves == "" &&
			!slices.Contains([]Mode{ToSockets, ToOutput, Redirect, Forwarded}, m):
			t.Errorf("%v: %+v: it does not say what it proves and how often it asks", m, *m.mode)
		case (m.client == atLocal) != (m.direction == pfconf.In):
			t.Errorf("%v: REMOTE's rule is %v, and the client is not on the other side", m, m.direction)
		}
		seen[m.name] = true
	}
	for _, target := range Targets() {
		for _, m := range []Mode{target.First, target.Second} {
			if m != (Mode{}) && runs[runKey{m.mechanism, target.Proto}] == nil {
				t.Errorf("%s: there is no function that runs %v", target.Name, m)
			}
			if m != (Mode{}) && !seen[m.name] {
				t.Errorf("%s: the mode %v is not in the list of modes", target.Name, m)
			}
		}
	}
	for _, c := range claims {
		if !seen[c.Mode.name] {
			t.Errorf("%s: the mode %v is not in the list of modes", c.Name, c.Mode)
		}
	}
	// A mode without a function is an error of this program, and accuses no kernel.
	none := Mode{&mode{name: "none", mechanism: explain.Mechanism("telepathy")}}
	x := &exchange{testCase: &testCase{Cell: Cell{Target: Target{Proto: pfconf.UDP}}}, mode: none}
	if got := verdictOf(x.run(t.Context(), true)); got != "ERROR setup-failed" {
		t.Error(got)
	}
}
