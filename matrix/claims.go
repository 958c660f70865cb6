package matrix

import "pfdivert/pfconf"

// claims are all claims, in the order in which they are listed.
var claims = []Claim{
	{
		Name: "no-listener-in", Proto: pfconf.UDP, Mode: PacketIn, run: (*claimRun).noListener,
		Says: "a packet for which no process listens is dropped",
		By: map[string]string{
			"pf": "divert(4)", "ipfw": "divert(4)",
			"nftables": "nft(8), queue statement: without bypass the packet is dropped",
		},
	},
	{
		Name: "no-listener-out", Proto: pfconf.UDP, Mode: PacketOut, run: (*claimRun).noListener,
		Says: "a packet that leaves and for which no process listens is dropped",
		By: map[string]string{
			"pf": "divert(4)", "ipfw": "divert(4)",
			"nftables": "nft(8), queue statement: without bypass the packet is dropped",
		},
	},
	{
		Name: "not-given-back", Proto: pfconf.UDP, Mode: PacketIn, run: (*claimRun).keepsPacket,
		Says: "a packet that is not reinjected is lost",
		By: map[string]string{
			"pf": "divert(4)", "ipfw": "divert(4)",
			"nftables": "nfnetlink_queue.c: a queue that is destroyed drops what it holds",
		},
	},
	{
		Name: "no-loop-in", Proto: pfconf.UDP, Mode: PacketIn, run: (*claimRun).noLoop,
		Says: "a packet that is reinjected does not meet the rule again",
		By: map[string]string{
			"pf": "divert(4)", "ipfw": "divert(4)",
			"nftables": "nf_queue.c: NF_ACCEPT goes on behind the chain",
		},
	},
	{
		Name: "no-loop-out", Proto: pfconf.UDP, Mode: PacketOut, run: (*claimRun).noLoop,
		Says: "a packet that leaves and is reinjected does not meet the rule again",
		By: map[string]string{
			"pf": "divert(4)", "ipfw": "divert(4)",
			"nftables": "nf_queue.c: NF_ACCEPT goes on behind the chain",
		},
	},
	{
		Name: "pf-packet-in", Proto: pfconf.UDP, Mode: PacketIn, run: (*claimRun).reinjects, PF: true,
		Says: "divert-to of pf hands a packet to a divert socket, and what is reinjected does not meet the rule again",
		By:   map[string]string{"ipfw": "FreeBSD's pf.conf(5) and divert(4)"},
		Not:  onlyFreeBSD,
	},
	{
		Name: "pf-packet-out", Proto: pfconf.UDP, Mode: PacketOut, run: (*claimRun).reinjects, PF: true,
		Says: "divert-to of pf hands a packet that leaves to a divert socket, and what is reinjected does not meet the rule again",
		By:   map[string]string{"ipfw": "FreeBSD's pf.conf(5) and divert(4)"},
		Not:  onlyFreeBSD,
	},
	{
		Name: "pf-cookie-in", Proto: pfconf.UDP, Mode: PacketIn, run: (*claimRun).cookie, PF: true, From: 15,
		Says: "with a packet that pf's divert-to delivers comes a number that tells that it came in",
		By:   map[string]string{"ipfw": "divert(4): the packet's original direction"},
		Not:  onlyFreeBSD,
	},
	{
		Name: "pf-cookie-out", Proto: pfconf.UDP, Mode: PacketOut, run: (*claimRun).cookie, PF: true, From: 15,
		Says: "with a packet that pf's divert-to delivers comes a number that tells that it is to leave",
		By:   map[string]string{"ipfw": "divert(4): the packet's original direction"},
		Not:  onlyFreeBSD,
	},
	{
		Name: "pf-state-in", Proto: pfconf.UDP, Mode: PacketIn, run: (*claimRun).keepsState, PF: true, From: 15,
		Dangerous: true, Safe: release{15, 1},
		Says: "a rule of pf that keeps a state and diverts hands each packet of the state to a divert socket, and what is reinjected goes its way",
		By: map[string]string{"ipfw": "FreeBSD's pf.conf(5) and divert(4)",
			"pf": "pf.conf(5), divert-packet"},
		Not: noPF,
	},
	{
		Name: "pf-shared-port", Proto: pfconf.UDP, Mode: PacketIn, run: (*claimRun).sharedPort, PF: true, From: 15,
		Dangerous: true, Safe: release{15, 1},
		Says: "of divert sockets that share a port each state that a rule of pf keeps has one, to which all its packets come",
		By:   map[string]string{"ipfw": "FreeBSD's 895a0ae67fe2: divert sockets with SO_REUSEPORT_LB"},
		Not:  onlyFreeBSD,
	},
	{
		Name: "pf-rdr-in-tcp", Proto: pfconf.TCP, Mode: Redirect, run: (*claimRun).redirectedThroughStream,
		PF: true, From: 15,
		Says: "a connection that pf's rdr redirects goes through a divert socket, and on to where it is redirected",
		By: map[string]string{"ipfw": "FreeBSD's pf.conf(5) and divert(4)",
			"pf": "pf.conf(5), rdr-to and divert-packet"},
		Not: noPF,
	},
	{
		Name: "pf-rdr-in-udp", Proto: pfconf.UDP, Mode: Redirect, run: (*claimRun).redirectedThrough,
		PF: true, From: 15,
		Says: "a datagram that pf's rdr redirects goes through a divert socket, and on to where it is redirected",
		By: map[string]string{"ipfw": "FreeBSD's pf.conf(5) and divert(4)",
			"pf": "pf.conf(5), rdr-to and divert-packet"},
		Not: noPF,
	},
	{
		Name: "pf-rdr-in-fragments", Proto: pfconf.UDP, Mode: Redirect, run: (*claimRun).redirectedFragments,
		PF: true, From: 15,
		Says: "a datagram whose fragments pf puts together and redirects goes whole through the divert socket of divert-to, and on",
		By:   map[string]string{"ipfw": "FreeBSD's pf.conf(5), fragment reassemble; divert(4)"},
		Not:  onlyFreeBSD,
	},
	{
		Name: "pf-tag-in", Proto: pfconf.UDP, Mode: Forwarded, run: (*claimRun).keepsTag, PF: true, From: 15,
		Dangerous: true, Safe: release{15, 1},
		Says: "what a rule of pf with tag and divert-to has tagged is tagged still when it leaves, after it was reinjected",
		By:   map[string]string{"ipfw": "FreeBSD's pf.conf(5): tags are sticky, a packet is tagged even if the rule is not the last one"},
		Not:  onlyFreeBSD + "; of what OpenBSD's diverts when it comes in, divert(4) says that no rule sees it when it leaves",
	},
	{
		Name: "pf-route-to", Proto: pfconf.UDP, Mode: Forwarded, run: (*claimRun).keepsRoute, PF: true, From: 15,
		Dangerous: true, Safe: release{15, 1}, Second: true,
		Says: "what a rule of pf with route-to diverts leaves by the rule's gateway, after it was reinjected",
		By: map[string]string{"ipfw": "FreeBSD's pf.conf(5), route-to",
			"pf": "pf.conf(5), Routing: route-to, and divert-packet"},
		Not: noPF,
	},
	{
		Name: "pf-reply-to", Proto: pfconf.UDP, Mode: PacketIn, run: (*claimRun).repliesByGateway, PF: true, From: 15,
		Dangerous: true, Safe: release{15, 1}, Second: true,
		Says: "what answers a packet that a rule of pf with reply-to diverted leaves by the rule's gateway",
		By: map[string]string{"ipfw": "FreeBSD's pf.conf(5), reply-to",
			"pf": "pf.conf(5), Routing: reply-to, and divert-packet"},
		Not: noPF,
	},
	{
		Name: "pf-dup-to", Proto: pfconf.UDP, Mode: PacketIn, run: (*claimRun).duplicates, PF: true, From: 15,
		Dangerous: true, Safe: release{15, 1},
		Says: "of what a rule of pf with dup-to diverts a copy is made, and what is reinjected goes its way",
		By: map[string]string{"ipfw": "FreeBSD's pf.conf(5), dup-to",
			"pf": "pf.conf(5), Routing: dup-to, and divert-packet"},
		Not: noPF,
	},
	{
		Name: "pf-nat-out", Proto: pfconf.UDP, Mode: PacketOut, run: (*claimRun).translatedThrough, PF: true, From: 15,
		Dangerous: true, Safe: release{15, 1},
		Says: "a datagram whose source pf's nat-to translates goes through a divert socket and on, and its answer comes back",
		By: map[string]string{"ipfw": "FreeBSD's pf.conf(5) and divert(4)",
			"pf": "pf.conf(5), nat-to and divert-packet"},
		Not: noPF,
	},
	{
		Name: "pf-match-rdr-in", Proto: pfconf.UDP, Mode: Redirect, run: (*claimRun).matchRedirected, PF: true,
		Says: "a datagram that a match rule of pf redirects goes through the divert socket of the rule behind, and on",
		By:   map[string]string{"pf": "pf.conf(5), match, rdr-to and divert-packet"},
		Not:  onlyOpenBSD,
	},
	{
		Name: "pf-match-nat-out", Proto: pfconf.UDP, Mode: PacketOut, run: (*claimRun).matchTranslated, PF: true,
		Says: "a datagram whose source a match rule of pf translates goes through the divert socket of the rule behind, and its answer comes back",
		By:   map[string]string{"pf": "pf.conf(5), match, nat-to and divert-packet"},
		Not:  onlyOpenBSD,
	},
	{
		Name: "pf-match-tag-in", Proto: pfconf.UDP, Mode: PacketIn, run: (*claimRun).matchTagged, PF: true,
		Says: "a packet that a match rule of pf tags is diverted by a rule for packets with that tag",
		By:   map[string]string{"pf": "pf.conf(5), match, tag, tagged and divert-packet"},
		Not:  onlyOpenBSD,
	},
	{
		Name: "pf-received-on", Proto: pfconf.UDP, Mode: PacketIn, run: (*claimRun).receivedOn, PF: true,
		Says: "a rule of pf with received-on diverts what came by that interface, and one with another interface does not",
		By:   map[string]string{"pf": "pf.conf(5), received-on and divert-packet"},
		Not:  onlyOpenBSD,
	},
	{
		Name: "pf-once", Proto: pfconf.UDP, Mode: PacketIn, run: (*claimRun).oneShot, PF: true,
		Says: "a rule of pf with once diverts the flow of its first packet, and no other flow",
		By:   map[string]string{"pf": "pf.conf(5), once and divert-packet"},
		Not:  onlyOpenBSD,
	},
	{
		Name: "pf-max-states", Proto: pfconf.UDP, Mode: PacketIn, run: (*claimRun).mostStates, PF: true,
		Says: "a rule of pf that diverts and has as many states as it may have drops what would make another",
		By:   map[string]string{"pf": "pf.conf(5), max and divert-packet"},
		Not:  onlyOpenBSD,
	},
	{
		Name: "pf-af-to", Proto: pfconf.UDP, Mode: PacketIn, run: (*claimRun).otherFamily, PF: true,
		Says: "a packet that a rule of pf with af-to translates to the other family comes to the divert socket that the rule names",
		By:   map[string]string{"pf": "pf.conf(5), af-to and divert-packet"},
		Not:  onlyOpenBSD,
	},
	{
		Name: "match-tag", About: "to", Proto: pfconf.UDP, Mode: To, run: (*claimRun).taggedTo,
		Says: "a packet that a match rule of pf tags is diverted to the socket of a rule for packets with that tag",
		By:   map[string]string{"pf": "pf.conf(5), match, tag, tagged and divert-to"},
		Not:  onlyOpenBSD,
	},
	{
		Name: "received-on", About: "to", Proto: pfconf.UDP, Mode: To, run: (*claimRun).receivedOnTo,
		Says: "a rule of pf with received-on diverts to a socket what came by that interface, and one with another interface does not",
		By:   map[string]string{"pf": "pf.conf(5), received-on and divert-to"},
		Not:  onlyOpenBSD,
	},
	{
		Name: "once", About: "to", Proto: pfconf.UDP, Mode: To, run: (*claimRun).oneShotTo,
		Says: "a rule of pf with once diverts to a socket the flow of its first packet, and no other flow",
		By:   map[string]string{"pf": "pf.conf(5), once and divert-to"},
		Not:  onlyOpenBSD,
	},
	{
		Name: "forwarded", Proto: pfconf.TCP, Mode: Forwarded, run: (*claimRun).forwarded,
		Says: "what a router forwards is diverted when it comes in and when it leaves, both ways, and goes on after each",
		By:   map[string]string{"ipfw": "divert(4): incoming packets, and outgoing ones"},
		Not:  "its rules about what comes in and those about what leaves do not both see what is forwarded and reinjected",
	},
	{
		Name: "pf-forwarded", Proto: pfconf.TCP, Mode: Forwarded, run: (*claimRun).forwarded, PF: true, From: 15,
		Says: "what a router forwards is diverted by pf's divert-to when it comes in and when it leaves, both ways, and goes on after each",
		By:   map[string]string{"ipfw": "FreeBSD's pf.conf(5) and divert(4)"},
		Not:  onlyFreeBSD,
	},
	{
		Name: "pf-forwarded-in", Proto: pfconf.TCP, Mode: Forwarded, run: (*claimRun).forwardedIn, PF: true,
		Says: "what a router forwards is diverted by a rule of pf about what comes in, what answers is diverted when it leaves, and both go on",
		By:   map[string]string{"pf": "pf.conf(5), divert-packet; divert(4): as well as the return traffic"},
		Not:  onlyOpenBSD,
	},
	{
		Name: "pf-forwarded-out", Proto: pfconf.TCP, Mode: Forwarded, run: (*claimRun).forwardedOut, PF: true,
		Says: "what a router forwards is diverted by a rule of pf about what leaves, what answers is diverted when it comes in, and both go on",
		By:   map[string]string{"pf": "pf.conf(5), divert-packet; divert(4): as well as the return traffic"},
		Not:  onlyOpenBSD,
	},
	{
		Name: "pf-forwarded-once", Proto: pfconf.TCP, Mode: Forwarded, run: (*claimRun).forwardedOnce, PF: true,
		Says: "what is reinjected when it came in does not meet pf's rules about what leaves when it is forwarded",
		By:   map[string]string{"pf": "divert(4)"},
		Not:  onlyOpenBSD,
	},
	{
		Name: "ipfw-pf-in", Proto: pfconf.UDP, Mode: PacketIn, run: (*claimRun).noLoop, BesidePF: true,
		Says: "with pf on beside ipfw, a packet that is reinjected does not meet ipfw's rule again",
		By:   map[string]string{"ipfw": "divert(4)"},
		Not:  "no other filter diverts there while pf is on",
	},
	{
		Name: "ipfw-pf-out", Proto: pfconf.UDP, Mode: PacketOut, run: (*claimRun).noLoop, BesidePF: true,
		Says: "with pf on beside ipfw, a packet that leaves and is reinjected does not meet ipfw's rule again",
		By:   map[string]string{"ipfw": "divert(4)"},
		Not:  "no other filter diverts there while pf is on",
	},
	{
		Name: "pipe-in", Proto: pfconf.UDP, Mode: PacketIn, run: (*claimRun).piped,
		Says: "what comes in and is reinjected goes through the pipe of a rule behind that which diverts it, and on",
		By:   map[string]string{"ipfw": "ipfw(8), divert and pipe"},
		Not:  "it has no dummynet(4)",
	},
	{
		Name: "pipe-out", Proto: pfconf.UDP, Mode: PacketOut, run: (*claimRun).piped,
		Says: "what leaves and is reinjected goes through the pipe of a rule behind that which diverts it, and on",
		By:   map[string]string{"ipfw": "ipfw(8), divert and pipe"},
		Not:  "it has no dummynet(4)",
	},
	{
		Name: "pf-pipe-in", Proto: pfconf.UDP, Mode: PacketIn, run: (*claimRun).piped, PF: true, From: 15,
		Dangerous: true, Safe: release{15, 1},
		Says: "what a rule of pf with dnpipe and divert-to takes goes through the pipe when it is reinjected, and on",
		By:   map[string]string{"ipfw": "FreeBSD's pf.conf(5), dnpipe"},
		Not:  onlyFreeBSD,
	},
	{
		Name: "order-in", Proto: pfconf.UDP, Mode: PacketIn, run: (*claimRun).inOrder,
		Says: "packets are queued: 1,000 come in their order and go on in it",
		By: map[string]string{
			"pf": "divert(4)", "ipfw": "divert(4)", "nftables": "nfnetlink_queue.h: packets have ids in their order",
		},
	},
	{
		Name: "order-out", Proto: pfconf.UDP, Mode: PacketOut, run: (*claimRun).inOrder,
		Says: "packets that leave are queued: 1,000 come in their order and go on in it",
		By: map[string]string{
			"pf": "divert(4)", "ipfw": "divert(4)", "nftables": "nfnetlink_queue.h: packets have ids in their order",
		},
	},
	{
		Name: "reassembled", Proto: pfconf.Raw, Mode: PacketIn, run: (*claimRun).reassembled,
		Says: "fragments are put together before they are diverted",
		By: map[string]string{
			"pf": "pf.conf(5), set reassemble", "ipfw": "divert(4)",
			"nftables": "nf_defrag_ipv4.c, nf_defrag_ipv6_hooks.c: before the hooks of conntrack",
		},
	},
	{
		Name: "reassembled-udp", Proto: pfconf.UDP, Mode: PacketIn, run: (*claimRun).reassembled,
		Says: "fragments are put together before a rule looks at their ports",
		By: map[string]string{
			"pf":       "pf.conf(5), set reassemble",
			"nftables": "nf_defrag_ipv4.c, nf_defrag_ipv6_hooks.c: before the hooks of conntrack",
		},
		Not: "ipfw compares fragments with its rules, and only the first has ports",
	},
	{
		Name: "longest-in", Proto: pfconf.UDP, Mode: PacketIn, run: (*claimRun).longest,
		Says: "the longest datagrams are diverted whole",
		By: map[string]string{
			"pf":       "ip_divert.c: net.inet.divert.recvspace is 65,636 bytes, which divert(4) calls 64k and too short",
			"nftables": "nfnetlink_queue.c: up to 65,531 bytes are copied",
		},
		Not: "ipfw compares fragments with its rules, and only the first has ports",
	},
	{
		Name: "longest-out", Proto: pfconf.UDP, Mode: PacketOut, run: (*claimRun).longest,
		Says: "the longest datagrams that leave are diverted whole and cut into fragments after",
		By: map[string]string{
			"pf": "ip_divert.c: net.inet.divert.recvspace is 65,636 bytes, which divert(4) calls 64k and too short", "ipfw": "divert(4)",
			"nftables": "nfnetlink_queue.c: up to 65,531 bytes are copied",
		},
	}, {
		Name: "tcp", About: "natlook", Proto: pfconf.TCP, Mode: Redirect, run: (*claimRun).natlook,
		Says: "of a redirected connection the filter tells whom it was meant for, and of no other",
		By: map[string]string{
			"pf":       "pf(4), DIOCNATLOOK",
			"ipfw":     "FreeBSD's pf(4), DIOCNATLOOK",
			"nftables": "nf_conntrack_netlink.c: an entry is found by the tuple of its answers",
		},
	},
	{
		Name: "udp", About: "natlook", Proto: pfconf.UDP, Mode: Redirect, run: (*claimRun).natlook,
		Says: "of a redirected datagram the filter tells whom it was meant for, and of no other",
		By: map[string]string{
			"pf":       "pf(4), DIOCNATLOOK",
			"ipfw":     "FreeBSD's pf(4), DIOCNATLOOK",
			"nftables": "nf_conntrack_netlink.c: an entry is found by the tuple of its answers",
		},
	},
	{
		Name: "tcp", About: "redirect", Proto: pfconf.TCP, Mode: Redirect, run: (*claimRun).redirectedStream,
		Says: "a socket that accepted a redirected connection tells whom it was meant for",
		By:   map[string]string{"nftables": "nf_conntrack_proto.c, getorigdst: SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST"},
		Not:  socketless,
	},
	{
		Name: "tcp-interface", About: "redirect", Proto: pfconf.TCP, Mode: Redirect,
		run:  (*claimRun).redirectedByInterface,
		Says: "a connection is redirected to the address of the interface by which it came",
		By:   map[string]string{"nftables": "nft(8), redirect statement; nf_nat_redirect.c"},
		Not:  "its rules name the address to which they redirect",
	},
	{
		// IPv6 has no such setting: the route to ::1 is looked for on the packet's interface
		// (rt6_need_strict, net/ipv6/route.c).
		Name: "tcp-loopback", About: "redirect", Proto: pfconf.TCP, Mode: Redirect, Only: pfconf.Inet,
		run:  (*claimRun).redirectedToLoopback,
		Says: "a connection is redirected to 127.0.0.1 where its interface has route_localnet",
		By:   map[string]string{"nftables": "ip-sysctl.rst, route_localnet; route.c, ip_route_input_slow"},
		Not:  "its claims redirect to an address of its own",
	},
	{
		Name: "udp", About: "redirect", Proto: pfconf.UDP, Mode: Redirect, run: (*claimRun).redirectedDatagram,
		Says: "a redirected datagram shows the address that it was redirected to, and its socket refuses to tell another",
		By:   map[string]string{"nftables": "nf_conntrack_proto.c, getorigdst: ENOPROTOOPT but for TCP and SCTP; ip_sockglue.c, ip_cmsg_recv_dstaddr"},
		Not:  socketless,
	},
	{
		Name: "v4mapped", About: "to", Proto: pfconf.TCP, Mode: ToSockets, run: (*claimRun).dualStack,
		Lacking: map[pfconf.Engine]string{
			pfconf.BPFLookup: "FAKE is local, so a listener on :: has what comes to its port without a rule"},
		Says: "a listener on :: that hears both families gets diverted connections",
		By: map[string]string{"nftables": "nf_tproxy_ipv4.c, nf_tproxy_get_sock_v4; inet_hashtables.c, compute_score; ipv6(7)",
			"ipfw": "ipfw(8), fwd; ip6(4), IPV6_V6ONLY"},
		Not: "its sockets hear one family each",
	},
	{
		Name: "bind-twice", About: "to", Proto: pfconf.UDP, Mode: ToSockets, run: (*claimRun).bindTwice,
		Says: "an answering socket can be bound to an address that is not the host's own while another one is",
		By: map[string]string{"nftables": "socket(7), SO_REUSEADDR; ip(7), IP_TRANSPARENT; udp.c, udp_lib_lport_inuse",
			"ipfw": "FreeBSD's getsockopt(2), SO_REUSEPORT; ip(4), IP_BINDANY",
			"pf":   "OpenBSD's getsockopt(2), SO_REUSEPORT and SO_BINDANY"},
	},
	{
		Name: "udp-connected", About: "to", Proto: pfconf.UDP, Mode: ToSockets, run: (*claimRun).udpConnected,
		Says: "what a client sends on comes to the transparent socket that is connected to it, and what is new to the listener",
		By:   map[string]string{"nftables": "nft_tproxy.c: an established socket goes before a listener"},
		Not:  "no page of theirs says that a connected socket goes before the rule's",
	},
	{
		Name: "bypass", Proto: pfconf.UDP, Mode: PacketIn, run: (*claimRun).bypass,
		Says: "a rule with bypass lets packets pass for which no process listens",
		By:   map[string]string{"nftables": "nft(8), queue statement"},
		Not:  "packets are dropped there, and rules have no such option",
	},
	{
		Name: "own-numbers", Proto: pfconf.UDP, Mode: PacketIn, run: (*claimRun).ownNumbers,
		Says: "divert ports have their own number space, separate from TCP's and UDP's",
		By: map[string]string{
			"pf": "divert(4)", "ipfw": "divert(4)", "nftables": "nft(8), queue statement: queue numbers",
		},
	},
	{
		Name: "rules-port", Proto: pfconf.UDP, Mode: PacketIn, run: (*claimRun).rulesPort,
		Says: "a packet goes to the socket on the rule's port, at once and to no other",
		By: map[string]string{
			"pf": "divert(4)", "ipfw": "divert(4)", "nftables": "nft(8), queue statement: queue numbers",
		},
	},
	{
		Name: "second-bind", Proto: pfconf.UDP, Mode: PacketIn, run: (*claimRun).secondBind,
		Says: "a divert port is one socket's: a second one is refused",
		By: map[string]string{
			"pf": "bind(2): EADDRINUSE", "ipfw": "divert(4) and bind(2): EADDRINUSE",
			"nftables": "nfnetlink_queue.c, nfqnl_recv_config: EPERM",
		},
	},
	{
		Name: "superuser", Proto: pfconf.UDP, Mode: PacketIn, run: (*claimRun).superuser,
		Says: "only the superuser may open and bind a divert socket",
		By: map[string]string{
			"pf": "divert(4): EACCES", "ipfw": "divert(4): EPERM",
			"nftables": "nfnetlink.c, nfnetlink_rcv: EPERM without CAP_NET_ADMIN",
		},
	},
	{
		Name: "full", Proto: pfconf.UDP, Mode: PacketIn, run: (*claimRun).full,
		Says: "what finds no room at the divert socket is dropped and counted",
		By: map[string]string{
			"pf":       "divert(4): net.inet.divert.recvspace; netstat(1)",
			"nftables": "nfnetlink_queue.h: NFQA_CFG_QUEUE_MAXLEN",
		},
		Not: "its divert sockets do not count what they drop",
	},
	{
		Name: "counted", Proto: pfconf.UDP, Mode: PacketIn, run: (*claimRun).counted20, From: 15,
		Says: "what finds no divert socket is counted",
		By:   map[string]string{"pf": "divert(4), netstat(1)", "ipfw": "netstat(1), -s -p divert"},
		Not:  "it has no counter for that",
	},
	{
		Name: "rip-in", Proto: pfconf.Raw, Mode: PacketIn, run: (*claimRun).through,
		Says: "packets of any protocol are diverted",
		By:   map[string]string{"pf": "divert(4)", "ipfw": "divert(4)", "nftables": "nft(8), queue statement"},
	},
	{
		Name: "rip-out", Proto: pfconf.Raw, Mode: PacketOut, run: (*claimRun).through,
		Says: "packets of any protocol that leave are diverted",
		By:   map[string]string{"pf": "divert(4)", "ipfw": "divert(4)", "nftables": "nft(8), queue statement"},
	},
	{
		Name: "other-length-in", Proto: pfconf.UDP, Mode: PacketIn, run: (*claimRun).otherLength,
		Says: "what is reinjected may be longer or shorter than what was diverted",
		By:   map[string]string{"pf": "divert(4)", "ipfw": "divert(4)", "nftables": "nfnetlink_queue.c, nfqnl_mangle"},
	},
	{
		Name: "other-length-out", Proto: pfconf.UDP, Mode: PacketOut, run: (*claimRun).otherLength,
		Says: "what is reinjected to leave may be longer or shorter than what was diverted",
		By:   map[string]string{"pf": "divert(4)", "ipfw": "divert(4)", "nftables": "nfnetlink_queue.c, nfqnl_mangle"},
	},
	{
		Name: "checksums-mended-in", Proto: pfconf.UDP, Mode: PacketIn, run: (*claimRun).checksumsMended,
		Says: "the checksums of what is reinjected are computed anew",
		By:   map[string]string{"pf": "divert(4)"},
		Not:  "what comes in again is taken as it is",
	},
	{
		Name: "checksums-mended-out", Proto: pfconf.UDP, Mode: PacketOut, run: (*claimRun).checksumsMended,
		Says: "the checksums of what is reinjected to leave are computed anew",
		By:   map[string]string{"pf": "divert(4)"},
		Not:  "transport checksums are user space's work",
	},
	{
		Name: "header-mended-out", Proto: pfconf.UDP, Mode: PacketOut, run: (*claimRun).headerMended,
		Says: "the header checksum of what is reinjected to leave is computed anew",
		By:   map[string]string{"pf": "divert(4)", "ipfw": "divert(4)"},
		Not:  "what is reinjected is taken as it is",
	},
	{
		Name: "checksums-kept", Proto: pfconf.UDP, Mode: PacketIn, run: (*claimRun).checksumsKept,
		Says: "what is reinjected with wrong checksums is dropped",
		By: map[string]string{"ipfw": "divert(4)",
			"nftables": "nfnetlink_queue.c, nfqnl_mangle: CHECKSUM_NONE, the receiver looks"},
		Not: "its divert(4) says that they are computed anew",
	},
	{
		Name: "turned-in", Proto: pfconf.UDP, Mode: PacketIn, run: (*claimRun).turned,
		Says: "a packet that came in leaves when it is written without an address",
		By:   map[string]string{"pf": "divert(4)", "ipfw": "divert(4)"},
		Not:  "a netfilter queue gives a packet back where it was taken",
	},
	{
		Name: "turned-out", Proto: pfconf.UDP, Mode: PacketOut, run: (*claimRun).turned,
		Says: "a packet that was to leave comes in when it is written with an interface's address",
		By:   map[string]string{"pf": "divert(4)", "ipfw": "divert(4)"},
		Not:  "a netfilter queue gives a packet back where it was taken",
	},
	{
		Name: "reuseport-udp", About: "to", Proto: pfconf.UDP, Mode: ToSockets, run: (*claimRun).reusePort,
		BPFFrom: release{6, 6}, // 9c02bec95954, bpf_sk_assign
		Says:    "of two listeners on one port, each flow has one that gets all of its datagrams",
		By:      map[string]string{"nftables": "socket(7), SO_REUSEPORT; udp.c, udp4_lib_lookup2"},
		Not:     "no page of theirs says that diverted flows are shared out among listeners",
	},
	{
		Name: "reuseport-tcp", About: "to", Proto: pfconf.TCP, Mode: ToSockets, run: (*claimRun).reusePort,
		BPFFrom: release{6, 6}, // 9c02bec95954, bpf_sk_assign
		Says:    "of two listeners on one port, each connection comes to one",
		By:      map[string]string{"nftables": "socket(7), SO_REUSEPORT; inet_hashtables.c, inet_lookup_listener"},
		Not:     "no page of theirs says that diverted flows are shared out among listeners",
	},
	{
		Name: "timewait-reopen", About: "to", Proto: pfconf.TCP, Mode: ToSockets, run: (*claimRun).timeWaitReopen,
		Says:    "a SYN that meets a socket in TIME_WAIT reaches the listener",
		By:      map[string]string{"nftables": "nf_tproxy_ipv4.c, nf_tproxy_handle_time_wait4"},
		Lacking: map[pfconf.Engine]string{pfconf.BPF: "a program can't remove the socket in TIME_WAIT, as tproxy does (bpf_sk_assign, bpf-helpers(7))"},
		Not:     "no page of theirs says what a SYN does that meets a diverted connection in TIME_WAIT",
	},
	{
		Name: "notrack", About: "to", Proto: pfconf.TCP, Mode: ToSockets, run: (*claimRun).noTrack,
		Says: "a connection that conntrack does not see is diverted, and its answers keep their source",
		By:   map[string]string{"nftables": "tproxy.rst; nft(8), notrack statement"},
		NFT:  true,
		Not:  stateful,
	},
	{
		Name: "conntrack-zone", About: "to", Proto: pfconf.TCP, Mode: ToSockets, run: (*claimRun).conntrackZone,
		Says: "a connection in a conntrack zone of its own is diverted, and its answers keep their source",
		By:   map[string]string{"nftables": "tproxy.rst; nft(8), ct expression: zone"},
		NFT:  true,
		Not:  stateful,
	},
	{
		Name: "socket-transparent", About: "to", Proto: pfconf.TCP, Mode: ToSockets, run: (*claimRun).socketTransparent,
		Says: "a match of transparent sockets finds the packets of a diverted connection but for its SYN",
		By:   map[string]string{"nftables": "nft(8), socket expression; nft_socket.c"},
		Not:  "its rules match no sockets",
	},
	{
		Name: "socket-snat", About: "to", Proto: pfconf.TCP, Mode: ReplyTo, run: (*claimRun).socketSNAT,
		Says: "a match of transparent sockets finds what answers a connection whose source was translated",
		By:   map[string]string{"nftables": "nf_socket_ipv4.c, nf_socket_ipv6.c: nf_sk_lookup_slow_v4 and _v6"},
		Not:  "its rules match no sockets",
	},
	{
		Name: "any-address", About: "to", Proto: pfconf.TCP, Mode: ToSockets, run: (*claimRun).anyAddress,
		Says: "a listener on an address of REMOTE's own gets diverted connections when the rule names that",
		By: map[string]string{"nftables": "nft(8), tproxy statement", "pf": "pf.conf(5), divert-to",
			"ipfw": "ipfw(8), fwd: a local address"},
	},
	{
		Name: "device", About: "to", Proto: pfconf.TCP, Mode: ToSockets, run: (*claimRun).device,
		Lacking: map[pfconf.Engine]string{
			pfconf.BPFLookup: chosen},
		Says: "of listeners that are bound to interfaces, that of the packet's interface gets the connection",
		By:   map[string]string{"nftables": "socket(7), SO_BINDTODEVICE; nf_tproxy_ipv4.c, nf_tproxy_get_sock_v4"},
		Not:  "its sockets are bound to no interfaces",
	},
	{
		Name: "fib", About: "to", Proto: pfconf.UDP, Mode: ToSockets, run: (*claimRun).otherFIB, From: 15,
		Says: "a listener in another routing table (FIB) than that of the packets gets diverted datagrams",
		By:   map[string]string{"ipfw": "FreeBSD's udp(4): datagrams originating from any FIB; ipfw(8), fwd"},
		Not:  "its sockets are in no FIBs",
	},
	{
		Name: "bridge", About: "to", Proto: pfconf.TCP, Mode: ToSockets, run: (*claimRun).bridge,
		Between: true,
		Says:    "a connection that a bridge hands to its host is diverted, while br_netfilter is not asked",
		By: map[string]string{"nftables": "nft(8), tproxy and payload statements; ip-sysctl.rst, " +
			"bridge-nf-call-iptables"},
		Lacking: map[pfconf.Engine]string{pfconf.BPF: unbridged},
		Not:     "no page of theirs says that a bridge's host diverts what is bridged",
	},
	{
		Name: "bridge-netfilter", About: "to", Proto: pfconf.TCP, Mode: ToSockets, run: (*claimRun).filteredBridge,
		Between: true,
		Says:    "a connection that a bridge hands to its host is diverted, also where br_netfilter has the rules of IP see it",
		By:      map[string]string{"nftables": "nft(8), tproxy statement; ip-sysctl.rst, bridge-nf-call-iptables"},
		Lacking: map[pfconf.Engine]string{pfconf.BPF: unbridged},
		Not:     "no page of theirs says that a bridge's host diverts what is bridged",
	},
	{
		Name: "flowtable", About: "to", Proto: pfconf.TCP, Mode: ToSockets, run: (*claimRun).flowtable,
		Between: true,
		Says:    "a connection is diverted beside one that a flowtable forwards between the same interfaces, and both go on",
		By:      map[string]string{"nftables": "nft(8), flow and tproxy statements; nf_flowtable.rst"},
		Lacking: map[pfconf.Engine]string{pfconf.BPF: "programs of BPF come before the flowtable"},
		Not:     "it has no flowtables",
	},
	{
		Name: "vrf-device", About: "to", Proto: pfconf.TCP, Mode: ToSockets, run: (*claimRun).vrf,
		Between: true,
		Says:    "a listener that is bound to a VRF gets what is diverted of an interface in it, and one in another VRF does not",
		By:      map[string]string{"nftables": "vrf.rst: bind a socket to the VRF device; rules on the VRF device"},
		Lacking: map[pfconf.Engine]string{pfconf.BPF: unsliced, pfconf.BPFLookup: chosen},
		Not:     onlyVRF,
	},
	{
		Name: "vrf-any", About: "to", Proto: pfconf.TCP, Mode: ToSockets, run: (*claimRun).anyVRF,
		Between: true,
		Says:    "with tcp_l3mdev_accept, a listener that is bound to no device gets what is diverted of a VRF, and its answers leave by that",
		By:      map[string]string{"nftables": "vrf.rst; ip-sysctl.rst, tcp_l3mdev_accept"},
		Lacking: map[pfconf.Engine]string{pfconf.BPF: unsliced},
		Not:     onlyVRF,
	},
	{
		Name: "output", About: "to", Proto: pfconf.TCP, Mode: ToOutput, run: (*claimRun).output,
		Says: "what the host itself sends is marked, comes back by the loopback interface and is diverted; what the proxy sends is not",
		By:   map[string]string{"nftables": "nft(8), chains of type route; netfilter.c, ip_route_me_harder; tproxy.rst"},
		Not:  "its divert-to is for packets that come in",
	},
	{
		Name: "tcp-data", About: "to", Proto: pfconf.TCP, Mode: ToSockets, run: (*claimRun).bulk,
		Says: "1 MiB each way at once comes through a diverted connection with small windows as through a direct one",
		By:   likeDirect,
	},
	{
		Name: "tcp-half-closed", About: "to", Proto: pfconf.TCP, Mode: ToSockets, run: (*claimRun).halfClosed,
		Says: "a diverted connection that is closed one way goes on the other way as a direct one",
		By:   likeDirect,
	},
	{
		Name: "tcp-reset", About: "to", Proto: pfconf.TCP, Mode: ToSockets, run: (*claimRun).resets,
		Says: "a reset ends a diverted connection as a direct one",
		By:   likeDirect,
	},
	{
		Name: "tcp-urgent", About: "to", Proto: pfconf.TCP, Mode: ToSockets, run: (*claimRun).urgent,
		Says: "urgent data comes through a diverted connection as through a direct one",
		By:   likeDirect,
	},
	{
		Name: "tcp-fast-open", About: "to", Proto: pfconf.TCP, Mode: ToSockets, run: (*claimRun).fastOpened,
		Says: "the data of a SYN comes through a diverted connection, once, as through a direct one",
		By:   likeDirect,
	},
	{
		Name: "tcp-close-at-once", About: "to", Proto: pfconf.TCP, Mode: To, run: (*claimRun).closesAtOnce,
		Says: "both ends of a diverted connection may close it at the same time",
		By:   map[string]string{"nftables": "RFC 9293, 3.6, case 3"},
		Not:  oneRule,
	},
	{
		Name: "fragments", About: "to", Proto: pfconf.UDP, Mode: ToSockets, run: (*claimRun).fragments,
		Says: "datagrams that come in fragments are diverted whole, whatever their length",
		By: map[string]string{"pf": "pf.conf(5), set reassemble",
			"nftables": "nf_defrag_ipv4.c, nf_defrag_ipv6_hooks.c: before the hooks of conntrack"},
		Lacking: map[pfconf.Engine]string{pfconf.BPF: "tc comes before fragments are put together, and only the first has ports"},
		Not:     "ipfw compares fragments with its rules, and only the first has ports",
	},
	{
		Name: "out-of-order", About: "queue", Proto: pfconf.UDP, Mode: PacketIn, run: (*claimRun).outOfOrder,
		Says: "1,000 verdicts in reverse order release each its own packet",
		By:   map[string]string{"nftables": "nfnetlink_queue.c, find_dequeue_entry: by the packet's id"},
		Not:  "its packets have no ids: what is written is what comes",
	},
	{
		Name: "unbind-busy", About: "queue", Proto: pfconf.UDP, Mode: PacketIn, run: (*claimRun).unbindBusy,
		Says: "what waits for a reader that ends is lost, and the queue can be bound again at once",
		By:   map[string]string{"nftables": "nfnetlink_queue.c, instance_destroy and nfqnl_rcv_nl_event"},
		Not:  "its packets wait for no verdict",
	},
	{
		Name: "requeue", About: "queue", Proto: pfconf.UDP, Mode: PacketIn, run: (*claimRun).requeue,
		Says: "a packet that is handed to another queue does not meet the rule again, and one that is repeated does once more",
		By:   map[string]string{"nftables": "nf_queue.c, nf_reinject: NF_QUEUE and NF_REPEAT"},
		Not:  "its packets have no verdicts",
	},
	{
		Name: "dnat-two", About: "queue", Proto: pfconf.UDP, Mode: Redirect, run: (*claimRun).dnatTwo,
		Says: "two packets of a new translated flow that wait in a queue at the same time both arrive",
		By:   map[string]string{"nftables": "nf_conntrack_core.c, nf_ct_resolve_clash"},
		Not:  "its rules make a flow's state before a packet goes to user space",
	},
	{
		Name: "gro-udp", About: "queue", Proto: pfconf.UDP, Mode: PacketIn, run: (*claimRun).joinedDatagrams,
		Says: "packets of a new flow that came joined into one are queued one by one, and each goes on once",
		By:   map[string]string{"nftables": "nfnetlink_queue.c, nfqnl_enqueue_packet: without NFQA_CFG_F_GSO"},
		Not:  unjoined,
	},
	{
		Name: "gso-tcp", About: "queue", Proto: pfconf.TCP, Mode: PacketIn, run: (*claimRun).joinedStream,
		Says: "segments of a connection that came joined into one are queued one by one, and the stream arrives whole",
		By:   map[string]string{"nftables": "nfnetlink_queue.c, nfqnl_enqueue_packet: without NFQA_CFG_F_GSO"},
		Not:  unjoined,
	},
	{
		// A frame has no family.
		Name: "bridge", About: "queue", Proto: pfconf.UDP, Mode: PacketIn, Only: pfconf.Inet,
		run: (*claimRun).bridgeGoes, Dangerous: true,
		Says: "what waits in a queue while its bridge goes is lost when it is released, and the kernel goes on",
		By:   map[string]string{"nftables": "br_input.c, br_handle_frame_finish; CVE-2026-53220"},
		Not:  "its rules are not about what a bridge forwards",
	},
	{
		Name: "tcp-in", Proto: pfconf.TCP, Mode: PacketIn, run: (*claimRun).streamThrough,
		Says: "a TCP connection that comes in goes through the divert socket, both ways, and what it carries can be rewritten",
		By: map[string]string{"pf": "pf.conf(5), divert-packet", "ipfw": "divert(4)",
			"nftables": "nft(8), queue statement"},
	},
	{
		Name: "tcp-out", Proto: pfconf.TCP, Mode: PacketOut, run: (*claimRun).streamThrough,
		Says: "a TCP connection that REMOTE begins goes through the divert socket, both ways, and what it carries can be rewritten",
		By: map[string]string{"pf": "pf.conf(5), divert-packet", "ipfw": "divert(4)",
			"nftables": "nft(8), queue statement"},
	},
	{
		Name: "both-tcp", Proto: pfconf.TCP, Mode: To, run: (*claimRun).bothDiverts,
		Says: "a connection goes through the divert socket, both ways, and to a transparent proxy",
		By:   map[string]string{"nftables": "nft(8): the hooks prerouting and input"},
		Not:  oneRule,
	},
	{
		Name: "both-udp", Proto: pfconf.UDP, Mode: To, run: (*claimRun).bothDiverts,
		Says: "a datagram goes through the divert socket and to a transparent proxy",
		By:   map[string]string{"nftables": "nft(8): the hooks prerouting and input"},
		Not:  oneRule,
	},
	{
		Name: "both-rip", Proto: pfconf.Raw, Mode: To, run: (*claimRun).bothDiverts,
		Says: "a raw packet goes through the divert socket and to another socket",
		By:   map[string]string{"nftables": "nft(8): the hooks prerouting and input"},
		Not:  oneRule,
	},
	{
		Name: "both-icmp", Proto: pfconf.ICMP, Mode: To, run: (*claimRun).bothDiverts,
		Says: "an echo request goes through the divert socket and to another socket",
		By:   map[string]string{"nftables": "nft(8): the hooks prerouting and input"},
		Not:  oneRule,
	},
	{
		Name: "icmp-out", Proto: pfconf.ICMP, Mode: Reply, run: (*claimRun).echoOut,
		Says: "an echo request that leaves goes through the divert socket",
		By:   map[string]string{"pf": "divert(4)", "ipfw": "divert(4)", "nftables": "nft(8), queue statement"},
	},
	{
		Name: "address-in", Proto: pfconf.UDP, Mode: PacketIn, run: (*claimRun).address,
		Says: "with a packet that came in the divert socket gives an address of its interface",
		By:   map[string]string{"pf": "ip_divert.c, divert_packet", "ipfw": "divert(4)"},
		Not:  queueless,
	},
	{
		Name: "address-out", Proto: pfconf.UDP, Mode: PacketOut, run: (*claimRun).address,
		Says: "with a packet that leaves the divert socket gives no address",
		By:   map[string]string{"pf": "ip_divert.c, divert_packet", "ipfw": "divert(4)"},
		Not:  queueless,
	},
	{
		Name: "rule-number", Proto: pfconf.UDP, Mode: PacketIn, run: (*claimRun).ruleNumber,
		Says: "a packet comes with the number of its rule, and goes on behind all rules of that number when it is reinjected",
		By:   map[string]string{"ipfw": "divert(4)"},
		Not:  numberless,
	},
	{
		Name: "interface-name", Proto: pfconf.UDP, Mode: PacketIn, run: (*claimRun).interfaceName,
		Says: "the name of the interface by which a packet came in stands behind the address that the divert socket gives",
		By:   map[string]string{"ipfw": "divert(4)"},
		Not:  nameless,
	},
	{
		Name: "named-interface", Proto: pfconf.UDP, Mode: PacketIn, run: (*claimRun).namedInterface,
		Says: "a packet that is written to the address of no interface comes in when an interface's name stands behind it",
		By:   map[string]string{"ipfw": "divert(4)"},
		Not:  nameless,
	},
	{
		Name: "bad-header-in", Proto: pfconf.UDP, Mode: PacketIn, run: (*claimRun).badHeader,
		Says: "a packet that is written back to come in with a bad header is refused",
		By:   map[string]string{"ipfw": "divert(4): EINVAL"},
		Not:  unsaid,
	},
	{
		Name: "bad-header-out", Proto: pfconf.UDP, Mode: PacketOut, run: (*claimRun).badHeader,
		Says: "a packet that is written back to leave with a bad header is refused",
		By:   map[string]string{"ipfw": "divert(4): EINVAL"},
		Not:  unsaid,
	},
	{
		Name: "header-beyond-out", Proto: pfconf.UDP, Mode: PacketOut, run: (*claimRun).headerBeyond, Dangerous: true,
		Says: "a packet that is written back to leave with a header longer than itself is refused",
		By:   map[string]string{"ipfw": "divert(4): EINVAL"},
		Not:  unsaid,
	},
	{
		Name: "bad-length-in", Proto: pfconf.UDP, Mode: PacketIn, run: (*claimRun).badLength,
		Says: "a packet that is written back to come in with more length in its header than it has is refused",
		By:   map[string]string{"ipfw": "divert(4): EINVAL"},
		Not:  unsaid,
	},
	{
		Name: "low-port", Proto: pfconf.UDP, Mode: PacketIn, run: (*claimRun).lowPort, Until: 15,
		Says: "only the superuser may bind a divert socket to a port below 1024",
		By:   map[string]string{"ipfw": "divert(4): EACCES"},
		Not:  "no port of theirs is lower than others: what the superuser may, the claim superuser tests",
	},
	{
		Name: "read", Proto: pfconf.UDP, Mode: PacketIn, run: (*claimRun).read,
		Says: "packets are taken from a divert socket by read(2) and recv(2) as well",
		By:   map[string]string{"pf": "divert(4)", "ipfw": "divert(4)"},
		Not:  "a netfilter queue's packets come in messages of netlink",
	},
	{
		Name: "tee-fragments", Proto: pfconf.Raw, Mode: PacketIn, run: (*claimRun).teed,
		Says: "a rule with tee delivers a copy as it is, fragments in pieces, and the packet goes its way",
		By:   map[string]string{"ipfw": "divert(4)"},
		Not:  "rules have no such action",
	},
	{
		Name: "no-interface", Proto: pfconf.UDP, Mode: PacketIn, run: (*claimRun).noInterface,
		Says: "a packet that is written to the address of no interface is refused",
		By:   map[string]string{"pf": "ip_divert.c, divert_output: EADDRNOTAVAIL", "ipfw": "divert(4): EADDRNOTAVAIL"},
		Not:  queueless,
	},
}

