package explain

import (
	"net/netip"
	"slices"
	"strings"
)

// mainPriority is that of the policy rule that chooses the main table
// (fib_default_rules_init, net/ipv4/fib_rules.c).
const mainPriority = 32766

// routeCauses are wrong ways to FAKE and back.
var routeCauses = []Cause{
	{
		Code: "no-route-to-fake", OnLocal: true, Cell: func(c *Case) bool {
			return c.is("local-route") || c.diverted() && answeredWith(c.Local.fakeRoute(c.Fake))
		},
		Advice: map[string]Advice{
			"": {"LOCAL has no route to FAKE", "route -n get -{inet} {FAKE}, on LOCAL",
				"route add -{inet} {FAKE} {REMOTE}, on LOCAL"},
			nftables: {"LOCAL has no route to FAKE", "{ip} route get {FAKE}, on LOCAL",
				"{ip} route add {FAKE} via {REMOTE}, on LOCAL"},
		},
	},
	{
		Code: "fake-routed-elsewhere", Cell: func(c *Case) bool {
			dev := device(c.Local.fakeRoute(c.Fake))
			return c.diverted() && dev != "" && c.Local.nic() != "" && dev != c.Local.nic()
		},
		Advice: anywhere("LOCAL sends what is for FAKE by an interface that does not lead to REMOTE: {ROUTE}",
			"{ip} route get {FAKE}, on LOCAL", "{ip} route replace {FAKE} via {REMOTE}, on LOCAL"),
	},
	{
		Code: "fake-on-link", Cell: func(c *Case) bool {
			route := c.Local.fakeRoute(c.Fake)
			return c.diverted() && device(route) != "" && device(route) == c.Local.nic() &&
				!strings.Contains(route, " via ")
		},
		Advice: anywhere("LOCAL looks for FAKE on the link itself, where no host answers for it: the route has no gateway ({ROUTE})",
			"{ip} route get {FAKE} and {ip} neigh show {FAKE}, on LOCAL",
			"{ip} route replace {FAKE} via {REMOTE}, on LOCAL"),
	},
	{
		Code: "own-traffic-diverted", Firewalls: linux, Cell: byDoctor,
		Advice: anywhere("REMOTE diverts what its own proxy sends, so it comes back to the proxy: {DETAIL}",
			"nft list ruleset; iptables-save; ss -lntue (the uid of the proxy)",
			"leave the proxy's own packets out, before that rule: by its user (meta skuid, -m owner --uid-owner), or by a mark that its sockets have"),
	},
	{
		Code: "own-traffic-diverted", Firewalls: linux, Maybe: true,
		Host:   (*HostFacts).localDefault,
		Chains: []chains{at("output", "mark set")},
		Cell:   func(c *Case) bool { return c.fromFake() },
		Advice: anywhere("REMOTE diverts what its own proxy sends: a rule marks it on its way out, and in table {TABLE} all addresses are local, so it comes back ({RULES})",
			"nft list ruleset; {ip} route get {LOCAL} mark {MARK}",
			"leave the proxy's own packets out of that rule (meta skuid, socket mark, or ct mark), and have only FAKE's prefix local in table {TABLE}"),
	},
	{
		Code: "reply-routed-elsewhere", Firewalls: linux,
		Host: replyElsewhere,
		Cell: func(c *Case) bool { return c.fromFake() },
		Advice: anywhere("what REMOTE sends from FAKE leaves by an interface that does not lead to LOCAL: a policy rule for that source chooses another table",
			"{ip} rule; {ip} route get {LOCAL}", "delete that policy rule, or put a route to {LOCAL} into its table"),
	},
	{
		Code: "no-policy-rule", Firewalls: linux,
		Host: func(h *HostFacts) bool {
			rules, known := h.diverting()
			return known && len(rules) == 0
		},
		Cell: (*Case).diverted,
		Advice: anywhere("there is no policy rule: packets with mark {MARK} are not sent to table {TABLE}, so FAKE is not local and they are dropped in routing",
			"{ip} rule", "{ip} rule add fwmark {MARK} lookup {TABLE} (IPv4 and IPv6 each need one)"),
	},
	{
		Code: "mark-mismatch", Firewalls: linux,
		Host: func(h *HostFacts) bool {
			rules, known := h.diverting()
			mark := h.mark()
			return known && mark != 0 && len(rules) > 0 && !slices.ContainsFunc(rules,
				func(r policyRule) bool { return r.takes(mark) })
		},
		Cell: (*Case).diverted,
		Advice: anywhere("the policy rule that chooses table {TABLE} looks for another mark, or at other bits of it, than {MARK}, which the rules set",
			"{ip} rule; nft list ruleset", "{ip} rule add fwmark {MARK} lookup {TABLE}, and delete the other one"),
	},
	{
		Code: "no-local-route", Firewalls: linux,
		Host: func(h *HostFacts) bool {
			routes, known := h.routes()
			return known && !slices.ContainsFunc(routes, func(r string) bool { return strings.HasPrefix(r, "local ") })
		},
		Cell: (*Case).diverted,
		Advice: anywhere("table {TABLE}, which the policy rule chooses, has no local route to FAKE, or another table has it: marked packets are dropped in routing",
			"{ip} route show table {TABLE}; {ip} route show table all type local",
			"{ip} route add local {FAKE} dev lo table {TABLE}"),
	},
	{
		Code: "no-local-route", Firewalls: linux,
		Host: func(h *HostFacts) bool { return h.arriving() != "" && !strings.HasPrefix(h.arriving(), "local ") },
		Cell: func(c *Case) bool { return c.diverted() && c.ofLookup() },
		Advice: anywhere("FAKE is not local: the kernel looks for a socket, and asks the program, for what is its own alone",
			"{ip} route get {FAKE} from {LOCAL} iif {NIC}", "{ip} route add local {FAKE} dev lo"),
	},
	{
		Code: "no-route-localnet", Firewalls: linux,
		Host: func(h *HostFacts) bool { return h.nicSysctl("ipv4", "route_localnet") == "0" },
		Cell: func(c *Case) bool { return c.is("not-delivered") && strings.Contains(c.Should, "127.0.0.1") },
		Advice: anywhere("{NIC} takes no packets for 127.0.0.1, whatever rule gave them that destination: they are dropped as martian in routing",
			"sysctl net.ipv4.conf.all.route_localnet net.ipv4.conf.{NIC}.route_localnet",
			"sysctl net.ipv4.conf.{NIC}.route_localnet=1, and drop what others send to 127.0.0.0/8 there"),
	},
	{
		Code: "rp-filter", Firewalls: linux,
		Host: func(h *HostFacts) bool {
			return strings.Contains(strings.ToLower(h.markedRoute()), "cross-device") ||
				h.localDefault() && h.nicSysctl("ipv4", "rp_filter") == "1" &&
					h.nicSysctl("ipv4", "src_valid_mark") == "1"
		},
		Cell: (*Case).diverted,
		Advice: anywhere("reverse path filtering drops marked packets as martian: with src_valid_mark it looks for their sender by the mark, in table {TABLE}, where all addresses are local",
			"sysctl net.ipv4.conf.{NIC}.rp_filter net.ipv4.conf.{NIC}.src_valid_mark; nstat -az TcpExtIPReversePathFilter",
			"have only FAKE's prefix local in table {TABLE} (ip route replace local {FAKE} dev lo table {TABLE}), or sysctl net.ipv4.conf.all.src_valid_mark=0"),
	},
	{
		Code: "late-policy-rule", Firewalls: linux,
		Host: func(h *HostFacts) bool {
			rules, known := h.diverting()
			return known && len(rules) > 0 && !slices.ContainsFunc(rules,
				func(r policyRule) bool { return r.priority <= mainPriority }) &&
				!strings.HasPrefix(h.markedRoute(), "local ")
		},
		Cell: (*Case).diverted,
		Advice: anywhere("the policy rule stands behind the main table, which has a route for FAKE and decides first",
			"{ip} rule; {ip} route get {FAKE} from {LOCAL} iif {NIC} mark {MARK}",
			"{ip} rule add fwmark {MARK} lookup {TABLE} priority 100, and delete the late one"),
	},
	{
		Code: "bridge-netfilter", Firewalls: linux,
		Host: func(h *HostFacts) bool {
			link, _ := h.answer("ip link show dev ", "")
			return strings.HasSuffix(link, " bridge") && (h.sysctl("net.bridge.bridge-nf-call-iptables") == "1" ||
				h.sysctl("net.bridge.bridge-nf-call-ip6tables") == "1")
		},
		Cell: func(c *Case) bool { return c.to() && c.Proto.HasPorts() && c.lost() && !c.unmatched() && !c.undone() },
		Advice: anywhere("{NIC} is a bridge, and br_netfilter has its packets go through the rules of IP before the bridge hands them to IP: the socket that tproxy chose is forgotten between",
			"sysctl net.bridge.bridge-nf-call-iptables net.bridge.bridge-nf-call-ip6tables",
			"sysctl net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0, or unload br_netfilter"),
	},
}

// replyElsewhere reports whether a policy rule chooses by FAKE as the source and not by a mark,
// before the main table.
func replyElsewhere(h *HostFacts) bool {
	rules, _ := h.policyRules()
	fake, _ := netip.ParseAddr(h.commandAfter("ip addr show to "))
	return slices.ContainsFunc(rules, func(r policyRule) bool {
		return r.from.Contains(fake) && r.from.Bits() > 0 && !r.marked && r.priority < mainPriority &&
			r.table != "main" && r.table != "local"
	})
}
