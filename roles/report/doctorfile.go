package report

import (
	"fmt"
	"slices"
)

// Doctor is what doctor found on a host.
type Doctor struct {
	Problems []Problem `json:"problems"`
	// Notes are what its verdict does not cover.
	Notes []string `json:"notes,omitempty"`
}

// Problem is one of doctor's, on any system.
type Problem struct {
	Severity string   `json:"severity"` // bad or warn
	Cause    string   `json:"cause"`
	What     string   `json:"what"`
	Why      string   `json:"why"`
	Seen     []string `json:"seen,omitempty"`
	Check    string   `json:"check,omitempty"`
	Fix      string   `json:"fix,omitempty"`
	Price    string   `json:"price,omitempty"`
	Narrow   string   `json:"narrow,omitempty"`
}

// The severities. What is bad makes doctor fail.
const (
	severityBad  = "bad"
	severityWarn = "warn"
)

// with returns what either found. What both found is there once: a file may be merged again with a
// report that has it.
func (d *Doctor) with(other *Doctor) *Doctor {
	all := &Doctor{Problems: slices.Clone(d.Problems), Notes: slices.Clone(d.Notes)}
	known := map[string]bool{}
	for _, p := range d.Problems {
		known[fmt.Sprintf("%q", p)] = true
	}
	for _, p := range other.Problems {
		if !known[fmt.Sprintf("%q", p)] {
			all.Problems = append(all.Problems, p)
		}
	}
	for _, note := range d.Notes {
		known[note] = true
	}
	for _, note := range other.Notes {
		if !known[note] {
			all.Notes = append(all.Notes, note)
		}
	}
	return all
}

// bad returns the problems that make doctor fail.
func (d *Doctor) bad() (n int) {
	if d != nil {
		for _, p := range d.Problems {
			if p.Severity == severityBad {
				n++
			}
		}
	}
	return n
}

// check refuses a problem of which is not known how bad it is.
func (d *Doctor) check() error {
	if d != nil {
		for _, p := range d.Problems {
			if p.Severity != severityBad && p.Severity != severityWarn {
				return fmt.Errorf("a problem of doctor's is %q, neither bad nor warn", p.Severity)
			}
		}
	}
	return nil
}

// lines are what there is to say of a problem, each with what it is about.
func (p Problem) lines() (lines [][2]string) {
	all := [][2]string{{"why", p.Why}}
	for _, text := range p.Seen {
		all = append(all, [2]string{"seen", text})
	}
	for _, line := range append(all, [2]string{"check", p.Check}, [2]string{"fix", p.Fix}, [2]string{"price", p.Price},
		[2]string{"or", p.Narrow}) {
		if line[1] != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// doctorFile is what doctor -json writes: on Linux problems and notes, on the BSDs findings and
// what was not seen.
type doctorFile struct {
	Problems []Problem
	Notes    []string
	Findings []struct {
		Level, About, Cause, Likely, Check, Mend string
	}
	Unseen []string
	Error  string // why it could not look
}

// any reports whether there is something of doctor's.
func (f *doctorFile) any() bool { return f.Problems != nil || f.Findings != nil }

// doctor returns the same for all systems, without the findings that all is well.
func (f *doctorFile) doctor() *Doctor {
	d := &Doctor{Problems: f.Problems, Notes: append(f.Notes, f.Unseen...)}
	for _, x := range f.Findings {
		if x.Level != "ok" {
			d.Problems = append(d.Problems, Problem{Severity: x.Level, Cause: x.Cause, What: x.About, Why: x.Likely,
				Check: x.Check, Fix: x.Mend})
		}
	}
	return d
}
