package evidence

import (
	"net/netip"

	"pfdivert/pfconf"
)

// Diversion is a rule of a host, whoever's it is, that hands packets to a program.
type Diversion struct {
	Kind Kind `json:"kind"`
	// Rule says where the rule is: "table ip proxy chain pre", "rule 3 of anchor regress".
	Rule string `json:"rule"`
	// Families are those that the rule applies to; Proto is "tcp" or "udp", "" when the rule does
	// not say or says several.
	Families []pfconf.Family `json:"families"`
	Proto    string          `json:"proto,omitempty"`
	// Interface is the one by which the packets come, "" when the rule does not say.
	Interface string `json:"interface,omitempty"`
	// Interfaces are those of the host's by which packets come that the rule takes; on Linux.
	Interfaces []string `json:"interfaces,omitempty"`
	// Address and Port are where the packets go: an invalid address is the one of the interface
	// or the packet's own, port 0 the packet's own.
	Address netip.Addr `json:"address,omitzero"`
	Port    uint16     `json:"port,omitempty"`
	// Mark is what the packets have when they are routed, 0 for nothing. MarkUnknown: rules do with
	// it what can't be followed.
	Mark        uint32 `json:"mark,omitempty"`
	MarkUnknown bool   `json:"markUnknown,omitempty"`
	// Ports: it takes packets to more ports than one.
	Ports bool `json:"ports,omitempty"`
	// Queue and Last are the first and the last number of the queues; Bypass: packets pass when
	// no one listens there.
	Queue  uint16 `json:"queue,omitempty"`
	Last   uint16 `json:"last,omitempty"`
	Bypass bool   `json:"bypass,omitempty"`
	// Table is the routing table or domain that it hands packets to, "" for the usual one.
	Table string `json:"table,omitempty"`
	// Firewall is whose rule it is, "" for the survey's.
	Firewall string `json:"firewall,omitempty"`
	// Unreached says why the filter never looks at the rule, "" when it does.
	Unreached string `json:"unreached,omitempty"`
	// Fix is the command that changes that, where it is a particular one.
	Fix string `json:"fix,omitempty"`
	// Unseen says why it is not known who takes the packets, "" when it is.
	Unseen string `json:"unseen,omitempty"`
	// Overruled are rules that decide in its place, or undo what it does.
	Overruled []Overruling `json:"overruled,omitempty"`
}

// Overruling is what another rule does to packets of a family that one diverts.
type Overruling struct {
	Family pfconf.Family `json:"family"`
	Rule   string        `json:"rule"` // where it is, and its text
	Does   Deed          `json:"does"`
	Before bool          `json:"before"` // it is evaluated before
	All    bool          `json:"all"`    // it takes all of the rule's packets, else some of them
}

// Deed is what a rule does to packets that another one diverts.
type Deed string

// The deeds.
const (
	Drops       Deed = "drops"
	Passes      Deed = "passes"
	Clears      Deed = "clears the mark"
	Translates  Deed = "translates"
	Untracks    Deed = "does not track"
	Loops       Deed = "diverts what the proxy sends"
	DropsAnswer Deed = "drops the answer"
	Refuses     Deed = "drops what was translated"
	LacksNIC    Deed = "names an interface that is not there"
	Unowned     Deed = "asks for the owner of a socket that is not there"
	PFLoops     Deed = "has pf forget that ipfw has diverted the packet"
	PFLoses     Deed = "is lost when the packet was diverted"
)

// DivertsTo is the address and port for a family; without an address of the rule's the unspecified
// one.
func (d Diversion) DivertsTo(f pfconf.Family) netip.AddrPort {
	a := d.Address
	if !a.IsValid() {
		if a = netip.IPv4Unspecified(); f == pfconf.Inet6 {
			a = netip.IPv6Unspecified()
		}
	}
	return netip.AddrPortFrom(a, d.Port)
}

// Kind is how a rule diverts.
type Kind string

// The kinds, by the words of nft(8), pf.conf(5) and ipfw(8). Divert is pf's divert-packet and
// ipfw's divert and tee, which have the divert port as their queue.
const (
	TProxy      Kind = "tproxy"
	Redirect    Kind = "redirect" // the destination is translated
	Queue       Kind = "queue"
	OfSocket    Kind = "socket" // marks what belongs to a transparent socket
	Marks       Kind = "mark"   // marks packets that are local then
	DivertTo    Kind = "divert-to"
	DivertReply Kind = "divert-reply"
	RdrTo       Kind = "rdr-to" // the destination is translated
	Fwd         Kind = "fwd"
	Divert      Kind = "divert"
)

// Listener is a socket that could get diverted packets.
type Listener struct {
	Proto string         `json:"proto"` // "tcp", listening, or "udp", not connected
	At    netip.AddrPort `json:"at"`
	// Only6 is an IPv6 socket that takes no IPv4.
	Only6 bool `json:"only6,omitempty"`
	// Transparent: IP_TRANSPARENT was set; known since Linux 5.10.
	Transparent bool `json:"transparent"`
	Known       bool `json:"known"`
	// UID is the user that it belongs to, on Linux.
	UID uint32 `json:"uid,omitempty"`
}

// Takes reports whether the socket is for packets of a family.
func (l Listener) Takes(f pfconf.Family) bool {
	a := l.At.Addr()
	if a.Is6() && a.IsUnspecified() && !l.Only6 {
		return true
	}
	return pfconf.FamilyOf(a) == f
}
