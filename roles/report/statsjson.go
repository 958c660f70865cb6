package report

import (
	"io"

	"pfdivert/matrix"
)

// WriteJSON writes one JSON object and a newline: "run" is as in the report of
// a single run, with "cells" and "cells_per_second"; each of "targets" has
// runs, passes, the count of each verdict, the times in seconds and the first
// results that did not pass.
func (s *Stats) WriteJSON(w io.Writer, run Run) error {
	type times struct {
		P50 float64 `json:"p50"`
		P95 float64 `json:"p95"`
		P99 float64 `json:"p99"`
		Max float64 `json:"max"`
	}
	type target struct {
		Name     string                    `json:"name"`
		Host     string                    `json:"host,omitempty"`
		Runs     uint64                    `json:"runs"`
		Passes   uint64                    `json:"passes"`
		Verdicts map[matrix.Verdict]uint64 `json:"verdicts"` // encoded in the keys' order
		Seconds  times                     `json:"seconds"`
		Kept     []Kept                    `json:"not_passed"`
	}
	type total struct {
		Run
		Cells uint64  `json:"cells"`
		Rate  float64 `json:"cells_per_second"`
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	targets := make([]target, len(s.targets)) // [] and not null
	for i, t := range s.targets {
		q := func(share float64) float64 { return micro(t.times.quantile(share).Seconds()) }
		host, name := run.splitHost(t.name)
		targets[i] = target{
			Name: name, Host: host, Runs: t.runs, Passes: t.count[matrix.Pass], Verdicts: t.count,
			Seconds: times{q(quantiles[0]), q(quantiles[1]), q(quantiles[2]), micro(t.times.max.Seconds())},
			Kept:    make([]Kept, len(t.kept)),
		}
		for j, k := range t.kept {
			k.Name, k.Seconds = name, micro(k.Seconds)
			targets[i].Kept[j] = k
		}
	}
	return encode(w, struct {
		Run     total    `json:"run"`
		Hosts   []Host   `json:"hosts,omitempty"`
		Targets []target `json:"targets"`
	}{total{run.forJSON(), s.cells, micro(rate(s.cells, run.Seconds))}, run.Tested, targets})
}
