package report

import (
	"cmp"
	"fmt"
	"io"
	"regexp"
	"slices"
	"sort"
	"strings"
	"time"

	"pfdivert/matrix"
	"pfdivert/pfconf"
)

// kernelRun is what a page of kernels has of one host under test.
type kernelRun struct {
	run       Run
	kernel    Machine
	summaries map[string]Summary // by target
}

// kernelRuns are the hosts under test of all runs.
func kernelRuns(runs []*Past) []kernelRun {
	var all []kernelRun
	for _, p := range runs {
		hosts := p.Run.Tested
		if hosts == nil {
			hosts = []Machine{{Kernel: p.Run.Kernel, System: p.Run.System, Filter: p.Run.filter()}}
		}
		for _, h := range hosts {
			c := kernelRun{p.Run, h, map[string]Summary{}}
			for _, o := range p.Summaries {
				if p.Run.Tested == nil || o.Host == h.Name {
					c.summaries[o.Name] = o
				}
			}
			all = append(all, c)
		}
	}
	return all
}

// local is the kernel of the run's other host.
func (c kernelRun) local() string {
	switch {
	case c.run.Local != nil:
		return c.run.Local.Kernel
	case len(c.run.Hosts) > 0:
		return c.run.Hosts[0].Kernel
	}
	return ""
}

// title is the kernel, or the name of a host that did not get as far as to tell it.
func (c kernelRun) title() string {
	text := cmp.Or(c.kernel.Kernel, c.kernel.Name)
	if c.kernel.Filter != "" {
		text += ", " + c.kernel.Filter
	}
	return inMarkdown(text)
}

// WriteKernels writes a page in Markdown that compares runs on several kernels: which kernels were
// tested, the targets with a column for each, why targets of a kernel did not pass, and what is
// expected of that kernel alone.
func WriteKernels(w io.Writer, runs []*Past) error {
	all := kernelRuns(runs)
	var b strings.Builder
	b.WriteString("# Kernels\n\n<!-- Written by 'make kernels' from the runs in docs/kernels. -->\n\n" +
		"What happens to the targets on which kernel, from real runs. The oldest Linux that is supported is 5.10, of\n" +
		"Debian 11: what it can't do yet is SKIP, with the release that can.\n" +
		"What differs between two of them, `compare` says; [reports.md](reports.md) has FreeBSD 12.1 and 15.0 for an example.\n\n" +
		"| kernel under test | system | LOCAL's kernel | day | program | verdicts |\n|---|---|---|---|---|---|\n")
	for _, c := range all {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", c.title(), inMarkdown(c.kernel.System),
			inMarkdown(c.local()),
			c.run.Started.UTC().Format(time.DateOnly), inMarkdown(c.run.Version), c.counts())
	}
	b.WriteString("\n## The targets\n\nWhere the families differ, `inet` is before the stroke and `inet6` behind it. A dash stands for a target that\n" +
		"the run did not have. What is not PASS is explained below.\n\n| target |")
	for _, c := range all {
		fmt.Fprintf(&b, " %s |", c.title())
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(all)) + "\n")
	for _, kind := range kindsOf(all) {
		fmt.Fprintf(&b, "| %s |", inMarkdown(kind))
		for _, c := range all {
			fmt.Fprintf(&b, " %s |", c.cell(kind))
		}
		b.WriteByte('\n')
	}
	for _, c := range all {
		c.explain(&b)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// counts are the numbers of the verdicts.
func (c kernelRun) counts() string {
	count := map[matrix.Verdict]uint64{}
	for _, o := range c.summaries {
		count[o.Verdict]++
	}
	return verdictsOf(count)
}

// kindsOf are the targets that a run has, without their families, in the order of the target
// list, with those that it has not behind them.
func kindsOf(all []kernelRun) []string {
	place := map[string]int{}
	for i, t := range append(matrix.Targets(), matrix.Claims()...) {
		if place[t.Kind()] == 0 {
			place[t.Kind()] = i + 1
		}
	}
	var kinds []string
	for _, c := range all {
		for name := range c.summaries {
			kinds = append(kinds, kindOfName(name))
		}
	}
	sort.Slice(kinds, func(i, j int) bool {
		a, b := kinds[i], kinds[j]
		if known := place[a] != 0; known != (place[b] != 0) {
			return known
		}
		return cmp.Or(place[a]-place[b], cmp.Compare(a, b)) < 0
	})
	return slices.Compact(kinds)
}

// kindOfName is a target's name without its family.
func kindOfName(name string) string {
	for _, f := range pfconf.Families {
		if kind, ok := strings.CutPrefix(name, f.String()+"-"); ok {
			return kind
		}
	}
	return name
}

// cell is the verdict of both families, once if it is the same.
func (c kernelRun) cell(kind string) string {
	var verdicts []string
	for _, f := range pfconf.Families {
		verdicts = append(verdicts, cmp.Or(string(c.summaries[f.String()+"-"+kind].Verdict), "–"))
	}
	if verdicts[0] == verdicts[1] {
		return verdicts[0]
	}
	return strings.Join(verdicts, " / ")
}

// explain writes the section of one kernel.
func (c kernelRun) explain(b *strings.Builder) {
	fmt.Fprintf(b, "\n## %s\n", c.title())
	type cause struct {
		verdict        matrix.Verdict
		reason, detail string
	}
	targets := map[cause][]string{}
	var causes []cause
	for _, name := range c.inOrder() {
		o := c.summaries[name]
		if o.Verdict == matrix.Pass {
			continue
		}
		why := cause{o.Verdict, o.Reason, o.Detail}
		if _, known, ok := strings.Cut(o.Detail, "; known: "); ok && o.Verdict == matrix.XFail {
			why.detail = known
		}
		if targets[why] == nil {
			causes = append(causes, why)
		}
		targets[why] = append(targets[why], "`"+inMarkdown(name)+"`")
	}
	if len(causes) == 0 {
		b.WriteString("\nAll targets are PASS.\n")
	} else {
		b.WriteString("\n| verdict | reason | targets | why |\n|---|---|---|---|\n")
	}
	for _, why := range causes {
		reason := inMarkdown(why.reason)
		if reasonCode.MatchString(why.reason) {
			reason = fmt.Sprintf("[%s](reasons.md#%[1]s)", reason)
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s |\n", why.verdict, reason, strings.Join(targets[why], ", "),
			inMarkdown(why.detail))
	}
	kernel, ok := matrix.KernelOn(c.kernel.System, c.kernel.Kernel)
	if !ok {
		return
	}
	fmt.Fprintf(b, "\nWhat is expected of kernels with %s and not of all ([states.md](states.md) says why):\n\n", kernel.Firewall)
	for _, d := range kernel.Differences() {
		fmt.Fprintf(b, "- %s\n", d)
	}
}

// reasonCode is what a reason of this program looks like.
var reasonCode = regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`)

// inOrder are the names of the run's targets in the order of the page.
func (c kernelRun) inOrder() []string {
	var names []string
	for _, kind := range kindsOf([]kernelRun{c}) {
		for _, f := range pfconf.Families {
			if name := f.String() + "-" + kind; c.summaries[name].Verdict != "" {
				names = append(names, name)
			}
		}
	}
	return names
}

// inMarkdown is text of one line that means itself in a table: what came from elsewhere is neither
// markup nor the end of a cell.
func inMarkdown(s string) string {
	return markdownEscaper.Replace(printable(s))
}

var markdownEscaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "|", `\|`,
	"`", "&#96;", "*", `\*`, "_", `\_`, "[", `\[`, "]", `\]`)
