// Package script is the language in which a test case is written: the steps that a host carries out, the
// sockets that it opens for them, what it answers, and what a run needs of a host (Host). All are
// values; nothing here makes a system call.
package script

import (
	"net/netip"

	"pfdivert/pfconf"
)

// Script is a list of steps that the agent carries out in order for one cell.
// A step that fails does not end the script; later steps of its endpoint,
// except close, are skipped and say so.
type Script struct {
	Cell  string `json:"cell"`
	Steps []Step `json:"steps"`
	// Hold: when a step did not find what it wants, the script ends before the next one that
	// closes or removes something. It and all behind it have the fault CodeHeld, and
	// End is not done.
	Hold bool `json:"hold,omitempty"`
	// End closes the cell's endpoints after the last step. Their log stays for
	// a while (see Log).
	End bool `json:"end,omitempty"`
}

// Do names what a step does.
type Do string

// The steps. Those on endpoints are methods of endpoint.Endpoint and never
// wait: they take what has arrived.
const (
	Open      Do = "open"
	Connect   Do = "connect"
	Connected Do = "connected"
	Accept    Do = "accept"
	Send      Do = "send"
	Receive   Do = "receive"
	Relay     Do = "relay"
	// Of many messages; see endpoint.Burst.
	SendBurst    Do = "sendburst"
	ReceiveBurst Do = "receiveburst"
	RelayBurst   Do = "relayburst"
	RelayAll     Do = "relayall" // all packets that wait, with Rewrites
	Turn         Do = "turn"     // the packet received last, round: Data becomes New, Near has the interface's address; see endpoint.Turn
	Drops        Do = "drops"    // what was dropped for Near's divert port and Family; see endpoint.Drops
	Rest         Do = "rest"
	CloseConn    Do = "closeconn"
	Close        Do = "close"
	Fence        Do = "fence"    // wait until the other host has processed all that was sent before
	Counters     Do = "counters" // of the rule Label
	Lookup       Do = "lookup"   // states of Flow
	Kill         Do = "kill"     // states of Flow
	Drop         Do = "drop"     // the TCP socket Near, Far; with Data it must be there
	AskNAT       Do = "natlook"  // the other side of the connection NAT
	TCPState     Do = "tcpstate" // of the TCP socket Near, Far; Data is the one expected, or Gone
)

// Clears reports whether the step closes or removes something.
func (d Do) Clears() bool {
	switch d {
	case Close, CloseConn, Drop, Kill:
		return true
	}
	return false
}

// Step is one step of a script.
type Step struct {
	Do       Do             `json:"do"`
	End      string         `json:"end,omitempty"` // the endpoint's name within the cell
	Spec     *Spec          `json:"spec,omitempty"`
	Apart    Apart          `json:"apart,omitempty"` // Open: in which process
	Data     string         `json:"data,omitempty"`
	New      string         `json:"new,omitempty"` // Relay: what replaces Data; RelayBurst: the burst's line
	Burst    *Burst         `json:"burst,omitempty"`
	Seq      uint16         `json:"seq,omitempty"`
	Family   pfconf.Family  `json:"af,omitempty"` // Fence
	Rewrites []Rewrite      `json:"rewrites,omitempty"`
	Label    string         `json:"label,omitempty"`
	Flow     *pfconf.Flow   `json:"flow,omitempty"`
	Near     netip.AddrPort `json:"near,omitzero"`
	Far      netip.AddrPort `json:"far,omitzero"`
	// NAT is what AskNAT asks for.
	NAT *pfconf.NATQuery `json:"nat,omitempty"`
	// Want is what a step of a script with Hold is to find.
	Want *Want `json:"want,omitempty"`
}

// Want is the number of messages of a Rest, or the least that Counters are.
type Want struct {
	Messages int             `json:"messages,omitempty"`
	Counters pfconf.Counters `json:"counters,omitzero"`
}

// As reports whether the outcome is as the step wants it.
func (st *Step) As(o *Outcome) bool {
	if st.Want == nil {
		return true
	}
	if c, w := o.Counters, st.Want.Counters; st.Do == Counters {
		return c != nil && c.Matched >= w.Matched && c.Done >= w.Done && c.Replies >= w.Replies && c.States >= w.States
	}
	return o.Fault == nil && len(o.Messages) == st.Want.Messages
}

// Apart says in which process a step opens its endpoint.
type Apart string

// The processes; the agent's own without one of these.
const (
	// OtherProcess is a process like the agent, with its privileges.
	OtherProcess Apart = "other"
	// Unprivileged is a process that may do nothing with the host's network that not everybody may.
	Unprivileged Apart = "unprivileged"
)

// Gone is the Data of a TCPState step that expects no socket.
const Gone = "gone"
