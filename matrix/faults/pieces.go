package faults

import (
	"pfdivert/matrix"
	"pfdivert/matrix/injection"
	"pfdivert/pfconf"
)

// pieces are what this program itself sets up and can leave out.
var pieces = []Fault{
	{Name: "no-rule", On: everywhere, Cause: "rule-mismatch", About: "the rule that is loaded is for no one's packets",
		Omit: []string{"rule"}, expect: unmatched},
	{Name: "no-policy-rule", Without: lookup, Cause: "no-policy-rule",
		About: "no policy rule sends marked packets to the table in which FAKE is local",
		Omit:  []string{"policy-rule"}, expect: undelivered},
	{Name: "no-policy-rule-single", Without: lookup, Cause: "no-policy-rule",
		About: "the same where all cells share one FAKE address",
		Omit:  []string{"policy-rule"}, Single: true, expect: undelivered},
	{Name: "no-local-route", Cause: "no-local-route",
		About: "FAKE is not local in the table that marked packets are sent to", Omit: []string{"local-route"},
		expect: undelivered},
	{Name: "no-mark", Without: lookup, Cause: "mark-not-set",
		About: "the rules do not mark the packets that they divert",
		Omit:  []string{"mark"}, expect: undelivered},
	{Name: "no-tproxy", Cause: "no-tproxy", About: "the divert-to rules have no tproxy statement",
		Omit: []string{"tproxy"}, expect: socketless},
	{Name: "no-module", Cause: "module-missing",
		About: "REMOTE's kernel has no tproxy: neither built in nor as a module", Omit: []string{"tproxy-module"},
		expect: func(p Part) Want {
			if socketless(p) == pass {
				return pass
			}
			return Want{matrix.Skip, matrix.NoFeature, ""}
		}},
	{Name: "no-ct-mark", Cause: "state-not-marked",
		About: "the divert-reply rules do not mark the flow's conntrack entry", Omit: []string{"ct-mark"},
		expect: func(p Part) Want {
			if p.packet() || p.to() || p.afterTo() && !p.tcp() {
				return pass // the first cell's state has the mark; TCP's new connection has a new state
			}
			return uncounted(p)
		}},
	{Name: "no-rule-back", Cause: "no-rule-back", About: "no rule takes the answers of a divert-reply flow",
		Omit: []string{"back"}, expect: func(p Part) Want {
			if p.to() {
				return pass
			}
			return undelivered(p)
		}},
	{Name: "one-direction", Cause: "stale-state", About: "answers are taken only of flows that REMOTE began",
		Omit: []string{"any-direction"}, expect: stale},
	{Name: "one-direction-single", Cause: "stale-state", About: "the same where all cells share one FAKE address",
		Omit: []string{"any-direction"}, Single: true, expect: stale},
	{Name: "kernel-echo", Cause: "kernel-answers",
		About: "nothing stops the kernel from answering diverted ICMPv6 echo requests", Omit: []string{"kernel-echo"},
		expect: func(p Part) Want {
			if p.Family == pfconf.Inet6 && p.Proto == pfconf.ICMP && p.to() {
				return fails(matrix.Duplicate)
			}
			return pass
		}},
	{Name: "not-transparent", On: everywhere, Without: programs, Cause: "not-transparent",
		About: "no socket is marked transparent", Omit: []string{"transparent"}, expect: func(p Part) Want {
			switch {
			case p.packet(), p.to() && p.System != "linux": // pf and ipfw deliver to any socket
				return pass
			case p.to() && p.Proto.HasPorts():
				return fails(matrix.NotDelivered)
			}
			return fails(matrix.NoBindany)
		}},
	{Name: "no-right", Cause: "no-privilege",
		About: "REMOTE's sockets may not be made transparent: the program has neither CAP_NET_ADMIN nor CAP_NET_RAW",
		Omit:  []string{"right"}, expect: func(p Part) Want {
			if p.packet() {
				return pass
			}
			return errs(matrix.SocketFailed)
		}},
	{Name: "bad-checksum", On: notOpenBSD, Cause: "bad-checksum",
		About: "the packet role leaves the checksum as it was", Omit: []string{"checksum"}, expect: func(p Part) Want {
			if p.packet() {
				return fails(matrix.NotReinjected)
			}
			return pass
		}},
	{Name: "no-listener", On: everywhere, Cause: "no-listener",
		About: "the servers' sockets do not listen, or are closed", Omit: []string{"listen"},
		expect: func(p Part) Want {
			switch {
			case p.Proto == pfconf.ICMP && !p.to():
				return pass // the kernel is the server
			case p.packet(), p.System != "openbsd" && !p.reuse() && !p.to() && !p.tcp():
				return errs(matrix.ControlLost)
			}
			return fails(matrix.NotDelivered)
		}},
	{Name: "other-port", On: everywhere, Cause: "listener-elsewhere",
		About: "the servers of divert-to listen on another port than the rule names", Omit: []string{"port"},
		expect: socketless},
	{Name: "other-address", On: everywhere, Cause: "listener-elsewhere",
		About: "the servers of divert-to listen on another address than the rule names", Omit: []string{"address"},
		expect: socketless},
	{Name: "other-interface", Cause: "rule-other-interface",
		About: "the rules are for another interface than the one towards LOCAL", Omit: []string{"towards"},
		expect: func(p Part) Want {
			if p.Mode == matrix.PacketIn {
				return fails(matrix.NotRewritten)
			}
			return undelivered(p)
		}},
	{Name: "no-reader", On: everywhere, Cause: "queue-unheard",
		About: "no process listens on the queue, and the rule fails closed", Omit: []string{"reader"},
		expect: unread(matrix.NotDelivered)},
	{Name: "no-reader-bypass", Cause: "queue-bypassed",
		About: "no process listens on the queue, and the rule fails open", Omit: []string{"reader", "closed"},
		expect: unread(matrix.NotRewritten)},
	{Name: "queue-full", Cause: "queue-full", About: "the queue has no room", Omit: []string{"room"},
		expect: unread(matrix.NotDelivered)},
	{Name: "ports-not-swapped", On: everywhere, Cause: "rule-mismatch",
		About: "the rule of a reuse target's second cell names the first one's port", Omit: []string{"swap"},
		expect: func(p Part) Want {
			if !p.Second || !p.Proto.HasPorts() || p.System == "openbsd" && p.afterTo() && !p.tcp() {
				return pass // there the first cell's state has the second's packets
			}
			if p.to() {
				return fails(matrix.NotDelivered)
			}
			return uncounted(p)
		}},
	{Name: "time-wait-left", Cause: "time-wait",
		About: "the socket in TIME_WAIT is not dropped before its flow is turned round", Omit: []string{"drop"}, expect: blocked},
	{Name: "time-wait-left-untimed", Cause: "time-wait", About: "the same without TCP's timestamps",
		Omit: []string{"drop", "timestamps"}, expect: blocked},
	{Name: "no-timestamps", About: "TCP has no timestamps, and every socket in TIME_WAIT is dropped",
		Omit: []string{"timestamps"}, expect: unconcerned},
	// It is off so that a killed state is missed at once; no target kills one
	// that is in use.
	{Name: "early-demux", About: "REMOTE's kernel looks for an established flow's socket before it routes",
		Omit: []string{"early-demux"}, expect: unconcerned},
}

