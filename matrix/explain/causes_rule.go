package explain

import (
	"regexp"
	"strings"

	"pfdivert/pfconf"
)

var ofInterface = regexp.MustCompile(`(?:iifname "| -i )([^" ]*)`)

// Words by which iptables shows that a rule sets the mark of a connection, or of a packet. TPROXY
// has the mark 0x0 when it sets none.
const (
	setsConnMark = " CONNMARK --set-xmark"
	setsMark     = " MARK --set-xmark"
	tproxyMarks  = "--tproxy-mark 0x7"
)

// ruleAdvice is the advice about a rule, in the words of nftables, of iptables and of programs of
// BPF.
func ruleAdvice(likely, check, fix, xtFix, bpfFix string) map[string]Advice {
	return map[string]Advice{"": {likely, check, fix}, xtables: {likely, check, xtFix}, bpf: {likely, check, bpfFix}}
}

// withLookup adds the advice about the program of sk_lookup.
func withLookup(a Advice, others map[string]Advice) map[string]Advice {
	others[lookup] = a
	return others
}

// ruleCauses are what the rules that divert lack, as the filter shows them.
var ruleCauses = []Cause{
	{
		Code: "no-tproxy", Firewalls: linux,
		Cell: func(c *Case) bool {
			return c.to() && c.Proto.HasPorts() && c.lost() && c.ruleLacks("tproxy ", "TPROXY ", "sk_assign ")
		},
		Advice: withLookup(Advice{"the program takes the packet and assigns it no socket: it is delivered by its own address, where none is",
			listRules, "look the listener up in a map of sockets, and bpf_sk_assign it (bpf_map_lookup_elem of a BPF_MAP_TYPE_SOCKHASH)"},
			ruleAdvice("the rule marks the packet and has no tproxy: it is delivered by its own address, where no socket is",
				listRules, "tproxy to {DIVERT} before the mark is set",
				"-j TPROXY in place of -j MARK, with --on-ip and --on-port of {DIVERT} and --tproxy-mark {MARK}",
				"look {DIVERT} up with bpf_skc_lookup_tcp or bpf_sk_lookup_udp, and bpf_sk_assign it before the mark is set")),
	},
	{
		Code: "state-not-marked", Firewalls: linux,
		Cell: func(c *Case) bool {
			return c.reply() && c.undone() && c.ruleLacks("ct mark set", setsConnMark, "remember the flow")
		},
		Advice: ruleAdvice("the rule does not mark the flow's conntrack entry, so its answers are not known",
			listRules+"; conntrack -L -o extended", "ct mark set {MARK} in the output chain for what leaves from {FAKE}",
			"-j CONNMARK --set-mark {MARK} in mangle's OUTPUT for what leaves from {FAKE}",
			"keep the flow in a map in the program at egress, for what leaves from {FAKE}"),
	},
	{
		Code: "no-rule-back", Firewalls: linux,
		Cell: func(c *Case) bool {
			return c.reply() && c.diverted() && c.ruleLacks("pre: ", "tc ingress: ", "sk_lookup: ")
		},
		Advice: ruleAdvice("no rule in the prerouting hook marks the answers of the flow, so they are not local",
			listRules, "ct mark {MARK} meta mark set {MARK} in a prerouting chain of type filter",
			"-m connmark --mark {MARK} -j MARK --set-mark {MARK} in mangle's PREROUTING",
			"look the flow up in the program at ingress, and set skb->mark to {MARK}"),
	},
	{
		Code: "mark-not-set", Firewalls: linux,
		Cell: func(c *Case) bool {
			return c.diverted() && c.ruleLacks("meta mark set", setsMark, tproxyMarks, "skb->mark = ", "sk_lookup: ")
		},
		Advice: ruleAdvice("the rule does not set the packet's mark, so the policy rule does not see it and it is dropped in routing",
			listRules, "meta mark set {MARK} in the rule, behind tproxy",
			"--tproxy-mark {MARK} behind -j TPROXY, or -j MARK --set-mark {MARK} for a protocol without ports",
			"skb->mark = {MARK} in the program, behind bpf_sk_assign"),
	},
	{
		Code: "rule-other-interface", Firewalls: linux,
		Cell: func(c *Case) bool {
			nic := c.Remote.nic()
			m := ofInterface.FindStringSubmatch(c.rule())
			return !c.is("control-delivered", "control-lost") &&
				(c.unmatched() || c.reply() && c.diverted() && c.Counters.Replies == 0) && nic != "" && m != nil &&
				m[1] != nic && m[1] != "lo" // by which what the host itself sends comes back
		},
		Advice: anywhere("the rule is for another interface than {NIC}, by which the packets come",
			listRules+"; tcpdump -ni any host {HOST}", "name {NIC} in the rule; of a bridge or a VLAN, the interface that the host's IP sees"),
	},
	{
		Code: "stale-state",
		Cell: func(c *Case) bool {
			return c.Second && c.reply() && c.is("no-reply") &&
				(c.Firewall == pf || c.ruleHas("ct direction reply", "--ctdir REPLY", "that this host began"))
		},
		Advice: map[string]Advice{
			"": {"a state that an earlier flow left catches the answers", "", "kill the state"},
			nftables: {"a state that an earlier flow with the same addresses left is of the other direction, and the rule takes only replies (ct direction reply)",
				"conntrack -L", "conntrack -D -s {LOCAL} -d {FAKE}, or leave the direction out of the rule"},
			pf: {"the state that an earlier divert-to flow with the same addresses left catches the answer",
				"pfctl -ss -v", "pfctl -k {LOCAL} -k {FAKE}"},
			ipfw: {"a dynamic rule of an earlier flow catches the answer", "ipfw -d show",
				"wait for its end (net.inet.ip.fw.dyn_udp_lifetime)"},
		},
	},
}

