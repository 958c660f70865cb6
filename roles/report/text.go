package report

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"

	"pfdivert/matrix"
)

// WriteText writes the results for people. On a terminal: the kernel, a table
// with a row per target kind and a column per address family, the targets that
// did not pass with their reasons, and the totals. Elsewhere a line per target,
// in the order of the target list, and the totals.
func WriteText(w io.Writer, style Style, run Run, results []matrix.Result) error {
	results = run.ordered(results)
	var b bytes.Buffer
	if style.Terminal {
		if run.Kernel != "" || run.System != "" {
			fmt.Fprintf(&b, "%s\n\n", printable(strings.TrimSpace(run.Kernel+" "+run.System)))
		}
		writePanels(&b, style, panels(run, results))
		for _, group := range notPassed(results) {
			writeGroup(&b, style, group)
		}
	} else {
		for _, r := range results {
			b.WriteString(printable(r.String()) + "\n")
		}
	}
	b.WriteString(run.totals(results) + "\n")
	_, err := w.Write(b.Bytes())
	return err
}

// notPassed returns the results that did not pass; those that say the same are
// together, so that one cause that takes many targets down is told once.
func notPassed(results []matrix.Result) [][]matrix.Result {
	type cause struct {
		verdict        matrix.Verdict
		reason, detail string
	}
	var groups [][]matrix.Result
	index := make(map[cause]int)
	for _, r := range results {
		if r.Verdict == matrix.Pass {
			continue
		}
		c := cause{r.Verdict, r.Reason, r.Detail}
		i, ok := index[c]
		if !ok {
			i = len(groups)
			index[c] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], r)
	}
	return groups
}

// writeGroup writes targets that did not pass for the same reason.
func writeGroup(b *bytes.Buffer, style Style, group []matrix.Result) {
	width := min(style.Width, maxText)
	first := group[0]
	subject := printable(first.Name)
	if len(group) > 1 {
		subject = plural(len(group), "target")
	}
	fmt.Fprintf(b, "%s %s", style.verdict(first.Verdict, 0), subject)
	if first.Reason != "" {
		fmt.Fprintf(b, " (%s)", printable(first.Reason))
	}
	b.WriteByte('\n')
	if len(group) > 1 {
		names := make([]string, len(group))
		for i, r := range group {
			names[i] = printable(r.Name)
		}
		b.WriteString(wrap(strings.Join(names, " "), "  ", width))
	}
	b.WriteString(wrap(printable(first.Detail), "  ", width))
	b.WriteByte('\n')
}

// panel is one part of the table: the targets of one group ("args", "reuse").
type panel struct {
	title   string
	columns []string // address families
	rows    []string // target kinds
	cells   map[[2]string]matrix.Verdict
}

// missing is what a table shows for a target that was selected and not played.
const missing matrix.Verdict = "-"

// panels sorts the results into a table. Names are family-group-kind; one that
// is not is a row of its own.
func panels(run Run, results []matrix.Result) []*panel {
	var all []*panel
	put := func(name string, v matrix.Verdict) {
		family, rest, ok1 := strings.Cut(name, "-")
		title, kind, ok2 := strings.Cut(rest, "-")
		if !ok1 || !ok2 {
			family, title, kind = "", "", name
		}
		i := slices.IndexFunc(all, func(p *panel) bool { return p.title == title })
		if i < 0 {
			i = len(all)
			all = append(all, &panel{title: title, cells: make(map[[2]string]matrix.Verdict)})
		}
		p := all[i]
		if !slices.Contains(p.columns, family) {
			p.columns = append(p.columns, family)
		}
		if !slices.Contains(p.rows, kind) {
			p.rows = append(p.rows, kind)
		}
		p.cells[[2]string{kind, family}] = v
	}
	for _, name := range run.Targets {
		put(name, missing)
	}
	for _, r := range results {
		put(r.Name, r.Verdict)
	}
	return all
}

const (
	cellWidth = 5 // the longest verdicts: XFAIL, XPASS, ERROR
	gap       = 4 // between panels
)

// lines renders a panel, each line padded to the returned width.
func (p *panel) lines(style Style) (lines []string, width int) {
	name := len(p.title)
	for _, row := range p.rows {
		name = max(name, len(printable(row)))
	}
	width = name + len(p.columns)*(2+cellWidth)
	head := fmt.Sprintf("%-*s", name, p.title)
	for _, c := range p.columns {
		head += fmt.Sprintf("  %-*s", cellWidth, printable(c))
	}
	lines = append(lines, style.bold(head))
	for _, row := range p.rows {
		line := fmt.Sprintf("%-*s", name, printable(row))
		for _, c := range p.columns {
			line += "  " + style.verdict(p.cells[[2]string{row, c}], cellWidth)
		}
		lines = append(lines, line)
	}
	return lines, width
}

// writePanels writes the panels side by side when they fit, so that all 70
// targets are on one screen, else one below the other.
func writePanels(b *bytes.Buffer, style Style, panels []*panel) {
	var columns [][]string
	var widths []int
	total, height := 0, 0
	for _, p := range panels {
		lines, width := p.lines(style)
		columns = append(columns, lines)
		widths = append(widths, width)
		total += width + gap
		height = max(height, len(lines))
	}
	if total-gap > style.Width {
		for _, lines := range columns {
			for _, line := range lines {
				b.WriteString(strings.TrimRight(line, " ") + "\n")
			}
			b.WriteByte('\n')
		}
		return
	}
	for y := range height {
		line := ""
		for x, lines := range columns {
			cell := strings.Repeat(" ", widths[x])
			if y < len(lines) {
				cell = lines[y]
			}
			line += cell + strings.Repeat(" ", gap)
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	if height > 0 {
		b.WriteByte('\n')
	}
}