// Engines that do without a thing: programs, which need no transparent socket of IPv6 and UDP; and
// the one of them that needs no mark, no policy rule and no table, because FAKE is local to all.
var (
	programs = []pfconf.Engine{pfconf.BPF, pfconf.BPFLookup}
	tcBPF    = []pfconf.Engine{pfconf.BPF}
	lookup   = []pfconf.Engine{pfconf.BPFLookup}
)

// ofBPF are what programs of BPF lack.
var ofBPF = []Fault{
	{Name: "bpf-detached", Engine: pfconf.BPF, Cause: "rule-mismatch",
		About: "the programs are loaded, and no interface has them", Omit: []string{"programs"}, expect: unmatched},
	{Name: "bpf-no-egress", Engine: pfconf.BPF, Cause: "rule-mismatch",
		About: "no interface has the program for what leaves", Omit: []string{"egress"}, expect: func(p Part) Want {
			switch {
			case p.to() && p.Family == pfconf.Inet6 && p.Proto == pfconf.ICMP:
				return Want{matrix.Fail, matrix.Duplicate, "kernel-answers"}
			case p.to():
				return pass
			case p.afterTo() && !p.packet(): // that cell's flow has the answers
				return fails(matrix.NotCounted)
			}
			return unmatched(p)
		}},
	{Name: "bpf-not-transparent", Engine: pfconf.BPF, Cause: "not-transparent",
		About: "no socket is marked transparent, which bpf_sk_assign does not ask for, and answers of TCP over IPv4 do",
		Omit:  []string{"transparent"}, expect: func(p Part) Want {
			switch {
			case p.packet(), p.to() && (p.Proto == pfconf.UDP || p.tcp() && p.Family == pfconf.Inet6):
				return pass // IPv6 routes answers whose source is not the host's own
			case p.to() && p.tcp():
				return Want{matrix.Fail, matrix.NotDelivered, "lost-after-rule"}
			}
			return fails(matrix.NoBindany)
		}},
	{Name: "bpf-drop-early", Engine: pfconf.BPF, Cause: "dropped-after",
		About:  "a rule of REMOTE's own drops what is for FAKE, in its first chain: the programs come before that",
		Remote: does(injection.DropEarly), expect: undelivered},
	{Name: "bpf-notrack", Engine: pfconf.BPF, Cause: "not-tracked",
		About:  "REMOTE's conntrack does not see FAKE's packets, which the programs do without",
		Remote: does(injection.NoTrack), expect: func(p Part) Want {
			if p.packet() || !p.reuse() {
				return pass
			}
			return fails(matrix.StateMissing)
		}},
	{Name: "bpf-other-zone", Engine: pfconf.BPF, Cause: "other-zone",
		About:  "REMOTE's conntrack keeps what comes in in a zone of its own",
		Remote: does(injection.OtherZone), expect: func(p Part) Want {
			if p.to() && p.reuse() && !p.tcp() && !p.Second {
				return fails(matrix.StateMissing)
			}
			return pass
		}},
}

