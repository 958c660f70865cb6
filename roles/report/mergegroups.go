package report

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"pfdivert/matrix"
	"pfdivert/pfconf"
)

// group is hosts with the same kernel, filter and verdicts.
type group struct {
	Kernel string `json:"kernel"`
	System string `json:"system"`
	Filter string `json:"filter,omitempty"`
	// Differs says that more hosts with this kernel and filter have other verdicts.
	Differs  bool                   `json:"differs"`
	Hosts    []string               `json:"hosts"`
	Verdicts map[matrix.Verdict]int `json:"verdicts"` // of one host

	hosts []*Host
}

// kernel is what all hosts of the group run.
func (g *group) kernel() string {
	return Machine{Kernel: g.Kernel, System: g.System, Filter: g.Filter}.kernel()
}

// groups returns the groups, the kernels of most hosts first, and of each kernel the largest group;
// of groups of one size that with the better verdicts.
func (f *Fleet) groups() []*group {
	type kernel struct{ kernel, system, filter string }
	type key struct {
		kernel
		verdicts [sha256.Size]byte
	}
	all := []*group{}
	index := map[key]*group{}
	hosts := map[kernel]int{}
	for _, h := range f.hosts {
		k := kernel{h.Kernel, h.System, h.Filter}
		hosts[k]++
		at := key{k, verdictsSum(h)}
		g := index[at]
		if g == nil {
			g = &group{Kernel: h.Kernel, System: h.System, Filter: h.Filter, Verdicts: map[matrix.Verdict]int{}}
			for i := range h.summaries {
				g.Verdicts[h.summaries[i].Verdict]++
			}
			index[at], all = g, append(all, g)
		}
		g.Hosts, g.hosts = append(g.Hosts, h.Name), append(g.hosts, h)
	}
	of := func(g *group) kernel { return kernel{g.Kernel, g.System, g.Filter} }
	slices.SortStableFunc(all, func(a, b *group) int {
		return cmp.Or(hosts[of(b)]-hosts[of(a)], strings.Compare(fmt.Sprint(of(a)), fmt.Sprint(of(b))),
			len(b.hosts)-len(a.hosts), a.status()-b.status())
	})
	for i, g := range all {
		g.Differs = i > 0 && of(all[i-1]) == of(g)
	}
	return all
}

// status is the exit status of a run with the group's verdicts.
func (g *group) status() int {
	var verdicts []matrix.Verdict
	for v := range g.Verdicts {
		verdicts = append(verdicts, v)
	}
	if verdicts == nil {
		return 2
	}
	return matrix.ExitStatus(verdicts...)
}

// verdictsSum is the same for hosts with the same verdicts.
func verdictsSum(h *Host) [sha256.Size]byte {
	lines := make([]string, len(h.summaries))
	for i := range h.summaries {
		lines[i] = h.summaries[i].Name + "\x00" + string(h.summaries[i].Verdict)
	}
	slices.Sort(lines)
	return sha256.Sum256([]byte(strings.Join(lines, "\x00")))
}

// maxNamed is how many hosts are named in a line.
const maxNamed = 12

// hostNames are the first of some hosts, in a line.
func hostNames(hosts []*Host) string {
	var names []string
	for _, h := range hosts {
		names = append(names, printable(h.Name))
	}
	return nameList(names)
}

// nameList are the first of some names, in a line.
func nameList(names []string) string {
	text := strings.Join(names[:min(len(names), maxNamed)], ", ")
	if more := len(names) - maxNamed; more > 0 {
		text += fmt.Sprintf(", and %d more", more)
	}
	return text
}

// headline says how many hosts are in how many groups, and which differ from the rest of their
// kernel.
func headline(hosts []*Host, groups []*group) string {
	text := fmt.Sprintf("%s in %s", pfconf.Count(len(hosts), "host"), pfconf.Count(len(groups), "group"))
	var odd []*Host
	for _, g := range groups {
		if g.Differs {
			odd = append(odd, g.hosts...)
		}
	}
	switch {
	case len(odd) == 1:
		return text + "; 1 host differs from the rest of its kernel: " + hostNames(odd)
	case odd != nil:
		return text + fmt.Sprintf("; %d hosts differ from the rest of their kernel: ", len(odd)) + hostNames(odd)
	}
	return text + "; no host differs from the rest of its kernel"
}
