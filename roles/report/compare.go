package report

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"sort"
	"time"

	"pfdivert/matrix"
	"pfdivert/matrix/explain"
	"pfdivert/pfconf"
)

// Comparison is what changed from one run, A, to another, B.
type Comparison struct {
	A, B    *Past
	Changes []Difference // by kind, then by host, then in the order of the target list
	Same    int          // targets that did not change
}

// ChangeKind is the kind of a change. Its values are keys in JSON and never change.
type ChangeKind string

// The kinds, in the order in which they are reported.
const (
	Regression ChangeKind = "regression" // see kindOf
	Fixed      ChangeKind = "mended"     // it did not work and does now
	Skipped    ChangeKind = "skip"       // SKIP came or went, and it works in neither
	Changed    ChangeKind = "verdict"    // another verdict, neither worse nor fixed
	Reason     ChangeKind = "reason"     // the same verdict for another reason
	New        ChangeKind = "new"        // A has no verdict
	Gone       ChangeKind = "gone"       // B was not to run it, or did not come to what did not work in A
	Slower     ChangeKind = "slower"     // half of B's runs took longer than 95 % of A's
	Faster     ChangeKind = "faster"     // the other way round
)

var kinds = []ChangeKind{Regression, Fixed, Skipped, Changed, Reason, New, Gone, Slower, Faster}

// Difference is a target that differs between A and B. The verdict on a side without the target is
// empty.
type Difference struct {
	Kind          ChangeKind
	Host, Name    string // Host is empty when one was tested
	Before, After Summary
}

// works reports whether the kernel did what the target asks for.
func works(v matrix.Verdict) bool { return v == matrix.Pass || v == matrix.XPass }

// fine reports whether a run with this verdict succeeds.
func fine(v matrix.Verdict) bool { return matrix.ExitStatus(v) == 0 }

// kindOf says what it means that a target had one verdict and has another; an
// empty one when a run did not come to it. A regression is
//
//   - what worked and does not now. Whether B's kernel is known to fail there or lacks
//     the feature makes no difference, and neither does that the test could
//     not be done or was not: what no one saw can't be called as good as before;
//   - what was in order (a known failure, a proven lack) and now is a FAIL or an ERROR.
//
// A target that A did not run can't be a regression.
func kindOf(before, after matrix.Verdict) ChangeKind {
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
		return Fixed
	case fine(before) && !fine(after):
		return Regression
	case before == matrix.Skip || after == matrix.Skip:
		return Skipped
	}
	return Changed
}

// Compare returns what changed from a to b. Hosts are compared by name; if one of the runs tested a
// single host, that host is compared with each host of the other run.
func Compare(a, b *Past) *Comparison {
	c := &Comparison{A: a, B: b}
	type key struct{ host, name string }
	var order []key
	index := func(p, other *Past) map[key]*Summary {
		all := make(map[key]*Summary, len(p.Summaries))
		for i := range p.Summaries {
			o := &p.Summaries[i]
			hosts := []Machine{{Name: o.Host}}
			if p.Run.Tested == nil && other.Run.Tested != nil {
				hosts = other.Run.Tested
			}
			for _, h := range hosts {
				k := key{h.Name, o.Name}
				all[k] = o
				order = append(order, k)
			}
		}
		return all
	}
	before, after := index(a, b), index(b, a)
	seen := make(map[key]bool, len(order))
	for _, k := range order {
		if seen[k] {
			continue
		}
		seen[k] = true
		x := before[k]
		y, listed := after[k]
		if x == nil {
			x = &Summary{}
		}
		if !listed {
			y = &Summary{}
		}
		if x.Verdict == "" && y.Verdict == "" {
			continue
		}
		kind := kindOf(x.Verdict, y.Verdict)
		if !listed && !b.Run.Interrupted {
			kind = Gone
		}
		switch {
		case kind != "":
		case x.Reason != y.Reason:
			kind = Reason
		case x.Runs < enoughRuns || y.Runs < enoughRuns:
			// Cells of a run that repeats no target take as long as what
			// runs beside them.
		case y.Seconds > x.tail():
			kind = Slower
		case y.tail() < x.Seconds:
			kind = Faster
		}
		if kind == "" {
			c.Same++
			continue
		}
		c.Changes = append(c.Changes, Difference{kind, k.host, k.name, *x, *y})
	}
	place := map[string]int{}
	for _, h := range append(slices.Clone(a.Run.Tested), b.Run.Tested...) {
		if _, ok := place[h.Name]; !ok {
			place[h.Name] = len(place)
		}
	}
	sort.SliceStable(c.Changes, func(i, j int) bool {
		x, y := &c.Changes[i], &c.Changes[j]
		return cmp.Or(slices.Index(kinds, x.Kind)-slices.Index(kinds, y.Kind), place[x.Host]-place[y.Host]) < 0
	})
	return c
}

