package pf

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"pfdivert/pfconf/program"
)

// Status is what `pfctl -s info` says.
type Status struct {
	Enabled bool
	States  int // in the whole table
}

var (
	statusLine  = regexp.MustCompile(`(?m)^Status: (Enabled|Disabled)\b`)
	entriesLine = regexp.MustCompile(`(?m)^  current entries +([0-9]+) *$`)
)

// Status asks whether pf is switched on and how many states it has.
func (c *Control) Status(ctx context.Context) (Status, error) {
	r, err := c.pfctl(ctx, "", nothing, "-s", "info")
	if err != nil {
		return Status{}, err
	}
	on := statusLine.FindStringSubmatch(r.Stdout)
	entries := entriesLine.FindStringSubmatch(r.Stdout)
	if on == nil || entries == nil {
		return Status{}, fmt.Errorf("pfctl -s info: not understood: %.80q", r.Stdout)
	}
	n, err := strconv.Atoi(entries[1])
	if err != nil {
		return Status{}, fmt.Errorf("pfctl -s info: %w", err)
	}
	return Status{Enabled: on[1] == "Enabled", States: n}, nil
}

// Skipped lists the interfaces and interface groups that pf.conf's `set skip on`
// names: no rule is evaluated for them (print_iface in pfctl_table.c).
func (c *Control) Skipped(ctx context.Context) ([]string, error) {
	r, err := c.pfctl(ctx, "", nothing, "-s", "Interfaces", "-v")
	if err != nil {
		return nil, err
	}
	var skipped []string
	for _, line := range program.Lines(r.Stdout) {
		if name, found := strings.CutSuffix(line, " (skip)"); found {
			skipped = append(skipped, name)
		}
	}
	return skipped, nil
}
