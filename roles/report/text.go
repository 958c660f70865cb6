package report

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"pfdivert/matrix"
	"pfdivert/matrix/explain"
	"pfdivert/pfconf"
)

// WriteText writes the results for people. On a terminal: the kernel, a table with a row for each
// kind of target and a column for each address family, the failures with their reasons, and the
// totals. Elsewhere: a line for each target, in the order of the target list, and the totals.
func WriteText(w io.Writer, style Style, run Run, results []matrix.Result) error {
	results = run.ordered(results)
	var b bytes.Buffer
	told := explanations{}
	if style.Terminal {
		run.writeKernels(&b)
		for _, hosts := range run.tables(style, results) {
			writePanels(&b, style, panels(run, results, hosts))
		}
		for _, group := range run.notPassed(results, style.Claims) {
			run.writeGroup(&b, style, group)
			told.write(&b, "  ", min(style.Width, maxText), group[0].Explanation)
			b.WriteByte('\n')
		}
	} else {
		for _, r := range results {
			b.WriteString(printable(r.String()) + "\n")
			told.write(&b, "  ", math.MaxInt, r.Explanation)
		}
	}
	run.writeHostTotals(&b, "target", func(host string) (int, string) {
		return run.hostCounts(results, host)
	})
	b.WriteString(run.totals(results) + "\n")
	_, err := w.Write(b.Bytes())
	return err
}

// notPassed returns the results that did not pass; those that say the same or have the same
// explanation are together, host by host, so that one cause that takes many targets down is told
// once. Claims that no manual makes are one group, unless each is wanted.
func (r Run) notPassed(results []matrix.Result, claims bool) [][]matrix.Result {
	type cause struct {
		host        string
		verdict     matrix.Verdict
		reason, why string
	}
	var groups [][]matrix.Result
	index := make(map[cause]int)
	for _, result := range results {
		if result.Verdict == matrix.Pass {
			continue
		}
		host, _ := r.splitHost(result.Name)
		c := cause{host, result.Verdict, result.Reason, result.Detail}
		if e := result.Explanation; e != nil {
			c.why = e.Cause + ": " + e.Likely
		}
		if result.Reason == matrix.NotClaimed && !claims {
			c.why = ""
		}
		i, ok := index[c]
		if !ok {
			i = len(groups)
			index[c] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], result)
	}
	return groups
}

// writeGroup writes targets that did not pass for the same reason.
func (r Run) writeGroup(b *bytes.Buffer, style Style, group []matrix.Result) {
	width := min(style.Width, maxText)
	first := group[0]
	subject := printable(first.Name)
	host, _ := r.splitHost(first.Name)
	if first.Reason == matrix.NotClaimed && len(group) > 1 && !style.Claims {
		if host != "" {
			fmt.Fprintf(b, "%s: ", printable(host))
		}
		fmt.Fprintf(b, "%d %s: not promised by this kernel's manuals; -v lists them\n", len(group),
			style.verdict(first.Verdict, 0))
		return
	}
	whole := host != "" && len(group)*len(r.Tested) == len(r.Targets) // all of the host's
	if len(group) > 1 {
		subject = pfconf.Count(len(group), "target")
		if whole {
			subject = "all " + subject
		}
		if host != "" {
			subject = printable(host) + ": " + subject
		}
	}
	fmt.Fprintf(b, "%s %s", style.verdict(first.Verdict, 0), subject)
	if first.Reason != "" {
		fmt.Fprintf(b, " (%s)", printable(first.Reason))
	}
	b.WriteByte('\n')
	if len(group) > 1 && !whole {
		names := make([]string, len(group))
		for i, result := range group {
			_, name := r.splitHost(result.Name)
			names[i] = printable(name)
		}
		b.WriteString(wrap(strings.Join(names, " "), "  ", width))
	}
	detail := first.Detail
	if slices.ContainsFunc(group, func(r matrix.Result) bool { return r.Detail != detail }) {
		detail = "for example: " + detail
	}
	b.WriteString(wrap(printable(detail), "  ", width))
}

// explanations are the causes that were told, which many targets can share: later ones
// only name them.
type explanations map[string]bool

