package report

import (
	"bytes"
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

// writeKernels writes which kernels are tested, and an empty line.
func (r Run) writeKernels(b *bytes.Buffer) {
	width := 0
	for _, h := range r.Tested {
		width = max(width, len(printable(h.Name)))
	}
	for _, h := range r.Tested {
		kernel := strings.TrimSpace(h.Kernel + " " + h.System)
		if kernel == "" {
			kernel = "(not reached)"
		}
		fmt.Fprintf(b, "%-*s  %s\n", width, printable(h.Name), printable(kernel))
	}
	kernel := strings.TrimSpace(r.Kernel + " " + r.System)
	if kernel != "" {
		fmt.Fprintf(b, "%s\n", printable(kernel))
	}
	if kernel != "" || width > 0 {
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
