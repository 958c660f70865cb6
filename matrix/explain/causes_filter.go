package explain

import (
	"slices"

	"pfdivert/matrix/evidence"
)

// Rules of other tables that an nftables host may have.
const listRules = "nft list ruleset"

// filterCauses are what other rules of the hosts do to the cell's packets.
var filterCauses = []Cause{
	{
		Code: "not-tracked", Firewalls: linux,
		Maybe:  true,
		Chains: []chains{at("prerouting", "notrack"), at("output", "notrack")},
		Cell:   func(c *Case) bool { return c.reply() && c.undone() || c.is("state-missing") },
		Advice: anywhere("a notrack rule keeps the flow from conntrack, so there is no state to mark or to translate by, and nothing to know the answer by ({RULES})",
			listRules, "leave FAKE's flows out of the notrack rule"),
	},
	{
		Code: "other-zone", Firewalls: linux,
		Maybe:  true,
		Chains: []chains{at("prerouting", "ct zone set"), at("output", "ct zone set")},
		Cell:   func(c *Case) bool { return c.reply() && c.diverted() || c.is("state-missing") },
		Advice: anywhere("conntrack keeps what comes in and what goes out in different zones, so an answer does not find its flow's state ({RULES})",
			listRules+"; conntrack -L -o extended (zone=, zone-orig= or zone-reply=)",
			"set the same zone for both directions (ct zone set in prerouting and in output), or none"),
	},
	{
		Code: "source-translated", Firewalls: linux,
		Maybe:  true,
		Chains: []chains{at("postrouting", "masquerade", "snat")},
		Cell:   func(c *Case) bool { return c.reply() && (c.is("wrong-address") || c.lost()) },
		Advice: anywhere("a rule translates the source address of what leaves REMOTE, so LOCAL does not see FAKE ({RULES})",
			listRules+"; conntrack -L -n", "leave FAKE out of the masquerade or snat rule (ip saddr {FAKE} return, before it)"),
	},
	{
		Code: "destination-translated", Firewalls: linux,
		Maybe:  true,
		Chains: []chains{at("prerouting", "redirect", "dnat")},
		Cell: func(c *Case) bool { // of what the rule did not match the addresses are those that it has
			return c.to() && (c.is("wrong-address") || c.lost() && (!c.unmatched() || c.ofLookup())) &&
				(c.Proto.HasPorts() || len(c.Remote.having([]chains{at("prerouting", "dnat")})) > 0)
		},
		Advice: anywhere("a redirect or dnat rule changes the destination, so the original one is lost and the socket sees REMOTE's own address ({RULES})",
			listRules+"; conntrack -L -g", "divert with tproxy alone: delete the redirect or dnat rule, or leave FAKE out of it"),
	},
	{
		Code: "destination-translated", Firewalls: []string{pf, ipfw},
		Cell: func(c *Case) bool { return c.to() && c.is("wrong-address") },
		Advice: map[string]Advice{
			pf: {"a rdr-to rule changes the destination, so the original one is lost", "pfctl -vvsr; pfctl -ss",
				"use divert-to in place of rdr-to, and no other rule that translates FAKE"},
			ipfw: {"a nat or fwd rule changes the destination, so the original one is lost", "ipfw -d show",
				"leave FAKE out of the nat rule"},
		},
	},
	{
		Code: "source-translated", Firewalls: []string{pf, ipfw},
		Cell: func(c *Case) bool {
			return !c.to() && c.is("wrong-address") && !c.ofDivertSocket() ||
				(c.reply() || c.Mechanism == PacketOut) && c.unmatched() && c.Firewall == pf &&
					c.Remote.translatesSource()
		},
		Advice: map[string]Advice{
			pf: {"a nat-to rule translates the source address of what leaves REMOTE", "pfctl -vvsr; pfctl -ss",
				"leave FAKE out of the nat-to rule"},
			ipfw: {"a nat rule translates the source address of what leaves REMOTE", "ipfw -d show",
				"leave FAKE out of the nat rule"},
		},
	},
	{
		Code: "diverted-by-another",
		Cell: func(c *Case) bool {
			return c.is("control-delivered") || c.is("not-delivered") && c.Mechanism != DivertBoth && c.unmatched() &&
				c.anotherMatched()
		},
		Advice: map[string]Advice{
			"": {"another rule of REMOTE's diverts the same flow, or another host answers for FAKE", "", "leave FAKE out of that rule"},
			nftables: {"another rule of REMOTE's diverts the same flow ({RULES}), or rules of an earlier run are still loaded",
				listRules, "leave FAKE out of that rule; pfdivert cleanup removes what a killed run left"},
			pf: {"another rule of REMOTE's diverts the same flow, or a state of an earlier flow catches it",
				"pfctl -vvsr; pfctl -a '*' -sr; pfctl -ss", "leave FAKE out of that rule; pfctl -k {LOCAL}"},
			ipfw: {"another rule of REMOTE's diverts the same flow", "ipfw -d show", "leave FAKE out of that rule"},
		},
	},
	{
		Code: "diverted-by-another", Firewalls: linux,
		Maybe:  true,
		Chains: []chains{at("prerouting", "tproxy")},
		Cell:   func(c *Case) bool { return c.ofLookup() && c.is("not-counted") && c.unmatched() },
		Advice: anywhere("a rule with tproxy chooses the socket, before the kernel looks for one and asks the program ({RULES})",
			listRules, "leave FAKE out of that rule"),
	},
	{
		Code: "lost-by-divert", Firewalls: bsd, Cell: byDoctor,
		Advice: anywhere("FreeBSD's pf does not do all that the rule says with a packet that was diverted and reinjected: {DETAIL}",
			"pfctl -vvsr; pfctl -si (state-insert)",
			"give the rule \"no state\" for what was translated, and have another rule without divert-to set the route or the tag, on another interface"),
	},
	{
		Code: "dropped-out", Firewalls: linux,
		Maybe:  true,
		Chains: []chains{at("output", "drop", "reject"), at("postrouting", "drop")},
		Cell:   func(c *Case) bool { return c.fromFake() || c.is("socket-failed") && c.says("not permitted") },
		Advice: anywhere("a rule of REMOTE's own drops what leaves with FAKE as its source, as filters against spoofing do ({RULES})",
			listRules, "let FAKE pass in that chain (ip saddr {FAKE} accept, before the drop)"),
	},
	{
		Code: "dropped-out", Firewalls: bsd,
		Cell: func(c *Case) bool {
			return c.is("socket-failed") && c.says(": send: ", ": connect: ") &&
				c.says("ermission denied", "not permitted")
		},
		Advice: map[string]Advice{
			pf: {"a rule of the host's own blocks what leaves: {DETAIL}", "pfctl -vvsr; pfctl -ss",
				"let FAKE pass out before that rule (pass out quick from {FAKE})"},
			ipfw: {"a rule of the host's own denies what leaves: {DETAIL}", "ipfw -a list",
				"let FAKE pass out before that rule (allow ip from {FAKE} to any out)"},
		},
	},
	{
		Code: "dropped-on-local", OnLocal: true,
		Maybe:  true,
		Chains: []chains{at("input", "drop", "reject"), at("prerouting", "drop", "reject")},
		Cell:   func(c *Case) bool { return c.fromFake() },
		Advice: anywhere("LOCAL's own filter drops what comes from FAKE ({RULES})",
			"nft list ruleset or pfctl -vvsr, on LOCAL", "let {FAKE} pass in that chain on LOCAL"),
	},
	{
		Code: "dropped-before", Firewalls: linux,
		Maybe:  true,
		Chains: []chains{at("prerouting", "drop", "reject"), at("input", "drop", "reject")},
		Cell:   func(c *Case) bool { return c.ofLookup() && c.to() && c.unmatched() },
		Advice: anywhere("a rule of REMOTE's own drops the packet before the kernel looks for a socket ({RULES})",
			"nft list ruleset (hooks prerouting and input; counters tell which rule it is)", "let FAKE pass in that chain"),
	},
	{
		Code: "dropped-before", Firewalls: linux,
		Maybe:  true,
		Chains: []chains{{"prerouting", lowest, manglePriority, []string{"drop", "reject"}}},
		Cell: func(c *Case) bool {
			return c.to() && c.unmatched() || c.reply() && c.diverted() && c.Counters.Replies == 0
		},
		Advice: anywhere("an earlier rule of REMOTE's own drops the packet: it or its chain stands before the rules that divert ({RULES})",
			listRules+" (look at hooks and priorities; counters tell which rule it is)", "let FAKE pass in that chain"),
	},
	{
		Code: "dropped-before", Firewalls: bsd, // first, as doctor takes the first with a code
		Cell: byDoctor,
		Advice: map[string]Advice{
			pf: {"an earlier rule with quick drops the packet before the rule that diverts is looked at: {DETAIL}",
				"pfctl -vvsr; pfctl -a '*' -sr", "move the rule that diverts before it, or leave its packets out of it"},
			ipfw: {"an earlier rule drops the packet before the rule that diverts is looked at: {DETAIL}",
				"ipfw -a list", "give the rule that diverts a lower number, or leave its packets out of the other"},
		},
	},
	{
		Code: "dropped-before", Firewalls: []string{pf},
		Cell: func(c *Case) bool { return c.unmatched() && c.logged("block") != "" },
		Advice: map[string]Advice{
			pf: {"pf drops the packet before the rule that diverts is looked at, as its log says: {BLOCK}",
				"pfctl -vvsr; tcpdump -nettti pflog0", "move the rule that diverts before it, or leave its packets out of it"},
		},
	},
	{
		Code: "dropped-on-local", OnLocal: true,
		Cell: func(c *Case) bool { return c.fromFake() && len(c.Local.blocks(c.v6())) > 0 },
		Advice: anywhere("LOCAL's own filter has dropped packets, and what comes from FAKE is missing ({BLOCKS})",
			"pfctl -vvsr or ipfw -a list, on LOCAL", "let {FAKE} pass before that rule on LOCAL"),
	},
	{
		Code: "dropped-before", Firewalls: bsd,
		Cell: func(c *Case) bool {
			return (c.to() || c.diverted()) && c.unmatched() && len(c.Remote.blocks(c.v6())) > 0
		},
		Advice: map[string]Advice{
			pf: {"a rule of REMOTE's own has dropped packets, and the rule that diverts has seen none ({BLOCKS})",
				"pfctl -vvsr; pfctl -a '*' -sr", "move the rule that diverts before it, or leave its packets out of it"},
			ipfw: {"a rule of REMOTE's own has dropped packets, and the rule that diverts has seen none ({BLOCKS})",
				"ipfw -a list", "give the rule that diverts a lower number, or leave its packets out of the other"},
		},
	},
	{
		Code: "mark-cleared", Firewalls: linux,
		Maybe:  true,
		Chains: []chains{{"prerouting", manglePriority, highest, []string{"mark set"}}},
		Cell:   func(c *Case) bool { return c.diverted() && c.matched() && !c.undone() },
		Advice: anywhere("a later rule of REMOTE's own sets the mark anew, so the policy rule does not see {MARK} ({RULES})",
			listRules, "have that rule leave packets alone that have a mark (meta mark 0 …), or change other bits only"),
	},
	{
		Code: "dropped-after", Firewalls: []string{pf}, Cell: byDoctor,
		Advice: anywhere(
			"the filter drops what an rdr rule, or on OpenBSD a match rule with rdr-to, has translated: {DETAIL}",
			"pfctl -sn; pfctl -vvsr", "pass it in the filter, by its new address and port, or on FreeBSD give the rule pass (rdr pass)"),
	},
	{
		Code: "dropped-after", Firewalls: linux,
		Maybe:  true,
		Chains: []chains{{"prerouting", lowest, manglePriority, []string{"drop", "reject"}}},
		Cell: func(c *Case) bool {
			return c.ofBPF() && c.diverted() && (c.to() && c.matched() || c.reply() && c.Counters.Replies > 0)
		},
		Advice: anywhere("REMOTE's own filter drops the packet, to which the programs at ingress have given a socket or a mark before ({RULES})",
			listRules, "accept in that chain what has mark {MARK} (meta mark {MARK} accept)"),
	},
	{
		Code: "dropped-after", Firewalls: linux,
		Maybe: true,
		Chains: []chains{at("input", "drop", "reject"), {"prerouting", manglePriority + 1, highest,
			[]string{"drop", "reject"}}},
		Cell: func(c *Case) bool {
			return c.diverted() && !c.undone() && (c.to() && c.matched() || c.reply() && c.Counters.Replies > 0)
		},
		Advice: anywhere("REMOTE's own filter drops the packet after the rule has diverted it: to that chain it is still one for FAKE ({RULES})",
			listRules, "accept in that chain what has mark {MARK} (meta mark {MARK} accept)"),
	},
}

// looped reports whether a packet that was reinjected came again beside a pf that is on.
func (c *Case) looped() bool {
	counted := c.CountersKnown && c.Counters.Matched > 1 ||
		slices.ContainsFunc(c.Remote.Rules, func(r evidence.FilterRule) bool {
			return r.After != nil && r.After.Matched > 1
		})
	again := c.is("looped") || counted && c.is("not-delivered", "not-reinjected", "wrong-data")
	return again && c.Firewall == ipfw && !c.ByPF && (c.Packet() || c.Claim) && (c.PFOn || c.Remote.pfOn())
}
