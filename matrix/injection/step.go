// Package injection has the steps that break a host of a lab on purpose, as hosts of people are
// broken, so that a test sees what this program says about them. Package roles/lab/inject carries
// them out.
package injection

// Step is one change to a host.
type Step string

// The steps for either host.
const (
	// FakeAside routes FAKE, or on REMOTE what comes from FAKE, by another interface.
	FakeAside Step = "fake-aside"
	// DropFake drops what comes in from FAKE or for it, where a host's own
	// filter usually does: in the input hook, after routing.
	DropFake Step = "drop-fake"
	// Twice sends each packet for FAKE twice, as a port that is mirrored does; TCP's not.
	Twice Step = "twice"
)

// The steps for LOCAL.
const (
	// NoFakeRoute takes the route to FAKE away.
	NoFakeRoute Step = "no-fake-route"
	// FewFragments has a FreeBSD host put packets of few fragments together only.
	FewFragments Step = "few-fragments"
	// FakeOnLink has that route without a gateway: LOCAL looks for FAKE on the cable.
	FakeOnLink Step = "fake-on-link"
)

// The steps for REMOTE.
const (
	// OwnFake gives REMOTE the first address of FAKE's prefix.
	OwnFake Step = "own-fake"
	// OtherMark has the policy rule look for another mark.
	OtherMark Step = "other-mark"
	// OtherMask has it look at other bits of the mark.
	OtherMask Step = "other-mask"
	// OtherTable has FAKE local in another table.
	OtherTable Step = "other-table"
	// NoRule6 takes IPv6's policy rule away.
	NoRule6 Step = "no-rule6"
	// LateRule puts the policy rule behind the main table, which has a route to FAKE.
	LateRule Step = "late-rule"
	// Martian has all addresses local in the table of marked packets and filters by reverse path,
	// with the mark.
	Martian Step = "martian"
	// Forwarding makes it a router.
	Forwarding Step = "forwarding"
	// NoInet6 disables IPv6 on the loopback interface.
	NoInet6 Step = "no-inet6"
	// Loop marks what FAKE's sockets send, in a table in which all addresses are local.
	Loop Step = "loop"
	// DropEarly drops what is for FAKE before the rules of the test see it.
	DropEarly Step = "drop-early"
	// DropPlain drops UDP for the host's own address, as a filter does that was not told of the
	// test.
	DropPlain Step = "drop-plain"
	// DropOut drops what leaves with FAKE's address, as filters against spoofing do.
	DropOut Step = "drop-out"
	// Unmark clears the mark after the rules of the test have set it.
	Unmark Step = "unmark"
	// NoTrack keeps FAKE's packets from conntrack.
	NoTrack Step = "notrack"
	// OtherZone has conntrack keep what comes in in a zone of its own.
	OtherZone Step = "other-zone"
	// Redirect translates FAKE's address to REMOTE's own, for TCP and UDP.
	Redirect Step = "redirect"
	// Masquerade translates the source address FAKE to REMOTE's own.
	Masquerade Step = "masquerade"
	// Bridged makes the interface towards LOCAL a port of a bridge that has its name and addresses,
	// and has br_netfilter take bridged packets through the rules of IP.
	Bridged Step = "bridged"
	// LittleMTU lets the interface towards LOCAL take packets of 1280 bytes at most. LOCAL does not
	// know.
	LittleMTU Step = "little-mtu"
	// LittleRoom has OpenBSD's divert sockets hold some 4,000 bytes of packets.
	LittleRoom Step = "little-room"
	// LittleWritten has them take packets of some 4,000 bytes at most.
	LittleWritten Step = "little-written"
	// AllowFirst has a rule of FreeBSD's own let all packets pass before those of the test.
	AllowFirst Step = "allow-first"
	// DropDiverted has one drop what comes from divert sockets.
	DropDiverted Step = "drop-diverted"
	// NoFilter switches FreeBSD's ipfw off.
	NoFilter Step = "no-filter"
	// OtherProxy diverts TCP and UDP for FAKE to the loopback address, whatever the port.
	OtherProxy Step = "other-proxy"
)
