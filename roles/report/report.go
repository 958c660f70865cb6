// Package report writes a run's results for people and for machines.
//
// What goes where:
//
//   - stdout has the results and nothing else: a table when it is a terminal, a
//     line per target and the totals when it is not, JSON when asked for.
//     Everything on it can be piped, and is complete also after an interrupt.
//   - stderr has all that is not a result: the progress line (only when stderr
//     is a terminal, rewritten in place and gone when the results are printed),
//     errors, hints, questions. With the JSON on stdout, the text goes there.
//   - Colour and rewriting are for terminals alone; NO_COLOR (https://no-color.org)
//     and TERM=dumb switch colour off, TERM=dumb the progress line too. No
//     meaning is in a colour only.
//   - Text that came from a kernel or from another host is never written as it
//     came: what is not a printable character is escaped, in JSON as well.
package report

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"pfdivert/matrix"
	"pfdivert/pfconf"
)

// Run is what a report says about a run as a whole.
type Run struct {
	// Kernel is the kernel under test, REMOTE's, as its agent names it; System
	// is its GOOS/GOARCH.
	// Both are empty when several hosts are tested.
	Kernel string `json:"kernel,omitempty"`
	System string `json:"system,omitempty"`
	// Version is this program's.
	Version string `json:"version"`
	// Started is printed as RFC 3339, in milliseconds.
	Started time.Time `json:"started"`
	// Seconds is the time from the start until the last verdict.
	Seconds float64 `json:"seconds"`
	// Hosts has both hosts, LOCAL first, when one host is tested.
	Hosts []Machine `json:"hosts,omitempty"`
	// Tested are the hosts under test when they are several, and Local is LOCAL. The names
	// of targets and results are those of OnHost then.
	Tested []Machine `json:"-"`
	Local  *Machine  `json:"local,omitempty"`
	// Seed is the one that shuffled the order of the targets, 0 when they were
	// run in the order of the list.
	Seed uint64 `json:"seed,omitempty"`
	// Interrupted says that the run was ended before all targets were run.
	Interrupted bool `json:"interrupted"`
	// Skipped is why no target was run although the run succeeded; else it is empty.
	Skipped string `json:"skipped,omitempty"`
	// Targets are the names of all targets that were selected, in the order of
	// the target list. Results are reported in this order, whatever the order
	// they came in.
	Targets []string `json:"-"`

	// Of a fleet: how many hosts were not tested as they should be, and what is said of a host
	// without targets.
	lacking int
	without map[string]string
}

// Machine describes one of the hosts of a run.
type Machine struct {
	Name    string `json:"name"` // "local" or "remote", or that of one of several
	Address string `json:"address,omitempty"`
	Kernel  string `json:"kernel"`
	System  string `json:"system"` // GOOS/GOARCH
	// Filter is how a Linux kernel was given the rules, where that was asked for (pfconf.Engine).
	Filter string `json:"filter,omitempty"`
}

// ordered returns the results in the order of the run's targets; results of
// unknown targets are last.
func (r Run) ordered(results []matrix.Result) []matrix.Result {
	place := make(map[string]int, len(r.Targets))
	for i, name := range r.Targets {
		place[name] = i - len(r.Targets) // below 0, the place of the unknown
	}
	results = slices.Clone(results)
	sort.SliceStable(results, func(i, j int) bool { return place[results[i].Name] < place[results[j].Name] })
	return results
}

// totals is the last line of a text report, without its newline.
func (r Run) totals(results []matrix.Result) string {
	count := make(map[matrix.Verdict]int)
	for _, result := range results {
		count[result.Verdict]++
	}
	return r.totalsOf(count)
}

// totalsOf is the same, by how many targets have each verdict.
func (r Run) totalsOf(count map[matrix.Verdict]int) string {
	n := 0
	for _, c := range count {
		n += c
	}
	planned := max(len(r.Targets), n)
	var b strings.Builder
	switch {
	case len(r.Tested) > 0 && len(r.without) == len(r.Tested):
		b.WriteString(pfconf.Count(len(r.Tested), "host"))
		if r.lacking > 0 {
			b.WriteString("; " + r.lack())
		}
		return b.String()
	case r.Interrupted:
		fmt.Fprintf(&b, "interrupted after %d of %s", n, pfconf.Count(planned, "target"))
	case n < planned:
		fmt.Fprintf(&b, "%d of %s", n, pfconf.Count(planned, "target"))
	default:
		b.WriteString(pfconf.Count(planned, "target"))
	}
	if len(r.Tested) > 0 {
		b.WriteString(r.tested())
	}
	b.WriteString(verdictCounts(count))
	b.WriteString(" in " + duration(r.Seconds))
	if r.Seed != 0 {
		fmt.Fprintf(&b, ", shuffled by %d", r.Seed)
	}
	if r.lacking > 0 {
		b.WriteString("; " + r.lack())
	}
	return b.String()
}

