package script

import (
	"net/netip"
	"time"

	"pfdivert/pfconf"
)

// Step is one step of a script. Each kind of step is a type of this file.
type Step interface {
	// Name names the kind of step in error messages.
	Name() string
}

// SocketStep is a step on one of the sockets that the script's cell has open. It never waits for a
// packet: it takes what has arrived.
type SocketStep interface {
	Step
	// On is the socket's name within the cell.
	On() string
}

// Open opens a socket under a name within the cell.
type Open struct {
	Socket string
	Spec   Socket
	// Process is where it is opened; empty for the agent's own process.
	Process Process
}

// Process says in which process a socket is opened.
type Process string

// The processes.
const (
	// OtherProcess is a process like the agent, with its privileges.
	OtherProcess Process = "other"
	// UnprivilegedProcess may do nothing with the host's network that not every user may.
	UnprivilegedProcess Process = "unprivileged"
)

// Connect begins to connect a client. Clients of all kinds but Stream are connected at once.
type Connect struct{ Socket string }

// Connected asks whether a stream client is connected. With Wait it waits so long for that, and is
// asked as well when an earlier one has found that it is not.
type Connected struct {
	Socket string
	Wait   time.Duration `json:",omitempty"`
}

// Accept takes a stream server's connection. Further ones stay for Rest to find.
type Accept struct{ Socket string }

// Send sends one message: a client to its peer, a server to whom it last received from. Seq is the
// sequence number of an echo client's request, which other kinds of sockets ignore.
type Send struct {
	Socket string
	Data   string
	Seq    uint16
}

// Receive takes one message. A divert socket holds the packet until Relay, Turn or Close.
type Receive struct{ Socket string }

// Relay takes a packet of a divert socket and reinjects it with Old in its payload replaced by New.
type Relay struct {
	Socket   string
	Old, New string
}

// RelayAll takes all packets that wait at a divert socket and reinjects each with the first of the
// rewrites that applies.
type RelayAll struct {
	Socket   string
	Rewrites []Rewrite
}

// SendBurst sends many messages.
type SendBurst struct {
	Socket string
	Burst  Burst
}

// ReceiveBurst takes what has arrived and compares it with a burst.
type ReceiveBurst struct {
	Socket string
	Burst  Burst
}

// RelayBurst has a divert socket take what waits, compare it with a burst and reinject each packet
// with Line in place of the burst's line.
type RelayBurst struct {
	Socket string
	Burst  Burst
	Line   string
}

// Pour has a stream write a burst, without bounds between the messages, from the byte with the
// number From on, as far as its socket takes it. Outcome.Count is how many bytes of the burst it
// has taken.
type Pour struct {
	Socket string
	Burst  Burst
	From   int
}

// Shutdown ends what a stream sends and lets it receive on.
type Shutdown struct{ Socket string }

// Reset ends a stream's connection by a reset.
type Reset struct{ Socket string }

// SendUrgent sends a byte of urgent data, and ReceiveUrgent takes one.
type (
	SendUrgent struct {
		Socket string
		Data   string
	}
	ReceiveUrgent struct{ Socket string }
)

// FastOpen begins to connect a stream client by a SYN that has data, without a cookie (Linux).
type FastOpen struct {
	Socket string
	Data   string
}

// KeepBurst has a divert socket take what waits, compare it with a burst and keep it for
// FreeBurst.
type KeepBurst struct {
	Socket string
	Burst  Burst
}

// FreeBurst has a divert socket reinject so many of the packets that it keeps, rewritten: the
// oldest ones, in the order in which they came, or the newest ones, the last first (Linux).
type FreeBurst struct {
	Socket      string
	Count       int
	NewestFirst bool
	Rewrite     Rewrite
}

// HandOn has a divert socket give the packet that it holds to the netfilter queue with the number
// Port, or with 0 back to the rules, which it meets once more (Linux).
type HandOn struct {
	Socket string
	Port   uint16
}

// Turn has a divert socket reinject the packet that it holds as an answer to itself: source and
// destination are exchanged, and Old in its payload is replaced by New. In is an address of the
// interface by which it is to come in, the unspecified one for a packet that is to leave.
type Turn struct {
	Socket   string
	Old, New string
	In       netip.Addr
}

// Rest takes all that still waits at a socket: messages, and connections that no one accepted.
type Rest struct {
	Socket string
	// Want, if not nil, is how many messages there are to be; see Script.Hold.
	Want *int
	// Wait is how long to wait for the first one, as a packet needs that no fence waits for.
	Wait time.Duration `json:",omitempty"`
}

// CloseConn closes a stream's connection and keeps a server's listener.
type CloseConn struct{ Socket string }

// Close closes a socket.
type Close struct{ Socket string }

// Fence waits until the other host has processed all that was sent before, in one family.
type Fence struct {
	Family pfconf.Family
	// Beyond: the host is the family's of Setup.Beyond, and REMOTE has forwarded it there.
	Beyond bool
}

// Counters asks for the counters of the rule with the label.
type Counters struct {
	Label string
	// Want, if not nil, is the least that they are to be; see Script.Hold.
	Want *pfconf.Counters
}

// Lookup asks for the states of a flow.
type Lookup struct{ Flow pfconf.Flow }

// Kill removes the states of a flow.
type Kill struct{ Flow pfconf.Flow }

