// Package twin copies a Linux host's network configuration into a network namespace of the same
// kernel, puts clients and an internet around the copy, runs flows there and reads from the kernel
// where a packet ended. The host itself is only read: netlink dumps, getsockopt and /proc.
package twin

import (
	"net/netip"
)

// Snapshot is a host's network configuration as its kernel told it.
type Snapshot struct {
	Dump

	// What follows is decoded from Dump.

	Links       []Link
	Addrs       []Addr
	Routes      []Route
	PolicyRules []PolicyRule
	Neighbors   []Neighbor
	Tables      []*Table // of nf_tables, those of iptables-nft among them
	IPSets      []*IPSet
}

// Dump is what was read, as it came: messages without their header, in native byte order. It is
// all of a snapshot.
type Dump struct {
	System System

	Links     [][]byte // RTM_NEWLINK: struct ifinfomsg and attributes
	Addrs     [][]byte // RTM_NEWADDR: struct ifaddrmsg …
	Nexthops  [][]byte // RTM_NEWNEXTHOP: struct nhmsg …
	Routes    [][]byte // RTM_NEWROUTE: struct rtmsg …
	Rules     [][]byte // RTM_NEWRULE: struct fib_rule_hdr …
	Neighbors [][]byte // RTM_NEWNEIGH: struct ndmsg …

	NFT    []NetlinkMessage // nf_tables: struct nfgenmsg and attributes
	Sets   []NetlinkMessage // ipset: struct nfgenmsg and attributes
	Legacy []LegacyTable

	// Partial names the sets of nf_tables of which only a sample of elements is in NFT, and Asked
	// has those of their elements that were asked for.
	Partial []SetName
	Asked   []NetlinkMessage

	// Settings are files below /proc/sys/net, by path: "ipv4/ip_forward".
	Settings map[string]string
	Sockets  []BoundSocket
	// Upstreams are connections of programs that take diverted packets.
	Upstreams []Upstream
	// Queues are the numbers of NFQUEUE that a program takes packets from.
	Queues []uint16

	// NotCloned names what the host has and a twin has not, one line each, for people.
	NotCloned []string
	// Unread names what could not be read, one line each. A verdict without it is none.
	Unread []string
}

// System is the kernel and the layout of what was read.
type System struct {
	Kernel      string // uname -r
	Machine     string // uname -m
	BigEndian   bool
	PointerBits int // of the kernel's user space interface: 32 or 64
}

// NetlinkMessage is a netlink message of a subsystem with several types.
type NetlinkMessage struct {
	Type uint16 // with the subsystem in the high byte
	Data []byte
}

// SetName names a set of nf_tables.
type SetName struct {
	Family byte // NFPROTO_
	Table  string
	Name   string
}

// LegacyTable is a table of iptables-legacy or ip6tables-legacy.
type LegacyTable struct {
	IPv6    bool
	Name    string
	Info    []byte // struct ipt_getinfo
	Entries []byte // struct ipt_entry, one behind the other
}

// Link is a network device.
type Link struct {
	Index    int
	Name     string
	Kind     string // "veth", "bridge", "tun"; "" for hardware and lo
	Flags    uint32 // IFF_UP 1, IFF_LOOPBACK 8, IFF_NOARP 0x80, IFF_LOWER_UP 0x10000
	MTU      uint32
	MAC      []byte // empty where the device has none
	Master   int    // index of its bridge, bond or vrf, 0 for none
	Peer     int    // IFLA_LINK: the other end of a veth, the device below a vlan, 0 for none
	PeerAway bool   // Peer is in another namespace
	Group    uint32
	Carrier  bool // IFF_LOWER_UP
	Loopback bool
	VRFTable uint32 // of kind "vrf"
	Type     uint16 // ARPHRD_: 1 Ethernet, 65534 none
}

// Up reports whether the device is switched on.
func (l Link) Up() bool { return l.Flags&1 != 0 }

// Addr is an address of a device.
type Addr struct {
	Index  int
	Prefix netip.Prefix // the address with its prefix length; a peer's network with a peer
	Local  netip.Addr   // the host's own address
	Scope  uint8        // RT_SCOPE_: 0 universe, 253 link, 254 host
	Flags  uint32
}

// Route is a route of any table.
type Route struct {
	Table  uint32
	Type   uint8 // RTN_: 1 unicast, 2 local, 6 blackhole, 7 unreachable, 8 prohibit, 9 throw
	Proto  uint8 // RTPROT_: 2 kernel, 3 boot, 4 static
	Scope  uint8
	Flags  uint32
	Dst    netip.Prefix
	Src    netip.Addr // preferred source, invalid for none
	Metric uint32
	Hops   []NextHop
}

