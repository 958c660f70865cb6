package report

import (
	"cmp"
	"slices"

	"pfdivert/matrix"
)

// Comparison is what changed from one run, A, to another, B.
type Comparison struct {
	A, B    *Past
	Changes []Change // by kind, then by host, then in the order of the target list
	Same    int      // targets that did not change
}

// Kind says what a change means.
type Kind string

// The kinds, in the order in which they are reported.
const (
	Regression Kind = "regression" // see kindOf
	Mended     Kind = "mended"     // it did not work and does now
	Skipped    Kind = "skip"       // SKIP came or went, and it works in neither
	Changed    Kind = "verdict"    // another verdict, neither worse nor fixed
	Reason     Kind = "reason"     // the same verdict for another reason
	New        Kind = "new"        // A has no verdict
	Gone       Kind = "gone"       // B has no verdict, and in A it did not work
	Slower     Kind = "slower"     // half of B's runs took longer than 95 % of A's
	Faster     Kind = "faster"     // the other way round
)

var kinds = []Kind{Regression, Mended, Skipped, Changed, Reason, New, Gone, Slower, Faster}

// Change is a target that is not in B as it was in A. The verdict of what is missing is
// empty.
type Change struct {
	Kind          Kind
	Host, Name    string // Host is empty when one was tested
	Before, After Outcome
}

// works reports whether the kernel did what the target asks for.
func works(v matrix.Verdict) bool { return v == matrix.Pass || v == matrix.XPass }

// fine reports whether a run with this verdict succeeds.
func fine(v matrix.Verdict) bool { return matrix.ExitStatus(v) == 0 }

// kindOf says what it means that a target had one verdict and has another; an
// empty one when it was not played. A regression is
//
//   - what worked and does not now. Whether B's kernel is known to fail there or lacks
//     the feature makes no difference, and neither does that the test could
//     not be done or was not: what no one saw can't be called as good as before;
//   - what was in order (a known failure, a proven lack) and now is a FAIL or an ERROR.
//
// A target that A did not play can't be a regression.
func kindOf(before, after matrix.Verdict) Kind {
	switch {
	case before == after:
		return ""
	case before == "":
		return New
	case works(before) && !works(after):
		return Regression
	case after == "":
		return Gone
	case works(before) && works(after):
		return Changed
	case works(after):
		return Mended
	case fine(before) && !fine(after):
		return Regression
	case before == matrix.Skip || after == matrix.Skip:
		return Skipped
	}
	return Changed
}

// Compare finds what changed from a to b. Hosts with the same name are compared, and when
// one of the runs tested one host only, that host with each of the other's.
func Compare(a, b *Past) *Comparison {
	c := &Comparison{A: a, B: b}
	type key struct{ host, name string }
	var order []key
	type times struct {
		Outcome
		tail float64
	}
	index := func(p, other *Past) map[key]times {
		all := map[key]times{}
		for i, o := range p.Outcomes {
			hosts := []Host{{Name: o.Host}}
			if p.Run.Tested == nil && other.Run.Tested != nil {
				hosts = other.Run.Tested
			}
			for _, h := range hosts {
				k := key{h.Name, o.Name}
				all[k] = times{o, p.tails[i]}
				order = append(order, k)
			}
		}
		return all
	}
	before, after := index(a, b), index(b, a)
	seen := map[key]bool{}
	for _, k := range order {
		if seen[k] {
			continue
		}
		seen[k] = true
		x, y := before[k], after[k]
		if x.Verdict == "" && y.Verdict == "" {
			continue
		}
		kind := kindOf(x.Verdict, y.Verdict)
		switch {
		case kind != "":
		case x.Reason != y.Reason:
			kind = Reason
		case x.Runs < enoughRuns || y.Runs < enoughRuns:
			// Cells of a run that plays each target once take as long as what is
			// played beside them.
		case y.Seconds > x.tail:
			kind = Slower
		case y.tail < x.Seconds:
			kind = Faster
		}
		if kind == "" {
			c.Same++
			continue
		}
		c.Changes = append(c.Changes, Change{kind, k.host, k.name, x.Outcome, y.Outcome})
	}
	hosts := append(slices.Clone(a.Run.Tested), b.Run.Tested...)
	place := func(host string) int {
		return slices.IndexFunc(hosts, func(h Host) bool { return h.Name == host })
	}
	slices.SortStableFunc(c.Changes, func(x, y Change) int {
		return cmp.Or(slices.Index(kinds, x.Kind)-slices.Index(kinds, y.Kind), place(x.Host)-place(y.Host))
	})
	return c
}

// enoughRuns is how many runs of a target make its times worth comparing: with fewer, the
// time that 95 % do not exceed is the longest.
const enoughRuns = 20

// Regressions counts the regressions.
func (c *Comparison) Regressions() int { return c.count(Regression) }

func (c *Comparison) count(kind Kind) (n int) {
	for _, change := range c.Changes {
		if change.Kind == kind {
			n++
		}
	}
	return n
}
