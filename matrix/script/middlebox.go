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
	// Flowtable is a router: a flowtable takes the connections that it has forwarded. One beside
	// the diverted one, to the server's other name, goes on meanwhile.
	Flowtable Joint = "flowtable"
	// VRF is a router whose interfaces are a VRF's, to which the proxy is bound; another listener
	// on the proxy's address is bound to another VRF. AnyVRF is the same with one proxy that is
	// bound to none, and the setting by which it hears all.
	VRF    Joint = "VRF"
	AnyVRF Joint = "any VRF"
)

// The pieces of Middlebox.
const (
	// TakenUp are the rules by which a bridge hands frames to its host.
	TakenUp Piece = "taken-up"
	// Offloaded is the rule by which a flowtable takes connections.
	Offloaded Piece = "offloaded"
	// Enslaved is the VRF to which the proxy is bound: the other listener is bound to it.
	Enslaved Piece = "enslaved"
	// AllVRFs is net.ipv4.tcp_l3mdev_accept.
	AllVRFs Piece = "all-vrfs"
	// MiddleRule is that the rule is for the client's packets.
	MiddleRule Piece = "middle-rule"
)

// Middle is what happened to the connections of a Middlebox.
type Middle struct {
	Diverted Connection      `json:"diverted"`
	Counters pfconf.Counters `json:"counters"`
	// Beside, of a Flowtable, is the connection that was there before the rule, as it was after
	// the diverted one; Before and After are the phases of its conntrack entry.
	Beside Connection `json:"beside,omitzero"`
	Before string     `json:"before,omitempty"`
	After  string     `json:"after,omitempty"`
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
	AtOther  Listener = "a listener in another VRF"
)

// Name names the step.
func (Middlebox) Name() string { return "middlebox" }