// matchCauses are why a rule that is right takes no packet.
var matchCauses = []Cause{
	{
		Code: "filter-off", Firewalls: bsd,
		Host: func(h *HostFacts) bool { return h.pfOff() || h.ipfwOff() },
		Cell: func(c *Case) bool {
			off := c.Remote.pfOff
			if c.Firewall == ipfw { // the pf beside it is mostly off
				off = c.Remote.ipfwOff
			}
			return c.unmatched() && c.lost() && off()
		},
		Advice: map[string]Advice{
			pf: {"pf is disabled, so no rule is evaluated", "pfctl -si", "pfctl -e"},
			ipfw: {"ipfw is switched off for this family, so no rule is evaluated",
				"sysctl net.inet.ip.fw.enable net.inet6.ip6.fw.enable",
				"sysctl net.inet.ip.fw.enable=1 net.inet6.ip6.fw.enable=1"},
		},
	},
	{
		Code: "not-evaluated", Firewalls: []string{nftables, pf, ipfw}, Cell: byDoctor,
		Advice: map[string]Advice{
			nftables: {"no packet comes to the rule: {DETAIL}", "nft -a list ruleset; iptables-save; ip -br link",
				"jump to its chain from one with a hook, name the interface by which the packets come, or take the table's flag dormant away"},
			pf: {"pf never looks at the rule: {DETAIL}", "pfctl -sr; pfctl -v -sA; pfctl -vsI",
				"call the anchor in pf.conf (anchor \"NAME\"), or take the interface out of set skip"},
			ipfw: {"ipfw never looks at the rule: {DETAIL}", "ipfw set show", "ipfw set enable N"},
		},
	},
	{
		Code: "overruled", Firewalls: []string{nftables, pf, ipfw}, Cell: byDoctor,
		Advice: map[string]Advice{
			nftables: {"an earlier rule of the same table decides about the packet: {DETAIL}",
				"nft -a list ruleset; iptables-save", "put the rule that diverts before it, or leave its packets out of the other"},
			pf: {"another rule decides about the packet: an earlier one with quick, or, where the rule that diverts has none, a later one that matches: {DETAIL}",
				"pfctl -vvsr; pfctl -a '*' -sr",
				"put the rule that diverts behind it, or give it quick and put it before"},
			ipfw: {"an earlier rule decides about the packet: {DETAIL}", "ipfw -a list",
				"give the rule that diverts a lower number, or leave its packets out of the other"},
		},
	},
	{
		Code: "forwarded",
		Cell: func(c *Case) bool {
			return c.unmatched() && c.is("not-delivered", "no-reply", "not-counted") && c.Remote.forwards(c.v6()) &&
				!c.ofLookup() && // FAKE is local
				(c.to() || c.reply() && c.comesBack())
		},
		Advice: map[string]Advice{
			"": {"REMOTE forwards, and no rule takes the packet: it is sent on, or answered with an ICMP error, in place of being diverted",
				"sysctl net.inet.ip.forwarding; pfctl -vvsr", "fix the rule, so that it matches; see rule-mismatch"},
			nftables: {"REMOTE forwards, and no rule takes the packet: it is sent on, or answered with an ICMP error, in place of being diverted",
				"sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding; {ip} route get {FAKE} from {LOCAL} iif {NIC}",
				"fix the rule, so that it matches; see rule-mismatch"},
			ipfw: {"REMOTE forwards, and no rule takes the packet: it is sent on, or answered with an ICMP error, in place of being diverted",
				"sysctl net.inet.ip.forwarding; ipfw -a list", "fix the rule, so that it matches; see rule-mismatch"},
		},
	},
	{
		Code: "lost-on-the-way",
		Cell: func(c *Case) bool {
			return c.to() && c.unmatched() && len(c.Local.Packets) > 0 && c.captured(&c.Local) && !c.captured(&c.Remote)
		},
		Advice: anywhere("the packet left LOCAL's interface and did not come to REMOTE's: something between the hosts drops it",
			watch, "let FAKE's packets pass between the hosts"),
	},
	{
		Code: "rule-mismatch",
		Cell: func(c *Case) bool {
			return c.unmatched() && c.is("not-delivered", "no-reply", "not-rewritten", "not-counted", "not-lost")
		},
		Advice: map[string]Advice{
			"": {"the rule matched none of the cell's packets: addresses, port, protocol, family or interface are not theirs, or an earlier rule decided",
				"", "compare the rule with what comes"},
			nftables: {"the rule matched none of the cell's packets: addresses, port, protocol, family or interface are not theirs",
				"nft -a list ruleset; tcpdump -ni {NIC} host {HOST}; nft monitor trace, with meta nftrace set 1",
				"compare the rule with what comes"},
			pf: {"the rule matched none of the cell's packets: an earlier rule with quick decided, the main ruleset does not call the anchor, or a state of an earlier flow has them",
				"pfctl -vvsr; pfctl -a regress -vvsr; pfctl -ss; tcpdump -nettti pflog0",
				"move the anchor before the quick rule; pfctl -k {LOCAL} for a state"},
			ipfw: {"the rule matched none of the cell's packets: an earlier rule decided, or net.inet.ip.fw.enable is 0",
				"ipfw -a list; sysctl net.inet.ip.fw.enable",
				"give the rule a lower number than the one that decides"},
		},
	},
	{
		Code: "kernel-answers",
		Cell: func(c *Case) bool {
			return c.is("duplicate") && c.to() && c.Proto == pfconf.ICMP && strings.HasPrefix(c.Detail, "local client")
		},
		Advice: map[string]Advice{
			"": {"REMOTE's kernel answers the diverted echo request itself", "tcpdump -ni {NIC} icmp or icmp6",
				"drop its echo replies from {FAKE}"},
			nftables: {"REMOTE's kernel answers the diverted echo request itself: to it FAKE is local",
				"tcpdump -ni {NIC} icmp6", "ip6 saddr {FAKE} icmpv6 type echo-reply drop, in an output chain; or sysctl net.ipv6.icmp.echo_ignore_all=1"},
		},
	},
}
