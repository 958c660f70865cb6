package script

import (
	"net/netip"

	"pfdivert/pfconf"
)

// Middlebox has REMOTE's kernel stand between a client and a server, each of the three in a network
// namespace of its own, and divert the client's connection to the server (Linux). A control shows
// before that it comes to the server. The rule is loaded with the run's engine. Outcome.Middle is
// what happened to the connection.
type Middlebox struct {
	// Joint is what joins the client with the server.
	Joint Joint
	// Client and Server are the ends of the connection that Rule diverts.
	Client, Server netip.AddrPort
	// Beside is another name of the server's, to which connections are not diverted.
	Beside netip.AddrPort
	Rule   pfconf.Rule
	Omit   []Piece
}

// Joint is what the middle joins its two cables by.
type Joint string

// The joints.
const (
	// Bridge is a bridge whose rules hand it what the client sends to the server. br_netfilter is
	// not asked. FilteredBridge is the same where it is: it takes what is bridged through the
	// rules of IP.
	Bridge         Joint = "bridge"
	FilteredBridge Joint = "filtered bridge"
)

// The pieces of Middlebox.
const (
	// TakenUp are the rules by which a bridge hands frames to its host.
	TakenUp Piece = "taken-up"
	// MiddleRule is that the rule is for the client's packets.
	MiddleRule Piece = "middle-rule"
)

// Middle is what happened to the connections of a Middlebox.
type Middle struct {
	Diverted Connection      `json:"diverted"`
	Counters pfconf.Counters `json:"counters"`
}

// Connection is a connection that was tried, and the lines that both ends sent.
type Connection struct {
	// At is who accepted it, "" for no one: Err says then what the client heard.
	At  Listener `json:"at,omitempty"`
	Err string   `json:"err,omitempty"`
	// Own and Peer are its ends as who accepted it sees them.
	Own  netip.AddrPort `json:"own,omitzero"`
	Peer netip.AddrPort `json:"peer,omitzero"`
	// Read is what came of the client's line, and Heard of the answer.
	Read  string `json:"read,omitempty"`
	Heard string `json:"heard,omitempty"`
}

// Listener is one that can accept a client's connection.
type Listener string

// The listeners.
const (
	AtServer Listener = "the server"
	AtProxy  Listener = "the proxy"
)

// Name names the step.
func (Middlebox) Name() string { return "middlebox" }
