// Package pfconf has the rules, counters and states of a packet filter as
// values, independent of the system that they are loaded on, and the Firewall
// that takes and gives them. Its folders render the values for pf (pfctl) and
// for nftables (netlink).
package pfconf

import (
	"fmt"
	"net/netip"
	"regexp"
)

// Family is an address family, by pf.conf's names.
type Family uint8

// The families. The numbers are the IP versions.
const (
	Inet  Family = 4
	Inet6 Family = 6
)

// Families lists both, in the order in which reports show them.
var Families = []Family{Inet, Inet6}

var familyNames = map[Family]string{Inet: "inet", Inet6: "inet6"}

// FamilyOf returns the family of an address.
func FamilyOf(a netip.Addr) Family {
	if a.Is4() {
		return Inet
	}
	return Inet6
}

func (f Family) String() string { return nameOf(familyNames, f) }

// MarshalText writes pf.conf's name.
func (f Family) MarshalText() ([]byte, error) { return marshalName(familyNames, f, "family") }

// UnmarshalText reads pf.conf's name.
func (f *Family) UnmarshalText(b []byte) error { return unmarshalName(familyNames, f, b, "family") }

// Loopback is the address that a divert-to rule of the family delivers to.
func (f Family) Loopback() netip.Addr {
	if f == Inet {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.IPv6Loopback()
}

// Other is the other family.
func (f Family) Other() Family {
	if f == Inet {
		return Inet6
	}
	return Inet
}

// Unspecified is the family's address that means none or any.
func (f Family) Unspecified() netip.Addr {
	if f == Inet {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// Proto is one of the four protocols of the suite.
type Proto uint8

// The protocols.
const (
	TCP  Proto = iota + 1
	UDP        //
	Raw        // raw IP, protocol RawNumber
	ICMP       // ICMP echo, on Inet6 ICMPv6 echo
)

// RawNumber is the protocol of the raw IP cells: "use for experimentation and
// testing" (RFC 3692).
const RawNumber = 254

// rip is what OpenBSD's suite calls raw IP in the names of its targets.
var protoNames = map[Proto]string{TCP: "tcp", UDP: "udp", Raw: "rip", ICMP: "icmp"}

func (p Proto) String() string { return nameOf(protoNames, p) }

// MarshalText writes the suite's name.
func (p Proto) MarshalText() ([]byte, error) { return marshalName(protoNames, p, "protocol") }

// UnmarshalText reads the suite's name.
func (p *Proto) UnmarshalText(b []byte) error { return unmarshalName(protoNames, p, b, "protocol") }

// Number is the protocol's number in an IP header of the family.
func (p Proto) Number(f Family) int {
	switch {
	case p == TCP:
		return 6
	case p == UDP:
		return 17
	case p == ICMP && f == Inet:
		return 1
	case p == ICMP:
		return 58
	}
	return RawNumber
}

// HasPorts reports whether the protocol's flows are told apart by ports.
func (p Proto) HasPorts() bool { return p == TCP || p == UDP }

// Action is what a rule does with the packets that it matches.
type Action uint8

// The actions, by pf.conf's names.
const (
	DivertTo     Action = iota + 1 // deliver to the socket at Rule.Divert
	DivertReply                    // deliver the replies to the socket that sent
	DivertPacket                   // hand each packet to the divert socket at Rule.Divert's port
	RdrTo                          // translate the destination to Rule.Divert, an address of this host
	PFDivertTo                     // as DivertPacket, by the divert-to of FreeBSD's pf, which stands beside ipfw
	PFPass                         // let pass and count what leaves by Rule.Interface, in pf
	ThroughPipe                    // send through dummynet's pipe Rule.Pipe, and on (ipfw)
)

var actionNames = map[Action]string{
	DivertTo: "divert-to", DivertReply: "divert-reply", DivertPacket: "divert-packet", RdrTo: "rdr-to",
	PFDivertTo: "pf-divert-to", PFPass: "pf-pass", ThroughPipe: "pipe",
}

func (a Action) String() string { return nameOf(actionNames, a) }

// MarshalText writes pf.conf's name.
func (a Action) MarshalText() ([]byte, error) { return marshalName(actionNames, a, "action") }

// UnmarshalText reads pf.conf's name.
func (a *Action) UnmarshalText(b []byte) error { return unmarshalName(actionNames, a, b, "action") }

// Direction is the way that a packet takes through the filter.
type Direction uint8

// The directions, seen from the host that filters.
const (
	In  Direction = iota + 1
	Out           //
)

var directionNames = map[Direction]string{In: "in", Out: "out"}

func (d Direction) String() string { return nameOf(directionNames, d) }

// MarshalText writes pf.conf's name.
func (d Direction) MarshalText() ([]byte, error) { return marshalName(directionNames, d, "direction") }

// UnmarshalText reads pf.conf's name.
func (d *Direction) UnmarshalText(b []byte) error {
	return unmarshalName(directionNames, d, b, "direction")
}

// Rule diverts one flow: pass DIR log FAMILY proto PROTO from From to To port
// Port ACTION label Label.
type Rule struct {
	Label     string     `json:"label"` // unique in the set; see ValidLabel
	Direction Direction  `json:"dir"`
	Family    Family     `json:"af"`
	Proto     Proto      `json:"proto"`
	From      netip.Addr `json:"from"`
	To        netip.Addr `json:"to"`
	// Port is the flow's destination port, 0 for protocols that have none.
	Port   uint16 `json:"port,omitempty"`
	Action Action `json:"action"`
	// Divert is where a divert-to rule delivers (address and port; the port of
	// a protocol without ports means nothing and is 1 in pf.conf); a divert-packet
	// rule has the divert port here, with no address or the unspecified one; an rdr-to
	// rule the new destination, with the unspecified address the one of the interface by which the
	// packet came (nftables only).
	Divert netip.AddrPort `json:"divert,omitzero"`
	// Both has a divert-packet rule divert what answers the flow as well. On pf
	// every rule does: the answers belong to its state.
	Both bool `json:"both,omitempty"`
	// Bypass has a divert-packet rule let packets pass when no one listens on the
	// divert port. nftables only.
	Bypass bool `json:"bypass,omitempty"`
	// Tee has a divert-packet rule deliver a copy of each packet, which goes its way. ipfw only.
	Tee bool `json:"tee,omitempty"`
	// Untracked has a divert-to rule be about packets that conntrack does not see, nor their
	// answers. nftables only, as those below up to Established.
	Untracked bool `json:"untracked,omitempty"`
	// Zone, if not 0, is the conntrack zone of a divert-to rule's packets and of their answers.
	Zone uint16 `json:"zone,omitempty"`
	// Established has a divert-to rule deliver to Divert only what belongs to no socket yet. The
	// transparent socket of a connection gets the rest, by itself.
	Established bool `json:"established,omitempty"`
	// Translated, if valid, is the address, one of this host's own, to which a rule translates the
	// source: a divert-reply rule, the answers of which are known by the transparent socket that
	// they belong to, or a pf-divert-to rule about what leaves that keeps a state.
	Translated netip.Addr `json:"translated,omitzero"`
	// Pipe is the pipe of FreeBSD's dummynet(4) that a rule with that action sends its packets
	// through, or a pf-divert-to rule that keeps a state those that come back.
	Pipe uint16 `json:"pipe,omitempty"`
	// Number is the number of a divert-packet or pipe rule where that matters. ipfw only.
	Number uint16 `json:"number,omitempty"`
	// Keep has a pf-divert-to rule keep a state. The packets of the state are diverted too.
	Keep bool `json:"keep,omitempty"`
	// Redirected, if valid, is where a pf-divert-to rule that keeps a state has its packets
	// redirected to before they meet it.
	Redirected netip.AddrPort `json:"redirected,omitzero"`
	// Tag is what a pf-divert-to rule that keeps a state tags its packets with, and what the
	// packets of another rule must be tagged with. It is as a label is.
	Tag string `json:"tag,omitempty"`
	// Gateway, if valid, is where a pf-divert-to rule that keeps a state, or a divert-packet rule
	// of OpenBSD's pf, has packets sent on to, in place of where the routing table leads. Routing
	// says which packets.
	Gateway netip.Addr `json:"gateway,omitzero"`
	Routing Routing    `json:"routing,omitempty"`
	// Interface is the one towards Gateway, which a pf-divert-to rule names, or by which the
	// packets of a pf-pass rule leave.
	Interface string `json:"interface,omitempty"`
	// Match has a match rule before a divert-packet rule redirect or translate in its place, or
	// one before a divert-packet or divert-to rule set the tag that the rule asks for. OpenBSD's
	// pf only, as what follows; so are Tag, Redirected and Translated of these rules.
	Match bool `json:"match,omitempty"`
	// Received, if not empty, is the interface by which the packets must have come.
	Received string `json:"received,omitempty"`
	// Once has the rule be there for the first packet alone, and for the state that it makes.
	Once bool `json:"once,omitempty"`
	// Most is how many states the rule may have at a time, 0 for any number.
	Most int `json:"most,omitempty"`
	// OtherFrom and OtherTo, if valid, are the addresses of the other family to which a
	// divert-packet rule about what comes in translates its packets (af-to).
	OtherFrom netip.Addr `json:"otherFrom,omitzero"`
	OtherTo   netip.Addr `json:"otherTo,omitzero"`
	// On, if not empty, is the interface that the packets of a rule with a Gateway, or of a
	// divert-packet rule of OpenBSD's pf, pass, and the only one on which they belong to its state.
	On string `json:"on,omitempty"`
	// Undiverted has a divert-packet rule do all that it does but divert: what its cell is compared
	// with. OpenBSD's pf only.
	Undiverted bool `json:"undiverted,omitempty"`
}

// Routing is how pf sends packets on by a rule's gateway.
type Routing uint8

// The ways, by pf.conf's names.
const (
	RouteTo Routing = iota + 1 // the rule's packets
	ReplyTo                    // those that answer them
	DupTo                      // a copy of each of them, which goes its own way
)

var routingNames = map[Routing]string{RouteTo: "route-to", ReplyTo: "reply-to", DupTo: "dup-to"}

func (r Routing) String() string { return nameOf(routingNames, r) }

// MarshalText writes pf.conf's name.
func (r Routing) MarshalText() ([]byte, error) { return marshalName(routingNames, r, "routing") }

// UnmarshalText reads pf.conf's name.
func (r *Routing) UnmarshalText(b []byte) error { return unmarshalName(routingNames, r, b, "routing") }

// interfaceName is what an interface can be called on the BSDs: it is written into rules.
var interfaceName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.]{0,14}$`)

// MaxLabel is the longest label, in characters, that OpenBSD's pfctl loads
// ("rule label too long (max 63 chars)").
const MaxLabel = 63

// LabelPrefix begins every label of this program, so that an administrator
// sees whose rules and states they are.
const LabelPrefix = "regress"

// ValidLabel reports whether the label can be loaded on every system and means
// itself there: it begins with LabelPrefix and has only letters, digits, '-',
// '_' and '.' (pfctl expands "$nr" and its like in labels).
func ValidLabel(s string) bool {
	if len(s) > MaxLabel || len(s) < len(LabelPrefix) || s[:len(LabelPrefix)] != LabelPrefix {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.') {
			return false
		}
	}
	return true
}

// Validate says what is wrong with the rule, if anything. A rule that a peer
// sent is validated before it is rendered for any system.
func (r Rule) Validate() error {
	bad := func(format string, a ...any) error {
		return fmt.Errorf("rule %q: %s", r.Label, fmt.Sprintf(format, a...))
	}
	switch {
	case !ValidLabel(r.Label):
		return bad("the label must begin with %q and have at most %d letters, digits, '-', '_' or '.'", LabelPrefix, MaxLabel)
	case directionNames[r.Direction] == "":
		return bad("no direction")
	case familyNames[r.Family] == "":
		return bad("no address family")
	case protoNames[r.Proto] == "":
		return bad("no protocol")
	case actionNames[r.Action] == "":
		return bad("no action")
	case !fits(r.From, r.Family):
		return bad("from %v is no plain %v address", r.From, r.Family)
	case !fits(r.To, r.Family):
		return bad("to %v is no plain %v address", r.To, r.Family)
	case r.Proto.HasPorts() != (r.Port != 0):
		return bad("%v and port %d do not go together", r.Proto, r.Port)
	}
	if r.Action != DivertPacket && (r.Both || r.Bypass || r.Tee || r.Number != 0 && r.Action != ThroughPipe) {
		return bad("only divert-packet can be for both ways, be bypassed, deliver copies, or have a number")
	}
	if shapes := r.Action == ThroughPipe; shapes && r.Pipe == 0 ||
		!shapes && r.Pipe != 0 && (r.Action != PFDivertTo || !r.Keep) {
		return bad("pipe %d does not go with %v", r.Pipe, r.Action)
	}
	switch {
	case r.Action != PFDivertTo && r.Keep || r.Redirected.IsValid() && !r.Keep && r.Action != DivertPacket:
		return bad("only pf-divert-to can keep a state or not, and redirect when it does")
	case r.Action != DivertTo && (r.Untracked || r.Zone != 0 || r.Established):
		return bad("only divert-to can be untracked, have a conntrack zone, or leave established flows to their sockets")
	case r.Untracked && r.Zone != 0:
		return bad("what is not tracked has no conntrack zone")
	case r.Translated.IsValid() && (r.Action != DivertReply &&
		(!r.Keep && r.Action != DivertPacket || r.Direction != Out || r.Redirected.IsValid()) ||
		!r.Proto.HasPorts() || !fits(r.Translated, r.Family)):
		return bad("only divert-reply of tcp and udp, or pf-divert-to with a state, translates a source, to a %v address, "+
			"not to %v", r.Family, r.Translated)
	}
	switch diverts := r.Action == PFDivertTo && r.Keep; {
	case r.Tag != "" && (!ValidLabel(r.Tag) || !diverts && r.Action != PFPass && !r.toSocket()),
		r.Gateway.IsValid() != (routingNames[r.Routing] != ""),
		r.Gateway.IsValid() && (!diverts && r.Action != DivertPacket || !fits(r.Gateway, r.Family)),
		r.On != "" && (r.Action != DivertPacket && !r.Gateway.IsValid() || !interfaceName.MatchString(r.On)),
		(diverts && r.Gateway.IsValid() || r.Action == PFPass) != interfaceName.MatchString(r.Interface),
		r.Action == PFPass && (r.Direction != Out || r.Divert.IsValid()):
		return bad("tag %q, gateway %v and interfaces %q and %q do not go with %v", r.Tag, r.Gateway, r.Interface, r.On,
			r.Action)
	}
	if err := r.ofOpenBSD(); err != "" {
		return bad("%s", err)
	}
	switch r.Action {
	case DivertTo:
		if r.Direction != In && (!r.Proto.HasPorts() || r.Untracked || r.Zone != 0 || r.Established) {
			return bad("divert-to works on packets that come in, and on tcp and udp that this host sends")
		}
		if !fits(r.Divert.Addr(), r.Family) || r.Divert.Port() == 0 {
			return bad("divert-to needs a %v address and a port, not %v", r.Family, r.Divert)
		}
	case DivertReply:
		if r.Divert != (netip.AddrPort{}) {
			return bad("divert-reply takes no address or port")
		}
	case ThroughPipe:
		if r.Divert != (netip.AddrPort{}) {
			return bad("pipe takes no address or port")
		}
	case DivertPacket, PFDivertTo:
		if a := r.Divert.Addr(); a.IsValid() && !a.IsUnspecified() || r.Divert.Port() == 0 {
			return bad("%v needs a port and no address, not %v", r.Action, r.Divert)
		}
	}
	switch to, ok := r.RedirectsTo(); {
	case !ok:
	case r.Direction != In:
		return bad("rdr-to works on packets that come in")
	case !r.Proto.HasPorts():
		return bad("rdr-to is for tcp and udp")
	case !r.Redirects() && !fits(to.Addr(), r.Family) || to.Port() == 0:
		return bad("rdr-to needs a %v address and a port, not %v", r.Family, to)
	}
	return nil
}

// ofOpenBSD says what is wrong with what only OpenBSD's pf has, if anything.
func (r Rule) ofOpenBSD() string {
	done := 0 // what the match rule does
	for _, does := range []bool{r.Redirected.IsValid(), r.Translated.IsValid(), r.Tag != ""} {
		if does {
			done++
		}
	}
	switch {
	case (r.Match || r.Received != "" || r.Once || r.Most != 0) && !r.toSocket():
		return "only divert-to and divert-packet have match rules, received-on, once and max"
	case r.Match && done != 1:
		return "a match rule redirects, or translates, or tags"
	case r.Received != "" && !interfaceName.MatchString(r.Received):
		return fmt.Sprintf("%q can't be the name of an interface", r.Received)
	case r.Most < 0:
		return "a rule has no negative number of states"
	case r.Most != 0 && r.On != "":
		return "a rule of one interface has no limit of states"
	case r.Undiverted && r.Action != DivertPacket:
		return "only divert-packet can be left out of its rule"
	case r.OtherFrom.IsValid() != r.OtherTo.IsValid(), r.OtherTo.IsValid() && (r.Action != DivertPacket ||
		r.Direction != In || done > 0 || !fits(r.OtherFrom, r.Family.Other()) || !fits(r.OtherTo, r.Family.Other())):
		return fmt.Sprintf("only divert-packet of what comes in translates to %v, to a source and a destination, not to %v "+
			"and %v", r.Family.Other(), r.OtherFrom, r.OtherTo)
	}
	return ""
}

// toSocket reports whether the rule is one of divert-to or divert-packet.
func (r Rule) toSocket() bool { return r.Action == DivertTo || r.Action == DivertPacket }

// OnlyOpenBSD reports whether the rule asks for something that only OpenBSD's pf does.
func (r Rule) OnlyOpenBSD() bool {
	return r.Match || r.Received != "" || r.Once || r.Most != 0 || r.OtherTo.IsValid() || r.Undiverted ||
		r.toSocket() && (r.Tag != "" || r.Redirected.IsValid() || r.Translated.IsValid() || r.Gateway.IsValid() ||
			r.On != "")
}

// ForOpenBSD is the error of a packet filter that is given a rule for OpenBSD's pf alone.
func (r Rule) ForOpenBSD() error {
	return fmt.Errorf("rule %q: only OpenBSD's pf has match rules, received-on, once, max, and route-to with divert", r.Label)
}

// RedirectsTo returns where the rule redirects packets to; ok is false when it does not.
func (r Rule) RedirectsTo() (to netip.AddrPort, ok bool) {
	if r.Action == RdrTo {
		return r.Divert, true
	}
	return r.Redirected, r.Redirected.IsValid()
}

// Redirects reports whether the rule translates destinations to an address of the interface.
func (r Rule) Redirects() bool { return r.Action == RdrTo && r.Divert.Addr() == r.Family.Unspecified() }

// DivertsOutput reports whether the rule diverts what this host itself sends, but for packets with
// ProxyMark.
func (r Rule) DivertsOutput() bool { return r.Action == DivertTo && r.Direction == Out }

// ProxyMark is the mark of packets that a proxy sends itself on Linux (SO_MARK): diverted, it would
// be connected with itself.
const ProxyMark = 0x70660077

// OnlyNetfilter reports whether the rule asks for something that only netfilter does.
func (r Rule) OnlyNetfilter() bool {
	return r.DivertsOutput() || r.Bypass || r.Redirects() || r.Untracked || r.Zone != 0 || r.Established ||
		r.Translated.IsValid() && r.Action == DivertReply
}

// fits reports whether a is an address of the family that can stand in a rule.
func fits(a netip.Addr, f Family) bool {
	return a.IsValid() && FamilyOf(a) == f && a.Zone() == "" && !a.Is4In6() && !a.IsUnspecified() && !a.IsMulticast()
}
