package explain

import (
	"slices"
	"strings"

	"pfdivert/matrix/evidence"
	"pfdivert/pfconf"
)

// socketCauses are what is wrong with the sockets and queues that packets are diverted to.
var socketCauses = []Cause{
	{
		Code: "listener-elsewhere",
		Cell: func(c *Case) bool {
			return c.to() && c.is("not-delivered") && c.socketsKnown() && len(c.listeners()) > 0 && !c.named()
		},
		Advice: map[string]Advice{
			"": {"the proxy listens, and on another address or port than {DIVERT}, which the rule names",
				"netstat -an -f {inet}", "have both name the same address and port"},
			nftables: {"the proxy listens, and on another address or port than {DIVERT}, which the rule names",
				"ss -lnptu; nft list ruleset", "have both name the same address and port (tproxy to {DIVERT})"},
		},
	},
	{
		Code: "no-listener",
		Cell: func(c *Case) bool { return c.socketsKnown() && c.deaf() },
		Advice: map[string]Advice{
			"": {"no process listens where the packet goes: the server's socket is closed or does not listen",
				"netstat -an; fstat | grep internet", "start the proxy, or have it listen"},
			nftables: {"no process listens where the packet goes: the server's socket is closed or does not listen",
				"ss -lnptuw", "start the proxy, or have it listen on {DIVERT}"},
			ipfw: {"no process listens where the packet goes: the server's socket is closed or does not listen",
				"sockstat -46", "start the proxy, or have it listen"},
		},
	},
	{
		Code: "socket-not-in-map", Firewalls: linux,
		Cell: func(c *Case) bool { return c.ofLookup() && c.to() && c.undone() },
		Advice: anywhere("the program finds no socket in its map: the proxy's listener was not put there, or another one was since it was opened again",
			"bpftool map dump name pfdivert_socks; ss -lnptue",
			"put the listener into the map when it has been opened, each time (bpf_map_update_elem)"),
	},
	{
		Code: "not-transparent",
		Cell: func(c *Case) bool { return c.is("no-bindany") || c.to() && c.undone() },
		Advice: map[string]Advice{
			"": {"the socket may not have a foreign address: SO_BINDANY was not set before it was bound",
				"ktrace -i PROXY; kdump | grep setsockopt, with the proxy's command",
				"setsockopt(fd, SOL_SOCKET, SO_BINDANY, …), as root"},
			nftables: {"the socket is not transparent, so tproxy does not take it and a foreign address can't be bound: IP_TRANSPARENT (IPv6: IPV6_TRANSPARENT) was not set",
				"strace -f -e trace=setsockopt,bind PROXY, with the proxy's command",
				"setsockopt(fd, SOL_IP, IP_TRANSPARENT, …) and SOL_IPV6, IPV6_TRANSPARENT, each for its own family; it takes CAP_NET_ADMIN"},
			ipfw: {"the socket may not have a foreign address: IP_BINDANY was not set before it was bound",
				"truss -f PROXY 2>&1 | grep setsockopt, with the proxy's command",
				"setsockopt(fd, IPPROTO_IP, IP_BINDANY, …), with the privilege PRIV_NETINET_BINDANY"},
		},
	},
	{
		Code: "time-wait", Cell: func(c *Case) bool { return c.is("port-blocked") },
		Advice: map[string]Advice{
			"": {"a socket in TIME_WAIT has the very addresses and ports", "netstat -an | grep TIME_WAIT",
				"tcpdrop it, or take another port"},
			nftables: {"a socket in TIME_WAIT has the very addresses and ports, and was not dropped (with TCP's timestamps the kernel takes it up again only where the new client binds with SO_REUSEADDR)",
				"ss -tan state time-wait; sysctl net.ipv4.tcp_timestamps net.ipv4.tcp_tw_reuse",
				"ss -tK state time-wait dst {LOCAL}, or take another port"},
		},
	},
	{
		Code: "listener-elsewhere",
		Cell: func(c *Case) bool {
			return c.Packet() && c.is("not-delivered") && c.matched() && !c.heard() && len(c.queues()) > 0
		},
		Advice: map[string]Advice{
			"": {"the program that reads diverted packets has another divert port than {QUEUE}, which the rule names",
				"netstat -an | grep divert; pfctl -a regress -vsr", "have both name the same divert port"},
			nftables: {"the program that reads diverted packets listens on another queue than {QUEUE}, which the rule names",
				"cat /proc/net/netfilter/nfnetlink_queue; nft list ruleset", "have both name the same queue"},
			ipfw: {"the program that reads diverted packets has another divert port than {QUEUE}, which the rule names",
				"sockstat -P divert; ipfw list", "have both name the same divert port"},
		},
	},
	{
		Code: "queue-full",
		Cell: func(c *Case) bool {
			return c.Packet() && c.is("not-delivered") && c.matched() &&
				slices.ContainsFunc(c.Remote.Sockets, queueDropped)
		},
		Advice: map[string]Advice{
			"": {"the divert socket's buffer is full, so the kernel drops what is diverted",
				"netstat -s -p divert", "read faster, or give the socket a larger buffer"},
			nftables: {"the queue is full, so the kernel drops what is diverted",
				"cat /proc/net/netfilter/nfnetlink_queue (the sixth column counts)",
				"read faster, or make it longer (NFQA_CFG_QUEUE_MAXLEN), or set fail-open"},
		},
	},
	{
		Code: "queue-stuck", Firewalls: linux,
		Cell: func(c *Case) bool {
			return c.Packet() && c.is("not-delivered", "not-bypassed", "not-reinjected") && c.matched() && c.stuck()
		},
		Advice: anywhere("a program listens on the queue and gives no verdict: the packet waits there",
			"cat /proc/net/netfilter/nfnetlink_queue (the second column is the program's port id, the third counts what waits)",
			"have the program that listens give a verdict for each packet, or stop it"),
	},
	{
		Code: "queue-bypassed",
		Cell: func(c *Case) bool {
			return c.Packet() && c.matched() && (c.is("not-rewritten") && !c.heard() || c.is("not-lost") &&
				c.unheard() && c.bypasses())
		},
		Advice: map[string]Advice{
			"": {"the rule matched and the packet passed the divert socket by", "netstat -s -p divert",
				"start the program that reads the socket"},
			nftables: {"no process listens on {QUEUES}, and its rule lets packets pass then (bypass): it fails open",
				"cat /proc/net/netfilter/nfnetlink_queue; nft list ruleset",
				"start the program that listens on the queue, or take bypass away"},
		},
	},
	{
		Code: "queue-unheard",
		Cell: func(c *Case) bool {
			return c.Packet() && c.matched() && !c.heard() &&
				(c.is("not-delivered") || c.is("not-bypassed") && !c.bypasses())
		},
		Advice: map[string]Advice{
			"": {"no process listens on the divert port, so the kernel drops what is diverted: it fails closed",
				"netstat -s -p divert; fstat | grep divert", "start the program that reads the divert socket"},
			nftables: {"no process listens on {QUEUES}, so the kernel drops what it gets: it fails closed",
				"cat /proc/net/netfilter/nfnetlink_queue",
				"start the program that listens on the queue; with bypass packets pass without it"},
			ipfw: {"no process listens on the divert port, so the kernel drops what is diverted: it fails closed",
				"sockstat -P divert; netstat -an | grep ^div", "start the program that reads the divert socket"},
		},
	},
	{
		// Before bad-checksum: the counters of that are the whole host's, which other cells move.
		Code: "joined-dropped", Firewalls: linux,
		Cell: func(c *Case) bool { return c.is("not-delivered") && c.says("had joined") && c.matched() && c.heard() },
		Advice: anywhere("the kernel drops the packets of a new flow that came joined in place of cutting them for the queue (CVE-2026-45859): "+
			"one with 7d8dc1c7be8d, of August 2024, and without 207b3ebacb61, which is in 6.12.75",
			"uname -rv; nft list ruleset (the rule counts a packet that no one gets)",
			"take a later kernel, set NFQA_CFG_F_GSO on the queue, or have the interface join nothing (ethtool -K {NIC} gro off)"),
	},
	{
		Code: "bad-checksum",
		Cell: func(c *Case) bool {
			h := &c.Remote
			if c.Mechanism == PacketOut {
				h = &c.Local
			}
			return c.Packet() && (c.is("wrong-data") && c.says("Checksum:false") ||
				c.is("not-reinjected", "not-delivered") && !c.dueInUserSpace() && h.badChecksums(c.Proto) > 0)
		},
		Advice: map[string]Advice{
			"": {"what user space sent on has a wrong checksum, and the receiver drops it",
				"netstat -s -p udp | grep checksum", "compute the checksums of IP and UDP anew after rewriting"},
			nftables: {"what user space sent on has a wrong checksum, and the receiver drops it: after a verdict with a payload the kernel takes the checksums as they are",
				"nstat -az UdpInCsumErrors Udp6InCsumErrors, on the receiver",
				"compute the checksums of IP and UDP anew after rewriting (0 becomes 0xffff)"},
		},
	},
	{
		Code: "checksum-offload",
		Cell: func(c *Case) bool { return c.is("wrong-data") && c.says("Checksum:false") },
		Advice: anywhere("the checksum was not there when the packet was seen: it is filled in by the network card, or was not fixed after a change",
			"ethtool -k {NIC} | grep checksum", "ethtool -K {NIC} tx off rx off, or compute it before user space sees it"),
	},
}

