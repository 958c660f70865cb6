package script

import (
	"fmt"
	"net/netip"
	"slices"
)

// Kind is the kind of socket.
type Kind string

// The kinds.
const (
	Stream   Kind = "stream"   // TCP
	Datagram Kind = "datagram" // UDP
	RawIP    Kind = "raw"      // raw IP, protocol 254
	Echo     Kind = "echo"     // raw ICMP or ICMPv6 socket: echo requests and replies
	Divert   Kind = "divert"   // divert(4) socket, on Linux a netfilter queue
)

// Role is the part that the endpoint plays.
type Role string

// The roles.
const (
	Client Role = "client" // begins
	Server Role = "server" // is begun with
	Packet Role = "packet" // rewrites diverted packets and sends them on
)

// Spec says which socket to open.
type Spec struct {
	Kind Kind `json:"kind"`
	Role Role `json:"role"`
	// Local is the address to bind, with port 0 for one of the kernel's choice
	// (or none, for raw and echo). Its family is the endpoint's. A divert
	// endpoint has the unspecified address of its family and the divert port.
	Local netip.AddrPort `json:"local"`
	// Remote is whom a client connects to; invalid for the other roles.
	Remote netip.AddrPort `json:"remote,omitzero"`
	// Bindany lets the socket bind an address that is not the host's own
	// (SO_BINDANY, IP_BINDANY, IP_TRANSPARENT).
	Bindany bool `json:"bindany,omitempty"`
	// Diverted says that packets for a foreign address will be diverted to this
	// socket: it asks for each datagram's original destination and, where the
	// system wants that (Linux), is marked transparent.
	Diverted bool `json:"diverted,omitempty"`
	// Arrival has a datagram endpoint ask for the interface by which each datagram came (OpenBSD).
	Arrival bool `json:"arrival,omitempty"`
	// Reuse sets SO_REUSEADDR: the second cell of a reuse target binds a port
	// of the first.
	Reuse bool `json:"reuse,omitempty"`
	// EchoID is the id of an echo client's first request. The request with
	// sequence number n has the id EchoID+n-1, as in upstream's
	// icmp-reply-reuse, which sends two ids through one socket. So a client knows
	// its replies by id-seq+1, and clients with different EchoIDs never take each
	// other's.
	EchoID uint16 `json:"echo,omitempty"`
	// Only, if valid, has a raw or echo endpoint leave out what is neither from nor
	// to this address: raw sockets that are bound to one address hear the packets
	// of all cells that share it.
	Only netip.Addr `json:"only,omitzero"`
	// Big is for messages as long as an IP packet can be, and for many at once: the
	// socket gets large buffers, and whole messages are kept.
	Big bool `json:"big,omitempty"`
	// Spoil has the packet role make something of what it sends on wrong.
	Spoil Spoil `json:"spoil,omitempty"`
	// Call is how the packet role takes packets, where there are several ways.
	Call Call `json:"call,omitempty"`
	// Pieces has the packet role take fragments for what they are: a message's data is all behind
	// the IP header. Such a packet can't be relayed.
	Pieces bool `json:"pieces,omitempty"`
	// WriteTo, if valid, is the address to which the packet role writes in place of the one that a
	// packet came with; the name of the interface stays behind it (FreeBSD).
	WriteTo netip.Addr `json:"writeTo,omitzero"`
	// Drop has the process give up all privilege between opening the packet role's socket and
	// binding it. Only one that is there for this endpoint alone may.
	Drop bool `json:"drop,omitempty"`
	// Queue, if not 0, is how many packets may wait at the packet role (Linux; elsewhere
	// the socket's buffer bounds them).
	Queue int `json:"queue,omitempty"`
	// Omit leaves pieces out on purpose, for tests which show that a cell
	// notices.
	Omit []Piece `json:"omit,omitempty"`
}

// Spoil says what is made wrong; nothing without one.
type Spoil string

// What can be made wrong.
const (
	SpoilHeader  Spoil = "header"  // the checksum of the IPv4 header
	SpoilAll     Spoil = "all"     // that and the transport protocol's
	SpoilVersion Spoil = "version" // the IP version is 5
	SpoilLength  Spoil = "length"  // the IP header says that the packet is longer than it is
	SpoilShort   Spoil = "short"   // only 19 bytes are sent on
)

