// Package nft is the Linux packet filter as a pfconf.Firewall: nf_tables for
// the rules, a policy route for the diverted packets and conntrack for the
// states. It talks netlink and needs no other program.
//
// A divert-to rule hands a TCP or UDP packet to a transparent socket with
// tproxy (Documentation/networking/tproxy.rst); the mark sends it, and packets
// of protocols without tproxy, to a routing table in which the diverted prefix
// is local. A divert-reply rule marks the conntrack entry of what goes out;
// what comes back with that entry gets the mark. A divert-packet rule is a
// netfilter queue.
package nft

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"pfdivert/pfconf"
	"pfdivert/pfconf/bpf"
	"pfdivert/pfconf/netlink"
)

// The names and numbers that the driver takes for itself on a host.
const (
	// TableName is the nftables table, family inet.
	TableName = "pfdivert"
	// Mark is the packet and conntrack mark of what is diverted. It has no bit
	// in common with the masks by which Kubernetes (0xc000), Cilium (0x0f00),
	// mwan3 (0x3f00) and Tailscale (value 0x4 and 0x8 in 0xff0000) read marks.
	Mark uint32 = 0x70660076
	// Table is the routing table in which the fake prefixes are local. Other
	// programs' tables are small numbers or their own port (WireGuard: 51820).
	Table = 28774
	// Protocol is the routing protocol number that the rule and the routes
	// carry; it is in no rt_protos file.
	Protocol = 118
)

// Config says where and what to divert.
type Config struct {
	// Interface is the one towards LOCAL; packets from elsewhere are not
	// diverted. Empty means any.
	Interface string
	// Fakes are the prefixes that FAKE addresses are taken from. Only these
	// become local in Table: with "local default" rp_filter would drop packets
	// as martian.
	Fakes []netip.Prefix
	// Engine is how the kernel is given the rules; "" is pfconf.NFT.
	Engine pfconf.Engine
	// Journal is told of every change to the host before it is made; nil for
	// no one.
	Journal pfconf.Journal
	// Omit leaves pieces out on purpose, so that a test sees what this program
	// says about a host where they are missing. Nothing else sets it.
	Omit []Piece
}

// Piece is a part of what makes diverting work.
type Piece string

// The pieces that Config.Omit can leave out.
const (
	PolicyRule Piece = "policy-rule" // ip rule: the mark chooses Table
	LocalRoute Piece = "local-route" // the fake prefixes in Table
	PacketMark Piece = "mark"        // meta mark set
	CTMark     Piece = "ct-mark"     // ct mark set, in divert-reply rules
	TProxy     Piece = "tproxy"      // the tproxy statement
	// TProxyModule is the kernel's module for that statement: the kernel is asked for one that it
	// does not have.
	TProxyModule Piece = "tproxy-module"
	Back         Piece = "back" // the rule that takes a divert-reply flow's answers
	// AnyDirection: that rule takes what comes back whichever side began the
	// conntrack entry, not only what answers it.
	AnyDirection Piece = "any-direction"
	Raw          Piece = "raw"          // the rules before conntrack, of untracked rules and those with a zone
	SocketMatch  Piece = "socket-match" // the rule that leaves established flows to their sockets
	// Mark6 is the target by which rules of x_tables mark packets of IPv6: the kernel is asked for
	// one that it does not have, as 6.6.57, 6.6.58, 6.11.4 and 6.11.5 have not (0bfcb7b71e73).
	Mark6 Piece = "mark6"
	// Jump6 are the jumps to this program's chains from those of x_tables' hooks, of IPv6.
	Jump6      Piece = "jump6"
	OutputMark Piece = "output-mark" // meta mark set, of what this host sends
	RouteLocal Piece = "route-local" // net.ipv4.conf.*.route_localnet=1, for rules that redirect to 127.0.0.1
	// Programs are those of BPF, and Egress the one of them for what leaves: no interface has it.
	Programs   Piece = "programs"
	Egress     Piece = "egress"
	SockMap    Piece = "sock-map"    // the listeners in the map of the program of sk_lookup
	KernelEcho Piece = "kernel-echo" // the rule that stops the kernel's own ICMPv6 echo replies
	// Towards is the name of the interface towards LOCAL: the rules have another.
	Towards    Piece = "towards"
	EarlyDemux Piece = "early-demux" // net.ipv4.ip_early_demux=0
)

// maxInterface is IFNAMSIZ without the final zero.
const maxInterface = 15

// xt reports whether the rules are x_tables', and legacy whether they are in its own tables.
func (c Config) xt() bool     { return c.Engine == pfconf.XT || c.legacy() }
func (c Config) legacy() bool { return c.Engine == pfconf.XTLegacy }

// bpf reports whether the rules are programs' of tc, and lookup whether they are the program's of
// sk_lookup.
func (c Config) bpf() bool    { return c.Engine == pfconf.BPF }
func (c Config) lookup() bool { return c.Engine == pfconf.BPFLookup }

func (c Config) omits(p Piece) bool { return slices.Contains(c.Omit, p) }

func (c Config) validate() error {
	if c.Engine != "" && !slices.Contains(pfconf.Engines, c.Engine) {
		return fmt.Errorf("%q is no engine of Linux's packet filter", c.Engine)
	}
	if !c.Engine.Built() {
		return bpf.ErrNotBuilt
	}
	if len(c.Interface) > maxInterface || strings.ContainsAny(c.Interface, "/\" \t\n\\*") {
		return fmt.Errorf("%q cannot be an interface's name", c.Interface)
	}
	for _, p := range c.Fakes {
		if !p.IsValid() || p.Bits() == 0 || p != p.Masked() || p.Addr().Is4In6() || p.Addr().Zone() != "" {
			return fmt.Errorf("fake prefix %v: want addresses of one network, like 10.188.2.0/24", p)
		}
	}
	return nil
}

// families are those of the fake prefixes.
func (c Config) families() []pfconf.Family {
	var fs []pfconf.Family
	for _, f := range pfconf.Families {
		if slices.ContainsFunc(c.Fakes, func(p netip.Prefix) bool { return pfconf.FamilyOf(p.Addr()) == f }) {
			fs = append(fs, f)
		}
	}
	return fs
}

// TakenError says that something which the driver would create is there
// already: another run is using it, or a killed one left it.
type TakenError struct{ What string }

func (e *TakenError) Error() string {
	return e.What + " exists already: another run is using it, or one was killed and its journal has not been undone"
}

// LoopbackDownError says that lo is down: the kernel adds no local route of IPv6 to it then.
type LoopbackDownError struct{}

func (*LoopbackDownError) Error() string {
	return "interface lo is down, and diverted packets of IPv6 are routed to it"
}

// Hint is what to do about it, for a person.
func (*LoopbackDownError) Hint() string { return "on that host: ip link set lo up" }

// ErrClosed is the error of every question after Close.
var ErrClosed = netlink.ErrClosed

// Support is what a probe found.
type Support uint8

// The outcomes. A test may only be skipped for a No.
const (
	Unknown Support = iota // the question could not be asked
	Yes
	No
)

// ProbeResult is a probe's outcome. Err is the kernel's refusal that proves a No,
// or why the outcome is Unknown.
type ProbeResult struct {
	Support Support
	Err     error
}
