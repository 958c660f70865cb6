package faults

import (
	"slices"

	"pfdivert/matrix"
	"pfdivert/matrix/injection"
)

// Where the faults of claims are: on the systems whose kernels make a claim that the fault breaks,
// and where it is this program that does what is left out (OpenBSD's kernel fixes checksums by
// itself, and remembers which packets were reinjected).
var (
	everywhere = []string{"linux", "openbsd", "freebsd"}
	bsds       = []string{"openbsd", "freebsd"}
	openbsd    = []string{"openbsd"}
	freebsd    = []string{"freebsd"}
	notOpenBSD = []string{"linux", "freebsd"}
)

// claims are what is broken for the claims: for each of them the thing that it is about.
var claims = []Fault{
	{Name: "claims-no-rule", Cause: "rule-mismatch", On: everywhere,
		About: "the rule of every claim is for no one's packets", Omit: []string{"rule"},
		claims: unruled},
	{Name: "other-divert-port", Cause: "listener-elsewhere", On: everywhere,
		About: "the rule of every claim names another divert port than its socket has", Omit: []string{"rules-port"},
		claims: all(matrix.NotDelivered, reasons{"": slices.Concat(noQueue, bothDiverts, []string{"queue-dnat-two",
			"to-tcp-close-at-once"})})},
	{Name: "fail-open", Cause: "queue-bypassed",
		About: "the divert-packet rules let packets pass when no process listens", Omit: []string{"closed"},
		claims: some(matrix.NotLost, "no-listener-in", "no-listener-out")},
	{Name: "not-bypassed", Cause: "queue-unheard", About: "the rule with bypass is loaded without it",
		Omit: []string{"bypass"}, claims: some(matrix.NotBypassed, "bypass")},
	{Name: "heard", On: []string{"linux", "openbsd"},
		About: "where no process must listen, a divert socket takes the packets and keeps them", Omit: []string{"unheard"},
		claims: all("", reasons{matrix.NotBypassed: {"bypass"}, matrix.NotCounted: {"counted"}})},
	{Name: "given-back", Cause: "claim-broken", On: everywhere,
		About: "the divert socket gives a packet back that it must keep", Omit: []string{"keep"},
		claims: some(matrix.NotLost, "not-given-back", "queue-unbind-busy")},
	{Name: "lost-behind", Cause: "not-taken-back", On: everywhere, About: "what a divert socket reinjects is lost",
		Omit: []string{"give-back"},
		claims: all(matrix.NotReinjected, reasons{
			matrix.NotDelivered: {"openbsd:pf-rdr-in-tcp", "tcp-in", "tcp-out", "both-tcp", "queue-gso-tcp",
				"to-tcp-close-at-once", "forwarded", "pf-forwarded-in", "pf-forwarded-out", "pf-forwarded-once"},
			matrix.NotRefused: {"no-interface", "bad-header-in", "bad-header-out",
				"header-beyond-out", "bad-length-in"},
			"": slices.Concat(noQueue, []string{"tee-fragments"}),
		})},
	{Name: "looped", On: notOpenBSD, About: "a packet that is reinjected meets its rule again", Omit: []string{"go-on"},
		claims: all(matrix.NotReinjected, reasons{
			matrix.Looped: {"no-loop-in", "no-loop-out", "ipfw-pf-in", "ipfw-pf-out",
				"pf-packet-in", "pf-packet-out"},
			matrix.Duplicate: {"queue-dnat-two"},
			matrix.WrongData: {"order-in", "order-out", "reassembled", "reassembled-udp", "longest-in",
				"longest-out", "full", "queue-gro-udp"},
			matrix.NotDelivered: {"tcp-in", "tcp-out", "both-tcp", "queue-gso-tcp", "to-tcp-close-at-once",
				"forwarded"},
			// What leaves does not go the rule's way. What comes in meets the rule that tells it
			// from what went out to its own host.
			"": slices.Concat(noQueue, []string{"freebsd:turned-in", "tee-fragments"}),
		})},
	{Name: "comes-twice", Cause: "claim-broken", On: everywhere,
		About: "a packet comes to the divert socket twice, as if it had met its rule again", Omit: []string{"once"},
		claims: some(matrix.Looped, "no-loop-in", "no-loop-out", "ipfw-pf-in", "ipfw-pf-out", "pf-packet-in",
			"pf-packet-out")},
	{Name: "privileged", Cause: "claim-broken", On: everywhere, About: "the process that has no privilege has it",
		Omit:   []string{"no-privilege"},
		claims: some(matrix.NotRefused, "superuser", "low-port")},
	{Name: "first-closed", Cause: "claim-broken", On: everywhere,
		About: "the first socket of a divert port is closed when the second one is opened", Omit: []string{"first"},
		claims: some(matrix.NotRefused, "second-bind")},
	{Name: "one-number-space", Cause: "diverted-by-another", On: everywhere,
		About: "what is for the UDP port of a divert port's number is diverted too", Omit: []string{"number"},
		claims: some(matrix.NotDelivered, "own-numbers")},
	{Name: "disordered", Cause: "claim-broken", On: everywhere,
		About: "neighbours in a row of packets are sent the wrong way round", Omit: []string{"order"},
		claims: some(matrix.WrongData, "order-in", "order-out")},
	{Name: "in-pieces", Cause: "claim-broken", On: everywhere, About: "a long message comes as many short ones",
		Omit: []string{"whole"},
		claims: some(matrix.WrongData, "reassembled", "reassembled-udp", "longest-in", "longest-out", "tee-fragments",
			"to-fragments", "pf-rdr-in-fragments")},
	{Name: "room-for-all", Cause: "claim-broken", On: []string{"linux", "openbsd"},
		About: "no more packets are sent than the divert socket has room for", Omit: []string{"many"},
		claims: some(matrix.NotLost, "full")},
	{Name: "right-checksums", Cause: "claim-broken", On: notOpenBSD,
		About: "checksums and headers that must be wrong are right", Omit: []string{"spoilt"},
		claims: all("", reasons{matrix.NotLost: {"checksums-kept"},
			matrix.NotRefused: {"bad-header-in", "bad-header-out", "header-beyond-out", "bad-length-in"}})},
	{Name: "other-way", On: bsds,
		About: "the divert socket says of what came in that it is to leave, and of what is to leave that it came in", Omit: []string{"way"},
		Remote: does(injection.NotForwarding, injection.SkipLoopback),
		claims: on(map[string]func(string, matrix.Target) Want{
			// What is written out to REMOTE's own address comes in again by the loopback interface.
			// If pf saw it there it would meet its state, and be diverted once more.
			"openbsd": all("", reasons{
				matrix.WrongAddress: {"address-in", "address-out"},
				matrix.NotReinjected: {"no-listener-out", "no-loop-out", "order-out", "longest-out", "rip-out",
					"other-length-out",
					"checksums-mended-out", "header-mended-out", "icmp-out", "pf-nat-out", "pf-match-nat-out"},
				matrix.NotDelivered: {"tcp-in", "tcp-out", "pf-rdr-in-tcp"},
				// The answers are diverted too.
				matrix.NoReply: {"pf-rdr-in-udp", "pf-match-rdr-in", "pf-reply-to"},
			}),
			// There it meets the rule once more.
			"freebsd": all(matrix.NotReinjected, reasons{
				matrix.WrongAddress: {"address-in", "address-out", "interface-name"},
				matrix.Looped:       {"no-loop-in", "ipfw-pf-in", "pf-packet-in"},
				matrix.WrongData:    {"order-in", "reassembled", "forwarded"},
				matrix.NotDelivered: {"tcp-in", "tcp-out"},
				// What comes in is taken whatever its length.
				matrix.NotRefused: {"bad-header-out"},
				// its rule is about one interface
				matrix.NotDuplicated: {"pf-dup-to"},
				// two are to addresses of their own
				"": slices.Concat(noQueue, []string{"turned-in", "turned-out", "tee-fragments"}),
			}),
		})},
	{Name: "not-turned", On: bsds,
		About: "a packet that must be turned round is written to the address that it came with", Omit: []string{"turned"},
		claims: some(matrix.NotReinjected, "turned-in", "turned-out")},
	{Name: "an-interface", On: bsds, About: "an address of no interface is one of REMOTE's", Omit: []string{"nowhere"},
		claims: some(matrix.NotRefused, "no-interface", "named-interface")},
	{Name: "numbered-alike", On: []string{"freebsd"}, About: "a rule that must stand behind others has their number",
		Omit:   []string{"rule-number"},
		claims: some(matrix.NotReinjected, "rule-number")},
	{Name: "nameless", On: []string{"freebsd"}, About: "the packet role forgets the name of the interface",
		Omit:   []string{"name"},
		claims: all("", reasons{matrix.WrongAddress: {"interface-name"}, matrix.NotReinjected: {"named-interface"}})},
	{Name: "no-match-rule", On: openbsd,
		About: "no match rule of pf tags, redirects or translates packets before the rule that diverts",
		Omit:  []string{"match-rule"},
		claims: all("", reasons{matrix.WrongAddress: {"pf-match-rdr-in", "pf-match-nat-out"},
			matrix.NotRewritten: {"pf-match-tag-in"}, matrix.NotDelivered: {"to-match-tag"}})},
	{Name: "received-elsewhere", On: openbsd,
		About:  "the rule of pf that names the interface by which packets come names another",
		Omit:   []string{"received-on"},
		claims: all("", reasons{matrix.NotRewritten: {"pf-received-on"}, matrix.NotDelivered: {"to-received-on"}})},
	{Name: "not-gone", On: openbsd, About: "the rule of pf that is to be gone with its first packet stays",
		Omit:   []string{"one-shot"},
		claims: all("", reasons{matrix.NotDelivered: {"pf-once"}, matrix.NotLost: {"to-once"}})},
	{Name: "unlimited", On: openbsd, About: "the rule of pf that may have one state may have any number",
		Omit:   []string{"limit"},
		claims: some(matrix.NotLost, "pf-max-states")},
	{Name: "not-translated", Cause: "claim-broken", On: bsds,
		About: "the rule of pf that is to translate the source does not", Omit: []string{"translation"},
		claims: some(matrix.WrongAddress, "pf-nat-out", "pf-match-nat-out")},
	{Name: "no-gateway", Cause: "claim-broken", On: bsds,
		About: "the rule of pf that is to send packets, answers or copies on by a gateway has none", Omit: []string{"gateway"},
		claims: routedAlone(all("", reasons{matrix.WrongWay: {"pf-route-to", "pf-reply-to"},
			matrix.NotDuplicated: {"pf-dup-to"}}))},
	{Name: "no-pipe", Cause: "claim-broken", On: freebsd,
		About: "no rule sends the packets through the pipe that is to lose them", Omit: []string{"in-pipe"},
		claims: some(matrix.NotLost, "pipe-in", "pipe-out", "pf-pipe-in")},
	{Name: "other-connection", Cause: "state-gone", On: notOpenBSD,
		About: "the filter is asked for another client's connection", Omit: []string{"tuple"},
		claims: some(matrix.StateMissing, natlook...)},
	{Name: "not-redirected", Cause: "address-changed",
		About: "the client talks to the server of a redirecting rule itself", Omit: []string{"redirected"},
		claims: some(matrix.WrongAddress, slices.Concat(redirects, []string{"queue-dnat-two"})...)},
	{Name: "no-route-localnet", Cause: "no-route-localnet",
		About:  "REMOTE's interface takes no packets for 127.0.0.1 (route_localnet)",
		Omit:   []string{"route-local"},
		claims: some(matrix.NotDelivered, "redirect-tcp-loopback")},
	{Name: "output-not-marked", About: "no rule marks what the host itself sends", Omit: []string{"output-mark"},
		claims: some(matrix.NotDelivered, "to-output")},
	{Name: "proxy-not-marked", About: "what a proxy sends itself has no mark of its own", Omit: []string{"proxy-mark"},
		claims: some(matrix.Looped, "to-output")},
	{Name: "one-family", Cause: "listener-elsewhere", On: notOpenBSD, About: "the listener on :: does not hear IPv4",
		Omit:   []string{"dual-stack"},
		claims: some(matrix.NotDelivered, "inet-to-v4mapped")},
	{Name: "not-reusing", Cause: "claim-broken", On: everywhere,
		About:  "the second socket for an address of FAKE has neither SO_REUSEADDR nor SO_REUSEPORT",
		Omit:   []string{"reusing"},
		claims: some(matrix.NotOpened, "to-bind-twice")},
	{Name: "connected-elsewhere", Cause: "listener-elsewhere",
		About: "the connected socket of a diverted flow is connected to another client", Omit: []string{"connected"},
		claims: some(matrix.NotDelivered, "to-udp-connected")},
	{Name: "one-address", Cause: "listener-elsewhere", On: notOpenBSD,
		About:  "the listener on :: is bound to REMOTE's address",
		Omit:   []string{"all-addresses"},
		claims: some(matrix.NotDelivered, "to-v4mapped")},
	{Name: "port-not-shared", Cause: "claim-broken", About: "the second listener on a port has no SO_REUSEPORT",
		Omit:   []string{"shared-port"},
		claims: some(matrix.NotOpened, "to-reuseport-udp", "to-reuseport-tcp")},
	{Name: "flow-in-parts", About: "messages of one flow come from another flow's socket", Omit: []string{"whole-flow"},
		claims: some(matrix.NotDelivered, "to-reuseport-udp")},
	{Name: "client-closes-first", Cause: "state-gone", About: "the client of a diverted connection closes first",
		Omit:   []string{"server-closes"},
		claims: some(matrix.StateMissing, "to-timewait-reopen")},
	{Name: "no-raw-rules", Cause: "rule-mismatch", About: "no rule before conntrack sets a zone or keeps a flow from it",
		Omit:   []string{"raw"},
		claims: some(matrix.NotDelivered, "to-notrack", "to-conntrack-zone")},
	{Name: "no-socket-match", About: "no rule leaves established flows to their transparent sockets",
		Omit:   []string{"socket-match"},
		claims: some(matrix.NotCounted, "to-socket-transparent")},
	{Name: "claims-no-rule-back", Cause: "no-rule-back", About: "no rule takes the answers of a translated connection",
		Omit:   []string{"back"},
		claims: some(matrix.NotDelivered, "to-socket-snat")},
	{Name: "listener-elsewhere", Cause: "listener-elsewhere", On: everywhere,
		About: "the rule names the loopback address, and the listener has another", Omit: []string{"own-address"},
		claims: some(matrix.NotDelivered, "to-any-address", "to-fib")},
	{Name: "other-device", About: "the listener is bound to another interface than that of the packets",
		Omit:   []string{"device"},
		claims: some(matrix.NotDelivered, "to-device")},
	{Name: "other-exchange", On: everywhere,
		About:  "the client of a diverted connection closes it before the exchange, or its FIN does not wait",
		Omit:   []string{"exchange"},
		claims: all("", reasons{matrix.WrongData: tcps, matrix.StateMissing: {"to-tcp-close-at-once"}})},
	{Name: "reader-stays", Cause: "claim-broken", About: "the reader of a queue stays that is to end",
		Omit:   []string{"ended"},
		claims: some(matrix.NotOpened, "queue-unbind-busy")},
	{Name: "not-backwards", Cause: "claim-broken", About: "packets that are to be reinjected in reverse are in their order",
		Omit:   []string{"backwards"},
		claims: some(matrix.WrongData, "queue-out-of-order")},
	{Name: "not-repeated", About: "a packet that is to meet the rules once more is handed to another queue",
		Omit:   []string{"repeated"},
		claims: some(matrix.NotDelivered, "queue-requeue")},
	{Name: "not-requeued", About: "a packet that is to be handed to another queue meets the rules once more",
		Omit:   []string{"requeued"},
		claims: some(matrix.NotDelivered, "queue-requeue")},
	{Name: "bridge-stays", Cause: "claim-broken", About: "the bridge stays whose frame waits in a queue", Tame: true,
		Omit:   []string{"bridge-gone"},
		claims: some(matrix.NotLost, "queue-bridge")},
	{Name: "middle-no-rule", Cause: "broken-between",
		About:  "the rule between a client and a server is for no one's packets",
		Omit:   []string{"middle-rule"},
		claims: some(matrix.NotDelivered, middles...)},
	{Name: "not-taken-up", Cause: "broken-between", About: "no rule of the bridge hands its frames to the host",
		Omit:   []string{"taken-up"},
		claims: some(matrix.NotDelivered, "to-bridge", "to-bridge-netfilter")},
	{Name: "not-offloaded", Cause: "broken-between", About: "no rule has the flowtable take what is forwarded",
		Omit:   []string{"offloaded"},
		claims: some(matrix.StateMissing, "to-flowtable")},
	{Name: "other-vrf", Cause: "broken-between",
		About:  "the listener is bound to another VRF than that of the packets",
		Omit:   []string{"enslaved"},
		claims: some(matrix.NotDelivered, "to-vrf-device")},
	{Name: "no-l3mdev-accept", Cause: "broken-between",
		About:  "listeners that are bound to no VRF hear none (net.ipv4.tcp_l3mdev_accept)",
		Omit:   []string{"all-vrfs"},
		claims: some(matrix.NotDelivered, "to-vrf-any")},
	{Name: "not-cut", Cause: "claim-broken", About: "the packet role gets packets joined that came joined",
		Omit:   []string{"segments"},
		claims: some(matrix.WrongData, "queue-gro-udp", "queue-gso-tcp")},
	{Name: "little-room", On: openbsd, About: "divert sockets have room for 4,000 bytes (net.inet.divert.recvspace)",
		Remote: does(injection.LittleRoom),
		claims: some(matrix.NotDelivered, "order-in", "order-out", "reassembled", "reassembled-udp", "longest-in",
			"longest-out")},
	{Name: "little-written", On: openbsd,
		About: "divert sockets take no packets of more than 4,000 bytes (net.inet.divert.sendspace)", Remote: does(injection.LittleWritten),
		claims: some(matrix.NotReinjected, "reassembled", "reassembled-udp", "longest-in", "longest-out")},
	{Name: "allow-first", On: freebsd,
		About:  "a rule of REMOTE's own lets all packets pass before the test's rules see them",
		Remote: does(injection.AllowFirst), claims: withoutIPFW},
	{Name: "no-filter", On: freebsd, About: "REMOTE's ipfw is switched off", Remote: does(injection.NoFilter),
		claims: withoutIPFW},
	{Name: "drop-diverted", On: freebsd, About: "a rule of REMOTE's own drops what comes from divert sockets",
		Remote: does(injection.DropDiverted),
		claims: all(matrix.NotReinjected, reasons{matrix.NotDelivered: {"tcp-in", "forwarded"},
			"": slices.Concat(noQueue, besides, []string{"tee-fragments"})})},
	{Name: "little-mtu", Cause: "mtu",
		About: "REMOTE's interface takes packets of 1280 bytes, and LOCAL sends longer ones", Remote: does(injection.LittleMTU),
		claims: untested(matrix.QuestionFailed, "longest-in", "reassembled", "reassembled-udp", "full",
			"to-fragments")},
	{Name: "few-fragments", On: freebsd, About: "LOCAL puts packets of 16 fragments together, and of no more",
		Local:  does(injection.FewFragments),
		claims: untested(matrix.ControlLost, "longest-out")},
	{Name: "not-rewritten", Cause: "given-back-unchanged", On: everywhere,
		About: "the packet role gives packets back as they are", Omit: []string{"rewriting"},
		claims: all(matrix.NotRewritten, reasons{
			matrix.WrongData: {"other-length-in", "other-length-out"},
			"": slices.Concat(noQueue, []string{"no-loop-in", "no-loop-out", "ipfw-pf-in", "ipfw-pf-out",
				"pf-packet-in", "pf-packet-out", "order-in", "order-out", "reassembled", "reassembled-udp",
				"longest-in", "longest-out", "tee-fragments", "queue-gro-udp", "queue-gso-tcp",
				"queue-out-of-order", "queue-dnat-two", "to-tcp-close-at-once", "pf-tag-in",
				"pf-route-to", "pf-dup-to", "pf-rdr-in-fragments"}),
		})},
	{Name: "claims-bad-checksum", Cause: "bad-checksum", On: notOpenBSD,
		About: "the packet role of every claim leaves the checksums as they were", Omit: []string{"checksum"},
		claims: all(matrix.NotReinjected, reasons{
			// IPv6 looks at ICMP's checksum before LOCAL's socket does.
			matrix.WrongData: {"inet-divert-icmp-out", "both-icmp"},
			// What header-mended-out spoils the kernel fixes.
			"": slices.Concat(noQueue, []string{"no-loop-in", "no-loop-out", "ipfw-pf-in", "ipfw-pf-out",
				"pf-packet-in", "pf-packet-out", "reassembled", "rip-in", "rip-out", "both-rip",
				"freebsd:header-mended-out", "tee-fragments", "queue-gso-tcp", "queue-dnat-two",
				"to-tcp-close-at-once", "pf-tag-in", "pf-route-to", "pf-dup-to"}),
		})},
}

