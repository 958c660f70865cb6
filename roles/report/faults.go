package report

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"pfdivert/matrix"
	"pfdivert/matrix/faults"
	"pfdivert/pfconf"
)

// CauseOf returns the code of a result's explanation, or a text if it has none.
func CauseOf(r matrix.Result) string {
	if r.Explanation == nil {
		return "no explanation"
	}
	return r.Explanation.Cause
}

// FaultTable writes a line for each fault with the targets that noticed it, and counts. It is not
// safe for concurrent use.
type FaultTable struct {
	out                      io.Writer
	name, cause              int // widths of columns
	faults, noticed, skipped int
	unplayed                 int // faults whose targets prove nothing here
	wrongs                   map[string]int
}

// NewFaultTable writes the heading of a table for all faults to out.
func NewFaultTable(out io.Writer, all []faults.Fault) *FaultTable {
	n := &FaultTable{out: out, name: len("FAULT"), cause: len("CAUSE"), wrongs: map[string]int{}}
	for _, f := range all {
		n.name, n.cause = max(n.name, len(f.Name)), max(n.cause, len(f.Cause))
	}
	n.line("FAULT", "NOTICED BY", "VERDICT", "CAUSE", "REASONS")
	return n
}

// line writes a line of the table; by and verdict have room for "58 of 70" and two verdicts.
func (n *FaultTable) line(name, by, verdict, cause, reasons string) {
	s := fmt.Sprintf("%-*s  %-10s  %-17s  %-*s  %s", n.name, name, by, verdict, n.cause, cause, reasons)
	fmt.Fprintln(n.out, strings.TrimRight(s, " "))
}

// Wrong returns the number of wrong verdicts.
func (n *FaultTable) Wrong() int {
	sum := 0
	for _, w := range n.wrongs {
		sum += w
	}
	return sum
}

// Add counts a fault and writes its line, followed by one for each target whose verdict was wrong.
func (n *FaultTable) Add(f faults.Fault, judged []faults.Judgement) {
	n.faults++
	noticed, due := 0, 0
	var verdicts, reasons, causes tally
	var bad []string
	for _, j := range judged {
		r := j.Result
		switch {
		case r.Verdict == matrix.Skip && j.Want.Verdict != matrix.Skip, r.Verdict == matrix.XFail:
			n.skipped++
		case r.Verdict != matrix.Pass:
			noticed++
			verdicts.add(string(r.Verdict))
			reasons.add(r.Reason)
			if r.Explanation != nil {
				causes.add(r.Explanation.Cause)
			}
		}
		if j.Want.Verdict != matrix.Pass {
			due++
		}
		if wrong := j.Wrong(); wrong != "" {
			n.wrongs[wrong]++
			bad = append(bad, fmt.Sprintf("  %s: want %s, got %s: %v", wrong, j.Want, CauseOf(r), r))
		}
	}
	by := fmt.Sprintf("%d of %d", noticed, len(judged))
	switch {
	case noticed == 0 && due > 0 && len(bad) == 0:
		by = "skipped"
		n.unplayed++
	case noticed == 0:
		by = "none"
	case len(bad) == 0:
		n.noticed++
	}
	n.line(f.Name, by, verdicts.String(), causes.String(), reasons.String())
	for _, b := range bad {
		fmt.Fprintln(n.out, b)
	}
}

// String returns the totals in one sentence.
func (n *FaultTable) String() string {
	s := fmt.Sprintf("%s: %d noticed by exactly the targets concerned, with the right reason",
		pfconf.Count(n.faults, "fault"), n.noticed)
	if none := n.faults - n.noticed - n.unplayed; none > 0 && n.Wrong() == 0 {
		s += fmt.Sprintf(", %d that no target can notice", none)
	}
	if n.unplayed > 0 {
		s += fmt.Sprintf(", %d of which all targets concerned were skipped or are known to fail", n.unplayed)
	}
	s += fmt.Sprintf("; %d wrong PASS, %d wrong FAIL", n.wrongs["wrong PASS"], n.wrongs["wrong FAIL"])
	if others := n.Wrong() - n.wrongs["wrong PASS"] - n.wrongs["wrong FAIL"]; others > 0 {
		s += fmt.Sprintf(", %d otherwise wrong", others)
	}
	if n.skipped > 0 {
		s += fmt.Sprintf("; %s not counted, because skipped or known to fail", pfconf.Count(n.skipped, "cell"))
	}
	return s
}

// WriteFaultExamples writes, for each cause, the first result that has it, with its explanation.
func WriteFaultExamples(out io.Writer, judged []faults.Judgement) {
	shown := map[string]bool{}
	for _, j := range judged {
		r := j.Result
		e := r.Explanation
		if e == nil || j.Want.Verdict == matrix.Pass || shown[e.Cause] {
			continue
		}
		shown[e.Cause] = true
		fmt.Fprintf(out, "  %v\n", r)
		for _, line := range [][2]string{{"cause", e.Cause}, {"expected", e.Expected}, {"last seen", e.LastSeen},
			{"likely", e.Likely}, {"check", e.Check}, {"fix", e.Mend}} {
			if line[1] != "" {
				fmt.Fprintf(out, "    %s: %s\n", line[0], line[1])
			}
		}
	}
}

// tally counts words in the order in which they first came.
type tally struct {
	words  []string
	counts []int
}

func (t *tally) add(word string) {
	i := slices.Index(t.words, word)
	if i < 0 {
		t.words, t.counts = append(t.words, word), append(t.counts, 0)
		i = len(t.words) - 1
	}
	t.counts[i]++
}

// String returns the words, and how often each came when there are several.
func (t *tally) String() string {
	if len(t.words) == 1 {
		return t.words[0]
	}
	all := make([]string, len(t.words))
	for i, w := range t.words {
		all[i] = fmt.Sprintf("%d %s", t.counts[i], w)
	}
	return strings.Join(all, ", ")
}