// enoughRuns is how many runs of a target make its times worth comparing: with fewer, the
// time that 95 % do not exceed is the longest.
const enoughRuns = 20

// Regressions returns the number of regressions.
func (c *Comparison) Regressions() int { return c.count(Regression) }

func (c *Comparison) count(kind ChangeKind) (n int) {
	for _, change := range c.Changes {
		if change.Kind == kind {
			n++
		}
	}
	return n
}

// kindTitles are the headings of a comparison, with what is listed below them; of Gone, nothing is.
var kindTitles = map[ChangeKind]string{
	Regression: "Regressions",
	Fixed:      "Fixed",
	Skipped:    "Skipped now, or no longer",
	Changed:    "Another verdict",
	Reason:     "The same verdict for another reason",
	New:        "New",
	Slower:     "Slower: half of B's runs took longer than 95 % of A's",
	Faster:     "Faster: 95 % of B's runs took less than half of A's",
}

// kindTotals name the kinds in the totals.
var kindTotals = map[ChangeKind]string{
	Regression: "regressed", Fixed: "fixed", Skipped: "skipped or no longer", Changed: "other verdict",
	Reason: "other reason",
	New:    "new", Gone: "not run", Slower: "slower", Faster: "faster",
}

// WriteText writes which runs are compared, a table for each kind of change, and the totals.
// Targets that B did not run are only counted. Details are B's, or A's for what B lacks; a detail
// that repeats the previous line's is left out. Each cause of failures in B is explained once.
func (c *Comparison) WriteText(w io.Writer, style Style) error {
	var b bytes.Buffer
	c.A.Run.writeCompared(&b, "A")
	c.B.Run.writeCompared(&b, "B")
	name, width := 0, min(style.Width, maxText)
	listed := slices.DeleteFunc(slices.Clone(c.Changes), func(change Difference) bool { return change.Kind == Gone })
	for _, change := range listed {
		name = max(name, len(change.name()))
	}
	last, said := ChangeKind(""), ""
	told := explanations{}
	for _, change := range listed {
		if change.Kind != last {
			last, said = change.Kind, ""
			fmt.Fprintf(&b, "\n%s\n", style.bold(kindTitles[last]))
		}
		fmt.Fprintf(&b, "  %-*s  %s -> %s", name, change.name(), change.Before.shown(style, cellWidth),
			change.After.shown(style, 0))
		o := change.After
		if o.Verdict == "" {
			o = change.Before
		}
		switch change.Kind {
		case Slower, Faster:
			fmt.Fprintf(&b, "  %s -> %s ms\n", millis(inTime(change.Before.Seconds)),
				millis(inTime(change.After.Seconds)))
			continue
		case Reason:
			fmt.Fprintf(&b, " (%s -> %s)", printable(change.Before.Reason), printable(o.Reason))
		default:
			if o.Reason != "" {
				fmt.Fprintf(&b, " (%s)", printable(o.Reason))
			}
		}
		b.WriteByte('\n')
		if !style.Terminal {
			width = len(o.Detail) + len(o.Counts) + 100 // for machines a line
		}
		text := o.Detail
		if o.Counts != "" && o.Verdict != matrix.Pass {
			text = o.Counts + ": " + text
		}
		if text != said {
			b.WriteString(wrap(printable(text), "    ", width))
		}
		if !style.Terminal {
			width = math.MaxInt
		}
		told.write(&b, "    ", width, change.After.Explanation)
		said = text
	}
	if len(listed) > 0 {
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "%s: ", pfconf.Count(len(c.Changes)+c.Same, "target"))
	for _, kind := range kinds {
		if n := c.count(kind); n > 0 {
			fmt.Fprintf(&b, "%d %s, ", n, kindTotals[kind])
		}
	}
	fmt.Fprintf(&b, "%d the same\n", c.Same)
	_, err := w.Write(b.Bytes())
	return err
}

