package report

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"

	"pfdivert/matrix"
)

// OnHost names a target on one of several hosts.
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
	if kernel := strings.TrimSpace(r.Kernel + " " + r.System); kernel != "" {
		lines = append(lines, printable(kernel))
	}
	return lines
}

// kernel is what a host runs.
func (h Host) kernel() string {
	return cmp.Or(strings.TrimSpace(h.Kernel+" "+h.System), "(not reached)")
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
func (r Run) tables(style Style, results []matrix.Result) [][]Host {
	if len(r.Tested) == 0 {
		return [][]Host{nil}
	}
	for n := len(r.Tested); ; n-- {
		tables := slices.Collect(slices.Chunk(r.Tested, n))
		fits := !slices.ContainsFunc(tables, func(hosts []Host) bool {
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
		fmt.Fprintf(b, "%s: %s%s\n", printable(h.Name), plural(n, noun), verdicts)
	}
}
