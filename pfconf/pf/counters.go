package pf

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"pfdivert/pfconf"
	"pfdivert/pfconf/program"
)

// Counters reads the counters of the rules with these labels, with one listing
// for all who ask at the same time.
func (f *Firewall) Counters(ctx context.Context, labels []string) (map[string]pfconf.Counters, error) {
	all, err := f.counts.Get(ctx)
	if err != nil {
		return nil, err
	}
	found := make(map[string]pfconf.Counters, len(labels))
	for _, l := range labels {
		c, ok := all[l]
		if !ok {
			return nil, fmt.Errorf("anchor %s has no rule with the label %s", f.anchor, l)
		}
		found[l] = c
	}
	return found, nil
}

func (f *Firewall) readCounters(ctx context.Context) (map[string]pfconf.Counters, error) {
	r, err := f.pfctl(ctx, "", nothing, "-a", f.anchor, "-s", "labels")
	if err != nil {
		return nil, err
	}
	return parseLabels(r.Stdout)
}

// parseLabels reads `pfctl -s labels`: the label, then evaluations, packets,
// bytes, packets in, bytes in, packets out, bytes out, states created. A label
// may hold spaces, but none of this program's does. Of several rules with one
// label the counters are added.
func parseLabels(out string) (map[string]pfconf.Counters, error) {
	const columns = 8
	all := map[string]pfconf.Counters{}
	for _, line := range program.Lines(out) {
		words := strings.Split(line, " ")
		if len(words) <= columns {
			return nil, fmt.Errorf("pfctl -s labels: not understood: %q", line)
		}
		numbers := words[len(words)-columns:]
		var n [columns]uint64
		for i, w := range numbers {
			var err error
			if n[i], err = strconv.ParseUint(w, 10, 64); err != nil {
				return nil, fmt.Errorf("pfctl -s labels: %q: %w", line, err)
			}
		}
		label := strings.Join(words[:len(words)-columns], " ")
		c := all[label]
		c.Matched += n[1]
		c.Done += n[1]
		c.States += n[7]
		all[label] = c
	}
	return all, nil
}