// ofLookup are what the program of sk_lookup lacks, and what does it no harm.
var ofLookup = []Fault{
	{Name: "bpf-lookup-detached", Engine: pfconf.BPFLookup, Cause: "rule-mismatch",
		About: "the program is loaded, and not attached to the network namespace", Omit: []string{"programs"},
		expect: socketless},
	{Name: "bpf-lookup-no-socket", Engine: pfconf.BPFLookup, Cause: "socket-not-in-map",
		About: "the map of listeners is empty", Omit: []string{"sock-map"}, expect: socketless},
	{Name: "bpf-lookup-not-transparent", Engine: pfconf.BPFLookup,
		About: "no socket is marked transparent, and none needs to be: FAKE is local", Omit: []string{"transparent"},
		expect: unconcerned},
	{Name: "bpf-lookup-drop-input", Engine: pfconf.BPFLookup, Cause: "dropped-before",
		About:  "REMOTE's own filter drops what is for FAKE in its input chain, before a socket is looked for",
		Remote: does(injection.DropFake), expect: socketless},
	{Name: "bpf-lookup-redirected", Engine: pfconf.BPFLookup, Cause: "destination-translated",
		About:  "REMOTE translates FAKE's address to its own for TCP and UDP, and the program is not asked about FAKE",
		Remote: does(injection.Redirect), expect: socketless},
	{Name: "bpf-lookup-other-proxy", Engine: pfconf.BPFLookup, Cause: "diverted-by-another",
		About:  "a rule of REMOTE's with tproxy diverts TCP and UDP for FAKE, before the program is asked",
		Remote: does(injection.OtherProxy), expect: func(p Part) Want {
			switch {
			case !p.to() || !p.Proto.HasPorts():
				return pass
			case !p.reuse():
				return fails(matrix.ControlDelivered)
			case p.tcp():
				return fails(matrix.NotCounted)
			}
			return pass // tproxy looks for a UDP socket at FAKE first, and that look asks the program
		}},
	{Name: "bpf-lookup-fake-on-link", Engine: pfconf.BPFLookup, Cause: "fake-on-link",
		About: "LOCAL looks for FAKE on the cable: REMOTE answers ARP for what is local to it, and no neighbour solicitations",
		Local: does(injection.FakeOnLink), expect: inet6(undelivered)},
}

// ofXT are what is left out of the rules of x_tables alone.
func ofXT(e pfconf.Engine) []Fault {
	return []Fault{
		{Name: string(e) + "-no-mark6", Engine: e, Cause: "module-missing",
			About: "REMOTE's x_tables has no MARK for IPv6, as Linux 6.6.57", Omit: []string{"mark6"},
			expect: inet6(func(p Part) Want {
				// TPROXY sets the mark itself.
				if p.packet() || p.to() && p.Proto.HasPorts() {
					return pass
				}
				return Want{matrix.Skip, matrix.NoFeature, ""}
			})},
		{Name: string(e) + "-one-family", Engine: e, Cause: "rule-mismatch",
			About: "IPv6's packets do not come to the rules of x_tables", Omit: []string{"jump6"},
			expect: inet6(unmatched)},
	}
}

// unmatched: the rule matches nothing.
func unmatched(p Part) Want {
	if p.packet() {
		return fails(matrix.NotRewritten)
	}
	return uncounted(p) // what the client sends may arrive anyway
}

func unconcerned(Part) Want { return pass }

// undelivered: what is diverted does not reach a socket of REMOTE. What goes out
// only does not need that.
func undelivered(p Part) Want {
	switch {
	case p.packet():
		return pass
	case p.tcp() || p.to():
		return fails(matrix.NotDelivered)
	case p.back():
		return fails(matrix.NoReply)
	}
	return pass
}

// uncounted: the divert-reply rule does not work, neither for what comes back nor where only
// its counters tell.
func uncounted(p Part) Want {
	if w := undelivered(p); w != pass && !p.answered() || p.System == "freebsd" {
		return w // ipfw's rule counts what comes back, and nothing else
	}
	return fails(matrix.NotCounted)
}

// socketless: the divert-to rule finds no socket to give the packet to.
func socketless(p Part) Want {
	if p.to() && p.Proto.HasPorts() {
		return fails(matrix.NotDelivered)
	}
	return pass
}

// unread: what goes to user space is not read there.
func unread(reason string) func(Part) Want {
	return func(p Part) Want {
		if p.packet() {
			return fails(reason)
		}
		return pass
	}
}

// stale: the state that a divert-to cell left catches the answers of the cell after it,
// because the other side began it. TCP's new connection has a new state.
func stale(p Part) Want {
	if p.afterTo() && p.Mode.Answers() {
		return fails(matrix.NoReply)
	}
	return pass
}

// blocked: the first cell's socket in TIME_WAIT has the very addresses and
// ports that the second's client needs.
func blocked(p Part) Want {
	if p.tcp() && p.Second && p.First != p.Target.Second {
		return fails(matrix.PortBlocked)
	}
	return pass
}