// lack says how many hosts were not tested as they should be.
func (r Run) lack() string {
	if r.lacking == 1 {
		return "1 host lacks results"
	}
	return fmt.Sprintf("%d hosts lack results", r.lacking)
}

// tested says on how many hosts, or with how many filters of one, targets were run.
func (r Run) tested() string {
	if r.filters() {
		return fmt.Sprintf(" with %d filters", len(r.Tested))
	}
	return " on " + pfconf.Count(len(r.Tested), "host")
}

// filters reports whether one host was tested with several filters.
func (r Run) filters() bool {
	filters := map[string]bool{"": true}
	for _, h := range r.Tested {
		filters[h.Filter] = true
	}
	return len(filters) == len(r.Tested)+1
}

// verdictCounts is ": 24 PASS, 2 FAIL", or nothing when there is no verdict.
func verdictCounts[N int | uint64](count map[matrix.Verdict]N) string {
	var parts []string
	for _, v := range matrix.Verdicts {
		if count[v] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", count[v], v))
		}
	}
	if parts == nil {
		return ""
	}
	return ": " + strings.Join(parts, ", ")
}

// duration is a time for people, to two digits or so.
func duration(seconds float64) string {
	ms := seconds * 1e3
	switch {
	case ms < 9.95:
		return fmt.Sprintf("%.1f ms", ms)
	case ms < 999.5:
		return fmt.Sprintf("%.0f ms", ms)
	case seconds < 59.95:
		return fmt.Sprintf("%.1f s", seconds)
	}
	whole := int(seconds + 0.5)
	if whole < 3600 {
		return fmt.Sprintf("%d min %d s", whole/60, whole%60)
	}
	return fmt.Sprintf("%d h %d min", whole/3600, whole%3600/60)
}

// OnHost returns the name in the report of a target on one of several hosts.
func OnHost(host, target string) string { return host + "/" + target }

// splitHost is the inverse of OnHost; host is empty when the run tests one.
func (r Run) splitHost(name string) (host, target string) {
	if host, target, ok := strings.Cut(name, "/"); ok && r.Tested != nil {
		return host, target
	}
	return "", name
}

// kernels says which kernels are tested, a line for each host.
func (r Run) kernels() (lines []string) {
	width := 0
	for _, h := range r.Tested {
		width = max(width, len(printable(h.Name)))
	}
	for _, h := range r.Tested {
		lines = append(lines, fmt.Sprintf("%-*s  %s", width, printable(h.Name), printable(h.kernel())))
	}
	if one := (Machine{Kernel: r.Kernel, System: r.System, Filter: r.filter()}); one.Kernel+one.System != "" {
		lines = append(lines, printable(one.kernel()))
	}
	return lines
}

// filter is the engine with which the only host was tested.
func (r Run) filter() string {
	if len(r.Hosts) == 0 {
		return ""
	}
	return r.Hosts[len(r.Hosts)-1].Filter
}

// kernel is what a host runs.
func (h Machine) kernel() string {
	text := cmp.Or(strings.TrimSpace(h.Kernel+" "+h.System), "(kernel unknown)")
	if h.Filter != "" {
		text += ", " + h.Filter
	}
	return text
}

// writeKernels writes which kernels are tested, and an empty line.
func (r Run) writeKernels(b *bytes.Buffer) {
	lines := r.kernels()
	for _, line := range lines {
		b.WriteString(line + "\n")
	}
	if lines != nil {
		b.WriteByte('\n')
	}
}

// tables says which hosts are in a table together: as many as fit beside each other.
func (r Run) tables(style Style, results []matrix.Result) [][]Machine {
	if len(r.Tested) == 0 {
		return [][]Machine{nil}
	}
	for n := len(r.Tested); ; n-- {
		tables := slices.Collect(slices.Chunk(r.Tested, n))
		fits := !slices.ContainsFunc(tables, func(hosts []Machine) bool {
			return slices.ContainsFunc(panels(r, results, hosts), func(p *panel) bool {
				_, width := p.lines(style)
				return width > style.Width
			})
		})
		if fits || n == 1 {
			return tables
		}
	}
}

// hostCounts says how many results one of several hosts has, and of which verdicts.
func (r Run) hostCounts(results []matrix.Result, host string) (n int, verdicts string) {
	count := make(map[matrix.Verdict]int)
	for _, result := range results {
		if on, _ := r.splitHost(result.Name); on == host {
			n++
			count[result.Verdict]++
		}
	}
	return n, verdictCounts(count)
}

// writeHostTotals writes a line for each of several hosts.
func (r Run) writeHostTotals(b *bytes.Buffer, noun string, counts func(host string) (int, string)) {
	for _, h := range r.Tested {
		n, verdicts := counts(h.Name)
		text := cmp.Or(r.without[h.Name], pfconf.Count(n, noun)+verdicts)
		fmt.Fprintf(b, "%s: %s\n", printable(h.Name), text)
	}
}
