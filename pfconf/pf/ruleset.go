package pf

import (
	"context"
	"fmt"
	"strings"

	"pfdivert/pfconf"
	"pfdivert/pfconf/program"
)

// MainRuleset is the host's main ruleset, as `pfctl -s rules` prints it.
type MainRuleset struct {
	lines []mainRule
}

// MainRuleset asks for the main ruleset.
func (c *Control) MainRuleset(ctx context.Context) (*MainRuleset, error) {
	r, err := c.pfctl(ctx, "", nothing, "-s", "rules")
	if err != nil {
		return nil, err
	}
	m, err := parseMain(r.Stdout)
	if err != nil {
		return nil, fmt.Errorf("pfctl -s rules: %w", err)
	}
	return m, nil
}

func parseMain(out string) (*MainRuleset, error) {
	m := &MainRuleset{}
	for _, line := range program.Lines(out) {
		text := strings.TrimSpace(line)
		// The end of an anchor that is written in place, and on FreeBSD what normalizes packets: neither
		// decides about any.
		if text == "}" || strings.HasPrefix(text, "scrub ") || strings.HasPrefix(text, "scrub-anchor ") {
			continue
		}
		r, err := parseMainRule(text)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", text, err)
		}
		m.lines = append(m.lines, r)
	}
	return m, nil
}

// Reach tells how packets come to an anchor's rules.
type Reach struct {
	// Calls are the rules through which the anchor's own rules are evaluated for
	// the flow. When there are none, the anchor is without effect.
	Calls []string
	// Children are rules that call only the anchors below (`anchor "regress/*"`).
	Children []string
	// Hidden are the rules that may decide instead of the anchor: those with
	// `quick` before it, and those without it behind, because the last rule that
	// matches decides. A rule is listed unless it surely does not match the flow.
	Hidden []string
}

// Reach tells how the packets that the rule is about come to it when it is in the anchor.
func (m *MainRuleset) Reach(anchor string, r pfconf.Rule) Reach {
	var reach Reach
	last := -1
	for i, line := range m.lines {
		if !line.mayMatch(r) {
			continue
		}
		switch {
		case line.calls(anchor):
			reach.Calls = append(reach.Calls, line.text)
			last = i
		case line.calls(anchor + "/x"):
			reach.Children = append(reach.Children, line.text)
		}
	}
	if last < 0 {
		return reach
	}
	for i, line := range m.lines {
		decides := line.quick
		if i > last {
			decides = !m.lines[last].quick && line.action != "match"
		}
		own := line.calls(anchor) || line.calls(anchor+"/x")
		if decides && !own && line.mayMatch(r) {
			reach.Hidden = append(reach.Hidden, line.text)
		}
	}
	return reach
}
