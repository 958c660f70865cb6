package report

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"pfdivert/pfconf"
)

// rollout is what changed on the hosts that had one kernel at the last time and have one now.
type rollout struct {
	Before  string    `json:"before"` // the kernel
	After   string    `json:"after"`
	Hosts   []string  `json:"hosts"`
	Changes []changed `json:"changes"` // by kind, then by target
}

// changed is a change of a target that some hosts have in common. A verdict is empty where the
// target was not run.
type changed struct {
	Kind   ChangeKind `json:"kind"`
	Name   string     `json:"name"`
	Before string     `json:"before"`
	After  string     `json:"after"`
	Reason string     `json:"reason"`
	Hosts  []string   `json:"hosts"`
}

// since is what changed since the last time.
type since struct {
	File        string     `json:"file"`
	Regressions int        `json:"regressions"` // of all targets of all hosts
	Kernels     []*rollout `json:"kernels"`     // those with regressions first, then those of most hosts
	New         []string   `json:"new"`         // hosts that are in no report of the last time
	Missing     []string   `json:"missing"`     // hosts that were in it and have no run now
}

// place is where a change of a host's belongs: those of one place differ in the host alone.
type place struct {
	*rollout
	kind                        ChangeKind
	name, before, after, reason string
}

// Against has the fleet's reports say what changed since the last time, whose report is read from a
// file. Hosts are compared by name; if the last time's report is of one host without a name, that
// is compared with each host.
func (f *Fleet) Against(file string, last *Past) {
	s := &since{File: file, Kernels: []*rollout{}, New: []string{}, Missing: []string{}}
	results := map[string][]Summary{} // of the last time, by host
	for all := last.Summaries; len(all) > 0; {
		n := 1
		for n < len(all) && all[n].Host == all[0].Host {
			n++
		}
		if host := all[0].Host; results[host] == nil {
			results[host] = all[:n:n]
		} else {
			results[host] = append(results[host], all[:n]...)
		}
		all = all[n:]
	}
	before := map[string]Machine{}
	for _, h := range last.Run.Tested {
		before[h.Name] = h
	}
	kernels := map[[2]string]*rollout{}
	index := map[place]int{}
	for _, h := range f.hosts {
		old, known := before[h.Name]
		if last.Run.Tested == nil {
			old, known = Machine{Kernel: last.Run.Kernel, System: last.Run.System, Filter: last.Run.filter()}, true
		}
		switch {
		case !h.ran():
			if known {
				s.Missing = append(s.Missing, h.Name)
			}
			continue
		case !known:
			s.New = append(s.New, h.Name)
			continue
		}
		key := [2]string{old.kernel(), h.kernel()}
		r := kernels[key]
		if r == nil {
			r = &rollout{Before: key[0], After: key[1], Changes: []changed{}}
			kernels[key], s.Kernels = r, append(s.Kernels, r)
		}
		r.Hosts = append(r.Hosts, h.Name)
		// Host by host, because all targets of all hosts take much memory at once.
		then := &Past{Run: last.Run, Summaries: results[""]}
		if last.Run.Tested != nil {
			then.Run.Tested, then.Summaries = []Machine{old}, results[h.Name]
		}
		now := &Past{Run{Interrupted: h.Interrupted, Tested: []Machine{h.Machine}}, h.summaries}
		for _, d := range Compare(then, now).Changes {
			if d.Kind == Slower || d.Kind == Faster {
				continue
			}
			x := changed{Kind: d.Kind, Name: d.Name, Before: string(d.Before.Verdict), After: string(d.After.Verdict),
				Reason: d.After.Reason}
			at := place{r, x.Kind, x.Name, x.Before, x.After, x.Reason}
			i, ok := index[at]
			if !ok {
				i, r.Changes = len(r.Changes), append(r.Changes, x)
				index[at] = i
			}
			r.Changes[i].Hosts = append(r.Changes[i].Hosts, d.Host)
		}
	}
	now := map[string]bool{}
	for _, h := range f.hosts {
		now[h.Name] = true
	}
	for _, h := range last.Run.Tested {
		if !now[h.Name] {
			s.Missing = append(s.Missing, h.Name)
		}
	}
	for _, r := range s.Kernels {
		slices.SortStableFunc(r.Changes, func(a, b changed) int {
			return slices.Index(kinds, a.Kind) - slices.Index(kinds, b.Kind)
		})
		s.Regressions += r.regressions()
	}
	slices.SortStableFunc(s.Kernels, func(a, b *rollout) int {
		return cmp.Or(b.regressions()-a.regressions(), len(b.Hosts)-len(a.Hosts))
	})
	f.since = s
}

// regressions is how many targets regressed on hosts.
func (r *rollout) regressions() (n int) {
	for _, x := range r.Changes {
		if x.Kind == Regression {
			n += len(x.Hosts)
		}
	}
	return n
}

// title names the kernels and how many hosts have them.
func (r *rollout) title() string {
	if r.Before == r.After {
		return fmt.Sprintf("%s as before, %s", r.After, pfconf.Count(len(r.Hosts), "host"))
	}
	return fmt.Sprintf("%s -> %s, %s", r.Before, r.After, pfconf.Count(len(r.Hosts), "host"))
}

// line says what changed and on which hosts.
func (x changed) line(r *rollout) string {
	on := "on all"
	if len(x.Hosts) < len(r.Hosts) {
		on = fmt.Sprintf("on %d of %d: %s", len(x.Hosts), len(r.Hosts), nameList(x.Hosts))
	}
	reason := ""
	if x.Reason != "" {
		reason = " (" + x.Reason + ")"
	}
	return fmt.Sprintf("%s -> %s%s, %s", cmp.Or(x.Before, "not run"), cmp.Or(x.After, "not run"), reason, on)
}

// hosts says which hosts were not compared.
func (s *since) hosts() (lines []string) {
	if len(s.New) > 0 {
		lines = append(lines, fmt.Sprintf("%s new: %s", pfconf.Count(len(s.New), "host"), nameList(s.New)))
	}
	if len(s.Missing) > 0 {
		lines = append(lines, fmt.Sprintf("%s without a run now: %s", pfconf.Count(len(s.Missing), "host"),
			nameList(s.Missing)))
	}
	return lines
}

// writeText writes what changed, kernel by kernel.
func (s *since) writeText(b *bytes.Buffer, style Style) {
	width := min(style.Width, maxText)
	fmt.Fprintf(b, "%s\n", style.bold("Since "+printable(s.File)))
	for _, r := range s.Kernels {
		b.WriteString(wrap(printable(r.title()), "  ", width))
		if len(r.Changes) == 0 {
			b.WriteString("    nothing changed\n")
		}
		name := 0
		for _, x := range r.Changes {
			name = max(name, len(printable(x.Name)))
		}
		for _, x := range r.Changes {
			fmt.Fprintf(b, "    %-9s  %-*s  %s\n", kindWord(x.Kind), name, printable(x.Name),
				printable(x.line(r)))
		}
	}
	for _, line := range s.hosts() {
		b.WriteString(wrap(printable(line), "  ", width))
	}
	b.WriteByte('\n')
}

// kindWord is a word for a change of a kind.
func kindWord(kind ChangeKind) string {
	switch kind {
	case Skipped:
		return "skip"
	case Changed:
		return "verdict"
	case Reason:
		return "reason"
	}
	return kindTotals[kind]
}