// write tells the likely cause, how to check it and what fixes it.
func (told explanations) write(b *bytes.Buffer, indent string, width int, e *explain.Explanation) {
	if e == nil {
		return
	}
	if told[e.Cause] {
		fmt.Fprintf(b, "%slikely: %s, as above\n", indent, printable(e.Cause))
		return
	}
	told[e.Cause] = true
	for _, line := range []struct{ word, text string }{
		{"last seen", e.LastSeen}, {"likely", e.Cause + ": " + e.Likely}, {"check", e.Check}, {"fix", e.Mend},
	} {
		if line.text != "" {
			b.WriteString(wrap(line.word+": "+printable(line.text), indent, width))
		}
	}
}

// panel is one part of the table: the targets of one group ("args", "reuse").
type panel struct {
	title   string
	columns []column
	rows    []string // target kinds
	cells   map[cell]matrix.Verdict
}

// column is an address family, on one of several hosts.
type column struct{ host, family string }

type cell struct {
	column
	row string
}

// splitName splits a target's name, family-group-kind. One that is not made so is all kind.
func splitName(name string) (family, title, kind string) {
	family, rest, ok1 := strings.Cut(name, "-")
	title, kind, ok2 := strings.Cut(rest, "-")
	if !ok1 || !ok2 {
		return "", "", name
	}
	return family, title, kind
}

// missing is what a table shows for a target that was selected and not run.
const missing matrix.Verdict = "-"

// panels sorts the results of some hosts into a table; no hosts are all. Names
// are family-group-kind; one that is not is a row of its own.
func panels(run Run, results []matrix.Result, hosts []Machine) []*panel {
	var all []*panel
	put := func(name string, v matrix.Verdict) {
		host, name := run.splitHost(name)
		if hosts != nil && !slices.ContainsFunc(hosts, func(h Machine) bool { return h.Name == host }) {
			return
		}
		family, title, kind := splitName(name)
		i := slices.IndexFunc(all, func(p *panel) bool { return p.title == title })
		if i < 0 {
			i = len(all)
			all = append(all, &panel{title: title, cells: make(map[cell]matrix.Verdict)})
		}
		p, c := all[i], column{host, family}
		if !slices.Contains(p.columns, c) {
			p.columns = append(p.columns, c)
		}
		if !slices.Contains(p.rows, kind) {
			p.rows = append(p.rows, kind)
		}
		p.cells[cell{c, kind}] = v
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
	hosts, cells := p.widths()
	width = name
	for _, w := range cells {
		width += w
	}
	if p.columns[0].host != "" {
		head := strings.Repeat(" ", name)
		for i, c := range p.columns {
			if hosts[i] > 0 {
				head += fmt.Sprintf("  %-*s", hosts[i]-2, printable(c.host))
			}
		}
		lines = append(lines, style.bold(head))
	}
	head := fmt.Sprintf("%-*s", name, p.title)
	for i, c := range p.columns {
		head += fmt.Sprintf("  %-*s", cells[i]-2, printable(c.family))
	}
	lines = append(lines, style.bold(head))
	for _, row := range p.rows {
		line := fmt.Sprintf("%-*s", name, printable(row))
		for i, c := range p.columns {
			line += "  " + style.verdict(p.cells[cell{c, row}], cells[i]-2)
		}
		lines = append(lines, line)
	}
	return lines, width
}

// widths returns the columns' widths, with two spaces before each, and at the first of each
// host that of all its columns.
func (p *panel) widths() (hosts, cells []int) {
	hosts, cells = make([]int, len(p.columns)), make([]int, len(p.columns))
	first := 0
	for i, c := range p.columns {
		if c.host != p.columns[first].host {
			first = i
		}
		cells[i] = 2 + cellWidth
		hosts[first] += cells[i]
	}
	for i, c := range p.columns {
		if more := 2 + len(printable(c.host)) - hosts[i]; hosts[i] > 0 && c.host != "" && more > 0 {
			hosts[i] += more
			for i+1 < len(p.columns) && hosts[i+1] == 0 { // to the host's last
				i++
			}
			cells[i] += more
		}
	}
	return hosts, cells
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