// routes are the claims about pf's route options.
var routes = []string{"pf-route-to", "pf-reply-to", "pf-dup-to"}

// routedAlone: on OpenBSD the rule without its divert does not do either what the claims about
// route options are about.
func routedAlone(otherwise func(string, matrix.Target) Want) func(string, matrix.Target) Want {
	return func(system string, t matrix.Target) Want {
		if system == "openbsd" && slices.Contains(routes, t.Claim.Name) {
			return Want{matrix.Error, matrix.ControlLost, anyCause}
		}
		return otherwise(system, t)
	}
}

// unruled: the rule takes no packet.
var unruled = routedAlone(all(matrix.NotDelivered, reasons{
	"":             slices.Concat([]string{"queue-bridge"}, middles), // whose rule is their own
	matrix.NotLost: {"no-listener-in", "no-listener-out", "counted"}, matrix.NotCounted: {"bypass"},
	matrix.NotRewritten: {"tcp-in", "tcp-out", "pf-packet-in", "pf-packet-out", "pf-cookie-in", "pf-cookie-out",
		"pf-state-in", "pf-af-to", "pf-tag-in", "pf-route-to", "pf-nat-out", "pf-reply-to", "pf-dup-to",
		"pf-match-nat-out", "pf-match-tag-in", "pf-received-on", "pf-once", "pf-max-states", "pf-pipe-in",
		"pf-forwarded-in", "pf-forwarded-out", "pf-forwarded-once"},
	matrix.WrongData: {"forwarded", "pf-forwarded"}, // the rule that is about what leaves is there
}))

