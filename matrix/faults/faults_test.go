package faults

import (
	"testing"

	"pfdivert/matrix"
)

// TestTable: each fault has a name of its own and says what is broken, and all but the
// few that are known for it are noticed.
func TestTable(t *testing.T) {
	unnoticed := map[string]bool{"no-timestamps": true, "early-demux": true, "forwarding": true, "bridged-plain": true}
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
				t.Errorf("%s on %s: %d targets are run of whom %d are concerned", f.Name, system, n, concerned)
			}
		}
	}
	if noticed < 50 {
		t.Errorf("only %d faults can be noticed", noticed)
	}
}

// ruleless are the faults with which a claim's rule takes no packet. Every claim notices that,
// whatever it is about, so they prove little of it.
var ruleless = map[string]bool{"claims-no-rule": true, "other-divert-port": true, "allow-first": true,
	"no-filter": true}

// unbroken are claims of a system that no other fault breaks, with why.
var unbroken = map[string]string{
	"openbsd natlook-tcp": "it is known to fail there by itself",
	"openbsd natlook-udp": "it is known to fail there by itself",
}

// TestClaimsBroken: each claim of each kernel is broken by a fault of that system.
func TestClaimsBroken(t *testing.T) {
	for system, firewall := range Systems {
		all, most := map[string]bool{}, map[string]bool{}
		for _, f := range On(system, All()) {
			for _, target := range f.Concerned(system) {
				all[target.Name] = true
				most[target.Name] = most[target.Name] || !ruleless[f.Name]
			}
		}
		for _, target := range matrix.Claims() {
			claimed, why := target.Claim.By[firewall] != "", unbroken[system+" "+target.Kind()]
			if claimed != all[target.Name] || claimed && most[target.Name] == (why != "") {
				t.Errorf("%s on %s: claimed: %v, broken by a fault: %v, by one of the rule alone: %v, excused: %q",
					target.Name, system, claimed, all[target.Name], !most[target.Name], why)
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
		{matrix.Result{Verdict: matrix.Skip, Reason: matrix.NoFamily}, Want{matrix.Skip, matrix.NoFeature, ""},
			"wrong reason"},
		{lost, Want{matrix.Skip, matrix.NoFeature, ""}, "wrong verdict"},
		{lost, errs(matrix.NotDelivered), "wrong verdict"},
		{lost, fails(matrix.NoReply), "wrong reason"},
	} {
		if got := (Judgement{c.got, c.want}).Wrong(); got != c.wrong {
			t.Errorf("%v where %v is due: %q, not %q", c.got, c.want, got, c.wrong)
		}
	}
}
