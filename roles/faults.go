package roles

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"pfdivert/matrix"
	"pfdivert/matrix/faults"
)

var faultsRole = Role{
	Name: "faults", Usage: "[FLAGS]",
	Summary: "break a lab on purpose, in one way after the other, and see that the targets notice",
	Help: `Each fault has a lab of its own, in which all targets are played. Exactly those that need
what is broken must say so, with the right reason. -only NAME -keep leaves the broken lab
open for a shell on REMOTE, to look around.

Exit status: 0 when each fault was noticed as it must be, 1 when one was not, 2 when a
lab could not be made or a run not begin.`,
}

func init() { faultsRole.run = runFaults }

func runFaults(ctx context.Context, c *call) (int, error) {
	f := c.flags()
	list := f.Bool("list", false, "list the faults and what is broken")
	name := f.String("only", "", "break the lab with the fault `NAME` only")
	keep := f.Bool("keep", false, "leave the lab of -only open for a shell")
	if err := c.parse(f); err != nil {
		return exitError, err
	}
	if err := c.noArgs(f); err != nil {
		return exitError, err
	}
	all := faults.All()
	if *name != "" {
		one, err := namedFault(all, *name)
		if err != nil {
			return exitError, err
		}
		all = []faults.Fault{one}
	}
	if *list {
		return exitOK, c.listFaults(all)
	}
	if !hasNamespaces {
		return exitError, hinted{errors.New("only Linux has a lab to break"), "'pfdivert faults -list' shows what would be broken"}
	}
	if *keep && *name == "" {
		return exitError, hinted{errors.New("-keep leaves one lab open"), "name the fault with -only"}
	}
	return c.playFaults(ctx, all, *keep)
}

func namedFault(all []faults.Fault, name string) (faults.Fault, error) {
	var names []string
	for _, f := range all {
		if f.Name == name {
			return f, nil
		}
		names = append(names, f.Name)
	}
	return faults.Fault{}, hinted{fmt.Errorf("there is no fault %q", name),
		fmt.Sprintf("the nearest is %s; 'pfdivert faults -list' shows all", matrix.Nearest(name, names))}
}

func (c *call) listFaults(all []faults.Fault) error {
	w := tabwriter.NewWriter(c.Out, 0, 0, 2, ' ', 0)
	for _, f := range all {
		fmt.Fprintf(w, "%s\t%s\n", f.Name, f.About)
	}
	return w.Flush()
}

// playFaults breaks a lab with each fault and prints what the targets said.
func (c *call) playFaults(ctx context.Context, all []faults.Fault, keep bool) (int, error) {
	start := time.Now()
	var total faultTotals
	w := tabwriter.NewWriter(c.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "FAULT\tNOTICED BY\tVERDICT\tREASONS\tCAUSES\n")
	for _, f := range all {
		err := inBrokenLab(ctx, f, f.Targets(), c.Getenv("SUDO"), func(p *pair, judged []faults.Judgement) error {
			total.add(w, f, judged)
			if !keep {
				return nil
			}
			if err := w.Flush(); err != nil {
				return err
			}
			return c.keepFault(p, f)
		})
		if err != nil {
			return exitError, fmt.Errorf("fault %s: %w", f.Name, err)
		}
	}
	if err := w.Flush(); err != nil {
		return exitError, err
	}
	if !keep {
		fmt.Fprintf(c.Out, "%s in %.1f s\n", &total, time.Since(start).Seconds())
	}
	if total.wrong() > 0 {
		return exitFail, nil
	}
	return exitOK, nil
}

// inBrokenLab plays the targets in a lab that is broken so. The lab is gone when look
// has seen it.
func inBrokenLab(ctx context.Context, f faults.Fault, targets []matrix.Target, sudo string, look func(*pair, []faults.Judgement) error) error {
	p, err := reachLab(ctx, runFlags{single: f.Single, sudo: sudo})
	if err != nil {
		return err
	}
	defer p.close()
	judged, err := p.judgeFault(ctx, f, targets)
	if err != nil {
		return err
	}
	return look(p, judged)
}

// judgeFault breaks the lab and plays the targets; the judgements are in their order.
func (p *pair) judgeFault(ctx context.Context, f faults.Fault, targets []matrix.Target) ([]faults.Judgement, error) {
	var mu sync.Mutex
	results := map[string]matrix.Result{}
	err := matrix.Run(ctx, p.hosts, matrix.Plan{Targets: targets}, f.Options(p.options), func(r matrix.Result) {
		mu.Lock()
		defer mu.Unlock()
		results[r.Name] = r
	})
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, p.explain(err)
	}
	judged := make([]faults.Judgement, len(targets))
	for i, t := range targets {
		judged[i] = faults.Judgement{Result: results[t.Name], Want: f.Want(t)}
	}
	return judged, nil
}

// causeOf is the code of a result's explanation.
func causeOf(r matrix.Result) string {
	if r.Explanation == nil {
		return "no explanation"
	}
	return r.Explanation.Cause
}

// faultTotals counts over all faults.
type faultTotals struct {
	faults, noticed, skipped int
	wrongs                   map[string]int
}

func (n *faultTotals) wrong() int {
	sum := 0
	for _, w := range n.wrongs {
		sum += w
	}
	return sum
}

// add counts a fault and writes its line, and one for each target that said something else
// than it must.
func (n *faultTotals) add(w *tabwriter.Writer, f faults.Fault, judged []faults.Judgement) {
	n.faults++
	noticed := 0
	var verdicts, reasons, causes tally
	var bad []string
	for _, j := range judged {
		r := j.Result
		switch {
		case r.Verdict == matrix.Skip:
			n.skipped++
		case r.Verdict != matrix.Pass:
			noticed++
			verdicts.add(string(r.Verdict))
			reasons.add(r.Reason)
			if r.Explanation != nil {
				causes.add(r.Explanation.Cause)
			}
		}
		if wrong := j.Wrong(); wrong != "" {
			if n.wrongs == nil {
				n.wrongs = map[string]int{}
			}
			n.wrongs[wrong]++
			bad = append(bad, fmt.Sprintf("  %s: want %s, got %s: %v", wrong, j.Want, causeOf(r), r))
		}
	}
	by := fmt.Sprintf("%d of %d", noticed, len(judged))
	if noticed == 0 {
		by = "none"
	} else if len(bad) == 0 {
		n.noticed++
	}
	fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", f.Name, by, &verdicts, &reasons, &causes)
	for _, b := range bad {
		fmt.Fprintln(w, b)
	}
}

func (n *faultTotals) String() string {
	s := fmt.Sprintf("%d faults: %d noticed by exactly the targets concerned, with the right reason", n.faults, n.noticed)
	if none := n.faults - n.noticed; none > 0 && n.wrong() == 0 {
		s += fmt.Sprintf(", %d that no target can notice", none)
	}
	s += fmt.Sprintf("; %d wrong PASS, %d wrong FAIL", n.wrongs["wrong PASS"], n.wrongs["wrong FAIL"])
	if others := n.wrong() - n.wrongs["wrong PASS"] - n.wrongs["wrong FAIL"]; others > 0 {
		s += fmt.Sprintf(", %d otherwise wrong", others)
	}
	if n.skipped > 0 {
		s += fmt.Sprintf("; %d cells skipped", n.skipped)
	}
	return s
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

// String gives the words, and how often each came when there are several.
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