// deaf reports whether no one listens for what the cell's client sends: on REMOTE of a diverted
// flow, on the server's host else.
func (c *Case) deaf() bool {
	if !c.is("not-delivered", "control-lost") {
		return false
	}
	h := &c.Remote
	if c.reply() || c.Mechanism == PacketOut {
		h = &c.Local
	}
	if !h.socketsKnown() {
		return false
	}
	// On nftables the rule's second counter tells that there was a socket.
	if c.to() && c.Proto.HasPorts() && !c.undone() && (c.Firewall == nftables || !c.matched()) {
		return false
	}
	return !slices.ContainsFunc(h.Sockets, func(s evidence.SocketEntry) bool {
		switch {
		case s.State == "closed":
			return false
		case c.Proto == pfconf.TCP:
			return s.Proto == "tcp" && s.State == "LISTEN"
		case c.Proto == pfconf.UDP:
			return s.Proto == "udp" && (c.Server == 0 || s.Local.Port() == c.Server)
		}
		return strings.HasPrefix(s.Proto, "raw") || s.Proto == "icmp"
	})
}

// badChecksums is how many packets the host has dropped for the checksum of IP's header or the
// protocol's own.
func (h *HostFacts) badChecksums(p pfconf.Proto) int64 {
	n := h.movedBy("IpExt: InCsumErrors") + h.movedBy("ip: bad header checksum")
	for _, name := range map[pfconf.Proto][]string{
		pfconf.TCP:  {"Tcp: InCsumErrors", "tcp: discarded for bad checksum"},
		pfconf.UDP:  {"Udp: InCsumErrors", "Udp6: InCsumErrors", "udp: with bad checksum"},
		pfconf.ICMP: {"Icmp: InCsumErrors", "Icmp6: InCsumErrors", "icmp: bad checksum", "icmp6: bad checksum"},
	}[p] {
		n += h.movedBy(name)
	}
	return n
}
