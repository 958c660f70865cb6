package twin

import (
	"fmt"
	"net/netip"
	"strings"
)

// FlowPath is what the kernel told of a flow's packets, in the order in which it met them.
type FlowPath struct {
	Flow    string // Flow.ID
	Packets []PacketPath
	// Counters are those of /proc/net/{snmp,snmp6,netstat} that the flow changed, such as
	// "UdpNoPorts": no one else sends in a twin.
	Counters map[string]int64
}

// PacketPath is one packet's way through the twin.
type PacketPath struct {
	Proto    string         // tcp, udp
	From, To netip.AddrPort // as it came or was sent
	Flags    string         // of TCP: "SYN", "SYN+ACK", "ACK", "PSH+ACK"; "" for UDP
	Answer   bool           // from the flow's server to its client
	Hops     []Hop
	// Route is what the kernel answers when it is asked where such a packet goes: "unicast, table
	// main, dev wan0", or its error.
	Route string

	routeType byte // RTN_*
}

// Hop is a rule that a packet matched, or the end of a base chain.
type Hop struct {
	Hook   string // prerouting, input, forward, output, postrouting
	Family string // of the table: ip, ip6, inet
	Table  string
	Chain  string
	Legacy bool   // of iptables-legacy or ip6tables-legacy
	Handle uint64 // of the host's rule; 0 for a policy and for rules of legacy
	Number int    // of the rule in its chain, from 1; 0 for a policy
	// Rule is the rule as its own tool writes it, "policy accept" or "policy drop".
	Rule     string
	Verdict  string // accept, drop, continue, return, jump CHAIN, goto CHAIN, queue, stolen
	Mark     uint32 // behind the rule
	In, Out  string // names of devices, "" for none
	From, To netip.AddrPort

	own      bool  // of the table that has packets traced
	priority int32 // of the base chain
}

// Dropped reports whether the packet ended there.
func (h Hop) Dropped() bool { return h.Verdict == "drop" }

// Name says which packet it is: "SYN to 203.0.113.9:80".
func (p PacketPath) Name() string {
	name := p.Flags
	if p.Proto == "udp" {
		name = "datagram"
	}
	return strings.TrimSpace(fmt.Sprintf("%s to %v", name, p.To))
}