// withoutIPFW: ipfw's rule takes no packet, and pf's beside it do as before.
var withoutIPFW = all(matrix.NotDelivered, reasons{
	matrix.NotLost:      {"no-listener-in", "no-listener-out", "counted"},
	matrix.NotRewritten: {"tcp-in", "tcp-out", "forwarded"},
	"":                  slices.Concat(natlook, besides),
})

// besides are the claims about the divert-to of FreeBSD's pf.
var besides = []string{"pf-packet-in", "pf-packet-out", "pf-cookie-in", "pf-cookie-out", "pf-state-in",
	"pf-rdr-in-tcp", "pf-rdr-in-udp", "pf-rdr-in-fragments", "pf-tag-in", "pf-route-to", "pf-forwarded", "pf-nat-out",
	"pf-reply-to", "pf-dup-to", "pf-pipe-in", "pf-shared-port"}

// noQueue are the claims in which no packet comes to a divert socket, and bothDiverts those
// whose divert socket has a rule besides the cell's.
var (
	natlook   = []string{"natlook-tcp", "natlook-udp"}
	redirects = []string{"redirect-tcp", "redirect-tcp-interface", "redirect-udp"}
	tos       = []string{"to-v4mapped", "to-bind-twice", "to-udp-connected", "to-reuseport-udp", "to-reuseport-tcp",
		"to-timewait-reopen", "to-fragments", "to-notrack", "to-conntrack-zone", "to-socket-transparent",
		"to-socket-snat", "to-any-address", "to-device", "to-fib", "to-output", "to-match-tag", "to-received-on",
		"to-once"}
	// middles are those whose client and server are namespaces of REMOTE's, and no hosts of the
	// run.
	middles = []string{"to-bridge", "to-bridge-netfilter", "to-flowtable", "to-vrf-device", "to-vrf-any"}
	noQueue = slices.Concat([]string{"queue-bridge", "redirect-tcp-loopback"}, natlook, redirects, tos, tcps,
		middles)
	tcps        = []string{"to-tcp-data", "to-tcp-half-closed", "to-tcp-reset", "to-tcp-urgent", "to-tcp-fast-open"}
	bothDiverts = []string{"both-tcp", "both-udp", "both-rip", "both-icmp"}
)

