package report

import (
	"bytes"
	"fmt"
	"io"
	"slices"

	"pfdivert/matrix"
	"pfdivert/pfconf"
)

// maxColumns is how many hosts have a column each; more are grouped.
const maxColumns = 12

// WriteText writes the fleet for people: up to a dozen hosts as a run of several hosts is written;
// more in groups. What is wrong beside the verdicts is before the totals.
func (f *Fleet) WriteText(w io.Writer, style Style) error {
	var b bytes.Buffer
	run := f.run()
	run.Interrupted = false // the hosts say which were
	if len(f.hosts) <= maxColumns {
		results, order := onHosts(summariesOf(f.hosts))
		run.Targets = order
		if err := WriteText(&b, style, run, results); err != nil {
			return err
		}
		f.writeRest(&b, style)
	} else {
		f.writeGroups(&b, style)
		f.writeRest(&b, style)
		b.WriteString(run.totalsOf(f.count()) + "\n")
	}
	_, err := w.Write(b.Bytes())
	return err
}

// onHosts returns summaries as results that have their hosts in their names, and the names.
func onHosts(all []Summary) (results []matrix.Result, names []string) {
	for _, o := range all {
		o.Result.Name = OnHost(o.Host, o.Name)
		results, names = append(results, o.Result), append(names, o.Result.Name)
	}
	return results, names
}

// writeRest writes what is known of hosts beside verdicts.
func (f *Fleet) writeRest(b *bytes.Buffer, style Style) {
	if f.since != nil {
		f.since.writeText(b, style)
	}
	width := min(style.Width, maxText)
	for _, h := range f.hosts {
		for _, u := range h.unable() {
			fmt.Fprintf(b, "%s %s: %s: %s\n", style.verdict(matrix.Error, 0), printable(h.Name), printable(u.File),
				printable(u.Error))
		}
		if h.Doctor == nil {
			continue
		}
		for _, p := range h.Doctor.Problems {
			fmt.Fprintf(b, "%-4s  %s: %s\n", p.Severity, printable(h.Name), printable(p.What))
			for _, line := range p.lines() {
				b.WriteString(wrap(line[0]+": "+printable(line[1]), "      ", width))
			}
		}
	}
	for _, text := range f.notes {
		b.WriteString(wrap("note: "+printable(text), "", width))
	}
}

// writeGroups writes the groups of hosts: how many, what differs, and a table.
func (f *Fleet) writeGroups(b *bytes.Buffer, style Style) {
	groups := f.groups()
	b.WriteString(wrap(headline(f.hosts, groups), "", min(style.Width, maxText)))
	var most *group // of the kernel
	for i, g := range groups {
		if !g.Differs {
			most = g
			continue
		}
		fmt.Fprintf(b, "\n%s\n", style.bold(fmt.Sprintf("Group %d differs from most with %s: %s", i+1,
			printable(g.kernel()), hostNames(g.hosts))))
		writeDifference(b, style, most, g)
	}
	fmt.Fprintf(b, "\n%s\n", style.bold("Groups"))
	for i, g := range groups {
		fmt.Fprintf(b, "  %d  %s, %s%s\n", i+1, pfconf.Count(len(g.hosts), "host"), printable(g.kernel()),
			verdictCounts(g.Verdicts))
		b.WriteString(wrap(hostNames(g.hosts), "     ", min(style.Width, maxText)))
	}
	b.WriteByte('\n')
}

// writeDifference writes what differs between two groups.
func writeDifference(b *bytes.Buffer, style Style, most, g *group) {
	name := 0
	all := differences(most, g)
	for _, d := range all {
		name = max(name, len(printable(d.Name)))
	}
	said := explanations{}
	for _, d := range all {
		fmt.Fprintf(b, "  %-*s  %s -> %s", name, printable(d.Name), d.Before.shown(style, cellWidth),
			d.After.shown(style, 0))
		if d.After.Reason != "" {
			fmt.Fprintf(b, " (%s)", printable(d.After.Reason))
		}
		b.WriteByte('\n')
		b.WriteString(wrap(printable(d.After.Detail), "    ", min(style.Width, maxText)))
		said.write(b, "    ", min(style.Width, maxText), d.After.Explanation)
	}
}

// differences returns the targets with another verdict in a group than in most hosts of its kernel.
func differences(most, g *group) (all []Difference) {
	before := map[string]*Summary{}
	for i := range most.hosts[0].summaries {
		o := &most.hosts[0].summaries[i]
		before[o.Name] = o
	}
	for _, o := range g.hosts[0].summaries {
		d := Difference{Name: o.Name, After: o}
		if x := before[o.Name]; x != nil {
			d.Before = *x
			delete(before, o.Name)
		}
		if d.Before.Verdict != o.Verdict {
			all = append(all, d)
		}
	}
	for _, o := range most.hosts[0].summaries {
		if _, lacks := before[o.Name]; lacks {
			all = append(all, Difference{Name: o.Name, Before: o})
		}
	}
	return slices.Clip(all)
}
