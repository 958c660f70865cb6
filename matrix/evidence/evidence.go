// Package evidence has what a host shows of a test case, as values: its rules with their counters,
// states, sockets, routes, protocol counters and captured packets. Nothing here asks a host; the
// agent gathers evidence with package roles/gather.
package evidence

import (
	"net/netip"
	"time"

	"pfdivert/pfconf"
)

// Record is what one host showed of one cell before the cell was closed.
type Record struct {
	Rules   []FilterRule   `json:"rules,omitempty"` // REMOTE's only
	States  []pfconf.State `json:"states,omitempty"`
	Sockets []SocketEntry  `json:"sockets,omitempty"`
	// Answers are to the questions about addresses and routes that matter for the cell.
	Answers []Answer `json:"answers,omitempty"`
	// Moved are the protocol counters of the whole host that are not what they were when the
	// run began.
	Moved []Moved `json:"moved,omitempty"`
	// Errors are the ICMP errors that the cell's sockets received, one line each.
	Errors []string `json:"errors,omitempty"`
	// Packets were captured on the host's test interface, from and to the cell's addresses.
	Packets []Packet `json:"packets,omitempty"`
	// Trace has the packets of a second run of the cell, as the kernel told of them (nftrace).
	Trace []Traced `json:"trace,omitempty"`
	// Missing says what could not be asked, and why: what is absent above was not
	// there, unless it is named here.
	Missing []string `json:"missing,omitempty"`
	// Cut: the host did not answer all questions in time, or none, or showed more than is kept.
	// What is absent above may have been there.
	Cut bool `json:"cut,omitempty"`
}

// FilterRule is a rule as the packet filter shows it, and its counters before the
// cell's packets were sent and after.
type FilterRule struct {
	Label  string           `json:"label"`
	Text   string           `json:"text"`
	Before *pfconf.Counters `json:"before,omitempty"`
	After  *pfconf.Counters `json:"after,omitempty"`
}

// SocketEntry is a line of a host's table of sockets.
type SocketEntry struct {
	Proto  string         `json:"proto"` // "tcp", "udp", "raw 254", "icmp", "divert"
	Local  netip.AddrPort `json:"local,omitzero"`
	Remote netip.AddrPort `json:"remote,omitzero"`
	State  string         `json:"state,omitempty"` // of tcp: "LISTEN", "TIME_WAIT"
	Text   string         `json:"text,omitempty"`  // more, as the system shows it
}

// Answer is what a host said when it was asked; Command asks the same by hand.
type Answer struct {
	Command string `json:"command"`
	Text    string `json:"text"`
}

// Moved is a protocol counter and by how much it grew.
type Moved struct {
	Name string `json:"name"` // "Ip: InAddrErrors", as /proc/net/snmp or netstat -s names it
	By   int64  `json:"by"`
}

// Packet is a captured packet.
type Packet struct {
	Time      time.Time `json:"time"`
	Interface string    `json:"interface"`
	// Direction is "in" or "out" as the host sees it, "" where the system does not tell.
	Direction string `json:"direction,omitempty"`
	// Link says what Data begins with: LinkEthernet, LinkRaw or LinkPflog.
	Link LinkType `json:"link"`
	// Data is the beginning of the packet, Length its length on the wire in bytes.
	Data   []byte `json:"data"`
	Length int    `json:"length"`
}

// LinkType is a link type by its number in pcap files
// (https://www.tcpdump.org/linktypes.html).
type LinkType uint16

// The link types.
const (
	LinkEthernet LinkType = 1
	LinkRaw      LinkType = 101 // begins with the IP header
	LinkPflog    LinkType = 117
)