// onlyFreeBSD is why other kernels do not claim what FreeBSD's pf does beside ipfw.
const onlyFreeBSD = "only FreeBSD's pf diverts to a divert socket by divert-to"

// Why what FreeBSD's divert(4) says is said of no other.
const (
	numberless = "its rules have no numbers that a packet could go on behind"
	nameless   = "no interface's name comes with a packet"
	unsaid     = "it does not say what happens to a packet with a bad header"
)

// socketless is why a socket tells no original destination.
const socketless = "a program asks pf there, by DIOCNATLOOK, and no socket"

// oneRule is why there is no such thing as a packet that is diverted twice.
const oneRule = "one rule decides there what happens to a packet"

// likeDirect is where it is said that what is diverted is delivered as if it had been sent to the
// socket.
var likeDirect = map[string]string{"nftables": "tproxy.rst: the local socket gets the connection",
	"pf": "pf.conf(5), divert-to", "ipfw": "ipfw(8), fwd"}

// stateful is why the states of flows can't be kept apart elsewhere.
const stateful = "its states are its own, and it has no zones of them"

// unjoined is why only netfilter's queues cut what came joined.
const unjoined = "it says nothing of packets that its host has joined"

// chosen is why the program of sk_lookup is not asked for listeners that are bound to devices.
const chosen = "the program chooses the socket, and the kernel takes it whatever it is bound to " +
	"(filter.c, bpf_sk_lookup_assign)"

// unbridged is why programs of BPF are not asked for what is bridged.
const unbridged = "programs of BPF come before the bridge, and no rule of the bridge hands them anything"

// Why the claims about VRFs are not asked for.
const (
	unsliced = "programs of BPF see no VRF: they come before it"
	onlyVRF  = "it has no VRFs; the claims of OpenBSD are run in a routing domain by -rdomain"
)

// queueless is why a netfilter queue says and takes no addresses.
const queueless = "a netfilter queue gives packets numbers, not addresses"

// noPF is why other kernels do not claim what is said of both systems' pf.
const noPF = "it has no pf that diverts to a divert socket"

// onlyOpenBSD is why other kernels do not claim what is said of OpenBSD's pf.
const onlyOpenBSD = "only OpenBSD's pf has such rules beside divert-packet and divert-to"
