package pf

import (
	"context"
	"slices"
	"strings"

	"pfdivert/pfconf"
)

// MainRuleset is the host's main ruleset.
type MainRuleset struct {
	rules []HostRule
	// redirects: the rules are those of FreeBSD's list that redirect, of which the first that
	// matches decides (pf.conf(5), TRANSLATION).
	redirects bool
}

// MainRuleset asks OpenBSD's pf for the rules of its main ruleset.
func (c *Control) MainRuleset(ctx context.Context) (*MainRuleset, error) {
	rules, err := c.hostRules(ctx, "-s", "rules")
	return &MainRuleset{rules: rules}, err
}

// MainRulesets asks FreeBSD's pf for the rules of its main ruleset that redirect packets which come
// in, and for those that filter. Its pfctl prints the names of ports unless it is told -P, which
// has the opposite effect on OpenBSD's.
func (c *Control) MainRulesets(ctx context.Context) (redirects, filters *MainRuleset, err error) {
	first, err := c.hostRules(ctx, "-P", "-s", "nat")
	if err != nil {
		return nil, nil, err
	}
	second, err := c.hostRules(ctx, "-P", "-s", "rules")
	return &MainRuleset{first, true}, &MainRuleset{rules: second}, err
}

func (c *Control) hostRules(ctx context.Context, args ...string) ([]HostRule, error) {
	r, err := c.pfctl(ctx, "", nothing, args...)
	if err != nil {
		return nil, err
	}
	return ParseHostRules(r.Stdout), nil
}

// Reach tells how packets come to an anchor's rules. Rules are as pfctl prints them.
type Reach struct {
	// Calls are the rules through which the anchor's own rules are evaluated for the flow. When
	// there are none, the anchor has no effect.
	Calls []string
	// Children are rules that call only the anchors below (`anchor "regress/*"`).
	Children []string
	// Decides are the rules that certainly decide in place of the anchor: those with `quick` before
	// it, and those without it behind, because the last rule that matches decides.
	Decides []string
	// May are those that may do so: the packets that they match are not known, or the rule is not
	// understood. Without Calls they are the rules that are not understood.
	May []string
	// Translates are the rules that certainly change the source address of the flow.
	Translates []string
}

// Reach tells how the packets that the rule is about come to it when it is in the anchor. nic is
// the interface by which they come and go, "" if it is not known.
func (m *MainRuleset) Reach(anchor string, r pfconf.Rule, nic string) Reach {
	var reach Reach
	all := m.matching(m.rules, pfconf.PacketsOf(r, nic), true, false)
	last := -1
	for i, rule := range all {
		switch {
		case rule.calls(anchor):
			reach.Calls = append(reach.Calls, rule.Text)
			last = i
		case rule.calls(anchor + "/x"):
			reach.Children = append(reach.Children, rule.Text)
		}
	}
	if last < 0 {
		for _, rule := range all {
			if rule.Err != nil {
				reach.May = append(reach.May, rule.Text)
			}
		}
		return reach
	}
	for i, rule := range all {
		decides := false
		switch {
		case rule.calls(anchor) || rule.calls(anchor+"/x"):
		case rule.Action == "match" && rule.Err == nil:
			if r.Direction == pfconf.Out && rule.surely && rule.Translate != nil && rule.Translate.Kind == "nat-to" {
				reach.Translates = append(reach.Translates, rule.Text)
			}
		case i < last:
			decides = m.redirects || rule.quick || rule.Err != nil
		default:
			decides = !m.redirects && !all[last].quick
		}
		switch {
		case decides && rule.surely && !rule.Calls():
			reach.Decides = append(reach.Decides, rule.Text)
		case decides:
			reach.May = append(reach.May, rule.Text)
		}
	}
	return reach
}

// matchingRule is a rule that may match a flow.
type matchingRule struct {
	*HostRule
	surely bool // it certainly matches
	quick  bool // evaluation ends when it matches
}

// matching returns the rules that may match the flow, with those that anchor rules have in braces
// in their place.
func (m *MainRuleset) matching(rules []HostRule, flow pfconf.Packets, surely, quick bool) []matchingRule {
	var all []matchingRule
	for i := range rules {
		r := &rules[i]
		if actions[r.Action] && !m.concerns(r) || r.Err == nil && r.Apart(flow) {
			continue
		}
		found := matchingRule{r, surely && r.Err == nil && r.Domain == "" && r.Covers(flow), quick || r.Quick}
		if r.Inner != nil {
			all = append(all, m.matching(r.Inner, flow, found.surely, found.quick)...)
			continue
		}
		all = append(all, found)
	}
	return all
}

// concerns reports whether the rule belongs to the list: `pfctl -s nat` prints those of nat and
// binat too, and `pfctl -s rules` those that scrub.
func (m *MainRuleset) concerns(r *HostRule) bool {
	if m.redirects {
		return strings.HasPrefix(r.Action, "rdr")
	}
	return slices.Contains([]string{"pass", "block", "match", "anchor"}, r.Action)
}

// calls reports whether the rule has the rules of the anchor evaluated: by its name,
// or by its parent's with "/*", which means the anchors below and not the parent
// itself (pf.conf(5), ANCHORS).
func (r *HostRule) calls(anchor string) bool {
	if !r.Calls() {
		return false
	}
	name := strings.TrimPrefix(r.Anchor, "/")
	if name == anchor {
		return true
	}
	above := ""
	if i := strings.LastIndexByte(anchor, '/'); i >= 0 {
		above = anchor[:i+1]
	}
	return name == above+"*"
}
