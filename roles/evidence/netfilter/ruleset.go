// Package netfilter reads the packet filter rules of a Linux host, whoever made them and with which
// program (nft, iptables-nft, iptables-legacy), and follows packets through them as far as the
// rules tell: what a rule asks for that can't be known is neither met nor missed.
package netfilter

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"pfdivert/pfconf"
)

// Ruleset is all that a host's hooks of IP look at.
type Ruleset struct {
	Chains []*Chain

	byName map[chainKey]*Chain // for called
}

type chainKey struct{ program, family, table, name string }

// Chain is a list of rules, with a hook or to be jumped to.
type Chain struct {
	Program string // "" for nf_tables, "iptables-legacy" or "ip6tables-legacy"
	Family  string // "ip", "ip6", "inet"
	Table   string
	Name    string
	Dormant bool // its table is switched off

	Hook     string // "prerouting", "input", … and "" for a chain that is only jumped to
	Type     string // "filter", "nat", "route"
	Priority int
	Drops    bool // its policy
	Rules    []*Rule
}

// Where names the chain.
func (c *Chain) Where() string {
	where := fmt.Sprintf("table %s %s chain %s", c.Family, c.Table, c.Name)
	if c.Program != "" {
		where = fmt.Sprintf("%s table %s chain %s", c.Program, c.Table, c.Name)
	}
	return where
}

// of reports whether packets of a family come to the chain.
func (c *Chain) of(f pfconf.Family) bool {
	return c.Family == "inet" || (c.Family == "ip6") == (f == pfconf.Inet6)
}

// called returns the chain that a rule of c jumps to.
func (r *Ruleset) called(c *Chain, name string) *Chain {
	if r.byName == nil {
		r.byName = make(map[chainKey]*Chain, len(r.Chains))
		for _, o := range r.Chains {
			r.byName[chainKey{o.Program, o.Family, o.Table, o.Name}] = o
		}
	}
	return r.byName[chainKey{c.Program, c.Family, c.Table, name}]
}

// hooked returns the chains of a hook for a family, in the order in which packets meet them.
func (r *Ruleset) hooked(hook string, f pfconf.Family) []*Chain {
	var all []*Chain
	for _, c := range r.Chains {
		if c.Hook == hook && c.of(f) && !c.Dormant {
			all = append(all, c)
		}
	}
	slices.SortStableFunc(all, func(a, b *Chain) int { return a.Priority - b.Priority })
	return all
}

// Rule is a list of conditions and actions. An action is for the packets that met the conditions
// before it.
type Rule struct {
	Chain  *Chain
	Number int // within the chain, from 1
	Steps  []Step
}

// Step is a condition, an action, or a choice of both by an element of a map.
type Step struct {
	Cond   *Cond
	Action *Action
	Choice []Chosen
}

// Chosen is an element of a verdict map.
type Chosen struct {
	Cond   Cond
	Action Action
}

// Where names the rule, as iptables --line-numbers counts.
func (r *Rule) Where() string { return fmt.Sprintf("%s rule %d", r.Chain.Where(), r.Number) }

// Text is the rule, about as nft(8) would write it.
func (r *Rule) Text() string {
	var all []string
	for _, s := range r.Steps {
		switch {
		case s.Cond != nil:
			all = append(all, s.Cond.Text)
		case s.Action != nil:
			all = append(all, s.Action.Text)
		default:
			var some []string
			for _, c := range s.Choice {
				some = append(some, c.Cond.Text+" : "+c.Action.Text)
			}
			all = append(all, "vmap { "+strings.Join(some, ", ")+" }")
		}
	}
	return strings.Join(slices.DeleteFunc(all, func(s string) bool { return s == "" }), " ")
}

// Does is what an action does.
type Does int

// What actions do. Those of terminal rules in xtables end the rule with Accept.
const (
	Accept Does = iota + 1
	Drop        // and reject
	Return
	Jump
	Goto
	SetMark
	setCTMark
	SaveMark    // the packet's mark to the connection's
	RestoreMark // and back
	TProxy
	Redirect // to an own address, with a port or without
	NATAway  // to another host's
	Queue
	Notrack
	Ends // the packet goes to someone else: synproxy, a stolen one
)

// Action is what a rule does to a packet.
type Action struct {
	Does  Does
	Chain string // that Jump and Goto lead to
	// The mark becomes the old one and And, xor Xor. MarkUnknown: no one knows what it becomes.
	And, Xor    uint32
	MarkUnknown bool
	// Where packets are led: an invalid address is the interface's. Ports has several where a map
	// chooses, none where it is the packet's own. Unknown says why they are not known.
	Address netip.Addr
	Family  string // of tproxy's target: "ip", "ip6", "" for the rule's
	Ports   []uint16
	Unknown string
	// The queues, and what happens to packets without a reader.
	First, Last uint16
	Bypass      bool
	Text        string
}
