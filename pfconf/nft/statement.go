package nft

import (
	"fmt"
	"net/netip"

	"pfdivert/pfconf"
)

// The statements of which rules are made. String gives a statement as "nft list"
// prints it; statement_linux.go has its expressions.

// onInterface matches the interface that the packet came in by.
type onInterface struct{ name string }

func (s onInterface) String() string { return fmt.Sprintf("iifname %q", s.name) }

// fromAddr matches the source address and, before it, the family; toAddr the
// destination address alone: it always follows.
type (
	fromAddr struct{ netip.Addr }
	toAddr   struct{ netip.Addr }
)

func (s fromAddr) String() string { return ipName(s.Addr) + " saddr " + s.Addr.String() }
func (s toAddr) String() string   { return ipName(s.Addr) + " daddr " + s.Addr.String() }

func ipName(a netip.Addr) string {
	if a.Is4() {
		return "ip"
	}
	return "ip6"
}

// ofProto matches the transport protocol's number.
type ofProto struct{ number int }

func (s ofProto) String() string {
	switch s.number {
	case pfconf.ICMP.Number(pfconf.Inet):
		return "meta l4proto icmp"
	case pfconf.ICMP.Number(pfconf.Inet6):
		return "meta l4proto ipv6-icmp"
	}
	return fmt.Sprintf("meta l4proto %d", s.number)
}

// fromPort and toPort match the protocol, TCP or UDP, and a port.
type (
	fromPort struct {
		proto pfconf.Proto
		port  uint16
	}
	toPort struct {
		proto pfconf.Proto
		port  uint16
	}
)

func (s fromPort) String() string { return fmt.Sprintf("%v sport %d", s.proto, s.port) }
func (s toPort) String() string   { return fmt.Sprintf("%v dport %d", s.proto, s.port) }

// echoReply6 matches ICMPv6 echo replies.
type echoReply6 struct{}

func (echoReply6) String() string { return "icmpv6 type echo-reply" }

// ctInvalid matches packets that conntrack cannot make sense of.
type ctInvalid struct{}

func (ctInvalid) String() string { return "ct state invalid" }

// ctMarked matches packets whose conntrack entry has the mark, and none that
// has no entry; ctMark and mark set the mark of the entry and of the packet.
type (
	ctMarked struct{}
	ctMark   struct{}
	mark     struct{}
	marked   struct{} // matches packets with the mark
)

func (ctMarked) String() string { return fmt.Sprintf("ct mark 0x%08x", Mark) }
func (ctMark) String() string   { return fmt.Sprintf("ct mark set 0x%08x", Mark) }
func (marked) String() string   { return fmt.Sprintf("meta mark 0x%08x", Mark) }
func (mark) String() string     { return fmt.Sprintf("meta mark set 0x%08x", Mark) }

// notProxys matches packets that have not the mark of a proxy's own.
type notProxys struct{}

func (notProxys) String() string { return fmt.Sprintf("meta mark != 0x%08x", pfconf.ProxyMark) }

// ctReply matches packets that go the other way than the one that began their
// conntrack entry.
type ctReply struct{}

func (ctReply) String() string { return "ct direction reply" }

// counter counts the packets that come so far in the rule.
type counter struct{}

func (counter) String() string { return "counter packets 0 bytes 0" }

// tproxy returns the packet to the transparent socket that is connected to its
// sender or else listens at the address; without such a socket the rule ends.
// It is absent where it is to be like on a kernel that has no such statement.
type tproxy struct {
	to     netip.AddrPort
	absent bool
}

func (s tproxy) String() string { return fmt.Sprintf("tproxy %s to %v", ipName(s.to.Addr()), s.to) }

// dnat translates the destination of the connection to the address.
type dnat struct{ to netip.AddrPort }

func (s dnat) String() string { return fmt.Sprintf("dnat %s to %v", ipName(s.to.Addr()), s.to) }

// redirect translates the destination of the connection to an address of the interface by which it
// comes.
type redirect struct{ port uint16 }

func (s redirect) String() string { return fmt.Sprintf("redirect to :%d", s.port) }

// snatTo translates the source of the connection to the address.
type snatTo struct{ netip.Addr }

func (s snatTo) String() string { return fmt.Sprintf("snat %s to %v", ipName(s.Addr), s.Addr) }

// notrack keeps the packet from conntrack, and ctUntracked matches packets that were kept from it.
// ctZoneSet has conntrack keep the packet's flow in a zone, and ctZone matches packets of flows in
// it.
type (
	notrack     struct{}
	ctUntracked struct{}
	ctZoneSet   struct{ zone uint16 }
	ctZone      struct{ zone uint16 }
)

func (notrack) String() string     { return "notrack" }
func (ctUntracked) String() string { return "ct state untracked" }
func (s ctZoneSet) String() string { return fmt.Sprintf("ct zone set %d", s.zone) }
func (s ctZone) String() string    { return fmt.Sprintf("ct zone %d", s.zone) }

// transparentSocket matches packets that belong to a socket of this host which is transparent.
type transparentSocket struct{}

func (transparentSocket) String() string { return "socket transparent 1" }

// jump goes on in another chain of the table, and behind the rule when that
// chain gives no verdict.
type jump struct{ chain string }

func (s jump) String() string { return "jump " + s.chain }

// queue hands the packet to whoever listens on the netfilter queue; a packet
// that no one listens for is dropped, or passes with bypass. xtQueue is the same through iptables'
// NFQUEUE target, for kernels without CONFIG_NFT_QUEUE.
type (
	queue struct {
		number uint16
		bypass bool
	}
	xtQueue queue
)

func (s queue) String() string {
	flags := ""
	if s.bypass {
		flags = " flags bypass"
	}
	return fmt.Sprintf("queue%s to %d", flags, s.number)
}
func (xtQueue) String() string { return `xt target "NFQUEUE"` }

// verdict ends the packet's way through the chain.
type verdict uint8

const (
	accept verdict = iota
	drop
)

func (v verdict) String() string {
	if v == accept {
		return "accept"
	}
	return "drop"
}
