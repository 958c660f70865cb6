package matrix

import (
	"net/netip"

	"pfdivert/matrix/explain"
	"pfdivert/pfconf"
)

// Mode is what diverts an exchange and how far the exchange goes. All that depends on it is in its
// value, so a new mode says everything in one place (see modes). The zero Mode is none.
type Mode struct{ *mode }

type mode struct {
	name string // the suite's
	// proves says what the run of a mode proves, for people; empty for modes that only claims have.
	proves string
	// mechanism is what diverts; ofClaims is the same where the rules are a claim's own.
	mechanism, ofClaims explain.Mechanism
	// client and server are whose addresses the flow's ends have, as the wire sees them. The client
	// is on LOCAL when it is atLocal.
	client, server end
	// sharedPort: the client talks to its own port's number at the server's address.
	sharedPort bool
	direction  pfconf.Direction
	action     pfconf.Action
	// divertsTo is the address and port that the rule names, nil when it names none.
	divertsTo func(*exchange) netip.AddrPort
	// answers: the server, or LOCAL's kernel, answers, and the answer must reach the client.
	answers bool
	// requests is how many echo requests with different ids go through one socket, 1 for other
	// exchanges.
	requests int
}

// end is whose address an end of a flow has.
type end uint8

// The ends.
const (
	atLocal end = iota + 1
	atRemote
	atFake
	// atMirror: the third host has it, which has LOCAL be the server as well.
	atMirror
)

// The modes.
var (
	// To is divert-to.
	To = Mode{&mode{
		name: "to", mechanism: explain.DivertTo, ofClaims: explain.DivertBoth,
		proves: "divert-to hands what LOCAL sends to FAKE to a socket on REMOTE's loopback, with FAKE as its destination",
		client: atLocal, server: atFake,
		direction: pfconf.In, action: pfconf.DivertTo, divertsTo: (*exchange).divertAddr, requests: 1,
	}}
	// Reply is divert-reply; nothing comes back but TCP's own packets.
	Reply = Mode{&mode{
		name: "reply", mechanism: explain.DivertReply, ofClaims: explain.PacketOut,
		proves: "divert-reply brings what belongs to a socket bound to FAKE back to it",
		client: atFake, server: atLocal,
		direction: pfconf.Out, action: pfconf.DivertReply, requests: 1,
	}}
	// ReplyTo is divert-reply, and an answer that must arrive.
	ReplyTo = Mode{&mode{
		name: "reply-to", mechanism: explain.DivertReply, ofClaims: explain.DivertReply,
		proves: "divert-reply brings LOCAL's answer to FAKE to the socket on REMOTE that is bound to it",
		client: atFake, server: atLocal,
		direction: pfconf.Out, action: pfconf.DivertReply, answers: true, requests: 1,
	}}
	// ReplyReuse is two echo requests with different ids through one socket.
	ReplyReuse = Mode{&mode{
		name: "reply-reuse", mechanism: explain.DivertReply, ofClaims: explain.DivertReply,
		proves: "one socket bound to FAKE gets the replies of two echo ids: the second needs a second state",
		client: atFake, server: atLocal,
		direction: pfconf.Out, action: pfconf.DivertReply, answers: true, requests: 2,
	}}
	// PacketIn is divert-packet on the way in.
	PacketIn = Mode{&mode{
		name: "packet-in", mechanism: explain.PacketIn, ofClaims: explain.PacketIn,
		proves: "divert-packet hands a datagram for REMOTE to the divert socket and delivers what comes back rewritten",
		client: atLocal, server: atRemote,
		direction: pfconf.In, action: pfconf.DivertPacket, divertsTo: (*exchange).divertPort, requests: 1,
	}}
	// PacketOut is divert-packet on the way out.
	PacketOut = Mode{&mode{
		name: "packet-out", mechanism: explain.PacketOut, ofClaims: explain.PacketOut,
		proves: "divert-packet hands a datagram that leaves REMOTE to the divert socket and sends on what comes back rewritten",
		client: atRemote, server: atLocal,
		direction: pfconf.Out, action: pfconf.DivertPacket, divertsTo: (*exchange).divertPort, requests: 1,
	}}
	// ToSockets is divert-to, for claims about the sockets that packets are diverted to.
	ToSockets = Mode{&mode{
		name: "to-sockets", mechanism: explain.DivertTo, ofClaims: explain.DivertTo,
		client: atLocal, server: atFake,
		direction: pfconf.In, action: pfconf.DivertTo, divertsTo: (*exchange).divertAddr, requests: 1,
	}}
	// ToOutput is divert-to of what REMOTE itself sends, for claims alone.
	ToOutput = Mode{&mode{
		name: "to-output", mechanism: explain.DivertTo, ofClaims: explain.DivertTo,
		client: atRemote, server: atLocal,
		direction: pfconf.Out, action: pfconf.DivertTo, divertsTo: (*exchange).divertAddr, requests: 1,
	}}
	// Redirect is rdr-to, for claims alone.
	Redirect = Mode{&mode{
		name: "rdr-to", mechanism: explain.Translated, ofClaims: explain.Translated,
		client: atLocal, server: atFake, sharedPort: true,
		direction: pfconf.In, action: pfconf.RdrTo, divertsTo: (*exchange).redirected, requests: 1,
	}}
)

// Forwarded is divert-packet of what REMOTE forwards between LOCAL and a third host, for claims
// alone. The third host sends TCP back to LOCAL, and may answer all else as unreachable.
var Forwarded = Mode{&mode{
	name: "forwarded", mechanism: explain.PacketIn, ofClaims: explain.PacketIn,
	client: atLocal, server: atMirror,
	direction: pfconf.In, action: pfconf.DivertPacket, divertsTo: (*exchange).divertPort, requests: 1,
}}

// modes are all modes. A test sees that each says all that it must.
var modes = []Mode{To, Reply, ReplyTo, ReplyReuse, PacketIn, PacketOut, ToSockets, ToOutput, Redirect, Forwarded}

// String returns the suite's name of the mode.
func (m Mode) String() string {
	if m.mode == nil {
		return ""
	}
	return m.name
}

// IsDivertTo reports whether a socket on REMOTE gets what LOCAL sends to FAKE.
func (m Mode) IsDivertTo() bool { return m.mechanism == explain.DivertTo }

// IsDivertReply reports whether a socket on REMOTE sends from FAKE and gets what comes back.
func (m Mode) IsDivertReply() bool { return m.mechanism == explain.DivertReply }

// IsDivertPacket reports whether packets go through a divert socket.
func (m Mode) IsDivertPacket() bool {
	return m.mechanism == explain.PacketIn || m.mechanism == explain.PacketOut
}

// Answers reports whether an answer must reach the client.
func (m Mode) Answers() bool { return m.answers }

// translates reports whether the destination is rewritten.
func (m Mode) translates() bool { return m.mechanism == explain.Translated }
