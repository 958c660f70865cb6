package matrix

import (
	"slices"

	"pfdivert/matrix/script"
)

// Pieces of a cell that Options.Omit can leave out on purpose, so that a test sees
// that the cells which need them fail. Those of the packet filter and of the
// endpoints have their names there (nft.Piece, socket.Piece), those of the hosts in agent.
const (
	OwnRule      = "rule"         // the cell's rule: one for no one's packets is loaded
	TimeWaitDrop = "drop"         // the drop of sockets in TIME_WAIT
	Bypass       = "bypass"       // the rule's leave to pass when no one listens
	Rewriting    = "rewriting"    // what the packet role changes: it gives packets back as they are
	Keep         = "keep"         // that the packet role keeps a packet: it gives it back
	Privilege    = "no-privilege" // the lack of privilege of the process that must be refused
	First        = "first"        // the socket that has the divert port when a second one wants it
	Whole        = "whole"        // a long message: it is sent as many short ones
	Many         = "many"         // so many packets that there is no room for them
	Spoilt       = "spoilt"       // the spoiling of checksums and headers
	Once         = "once"         // that the client's packet is sent once: it comes twice
	// that no one listens: a divert socket keeps what comes until the claim's own is opened
	Unheard = "unheard"
	// the divert port's number: a rule diverts what is for the UDP port of the same number
	Number       = "number"
	RuleNumber   = "rule-number"   // the number of a rule behind others: it has theirs
	RulesPort    = "rules-port"    // the divert port in the rule: it names another
	Turned       = "turned"        // the address that turns a packet round: it is written to the one that it came with
	Nowhere      = "nowhere"       // an address of no interface: it is one of REMOTE's
	Order        = "order"         // the order of a burst: neighbours are sent the wrong way round
	Tuple        = "tuple"         // the client's port in the question for a translated connection: another's
	Redirected   = "redirected"    // that the client talks to FAKE: it talks to the server of a redirecting rule itself
	DualStack    = "dual-stack"    // that a listener on :: hears IPv4 too
	AllAddresses = "all-addresses" // that a listener is bound to ::: it is bound to REMOTE's own address
	Reusing      = "reusing"       // SO_REUSEADDR of a second socket for one name
	Connected    = "connected"     // the client to whom a second socket of a flow is connected: another one
	Exchange     = "exchange"      // what is sent by a diverted connection: its client closes it at once
	OwnAddress   = "own-address"   // that a rule names an address of REMOTE's own: it names the loopback address
	ProxyMarked  = "proxy-mark"    // the mark of a proxy's own socket
	BridgeGone   = "bridge-gone"   // that a bridge goes: it stays
	Device       = "device"        // the interface to which a listener is bound: another one
	SharedPort   = "shared-port"   // SO_REUSEPORT of the second listener on a port
	WholeFlow    = "whole-flow"    // that a flow's messages come from one socket: some come from another's
	ServerCloses = "server-closes" // that a diverted connection's server closes first
	Backwards    = "backwards"     // that packets are reinjected in reverse: they are in their order
	Repeated     = "repeated"      // that a packet meets the rules once more: it is handed to another queue
	Ended        = "ended"         // that a queue's reader ends: it stays
	Requeued     = "requeued"      // that a packet is handed to another queue: it meets the rules once more
	Translation  = "translation"   // that a rule of pf's translates the source
	MatchRule    = "match-rule"    // the match rule that tags, redirects or translates before a rule
	ReceivedOn   = "received-on"   // the interface by which a rule's packets come: it names another
	OneShot      = "one-shot"      // that a rule is gone with its first packet
	Limit        = "limit"         // how many states a rule may have
	Gateway      = "gateway"       // the gateway of a rule of pf's, by which packets or their copies go on
	InPipe       = "in-pipe"       // that packets go through a pipe: no rule sends them there
	Swap         = "swap"          // the swapped port in the rule of a reuse target's second cell
	Closed       = "closed"        // that a rule fails closed: it lets pass when no one listens
	Port         = "port"          // the port on which a diverted packet's server listens: another one
	Address      = "address"       // its address: REMOTE's own
)

// ownPieces are those that are left out here.
var ownPieces = []string{OwnRule, TimeWaitDrop, Swap, Bypass, Keep, Privilege, First, Whole, Many, Spoilt, Rewriting,
	Order, Tuple, Closed, Port, Address,
	Once, Unheard, Number, RulesPort, RuleNumber, Turned, Nowhere, Redirected, DualStack, AllAddresses, Reusing,
	Connected, SharedPort, WholeFlow, ServerCloses, Backwards, Repeated, Requeued, Ended,
	ProxyMarked, BridgeGone, Device, OwnAddress, Exchange, Translation,
	Gateway, MatchRule, ReceivedOn, OneShot, Limit, InPipe}

// endpointPieces are those that endpoints leave out.
var endpointPieces = []script.Piece{script.Transparent, script.Right, script.Checksum, script.Listen, script.Reader,
	script.Room, script.Segments, script.GoOn, script.Back, script.Way, script.Name}

// omitted returns the pieces that the cell's endpoints leave out. A server's ear is not a client's
// to lose.
func (x *exchange) omitted() []script.Piece {
	var some []script.Piece
	for _, p := range endpointPieces {
		if x.omit[string(p)] {
			some = append(some, p)
		}
	}
	return some
}

// agentPieces are the rest: the hosts' and the packet filter's.
func agentPieces(omit []string) []string {
	return slices.DeleteFunc(slices.Clone(omit), func(s string) bool {
		return slices.Contains(ownPieces, s) || slices.Contains(endpointPieces, script.Piece(s)) ||
			slices.Contains(middlePieces, script.Piece(s))
	})
}