// DropTCP drops the TCP socket with these names, as tcpdrop(8) does.
type DropTCP struct {
	Near, Far netip.AddrPort
	// Expected: the socket must be there, and is looked for again for a while.
	Expected bool
}

// TCPState asks for the state of the TCP socket with these names.
type TCPState struct {
	Near, Far netip.AddrPort
	// State, if not empty, is the one expected, or Gone: it is asked for again for a while.
	State string
}

// Gone is TCPState's state of a socket that is not there.
const Gone = "gone"

// BridgeGoes has a frame wait in a netfilter queue while the bridge to which it came is removed,
// and released then, in a network namespace of its own. Stays leaves the bridge. The outcome's text
// is Lost, or Arrived when it came to the bridge's other port (Linux).
type BridgeGoes struct{ Stays bool }

// Pipe has a pipe of dummynet(4) let packets through, or, Lossy, lose them all (FreeBSD).
type Pipe struct {
	Number uint16
	Lossy  bool
}

// What happens to a packet.
const (
	Lost    = "lost"
	Arrived = "arrived"
)

// Undelivered asks what was dropped that was to come to a divert port of a family.
type Undelivered struct {
	Family pfconf.Family
	Port   uint16
}

// Natlook asks for the other side of a translated connection, as pf's DIOCNATLOOK does.
type Natlook struct{ Query pfconf.NATQuery }

// OriginalDst asks the kernel whom a redirected connection of a server was meant for, by the
// socket's own option (SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST, Linux alone). Outcome.Peer is the
// answer.
type OriginalDst struct{ Socket string }

// Clears reports whether a step closes or removes something.
func Clears(s Step) bool {
	switch s.(type) {
	case Close, CloseConn, DropTCP, Kill:
		return true
	}
	return false
}

// Satisfied reports whether the step found what it wants.
func Satisfied(s Step, o *Outcome) bool {
	switch s := s.(type) {
	case Counters:
		c, w := o.Counters, s.Want
		return w == nil || c != nil && c.Matched >= w.Matched && c.Done >= w.Done && c.Replies >= w.Replies &&
			c.States >= w.States
	case Rest:
		return s.Want == nil || o.Err == nil && len(o.Messages) == *s.Want
	}
	return true
}

func (Open) Name() string          { return "open" }
func (Connect) Name() string       { return "connect" }
func (Connected) Name() string     { return "connected" }
func (Accept) Name() string        { return "accept" }
func (Send) Name() string          { return "send" }
func (Receive) Name() string       { return "receive" }
func (Relay) Name() string         { return "relay" }
func (RelayAll) Name() string      { return "relayall" }
func (SendBurst) Name() string     { return "sendburst" }
func (ReceiveBurst) Name() string  { return "receiveburst" }
func (RelayBurst) Name() string    { return "relayburst" }
func (Pour) Name() string          { return "pour" }
func (Shutdown) Name() string      { return "shutdown" }
func (Reset) Name() string         { return "reset" }
func (SendUrgent) Name() string    { return "sendurgent" }
func (ReceiveUrgent) Name() string { return "receiveurgent" }
func (FastOpen) Name() string      { return "fastopen" }
func (KeepBurst) Name() string     { return "keepburst" }
func (FreeBurst) Name() string     { return "freeburst" }
func (HandOn) Name() string        { return "handon" }
func (Turn) Name() string          { return "turn" }
func (Rest) Name() string          { return "rest" }
func (CloseConn) Name() string     { return "closeconn" }
func (Close) Name() string         { return "close" }
func (Fence) Name() string         { return "fence" }
func (Counters) Name() string      { return "counters" }
func (Lookup) Name() string        { return "lookup" }
func (Kill) Name() string          { return "kill" }
func (DropTCP) Name() string       { return "drop" }
func (TCPState) Name() string      { return "tcpstate" }
func (BridgeGoes) Name() string    { return "bridge" }
func (Pipe) Name() string          { return "pipe" }
func (Undelivered) Name() string   { return "drops" }
func (Natlook) Name() string       { return "natlook" }
func (OriginalDst) Name() string   { return "originaldst" }

func (s Connect) On() string       { return s.Socket }
func (s Connected) On() string     { return s.Socket }
func (s Accept) On() string        { return s.Socket }
func (s Send) On() string          { return s.Socket }
func (s Receive) On() string       { return s.Socket }
func (s Relay) On() string         { return s.Socket }
func (s RelayAll) On() string      { return s.Socket }
func (s SendBurst) On() string     { return s.Socket }
func (s ReceiveBurst) On() string  { return s.Socket }
func (s RelayBurst) On() string    { return s.Socket }
func (s Pour) On() string          { return s.Socket }
func (s Shutdown) On() string      { return s.Socket }
func (s Reset) On() string         { return s.Socket }
func (s SendUrgent) On() string    { return s.Socket }
func (s ReceiveUrgent) On() string { return s.Socket }
func (s FastOpen) On() string      { return s.Socket }
func (s KeepBurst) On() string     { return s.Socket }
func (s FreeBurst) On() string     { return s.Socket }
func (s HandOn) On() string        { return s.Socket }
func (s Turn) On() string          { return s.Socket }
func (s Rest) On() string          { return s.Socket }
func (s CloseConn) On() string     { return s.Socket }
func (s Close) On() string         { return s.Socket }
func (s OriginalDst) On() string   { return s.Socket }