// Call is a system call that takes a packet from a divert socket.
type Call string

// The calls; recvfrom(2), which tells an address, without one of these.
const (
	Read Call = "read"
	Recv Call = "recv"
)

// Piece is something that an endpoint needs in order to play its part.
type Piece string

// The pieces that can be left out.
const (
	// Transparent is the socket's permission to be foreign: a Bindany socket
	// then fails to bind, a Diverted one is not marked (Linux).
	Transparent Piece = "transparent"
	// Right is the right to give a socket that permission (Linux: CAP_NET_ADMIN or CAP_NET_RAW).
	Right Piece = "right"
	// Checksum is the mending of checksums in Relay.
	Checksum Piece = "checksum"
	// GoOn is that a packet which is given back goes on behind its rule (Linux, FreeBSD):
	// left out, it meets the rule again.
	GoOn Piece = "go-on"
	// Listen is the server's ear: a stream server binds but does not listen,
	// any other socket is closed again after it was bound.
	Listen Piece = "listen"
	// Reader is the packet role's ear: the divert socket is closed again.
	Reader Piece = "reader"
	// Back is that the kernel gets the packet which is given back: it is lost.
	Back Piece = "give-back"
	// Way is the address that a packet came with (the BSDs): one that came in has
	// none, as if it were to leave, and one that is to leave the loopback address.
	Way Piece = "way"
	// Name is the name of the interface that stands behind a diverted packet's address (FreeBSD):
	// left out, the packet role forgets it.
	Name Piece = "name"
	// Room is the room for packets that wait at the packet role (Linux).
	Room Piece = "room"
)

var pieces = []Piece{Transparent, Right, Checksum, Listen, Reader, Room, GoOn, Back, Way, Name}

// omits reports whether the piece is left out.
func (s Spec) Omits(p Piece) bool { return slices.Contains(s.Omit, p) }

// validate says what is wrong with a specification, which may come from
// another host.
func (s Spec) Validate() error {
	bad := func(format string, a ...any) error {
		return fmt.Errorf("%s %s: %s", s.Kind, s.Role, fmt.Sprintf(format, a...))
	}
	switch s.Kind {
	case Stream, Datagram, RawIP, Echo:
		if s.Role != Client && s.Role != Server {
			return bad("no such role for this kind of socket")
		}
	case Divert:
		if s.Role != Packet {
			return bad("a divert socket is for the packet role")
		}
	default:
		return bad("no such kind of socket")
	}
	if !Plain(s.Local.Addr()) {
		return bad("%v is no plain address to bind", s.Local)
	}
	if s.Role == Client && (!Plain(s.Remote.Addr()) || s.Remote.Addr().Is4() != s.Local.Addr().Is4()) {
		return bad("cannot connect from %v to %v", s.Local, s.Remote)
	}
	if s.Kind != Divert && (s.Spoil != "" || s.Call != "" || s.Pieces || s.WriteTo.IsValid() || s.Drop) {
		return bad("that is for the packet role")
	}
	if s.WriteTo.IsValid() && !Plain(s.WriteTo) {
		return bad("nobody can write to %v", s.WriteTo)
	}
	if s.Queue < 0 || s.Queue > QueueLength {
		return bad("no queue can have room for %d packets", s.Queue)
	}
	for _, p := range s.Omit {
		if !slices.Contains(pieces, p) {
			return bad("no piece %q to omit", p)
		}
	}
	return nil
}

// plain reports whether a is an address of one family, without a zone.
func Plain(a netip.Addr) bool { return a.IsValid() && !a.Is4In6() && a.Zone() == "" }

// hasPorts reports whether the sockets of this kind are told apart by ports.
func (s Spec) HasPorts() bool { return s.Kind == Stream || s.Kind == Datagram }

// maxPacket is the longest IP packet (RFC 791, 3.1).
const MaxPacket = 65535

// queueLength is how many packets may wait at a packet endpoint on Linux.
const QueueLength = 256