// writeCompared writes which kernels a run tested.
func (r Run) writeCompared(b *bytes.Buffer, name string) {
	kernels := r.kernels()
	if kernels == nil {
		kernels = []string{"(no kernel was tested)"}
	}
	for i, kernel := range kernels {
		if i > 0 {
			name = " "
		}
		fmt.Fprintf(b, "%s  %s", name, kernel)
		if i == 0 {
			fmt.Fprintf(b, ", %s, pfdivert %s", r.Started.Format(time.RFC3339), printable(r.Version))
			if r.Interrupted {
				b.WriteString(", interrupted")
			}
		}
		b.WriteByte('\n')
	}
}

// name is the target's, with its host when there are several.
func (c Difference) name() string {
	if c.Host != "" {
		return printable(OnHost(c.Host, c.Name))
	}
	return printable(c.Name)
}

// shown is the verdict, or that there is none.
func (o Summary) shown(style Style, width int) string {
	return style.verdict(cmp.Or(o.Verdict, missing), width)
}

func inTime(seconds float64) time.Duration { return time.Duration(seconds * float64(time.Second)) }

// WriteJSON writes one JSON object and a newline:
//
//	{"a":{"kernel":…},"b":{"kernel":…},"regressions":1,"same":69,"changes":[
//	{"kind":"regression","name":"inet-args-tcp-to","before":{"verdict":"PASS",…},"after":{"verdict":"FAIL",…}}]}
//
// The kinds are those of ChangeKind; before or after is null for a target that was not run.
func (c *Comparison) WriteJSON(w io.Writer) error {
	type side struct {
		Run
		Tested []Machine `json:"tested,omitempty"`
	}
	type state struct {
		Verdict matrix.Verdict       `json:"verdict"`
		Reason  string               `json:"reason"`
		Detail  string               `json:"detail"`
		Seconds float64              `json:"seconds"`
		Runs    uint64               `json:"runs,omitempty"`
		Why     *explain.Explanation `json:"explanation,omitempty"`
	}
	of := func(o Summary) *state {
		if o.Verdict == "" {
			return nil
		}
		return &state{o.Verdict, o.Reason, o.Detail, micro(o.Seconds), o.Runs, o.Explanation}
	}
	type change struct {
		Kind   ChangeKind `json:"kind"`
		Host   string     `json:"host,omitempty"`
		Name   string     `json:"name"`
		Before *state     `json:"before"`
		After  *state     `json:"after"`
	}
	changes := make([]change, len(c.Changes)) // [] and not null
	for i, x := range c.Changes {
		changes[i] = change{x.Kind, x.Host, x.Name, of(x.Before), of(x.After)}
	}
	return encode(w, struct {
		A           side     `json:"a"`
		B           side     `json:"b"`
		Regressions int      `json:"regressions"`
		Same        int      `json:"same"`
		Changes     []change `json:"changes"`
	}{side{c.A.Run.forJSON(), c.A.Run.Tested}, side{c.B.Run.forJSON(),
		c.B.Run.Tested}, c.Regressions(), c.Same, changes})
}
