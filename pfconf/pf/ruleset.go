package pf

import (
	"context"
	"fmt"
	"strings"

	"pfdivert/pfconf"
	"pfdivert/pfconf/program"
)

// MainRuleset is the host's main ruleset, as `pfctl -s rules` prints it, or another list of its
// rules.
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

// MainRedirects asks FreeBSD's pf for the main ruleset's rules that redirect packets which come in.
func (c *Control) MainRedirects(ctx context.Context) (*MainRuleset, error) {
	r, err := c.pfctl(ctx, "", nothing, "-s", "nat")
	if err != nil {
		return nil, err
	}
	m, err := parseRedirects(r.Stdout)
	if err != nil {
		return nil, fmt.Errorf("pfctl -s nat: %w", err)
	}
	return m, nil
}

// parseRedirects reads `pfctl -s nat`. Of the rules that redirect the first that matches decides
// (FreeBSD's pf.conf(5), TRANSLATION), as if all were quick; those of nat and binat are about other
// packets.
func parseRedirects(out string) (*MainRuleset, error) {
	m := &MainRuleset{}
	for _, line := range program.Lines(out) {
		text := strings.TrimSpace(line)
		words := strings.Fields(strings.TrimPrefix(text, "no "))
		var as []string
		switch {
		case len(words) > 0 && words[0] == "rdr-anchor":
			as = []string{"anchor"}
		case len(words) > 0 && words[0] == "rdr":
			as = []string{"pass"}
		default:
			continue
		}
		rest := words[1:]
		for len(rest) > 0 && (rest[0] == "pass" || rest[0] == "log") {
			rest = rest[1:]
		}
		r, err := parseMainRule(strings.Join(append(as, rest...), " "))
		if err != nil {
			return nil, fmt.Errorf("%q: %w", text, err)
		}
		r.text, r.quick = text, true
		m.lines = append(m.lines, r)
	}
	return m, nil
}

func parseMain(out string) (*MainRuleset, error) {
	m := &MainRuleset{}
	for _, line := range program.Lines(out) {
		text := strings.TrimSpace(line)
		// The end of an anchor that is written in place, and on FreeBSD what normalizes packets:
		// neither decides about any.
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
