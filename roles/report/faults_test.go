package report

import (
	"strings"
	"testing"

	"pfdivert/matrix"
	"pfdivert/matrix/faults"
)

// TestFaultTable: a fault is noticed, by no target, wrongly, or only by targets that prove nothing.
func TestFaultTable(t *testing.T) {
	fails := faults.Want{Verdict: matrix.Fail, Reason: matrix.NotLost, Cause: "claim-broken"}.Unexplained()
	passes := faults.Want{Verdict: matrix.Pass}
	result := func(v matrix.Verdict, reason string) matrix.Result {
		return matrix.Result{Name: "inet-divert-full", Verdict: v, Reason: reason}
	}
	passed, lost := result(matrix.Pass, ""), result(matrix.Fail, matrix.NotLost)
	var out strings.Builder
	all := []faults.Fault{{Name: "noticed"}, {Name: "unnoticed"}, {Name: "wrong"}, {Name: "skipped"}}
	n := NewFaultTable(&out, all)
	n.Add(all[0], []faults.Judgement{{Result: lost, Want: fails}, {Result: passed, Want: passes}})
	n.Add(all[1], []faults.Judgement{{Result: passed, Want: passes}})
	n.Add(all[3], []faults.Judgement{
		{Result: result(matrix.Skip, matrix.NoFeature), Want: fails}, {Result: result(matrix.XFail,
			matrix.StateMissing), Want: fails},
	})
	const right = "3 faults: 1 noticed by exactly the targets concerned, with the right reason, 1 that no target can notice, " +
		"1 of which all targets concerned were skipped or are known to fail; 0 wrong PASS, 0 wrong FAIL; " +
		"2 cells not counted, because skipped or known to fail"
	if got := n.String(); got != right || n.Wrong() != 0 {
		t.Errorf("%d wrong: %s, want %s", n.Wrong(), got, right)
	}
	n.Add(all[2], []faults.Judgement{{Result: passed, Want: fails}, {Result: lost, Want: passes},
		{Result: result(matrix.Fail, matrix.Looped), Want: fails}})
	if got := n.String(); n.Wrong() != 3 || !strings.Contains(got, "1 wrong PASS, 1 wrong FAIL, 1 otherwise wrong") {
		t.Errorf("%d wrong: %s", n.Wrong(), got)
	}
	for _, line := range []string{
		"noticed    1 of 2      FAIL                      not-lost", "unnoticed  none", "skipped    skipped",
		"  wrong PASS: want FAIL (not-lost; *), got no explanation: PASS inet-divert-full",
	} {
		if !strings.Contains(out.String(), line+"\n") {
			t.Errorf("no line %q in\n%s", line, out.String())
		}
	}
}
