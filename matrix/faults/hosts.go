package faults

import (
	"pfdivert/matrix"
	"pfdivert/matrix/injection"
	"pfdivert/pfconf"
)

func does(steps ...injection.Action) []injection.Action { return steps }

// hosts are what can be wrong with the hosts themselves.
var hosts = []Fault{
	{Name: "fake-owned", On: everywhere, Cause: "fake-owned", About: "REMOTE has a FAKE address on an interface",
		Remote: does(injection.OwnFake),
		expect: func(Part) Want { return errs(matrix.FakeOwned) }},
	{Name: "fake-unrouted", On: everywhere, Cause: "no-route-to-fake", About: "LOCAL has no route to FAKE",
		Local: does(injection.NoFakeRoute), expect: func(p Part) Want {
			// LOCAL's server is told when it answers; its kernel tells no one.
			// which runs no control
			answers := p.Proto != pfconf.TCP && p.Proto != pfconf.ICMP &&
				(p.Mode.Answers() || p.reply() && !p.reuse() && p.System != "openbsd")
			if p.to() || answers {
				return errs(matrix.LocalRoute)
			}
			return undelivered(p)
		}},
	{Name: "fake-aside", Cause: "fake-routed-elsewhere",
		About: "LOCAL routes FAKE by an interface that does not lead to REMOTE", Local: does(injection.FakeAside),
		expect: undelivered},
	{Name: "fake-on-link", Without: lookup, Cause: "fake-on-link",
		About: "LOCAL looks for FAKE on the cable and not behind REMOTE",
		Local: does(injection.FakeOnLink), expect: undelivered},
	{Name: "other-mark", Without: lookup, Cause: "mark-mismatch",
		About:  "the policy rule looks for another mark than the rules set",
		Remote: does(injection.OtherMark), expect: undelivered},
	{Name: "other-mask", Without: lookup, Cause: "mark-mismatch",
		About:  "the policy rule looks at other bits of the mark",
		Remote: does(injection.OtherMask), expect: undelivered},
	{Name: "other-table", Without: lookup, Cause: "no-local-route",
		About: "FAKE is local in another table than the policy rule chooses", Remote: does(injection.OtherTable),
		expect: undelivered},
	{Name: "no-policy-rule6", Without: lookup, Cause: "no-policy-rule", About: "IPv6 has no policy rule",
		Remote: does(injection.NoRule6), expect: inet6(undelivered)},
	{Name: "late-policy-rule", Without: lookup, Cause: "late-policy-rule",
		About:  "the main table, which comes before the policy rule, has a route to FAKE",
		Remote: does(injection.LateRule), expect: undelivered},
	{Name: "martian", Without: lookup, Cause: "rp-filter",
		About:  "reverse path filtering takes the mark, and all addresses are local for marked packets",
		Remote: does(injection.Martian), expect: inet(undelivered)},
	{Name: "no-inet6-on-lo", Cause: "inet6-disabled", About: "IPv6 is disabled on REMOTE's loopback interface",
		Remote: does(injection.NoInet6), expect: inet6(undelivered)},
	{Name: "mark-cleared", Without: lookup, Cause: "mark-cleared",
		About: "a rule of REMOTE's own clears the mark before the packet is routed", Remote: does(injection.Unmark),
		expect: undelivered},
	{Name: "drop-early", Without: tcBPF, On: notOpenBSD, Cause: "dropped-before",
		About:  "a rule of REMOTE's own drops what is for FAKE before the test's rules see it",
		Remote: does(injection.DropEarly), expect: undelivered},
	{Name: "drop-input", Without: lookup, Cause: "dropped-after",
		About: "REMOTE's own filter drops what is diverted, in its input chain", Remote: does(injection.DropFake),
		expect: undelivered},
	{Name: "drop-plain", Cause: "filtered", About: "REMOTE's own filter drops UDP that is for REMOTE itself",
		Remote: does(injection.DropPlain), expect: func(p Part) Want {
			if p.Mode == matrix.PacketIn {
				return errs(matrix.ControlLost)
			}
			return pass
		}},
	{Name: "drop-output", On: notOpenBSD, Cause: "dropped-out",
		About: "REMOTE's own filter drops what leaves with FAKE's address", Remote: does(injection.DropOut),
		expect: func(p Part) Want {
			// TCP tries again by itself
			if w := unanswered(p); w == pass || p.tcp() && (p.to() || p.System == "linux") {
				return w
			}
			return errs(matrix.SocketFailed)
		}},
	{Name: "drop-local", On: notOpenBSD, Cause: "dropped-on-local",
		About: "LOCAL's own filter drops what comes from FAKE", Local: does(injection.DropFake), expect: unanswered},
	{Name: "reply-aside", Cause: "reply-routed-elsewhere",
		About:  "REMOTE routes what comes from FAKE by an interface that does not lead to LOCAL",
		Remote: does(injection.FakeAside), expect: unanswered},
	{Name: "loop", Without: lookup, Cause: "own-traffic-diverted", About: "REMOTE diverts what its own proxy sends",
		Remote: does(injection.Loop), expect: unanswered},
	{Name: "notrack", Without: tcBPF, Cause: "not-tracked", About: "REMOTE's conntrack does not see FAKE's packets",
		Remote: does(injection.NoTrack), expect: func(p Part) Want {
			switch {
			case p.packet(), p.to() && !p.reuse():
				return pass
			case p.to():
				return fails(matrix.StateMissing)
			}
			return uncounted(p)
		}},
	{Name: "other-zone", Without: tcBPF, Cause: "other-zone",
		About:  "REMOTE's conntrack keeps what comes in in a zone of its own",
		Remote: does(injection.OtherZone), expect: func(p Part) Want {
			switch {
			case !p.to():
				return undelivered(p)
			case p.reuse() && !p.tcp() && !p.Second:
				return fails(matrix.StateMissing) // TCP's answers make one in the right zone
			}
			return pass
		}},
	{Name: "redirected", Without: lookup, Cause: "destination-translated",
		About: "REMOTE translates FAKE's address to its own for TCP and UDP", Remote: does(injection.Redirect),
		expect: func(p Part) Want {
			switch {
			case !p.to() || !p.Proto.HasPorts():
				return pass
			case p.tcp(): // the handshake's second packet finds no socket by its first address
				return fails(matrix.NotDelivered)
			case p.Second && p.First != matrix.To:
				return pass // a packet of a flow that is known is not translated
			}
			return fails(matrix.WrongAddress)
		}},
	{Name: "masqueraded", Cause: "source-translated", About: "REMOTE translates the source address FAKE to its own",
		Remote: does(injection.Masquerade), expect: func(p Part) Want {
			switch {
			case !p.reply(), p.afterTo() && !p.tcp():
				return pass // nor is one of a flow that LOCAL began
			case p.tcp():
				return fails(matrix.NotDelivered) // the rule that takes the answers does not see FAKE
			case p.Proto == pfconf.ICMP:
				return fails(matrix.NoReply)
			}
			return fails(matrix.WrongAddress)
		}},
	{Name: "other-proxy", Without: lookup, Cause: "diverted-by-another",
		About:  "another rule of REMOTE's diverts TCP and UDP for FAKE",
		Remote: does(injection.OtherProxy), expect: func(p Part) Want {
			if p.packet() || !p.Proto.HasPorts() || p.reuse() {
				return pass
			}
			return fails(matrix.ControlDelivered)
		}},
	{Name: "twice", Cause: "copied", About: "what LOCAL sends to FAKE comes twice, except TCP",
		Local: does(injection.Twice), expect: func(p Part) Want {
			switch {
			case p.tcp() || p.packet() || !p.to() && !p.back():
				return pass
			}
			return fails(matrix.Duplicate)
		}},
	{Name: "bridged", Without: lookup, Cause: "bridge-netfilter",
		About:  "REMOTE's interface is a bridge, and br_netfilter takes bridged packets through the rules of IP",
		Remote: does(injection.Bridged), expect: socketless},
	{Name: "bridged-plain", About: "REMOTE's interface is a bridge, and br_netfilter is off or not loaded",
		Remote: does(injection.BridgedPlain), expect: unconcerned},
	{Name: "filter-off", On: freebsd, Cause: "filter-off", About: "REMOTE's ipfw is switched off",
		Remote: does(injection.NoFilter), expect: unmatched},
	{Name: "router", Without: lookup, On: everywhere, Cause: "forwarded",
		About: "the rule that is loaded is for no one's packets, and REMOTE forwards", Omit: []string{"rule"},
		Remote: does(injection.Forwarding), expect: func(p Part) Want {
			w := unmatched(p)
			if p.packet() || p.reply() && !p.back() {
				w.Cause = "rule-mismatch" // what is lost is not what is forwarded
			}
			return w
		}},
	{Name: "forwarding", On: everywhere, About: "REMOTE forwards", Remote: does(injection.Forwarding),
		expect: unconcerned},
}

// inet and inet6 are for faults of one family.
func inet(expect func(Part) Want) func(Part) Want  { return only(pfconf.Inet, expect) }
func inet6(expect func(Part) Want) func(Part) Want { return only(pfconf.Inet6, expect) }

func only(f pfconf.Family, expect func(Part) Want) func(Part) Want {
	return func(p Part) Want {
		if p.Family != f {
			return pass
		}
		return expect(p)
	}
}

// unanswered: what REMOTE sends from FAKE does not reach LOCAL.
func unanswered(p Part) Want {
	switch {
	case p.packet(), p.to() && !p.tcp():
		return pass
	case p.tcp():
		return fails(matrix.NotDelivered)
	case p.Proto == pfconf.ICMP:
		return fails(matrix.NoReply)
	case p.reuse():
		return fails(matrix.NotDelivered)
	}
	return errs(matrix.ControlLost)
}
