// Package injection has the steps that break a host of a lab on purpose, as hosts of people are
// broken, so that a test sees what this program says about them. Package roles/lab/inject carries
// them out.
package injection

// Action is one change to a host.
type Action string

// The steps for either host.
const (
	// FakeAside routes FAKE, or on REMOTE what comes from FAKE, by another interface.
	FakeAside Action = "fake-aside"
	// DropFake drops what comes in from FAKE or for it, where a host's own
	// filter usually does: in the input hook, after routing.
	DropFake Action = "drop-fake"
	// Twice sends each packet for FAKE twice, as a port that is mirrored does; TCP's not.
	Twice Action = "twice"
)

// The steps for LOCAL.
const (
	// NoFakeRoute takes the route to FAKE away.
	NoFakeRoute Action = "no-fake-route"
	// FewFragments has a FreeBSD host put packets of few fragments together only.
	FewFragments Action = "few-fragments"
	// FakeOnLink has that route without a gateway: LOCAL looks for FAKE on the cable.
	FakeOnLink Action = "fake-on-link"
)

// The steps for REMOTE.
const (
	// OwnFake gives REMOTE the first address of FAKE's prefix.
	OwnFake Action = "own-fake"
	// OtherMark has the policy rule look for another mark.
	OtherMark Action = "other-mark"
	// OtherMask has it look at other bits of the mark.
	OtherMask Action = "other-mask"
	// OtherTable has FAKE local in another table.
	OtherTable Action = "other-table"
	// NoRule6 takes IPv6's policy rule away.
	NoRule6 Action = "no-rule6"
	// LateRule puts the policy rule behind the main table, which has a route to FAKE.
	LateRule Action = "late-rule"
	// Martian has all addresses local in the table of marked packets and filters by reverse path,
	// with the mark.
	Martian Action = "martian"
	// Forwarding makes it a router.
	Forwarding Action = "forwarding"
	// NoInet6 disables IPv6 on the loopback interface.
	NoInet6 Action = "no-inet6"
	// Loop marks what FAKE's sockets send, in a table in which all addresses are local.
	Loop Action = "loop"
	// DropEarly drops what is for FAKE before the rules of the test see it.
	DropEarly Action = "drop-early"
	// DropPlain drops UDP for the host's own address, as a filter does that was not told of the
	// test.
	DropPlain Action = "drop-plain"
	// DropOut drops what leaves with FAKE's address, as filters against spoofing do.
	DropOut Action = "drop-out"
	// Unmark clears the mark after the rules of the test have set it.
	Unmark Action = "unmark"
	// NoTrack keeps FAKE's packets from conntrack.
	NoTrack Action = "notrack"
	// OtherZone has conntrack keep what comes in in a zone of its own.
	OtherZone Action = "other-zone"
	// Redirect translates FAKE's address to REMOTE's own, for TCP and UDP.
	Redirect Action = "redirect"
	// Masquerade translates the source address FAKE to REMOTE's own.
	Masquerade Action = "masquerade"
	// Bridged makes the interface towards LOCAL a port of a bridge that has its name and addresses,
	// and has br_netfilter take bridged packets through the rules of IP.
	Bridged Action = "bridged"
	// BridgedPlain is Bridged without br_netfilter.
	BridgedPlain Action = "bridged-plain"
	// LittleMTU lets the interface towards LOCAL take packets of 1280 bytes at most. LOCAL does not
	// know.
	LittleMTU Action = "little-mtu"
	// LittleRoom has OpenBSD's divert sockets hold some 4,000 bytes of packets.
	LittleRoom Action = "little-room"
	// LittleWritten has them take packets of some 4,000 bytes at most.
	LittleWritten Action = "little-written"
	// SkipLoopback has OpenBSD's pf not see the packets of lo0, as with `set skip on lo0`. On
	// FreeBSD it does nothing.
	SkipLoopback Action = "skip-loopback"
	// NotForwarding breaks nothing: it is refused by an OpenBSD that forwards packets, which goes
	// on with what another host would lose.
	NotForwarding Action = "not-forwarding"
	// AllowFirst has a rule of FreeBSD's own let all packets pass before those of the test.
	AllowFirst Action = "allow-first"
	// DropDiverted has one drop what comes from divert sockets.
	DropDiverted Action = "drop-diverted"
	// NoFilter switches FreeBSD's ipfw off.
	NoFilter Action = "no-filter"
	// OtherProxy diverts TCP and UDP for FAKE to the loopback address, whatever the port.
	OtherProxy Action = "other-proxy"
)
