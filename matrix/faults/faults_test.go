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
		for _, system := range f.Where() {
			if Systems[system] == "" {
				t.Errorf("%s is for %q, which has no lab", f.Name, system)
			}
			concerned := len(f.Concerned(system))
			if concerned > 0 {
				noticed++
			}
			if (concerned == 0) != unnoticed[f.Name] {
				t.Errorf("%s concerns %d targets on %s", f.Name, concerned, system)
			}
			if n := len(f.Sample(system)); n > concerned+bystanders || n < min(concerned+1, len(f.Targets(system))) {
				t.Errorf("%s on %s: %d targets are played of whom %d are concerned", f.Name, system, n, concerned)
			}
		}
	}
	if noticed < 50 {
		t.Errorf("only %d faults can be noticed", noticed)
	}
}

// TestClaimsBroken: each claim of each kernel is broken by a fault of that system.
func TestClaimsBroken(t *testing.T) {
	for system, firewall := range Systems {
		noticed := map[string]bool{}
		for _, f := range For(system) {
			for _, target := range f.Concerned(system) {
				noticed[target.Name] = true
			}
		}
		for _, target := range matrix.Claims() {
			if claimed := target.Claim.By[firewall] != ""; claimed != noticed[target.Name] {
				t.Errorf("%s on %s: claimed: %v, broken by a fault: %v", target.Name, system, claimed, noticed[target.Name])
			}
		}
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
