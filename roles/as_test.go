package roles

import (
	"testing"

	"pfdivert/matrix"
	"pfdivert/roles/report"
)

// TestReaderStatuses is the table of the help of run.
func TestReaderStatuses(t *testing.T) {
	for _, c := range []struct {
		name                        string
		verdicts                    []matrix.Verdict
		named                       []string
		bisect, kselftest, sonobuoy int
	}{
		{"all pass", []matrix.Verdict{matrix.Pass, matrix.XFail}, nil, 0, 0, 0},
		{"some are skipped", []matrix.Verdict{matrix.Pass, matrix.Skip}, nil, 0, 0, 0},
		{"a failure", []matrix.Verdict{matrix.Pass, matrix.Fail}, nil, 1, 1, 1},
		{"a known failure passes", []matrix.Verdict{matrix.XPass}, nil, 1, 1, 1},
		{"an error", []matrix.Verdict{matrix.Pass, matrix.Error}, nil, 125, 1, 2},
		{"a failure and an error", []matrix.Verdict{matrix.Error, matrix.Fail}, nil, 1, 1, 1},
		{"nothing but skipped", []matrix.Verdict{matrix.Skip, matrix.Skip}, nil, 125, 4, 3},
		{"the one that was named is skipped", []matrix.Verdict{matrix.Pass, matrix.Skip}, []string{"t1"}, 125, 4, 3},
		{"another was named", []matrix.Verdict{matrix.Pass, matrix.Skip}, []string{"t0"}, 0, 0, 0},
		{"interrupted", []matrix.Verdict{matrix.Pass, ""}, nil, 125, 1, 2},
		{"none", nil, nil, 125, 4, 3},
	} {
		var summaries []report.Summary
		for i, v := range c.verdicts {
			summaries = append(summaries, report.Summary{Result: matrix.Result{Name: "t" + string(rune('0'+i)),
				Verdict: v}})
		}
		for name, want := range map[string]int{"bisect": c.bisect, "kselftest": c.kselftest, "sonobuoy": c.sonobuoy} {
			r, err := readerOf(name)
			if err != nil {
				t.Fatal(err)
			}
			if got := r.exitStatus(summaries, c.named); got != want {
				t.Errorf("%s, for %s: exit status %d, want %d", c.name, name, got, want)
			}
		}
	}
}

// TestReaderIn: an argument that is not understood does not make a bad kernel.
func TestReaderIn(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"-as", "bisect", "-kernle", "x"}, "bisect"},
		{[]string{"-nonsense", "--as=kselftest"}, "kselftest"},
		{[]string{"-as"}, ""},
		{[]string{"-as", "nobody"}, ""},
		{[]string{"bisect"}, ""},
	} {
		got := ""
		if r := readerIn(c.args); r != nil {
			got = r.name
		}
		if got != c.want {
			t.Errorf("%q: %q, want %q", c.args, got, c.want)
		}
	}
}

func TestRequire(t *testing.T) {
	for reason, want := range map[string]matrix.Verdict{
		matrix.NoFeature: matrix.Fail, matrix.NoFamily: matrix.Fail, matrix.NotClaimed: matrix.Skip,
		matrix.Dangerous: matrix.Skip,
	} {
		if got := require(matrix.Result{Verdict: matrix.Skip, Reason: reason}); got.Verdict != want {
			t.Errorf("%s: %s, want %s", reason, got.Verdict, want)
		}
	}
	if got := require(matrix.Result{Verdict: matrix.Error, Reason: matrix.NoFeature}); got.Verdict != matrix.Error {
		t.Errorf("an ERROR became %s", got.Verdict)
	}
}
