package faults

import (
	"testing"

	"pfdivert/matrix"
)

// TestTable: each fault has a name of its own and says what is broken, and all but the
// few that are known for it are noticed.
func TestTable(t *testing.T) {
	unnoticed := map[string]bool{"no-timestamps": true, "early-demux": true, "forwarding": true}
	noticed := 0
	seen := map[string]bool{}
	for _, f := range All() {
		if f.Name == "" || f.About == "" || seen[f.Name] {
			t.Errorf("%q: %q: no name of its own, or no description", f.Name, f.About)
		}
		seen[f.Name] = true
		if len(f.Omit)+len(f.Local)+len(f.Remote) == 0 {
			t.Errorf("%s breaks nothing", f.Name)
		}
		concerned := len(f.Concerned(f.Targets()))
		if concerned > 0 {
			noticed++
		}
		if (concerned == 0) != unnoticed[f.Name] {
			t.Errorf("%s concerns %d targets", f.Name, concerned)
		}
	}
	if noticed < 25 {
		t.Errorf("only %d faults can be noticed", noticed)
	}
}

func TestWrong(t *testing.T) {
	lost := matrix.Result{Verdict: matrix.Fail, Reason: matrix.NotDelivered}
	for _, c := range []struct {
		got   matrix.Result
		want  Want
		wrong string
	}{
		{matrix.Result{Verdict: matrix.Pass}, pass, ""},
		{lost, fails(matrix.NotDelivered), ""},
		{matrix.Result{Verdict: matrix.Skip, Reason: matrix.NoFamily}, fails(matrix.NoReply), ""},
		{matrix.Result{Verdict: matrix.Pass}, fails(matrix.NoReply), "wrong PASS"},
		{lost, pass, "wrong FAIL"},
		{lost, errs(matrix.NotDelivered), "wrong verdict"},
		{lost, fails(matrix.NoReply), "wrong reason"},
	} {
		if got := (Judgement{c.got, c.want}).Wrong(); got != c.wrong {
			t.Errorf("%v where %v is due: %q, not %q", c.got, c.want, got, c.wrong)
		}
	}
}