// NextHop is one way that a route leads: a gateway, a device or both.
type NextHop struct {
	Index   int
	Gateway netip.Addr // invalid for none
}

// PolicyRule is a rule of ip-rule(8).
type PolicyRule struct {
	IPv6     bool
	Priority uint32
	Table    uint32
	Action   uint8 // FR_ACT_: 1 table, 2 goto, 3 nop, 6 blackhole, 7 unreachable, 8 prohibit
	Invert   bool
	Src, Dst netip.Prefix // invalid for none
	Mark     uint32
	Mask     uint32 // 0: no mark is asked
	In, Out  string // names of devices
	UIDFirst uint32
	UIDLast  uint32
	HasUIDs  bool
	Proto    uint8
	L3mdev   bool
}

// Neighbor is an entry of the neighbor table.
type Neighbor struct {
	Index int
	Addr  netip.Addr
	MAC   []byte
}

// Table is a table of nf_tables.
type Table struct {
	Family  string // as nft writes it: ip, ip6, inet, arp, bridge, netdev
	Name    string
	Flags   uint32
	Chains  []*Chain
	Sets    []*Set
	Objects []Object
}

// Chain is a chain of nf_tables.
type Chain struct {
	Family, Table, Name string
	Handle              uint64
	Flags               uint32 // 1 base, 2 offload, 4 anonymous
	Base                bool
	Type                string // filter, nat, route
	// NF_INET_: 0 prerouting, 1 input, 2 forward, 3 output, 4 postrouting; of netdev: 0 ingress,
	// 1 egress
	Hook     int
	Priority int32
	Drops    bool // its policy
	Devices  []string
	Rules    []*ChainRule
}

// ChainRule is a rule of nf_tables.
type ChainRule struct {
	Handle   uint64
	Exprs    []Expr
	UserData []byte
}

// Expr is an expression of a rule: its name and its attributes (NFTA_EXPR_DATA).
type Expr struct {
	Name string
	Data []byte
}

// Set is a set or map of nf_tables.
type Set struct {
	Family, Table, Name string
	// NFT_SET_: 1 anonymous, 4 interval, 8 map, 0x10 timeout, 0x20 eval, 0x40 object, 0x80 concat
	Flags    uint32
	KeyType  uint32 // of nft(8), 6 bits for each part of a concatenation
	KeyLen   uint32
	DataType uint32 // NFT_DATA_VERDICT 0xffffff00 for verdict maps
	Elements []Element
	// Big is set for a set of which only a sample of elements was read; see Config.Ask.
	Big bool
}

// Element is an element of a set.
type Element struct {
	Key    []byte
	KeyEnd []byte // of a concatenation with intervals
	Flags  uint32 // NFT_SET_ELEM_: 1 interval end, 2 any key that no other element has
	End    bool   // the first key that an interval no longer has
	Data   []byte // NFTA_SET_ELEM_DATA of maps: attributes
}

// Object is a stateful object of nf_tables.
type Object struct {
	Name string
	Type uint32
}

// IPSet is a set of ipset(8).
type IPSet struct {
	Name     string
	Type     string
	Family   uint8
	Index    uint16
	Elements int
}

// BoundSocket is a socket that waits for connections or datagrams.
type BoundSocket struct {
	Proto       string         // tcp, udp
	Local       netip.AddrPort // of IPv6: may be ::, which has IPv4 too unless V6Only
	V6Only      bool
	Index       int // of the device that it is bound to, 0 for none
	Transparent bool
	Mark        uint32
	UID         uint32
	GID         uint32
	ReuseAddr   bool
	ReusePort   bool
	OrigDst     bool // IP_RECVORIGDSTADDR
	OrigDst6    bool // IPV6_RECVORIGDSTADDR
	FreeBind    bool
	Comm        string // of the process that has it, "" where that is not known
	// OptionsKnown is set where ReuseAddr, ReusePort, OrigDst and GID were asked.
	OptionsKnown bool
}

// Upstream is a connection of a program that takes diverted packets, to another host: the rules
// have to leave it out.
type Upstream struct {
	Proto string // tcp, udp
	// Remote is invalid in a snapshot, which says of no one's connections where they lead.
	Remote netip.AddrPort
	IPv6   bool
	Mark   uint32
	UID    uint32
	GID    uint32
	Comm   string
}

// Difference is something that is not the same in the twin as on the host.
type Difference struct {
	What string // "route", "rule of nf_tables": one word for each part of Config
	Text string // the difference, for people
}

func (d Difference) String() string { return d.What + ": " + d.Text }
