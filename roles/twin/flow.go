package twin

import (
	"fmt"
	"net/netip"
	"strings"
)

// FlowKind is what a flow stands for.
type FlowKind string

// The kinds of flows.
const (
	Client   FlowKind = "client"    // a client to a public address
	Own      FlowKind = "own"       // an ordinary program of the host to a public address
	Exempt   FlowKind = "exempt"    // a program of the host that the rules leave out, or must: the proxy's own
	Guessed  FlowKind = "guessed"   // a program that takes diverted packets, to where it may connect
	Service  FlowKind = "service"   // a client, or the internet, to an address of the host
	Asked    FlowKind = "asked"     // a client to the proxy's port itself
	Borrowed FlowKind = "borrowed"  // a program of the host with a client's address, to a service of the host
	AsClient FlowKind = "as client" // a proxy of the host with a client's address, to where the client asked for
	Given    FlowKind = "given"     // the user's own, of -flow
)

// Flow is a connection of TCP, or datagrams and their answers, to be run in a twin.
type Flow struct {
	// ID is unique among the flows of a plan, and names the flow for people:
	// "tcp lan0 192.168.1.20 -> 198.51.100.7:443".
	ID    string
	Kind  FlowKind
	Proto string // tcp, udp
	// In is the device that the client is behind, "" for a program of the host itself, and Anywhere
	// for a client that is to be given one by Config.Place.
	In string
	// From is the sender. An invalid address is chosen by the kernel, and so is port 0.
	From netip.AddrPort
	To   netip.AddrPort
	// Mark, UID and GID are those of a socket of the host itself.
	Mark     uint32
	UID, GID uint32
	// Why says what the flow was planned from, "" for the usual: "mark 0xff returns in table …".
	Why string
}

// IPv6 reports whether the flow's packets are of IPv6.
func (f Flow) IPv6() bool { return f.To.Addr().Is6() }

// Local reports whether the sender is a program of the host itself.
func (f Flow) Local() bool { return f.In == "" }

// Proxy reports whether the flow may be diverted without harm.
func (f Flow) Proxy() bool { return f.Kind == Client || f.Kind == Own || f.Kind == Given }

// Anywhere is Flow.In of a client whose device is not known.
const Anywhere = "*"

// name is the flow's ID.
func (f Flow) name() string {
	from := f.In
	switch f.In {
	case "":
		from = "host"
	case Anywhere:
		from = ""
	}
	switch {
	case !f.From.Addr().IsValid():
	case f.From.Port() == 0:
		from += " " + f.From.Addr().String()
	default:
		from += " " + f.From.String()
	}
	if f.Local() && f.Mark != 0 {
		from += fmt.Sprintf(" mark 0x%x", f.Mark)
	}
	if f.Local() && f.UID != 0 {
		from += fmt.Sprintf(" uid %d", f.UID)
	}
	if f.Local() && f.GID != 0 {
		from += fmt.Sprintf(" gid %d", f.GID)
	}
	return fmt.Sprintf("%s %s -> %v", f.Proto, strings.TrimSpace(from), f.To)
}

// FlowOutcome is what the flow's sender saw in the end.
type FlowOutcome string

// The outcomes. All but Complete are failures.
const (
	Complete FlowOutcome = "complete" // all data was answered
	Silence  FlowOutcome = "silence"  // no answer to the first packet
	Refused  FlowOutcome = "refused"  // RST to the SYN, or port unreachable
	Reset    FlowOutcome = "reset"    // RST after the connection was made
	Hang     FlowOutcome = "hang"     // the connection was made, or a datagram answered; later data was not
	NoRoute  FlowOutcome = "no route" // network or host unreachable, from a router or the own kernel
	Denied   FlowOutcome = "denied"   // the own kernel refused to send: EPERM, EACCES, EINVAL
)

// Reached is who got the flow.
type Reached string

// Who gets flows.
const (
	Nobody   Reached = ""
	AtSocket Reached = "socket"   // a stand-in of the host's sockets: Result.Socket
	Internet Reached = "internet" // a device leads there: Result.Out
	ClientAt Reached = "client"   // the flow's packets left by a device that is no uplink: Result.Out
)

// FlowResult is what happened to a flow.
type FlowResult struct {
	Flow    Flow
	Outcome FlowOutcome
	// Source is the sender's address and port as the sender knows it: a trace finds the flow by it.
	Source  netip.AddrPort
	Reached Reached
	// Socket is the stand-in's number in Config.Sockets, -1 where no stand-in got the flow.
	Socket int
	// Out is the device by which the flow left the host, "" where it did not.
	Out string
	// SeenFrom and SeenTo are the flow's addresses as its receiver saw them: getpeername, and
	// getsockname or IP_ORIGDSTADDR.
	SeenFrom, SeenTo netip.AddrPort
	// Original is SO_ORIGINAL_DST at a stand-in of TCP: other than SeenTo behind REDIRECT and DNAT.
	Original netip.AddrPort
	// Rounds is how many requests were answered, out of 3.
	Rounds int
	// Received is how many requests came to the receiver.
	Received int
	// Error is the error that ended the flow, of the sender's socket; AnswerError is that of the
	// receiver when it answered, such as "bind: address already in use".
	Error, AnswerError string
}

// OK reports whether the flow's data was all answered.
func (r FlowResult) OK() bool { return r.Outcome == Complete }

// Redirected reports whether the destination was rewritten on the way to a stand-in.
func (r FlowResult) Redirected() bool {
	return r.Reached == AtSocket && (r.Original.IsValid() && r.Original != r.SeenTo || r.SeenTo.IsValid() &&
		r.SeenTo != r.Flow.To)
}
