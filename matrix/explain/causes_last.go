package explain

// watch shows the cell's packets on both hosts.
const watch = "tcpdump -ni {NIC} host {HOST}; on LOCAL: tcpdump -ni {LOCALNIC} host {HOST}"

// resultCauses go by what was found, where the hosts tell no more.
var resultCauses = []Cause{
	{
		Code: "filtered",
		Cell: func(c *Case) bool {
			return c.is("control-lost") && len(c.Remote.having(dropping))+len(c.Local.having(dropping)) > 0
		},
		Advice: anywhere("a filter of one of the hosts drops packets between them that no rule diverts ({RULES})",
			"nft list ruleset, on both hosts (counters tell which rule it is)",
			"let {LOCAL} and {REMOTE} talk in that chain"),
	},
	{
		Code: "answered-by-icmp",
		Cell: func(c *Case) bool { return c.lost() && len(c.errors()) > 0 },
		Advice: anywhere("a host answered with an ICMP error: {ERRORS}", "tcpdump -ni {NIC} icmp or icmp6",
			"the error's sender says who refused, its code why: no route, no port, or administratively prohibited"),
	},
	{
		Code: "given-back-unchanged",
		Cell: func(c *Case) bool {
			return c.Packet() && c.matched() && c.heard() && (c.is("not-rewritten") || c.is("wrong-data") &&
				c.says("remote server: received", "local server: received") && c.says(`received "Client`))
		},
		Advice: anywhere("a process listens where the rule hands packets to user space, and what came out there is what went in: the program reinjected it unchanged",
			"strace -f -p PID (Linux), ktrace -p PID (BSD) of the program that listens", "have the program write what it has changed"),
	},
	{
		Code: "kernel-bug", Cell: func(c *Case) bool { return c.is("kernel-splat") },
		Advice: anywhere("the kernel found something wrong with itself: a bug of it, of a driver, or of an emulator",
			"dmesg, on the tested host; with -o DIR, the target's remote-kernel.log",
			"report the log to those who make the kernel; an emulated machine may be wrong, so try a real one or another QEMU"),
	},
	{
		Code: "broken-between", Cell: func(c *Case) bool { return c.Between },
		Advice: anywhere("the kernel does not do what its manual says of packets between a client and a server, "+
			"in network namespaces that no other program is in: {DETAIL}",
			"uname -rv; the same target with -kernel IMAGE of another release",
			"no setting of the hosts matters there but modules that the kernel lacks: report it with the release"),
	},
	{
		Code: "claim-broken",
		Cell: func(c *Case) bool {
			return c.is("not-lost", "not-refused", "refused-otherwise", "not-opened", "not-bypassed", "looped",
				"wrong-way", "not-duplicated") ||
				c.is("wrong-address") && c.ofDivertSocket() ||
				c.Claim && c.dueInUserSpace() && c.matched() && c.heard() ||
				c.Claim && c.Packet() && c.is("wrong-data", "duplicate") || c.Claim && c.to() && c.is("wrong-data")
		},
		Advice: anywhere("the kernel does not do what its manual says of packets that are handed to user space: {DETAIL}", watch,
			"if the captures show nothing wrong on the way between the hosts it is the kernel's own: report it with the transcript"),
	},
	{
		Code: "copied", Cell: func(c *Case) bool { return c.is("duplicate") },
		Advice: anywhere(
			"the packet came twice: something on the way copies it (a mirrored port, iptables TEE, dup to), or the kernel saw it again after it was sent on",
			watch+"; nft list ruleset, pfctl -vvsr or ipfw -a list",
			"find which of the two hosts has it twice, and leave FAKE out of the rule that copies"),
	},
	{
		Code: "address-changed", Cell: func(c *Case) bool { return c.is("wrong-address") && !c.ofDivertSocket() },
		Advice: anywhere(
			"something translates the addresses between the client and the server's socket, or the kernel reports a wrong original destination",
			watch, "leave FAKE out of the translation on REMOTE and on every machine between"),
	},
	{
		Code: "data-changed", Cell: func(c *Case) bool { return c.is("wrong-data") },
		Advice: anywhere("something between the hosts, or another program on the same address, sent other data",
			"tcpdump -nXi {NIC} host {HOST}; on LOCAL: tcpdump -nXi {LOCALNIC} host {HOST}", "find which host has it changed"),
	},
	{
		Code: "counted-elsewhere", Cell: func(c *Case) bool { return c.is("not-counted") },
		Advice: anywhere(
			"it was not this rule that did it: another rule diverts the flow, or the kernel delivers it without one",
			"nft list ruleset, pfctl -vvsr or ipfw -a list", "leave FAKE out of the other rule"),
	},
	{
		Code: "state-gone", Cell: func(c *Case) bool { return c.is("state-missing") },
		Advice: map[string]Advice{
			"": {"something flushed or killed the flow's state or socket, its time is very short, or there never was one", "", ""},
			nftables: {"something flushed the flow's conntrack entry, its time is very short, or it was never tracked",
				"conntrack -L; sysctl -a | grep nf_conntrack_.*timeout",
				"stop what flushes it; delete rules with notrack"},
			pf: {"something flushed or killed the flow's state, its time is very short, or the state table is full",
				"pfctl -si; pfctl -st; pfctl -sm", "stop what flushes states; set limit states"},
		},
	},
	{
		Code: "state-kept", Cell: func(c *Case) bool { return c.is("state-left") },
		Advice: anywhere("the kernel kept a state or a socket that must go with its socket",
			"pfctl -ss -v; netstat -an", "it is the kernel's own: report it with the transcript"),
	},
	{
		Code: "known-failure-gone", Cell: func(c *Case) bool { return c.is("known-failure-passed") },
		Advice: anywhere("the kernel does what kernels of its kind were known not to do", "",
			"remove the entry from knownFailures in matrix/expect.go"),
	},
	{
		Code: "socket-trouble", Cell: func(c *Case) bool { return c.is("socket-failed") },
		Advice: anywhere(
			"a socket could not be opened or used, for a reason that says nothing about diverting: {DETAIL}", "",
			"fix what the sentence says and run it again"),
	},
}