// reasons has, by the reason for which they fail, the names of claims, or of their targets with
// (inet-redirect-tcp) or without the family (redirect-tcp), with "SYSTEM:" before it for one
// system; those of "" pass.
type reasons map[string][]string

// some: the claims with these names fail for the reason, and no others.
func some(reason string, names ...string) func(string, matrix.Target) Want {
	return all("", reasons{reason: names})
}

// untested: the claims with these names can't be tested, for the reason, and others can.
func untested(reason string, names ...string) func(string, matrix.Target) Want {
	concerned := some(reason, names...)
	return func(system string, t matrix.Target) Want {
		w := concerned(system, t)
		if w != pass {
			w.Verdict = matrix.Error
		}
		return w
	}
}

// on: each system has its own.
func on(system map[string]func(string, matrix.Target) Want) func(string, matrix.Target) Want {
	return func(name string, t matrix.Target) Want { return system[name](name, t) }
}

// all: every claim fails for the reason, or for its own. What explains it depends on
// how far each had come.
func all(reason string, own reasons) func(string, matrix.Target) Want {
	by := map[string]string{}
	for r, names := range own {
		for _, n := range names {
			by[n] = r
		}
	}
	return func(system string, t matrix.Target) Want {
		r := reason
		for _, name := range names(system, t) {
			if own, ok := by[name]; ok {
				r = own
			}
		}
		if r == "" {
			return pass
		}
		return Want{matrix.Fail, r, anyCause}
	}
}

// names are those that a target has in reasons, the more exact ones last.
func names(system string, t matrix.Target) []string {
	of := []string{t.Kind(), t.Name}
	if t.Claim.About == "" {
		of = []string{t.Claim.Name, t.Kind(), t.Name}
	}
	for _, name := range slices.Clone(of) {
		of = append(of, system+":"+name)
	}
	return of
}

// anyCause stands for every explanation and for none; the fault's own Cause goes before it.
const anyCause = "*"
