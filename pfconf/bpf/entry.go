// Package bpf diverts with programs of BPF at the ingress and egress of interfaces (tc-bpf(8)), as
// Cilium and dae do. The programs are the same for all rules: they look a packet's addresses,
// protocol and port up in a map, whose entries are the rules.
//
// A divert-to entry gives a TCP or UDP packet to the socket that listens at its address
// (bpf_sk_assign), and the mark sends it to a routing table in which the diverted prefix is local.
// A divert-reply entry at the egress remembers the flow, and the one at the ingress marks what
// comes back.
//
// A Look entry is of a program of another kind: it has the kernel take the socket that listens
// at the entry's address for a packet to an address that is this host's own (bpf-sk_lookup).
//
// The programs are assembled by github.com/cilium/ebpf, and only in a build with the tag bpf.
package bpf

import (
	"errors"
	"fmt"
	"net/netip"

	"pfdivert/pfconf"
)

// ErrNotBuilt is the error of a build without the tag bpf.
var ErrNotBuilt = errors.New("this build of pfdivert has no programs of BPF")

// Kind is what an entry is about. The programs look for the kinds in turn.
type Kind uint8

// The kinds. The numbers stand in the map's keys.
const (
	To   Kind = iota + 1 // ingress: what comes to the entry's port is diverted
	Back                 // ingress: what comes from the entry's port answers a flow of this host
	Out                  // egress: what goes to the entry's port is a flow to remember
	Echo                 // egress: the kernel's own ICMPv6 echo replies are dropped
	Look                 // the kernel looks for a socket for what comes to the entry's port
)

// Entry is one of the map of rules.
type Entry struct {
	Kind     Kind
	Family   pfconf.Family
	Proto    pfconf.Proto
	From, To netip.Addr
	Port     uint16 // 0 for protocols without ports
	// Interface is the name and Index the number of the interface by which packets must come;
	// with 0 any will do.
	Interface string
	Index     int
	// Divert is the listener of a To entry. Without it packets are marked alone.
	Divert netip.AddrPort
	Mark   uint32 // the mark to set, if not 0
	// Established has a To entry count what comes for a socket of its own apart.
	Established bool
	Remember    bool // an Out entry, and a To entry, make a flow that a Back entry finds
	OwnFlows    bool // a Back entry is about flows alone that this host began
}

// Counters are an entry's.
type Counters struct {
	Matched uint64
	Done    uint64 // those that a socket took, or whose flow is remembered
	Own     uint64 // with Entry.Established, those for a socket of their own, which Matched has not
}

// Flow is one that a Back entry knows. Ports are an echo's id for ICMP, and 0 for other
// protocols without ports.
type Flow struct {
	Number    uint8          // of the protocol
	Near, Far netip.AddrPort // Near is the diverted address
}

// String shows the entry as a sentence of what the program does. No tool of the system's shows it
// but as bytes (bpftool map dump).
func (e Entry) String() string {
	ip, came, port, does := "ip", "", "", ""
	if e.Family == pfconf.Inet6 {
		ip = "ip6"
	}
	if e.Interface != "" {
		came = fmt.Sprintf("iifname %q ", e.Interface)
	}
	hook, way := "tc ingress", "dport"
	switch e.Kind {
	case Look:
		hook = "sk_lookup"
	case Back:
		way, does = "sport", " of a remembered flow"
		if e.OwnFlows {
			does += " that this host began"
		}
	case Out, Echo:
		hook = "tc egress"
	}
	switch {
	case e.Kind == Echo:
		port, does = " icmpv6 type echo-reply", " drop"
	case e.Proto.HasPorts():
		port = fmt.Sprintf(" %v %s %d", e.Proto, way, e.Port)
	default:
		port = fmt.Sprintf(" l4proto %d", e.Proto.Number(e.Family))
	}
	if e.Established {
		does += " not for a socket of its own"
	}
	if e.Divert.IsValid() {
		does += fmt.Sprintf(" sk_assign %v", e.Divert)
	}
	if e.Mark != 0 {
		does += fmt.Sprintf(" skb->mark = 0x%x", e.Mark)
	}
	if e.Remember {
		does += " remember the flow"
	}
	return fmt.Sprintf("%s: %s%s saddr %v %s daddr %v%s%s", hook, came, ip, e.From, ip, e.To, port, does)
}

// Config is what programs are loaded for.
type Config struct {
	// NoAssign has the kernel asked for a helper in bpf_sk_assign's place that it does not have.
	NoAssign bool
	// Detached leaves the program of a Lookup unattached.
	Detached bool
	// NoSocks leaves its map of listeners empty.
	NoSocks bool
}