// lastCauses say at least where the packet was last seen.
var lastCauses = []Cause{
	{
		Code: "not-taken-back",
		Cell: func(c *Case) bool {
			return c.is("not-reinjected") || c.Packet() && c.is("not-delivered") && c.matched() && c.heard() &&
				!c.says("remote packet: ")
		},
		Advice: map[string]Advice{
			"": {"the kernel did not take back what user space sent on, or the receiver dropped it",
				"netstat -s -p divert; netstat -s -p udp", "look at its addresses and checksums"},
			nftables: {"the kernel did not take back what user space sent on, or the receiver dropped it",
				"nstat -az 'Udp*' 'Ip*', before and after, on the server's host", "look at its addresses and checksums"},
		},
	},
	{
		Code: "lost-after-rule", Cell: func(c *Case) bool { return c.to() && c.matched() },
		Advice: map[string]Advice{
			"": {"the packet was lost between the rule and the socket",
				"netstat -s, before and after; netstat -an", "see which counter moves"},
			nftables: {"the packet was lost between the rule and the socket: in routing, by reverse path filtering, in a later chain, or at the socket",
				"nstat -az, before and after; {ip} route get {FAKE} from {LOCAL} iif {NIC} mark {MARK}; nft monitor trace",
				"see which counter moves (IpInAddrErrors: the mark or the policy route)"},
		},
	},
	{
		Code: "answer-lost", Cell: func(c *Case) bool { return c.reply() && c.lost() },
		Advice: map[string]Advice{
			"": {"the answer does not come back to the client on REMOTE", watch + "; pfctl -vss",
				"if LOCAL sends it, look at REMOTE's states; else at LOCAL's route and filter"},
			nftables: {"the answer does not come back to the client on REMOTE", watch + "; conntrack -L",
				"if LOCAL sends it, look at the mark and the policy route on REMOTE; else at LOCAL's route and filter"},
		},
	},
	{
		Code: "unexplained",
		Advice: anywhere("what the hosts showed fits no cause that this program knows: {DETAIL}", watch,
			"look where the packet was last seen, and at what comes next on its way"),
	},
}
