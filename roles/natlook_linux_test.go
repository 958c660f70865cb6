package roles

import (
	"testing"

	"pfdivert/matrix"
	"pfdivert/roles/testbed"
)

// TestNatlookNotices: the cells of translated connections fail without their rule, and when
// the filter is asked about another connection.
func TestNatlookNotices(t *testing.T) {
	targets, err := matrix.Select([]string{"*-natlook-*"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		omit    string
		verdict matrix.Verdict
		reason  string
	}{
		{"", matrix.Pass, ""},
		{matrix.OwnRule, matrix.Fail, matrix.NotDelivered},
		{matrix.Tuple, matrix.Fail, matrix.StateMissing},
	} {
		t.Run("without "+c.omit, func(t *testing.T) {
			p := reach(t, testbed.Options{})
			opt := p.Options
			opt.Omit = []string{c.omit}
			results := make(chan matrix.Result, len(targets))
			if err := matrix.Run(t.Context(), p.Hosts.Tested(), matrix.Plan{Targets: targets}, opt,
				func(r matrix.Result) { results <- r }); err != nil {
				t.Fatal(err)
			}
			for range targets {
				if r := <-results; r.Verdict != c.verdict || r.Reason != c.reason {
					t.Errorf("%v, want %v (%s)\n%s", r, c.verdict, c.reason, transcript(r))
				}
			}
		})
	}
}
