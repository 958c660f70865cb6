package explain

import (
	"strings"

	"pfdivert/pfconf"
)

// hostCauses are what keeps a test from being done, and what of a host's set-up is
// no one's rule or route.
var hostCauses = []Cause{
	{
		Code: "echo-reflected", Firewalls: []string{ipfw},
		Cell:   func(c *Case) bool { return c.is("no-feature") && c.Proto == pfconf.ICMP },
		Advice: anywhere("the kernel answers diverted echo requests itself, and no socket can have them: {DETAIL}", "", "nothing is to be fixed"),
	},
	{
		Code: "kernel-too-old", Firewalls: linux,
		Cell: func(c *Case) bool {
			return c.is("no-feature") && c.says("REMOTE: Linux before", "remote server: Linux before",
				"remote client: Linux before")
		},
		Advice: anywhere("this release of Linux could not do it yet: {DETAIL}", "uname -r",
			"take a later kernel; nothing is wrong with this one"),
	},
	{
		Code: "network-missing",
		Cell: func(c *Case) bool {
			return c.is("no-feature") && c.says("second network", "third host", "the gateway", "it does not forward",
				"by another interface than")
		},
		Advice: anywhere("REMOTE does not forward, or has not the second network or the third host that the target needs: {DETAIL}",
			"sysctl net.inet.ip.forwarding net.inet6.ip6.forwarding; route -n get THIRD-HOST",
			"docs/remote.md says how to make them, and what to set"),
	},
	{
		Code: "module-missing",
		Cell: func(c *Case) bool { return c.is("no-feature") },
		Advice: map[string]Advice{
			"": {"the kernel was built without what the target needs, or its module is not loaded: {DETAIL}", "", ""},
			nftables: {"the kernel has no such module, or may not load it from a container: {DETAIL}",
				"pfdivert check-setup; lsmod", "on the host itself: {NEED}"},
		},
	},
	{
		Code: "no-such-family", Cell: func(c *Case) bool { return c.is("no-family") },
		Advice: anywhere("a host lacks the address family: {DETAIL}", "sysctl net.ipv6.conf.all.disable_ipv6",
			"boot without ipv6.disable=1, or give addresses of that family"),
	},
	{
		Code: "fake-owned",
		Host: func(h *HostFacts) bool {
			text, ok := h.answer("ip addr show to ", "")
			return ok && text != "(none)"
		},
		Advice: fakeOwned,
	},
	{
		Code: "fake-owned", Cell: func(c *Case) bool { return c.is("fake-owned") }, Advice: fakeOwned,
	},
	{
		Code: "inet6-disabled", Firewalls: linux,
		Host: func(h *HostFacts) bool {
			return h.nicSysctl("ipv6", "disable_ipv6") == "1" || h.sysctl("net.ipv6.conf.lo.disable_ipv6") == "1"
		},
		Cell: func(c *Case) bool { return c.v6() && (c.diverted() || c.is("socket-failed", "fence-lost")) },
		Advice: anywhere("IPv6 is disabled on one of REMOTE's interfaces, and with it go the routes by that interface: without it on lo there is no local route to FAKE",
			"sysctl net.ipv6.conf.all.disable_ipv6 net.ipv6.conf.lo.disable_ipv6; ip -6 route show table {TABLE}",
			"sysctl net.ipv6.conf.lo.disable_ipv6=0, then add the policy rule and the route again"),
	},
	{
		Code: "hosts-apart", Cell: func(c *Case) bool { return c.is("fence-lost") },
		Advice: anywhere("the hosts do not hear each other's echo requests: a firewall drops ICMP between their own addresses, or the addresses are wrong",
			"ping {REMOTE} on LOCAL; ping {LOCAL} on REMOTE", "let ICMP and ICMPv6 echo pass between the hosts"),
	},
	{
		Code: "port-in-use", Cell: func(c *Case) bool {
			return c.is("socket-failed") &&
				c.says("address already in use")
		},
		Advice: map[string]Advice{
			"": {"another program has the port", "netstat -an",
				"stop that program, or begin the run again: it chooses other ports"},
			nftables: {"another program has the port", "ss -anp",
				"stop that program, or begin the run again: it chooses other ports"},
		},
	},
	{
		Code: "no-privilege",
		Cell: func(c *Case) bool {
			return c.is("socket-failed", "rule-refused", "setup-failed", "question-failed") &&
				!c.says(": send: ", ": connect: ") &&
				c.says("operation not permitted", "permission denied", "not permitted", "Permission denied")
		},
		Advice: map[string]Advice{
			"": {"this process may not do that: sockets with a foreign address, raw sockets and rules need root",
				"id", "start it as root, or with SUDO=sudo or SUDO=doas"},
			nftables: {"this process may not do that: IP_TRANSPARENT needs CAP_NET_ADMIN or CAP_NET_RAW, rules and queues CAP_NET_ADMIN, in the user namespace that owns the network",
				"capsh --decode=$(sed -n 's/^CapEff:.//p' /proc/PID/status), with the proxy's PID",
				"start it as root, with SUDO=sudo, or give the proxy's service AmbientCapabilities=CAP_NET_ADMIN"},
		},
	},
	{
		Code: "mtu", Cell: (*Case).tooLong,
		Advice: map[string]Advice{
			"": {"the packet is longer than the way takes ({MTUS}): {DETAIL}",
				"ifconfig -a | grep mtu, on both hosts; ping -D -s 1472 {REMOTE}, on LOCAL",
				"give both ends of the link the same MTU, and let ICMP \"fragmentation needed\" and \"packet too big\" pass"},
			nftables: {"the packet is longer than the way takes ({MTUS}): {DETAIL}",
				"ip link show dev {NIC}; on LOCAL: ip link show dev {LOCALNIC}; ping -M do -s 1472 {REMOTE}",
				"give both ends of the link the same MTU, and let ICMP \"fragmentation needed\" and \"packet too big\" pass"},
		},
	},
	{
		Code: "not-tested",
		Cell: func(c *Case) bool {
			return c.is("agent-lost", "setup-failed", "rule-refused", "question-failed", "timed-out", "interrupted")
		},
		Advice: anywhere("the test could not be done, which says nothing about the kernel: {DETAIL}",
			"pfdivert check-setup", "fix what the sentence says and run it again"),
	},
	{
		// It is known by what was counted, however little of the hosts was seen.
		Code: "pf-spoils-divert", Firewalls: bsd,
		Cell: (*Case).looped,
		Advice: anywhere("pf is switched on beside ipfw, and from FreeBSD 14 on it deletes the tag of a packet that is reinjected: "+
			"in the direction in which pf is asked before ipfw each packet is diverted again and again (pf_test in sys/netpfil/pf/pf.c)",
			"pfctl -si; ipfw -a list (the rule counts each packet many times); pfilctl heads",
			"switch pf off (pfctl -d), or divert by pf in place of ipfw (pass … divert-to)"),
	},
	{
		Code: "pf-reassembles", Firewalls: bsd,
		Cell: func(c *Case) bool {
			return c.Firewall == ipfw && c.Claim && c.is("wrong-data") && c.says("the copy came in one piece") &&
				(c.PFOn || c.Remote.pfOn())
		},
		Advice: anywhere("pf is switched on beside ipfw and puts fragments together before ipfw's rules see them: "+
			"IPv6's always, and IPv4's where its ruleset says so (scrub, or set reassemble yes)",
			"pfctl -sr; pfctl -si",
			"leave scrub and set reassemble out of pf.conf where ipfw is to see fragments, or switch pf off (pfctl -d)"),
	},
	{
		// What is absent may only not have been told, so no cause that looks for it is sure.
		Code: NotLookedAt,
		Cell: func(c *Case) bool {
			return (c.Local.Cut || c.Remote.Cut) && !c.is("local-route", "kernel-splat", "known-failure-passed")
		},
		Advice: anywhere("the hosts were not looked at in full: one is too slow, can't be asked, or shows more than is kept, and half a look names no cause",
			"uptime, on both hosts", "run the target alone: pfdivert run NAME"),
	},
}

var fakeOwned = map[string]Advice{
	"": {"REMOTE has FAKE configured on an interface: it would receive what is sent there without any rule",
		"ifconfig -a", "ifconfig IF {inet} {FAKE} delete, or choose another FAKE"},
	nftables: {"REMOTE has FAKE configured on an interface: it would receive what is sent there without any rule",
		"{ip} addr show to {FAKE}", "ip addr del {FAKE} dev IF, or choose another FAKE"},
}

// tooLong reports whether an error says that a packet was too long, or one was lost that is longer
// than one of the two interfaces takes: a veth tells its sender of those by ENOBUFS.
func (c *Case) tooLong() bool {
	for _, s := range append(c.errors(), c.Detail) {
		s = strings.ToLower(s)
		if strings.Contains(s, "message too long") || strings.Contains(s, "too big") ||
			strings.Contains(s, "fragmentation needed") {
			return true
		}
	}
	local, remote := c.Local.mtu(), c.Remote.mtu()
	return local != 0 && remote != 0 && local != remote && (c.says("no buffer space") || c.Long && c.lost())
}

// answeredWith reports whether a route is a refusal.
func answeredWith(route string) bool { return strings.HasPrefix(route, "RTNETLINK answers") }
