package report

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"pfdivert/matrix"
	"pfdivert/pfconf"
)

// Disagreement is a target to which two families, or two engines, gave other results.
type Disagreement struct {
	Name   string // the target, without what differs
	Sides  [2]string
	Result [2]matrix.Result
	Why    string // the known reason, "" for a finding
}

// FamilyDisagreements compares the families of each host of a run.
func FamilyDisagreements(run Run, all []Summary) (differ []Disagreement) {
	hosts := run.Tested
	if hosts == nil {
		hosts = []Machine{{Kernel: run.Kernel, System: run.System}}
	}
	for _, h := range hosts {
		k, _ := matrix.KernelOn(h.System, h.Kernel)
		of := byKind(all, h.Name)
		for _, kind := range of.kinds {
			pair := [2]matrix.Result{of.results[kind][pfconf.Inet], of.results[kind][pfconf.Inet6]}
			why, agree := matrix.FamiliesDiffer(k, pair[0], pair[1])
			if agree && why == "" {
				continue
			}
			name := kind
			if h.Name != "" {
				name = OnHost(h.Name, kind)
			}
			differ = append(differ, Disagreement{name, [2]string{"inet", "inet6"}, pair, why})
		}
	}
	return differ
}

// EngineDisagreements compares the engines with which one host was tested: each with the first.
func EngineDisagreements(run Run, all []Summary) (differ []Disagreement) {
	first := map[string]Machine{} // by what the host is called without its engine
	for _, h := range run.Tested {
		if h.Filter == "" {
			continue
		}
		host := strings.TrimSuffix(strings.TrimSuffix(h.Name, h.Filter), "-")
		one, ok := first[host]
		if !ok {
			first[host] = h
			continue
		}
		before, after := byKind(all, one.Name), byKind(all, h.Name)
		for _, kind := range before.kinds {
			for _, f := range pfconf.Families {
				pair := [2]matrix.Result{before.results[kind][f], after.results[kind][f]}
				why, agree := matrix.EnginesDiffer(pair[0], pair[1])
				if !agree || why != "" {
					differ = append(differ, Disagreement{pair[0].Name, [2]string{one.Name, h.Name}, pair, why})
				}
			}
		}
	}
	return differ
}

// kindResults are a host's results by the kind of target and the family.
type kindResults struct {
	kinds   []string // in their order
	results map[string]map[pfconf.Family]matrix.Result
}

func byKind(all []Summary, host string) kindResults {
	k := kindResults{results: map[string]map[pfconf.Family]matrix.Result{}}
	for _, o := range all {
		if o.Host != host {
			continue
		}
		for _, f := range pfconf.Families {
			kind, ok := strings.CutPrefix(o.Name, f.String()+"-")
			if !ok {
				continue
			}
			if k.results[kind] == nil {
				k.kinds, k.results[kind] = append(k.kinds, kind), map[pfconf.Family]matrix.Result{}
			}
			k.results[kind][f] = o.Result
		}
	}
	return k
}

// Findings counts the differences without a known reason.
func Findings(differ []Disagreement) (n int) {
	for _, d := range differ {
		if d.Why == "" {
			n++
		}
	}
	return n
}

// WriteDisagreements writes a line for each difference, and how many there are.
func WriteDisagreements(w io.Writer, what string, differ []Disagreement) error {
	var b bytes.Buffer
	for _, d := range differ {
		fmt.Fprintf(&b, "DIFFERS %s:", printable(d.Name))
		for i, r := range d.Result {
			fmt.Fprintf(&b, " %s %s", printable(d.Sides[i]), r.Verdict)
			if r.Reason != "" {
				fmt.Fprintf(&b, " (%s)", printable(r.Reason))
			}
			b.WriteString([]string{",", ": "}[i])
		}
		if d.Why == "" {
			b.WriteString("no reason is known\n")
		} else {
			b.WriteString("known: " + printable(d.Why) + "\n")
		}
	}
	if differ == nil {
		fmt.Fprintf(&b, "%s agree\n", what)
	} else {
		fmt.Fprintf(&b, "%s differ in %s, %d without a known reason\n", what, pfconf.Count(len(differ), "target"),
			Findings(differ))
	}
	_, err := b.WriteTo(w)
	return err
}
