package script

import (
	"fmt"
	"net/netip"
	"slices"

	"pfdivert/pfconf"
)

// Socket specifies a socket that a host opens for a test case. It is a Stream, a Datagram, a RawIP,
// an Echo or a Divert.
type Socket interface {
	// Validate says what is wrong with the specification, which may come from another host.
	Validate() error
	// String names it in error messages: "stream client on 10.0.0.1:8000".
	String() string
}

// SocketRole is what a socket that is no divert socket is used as.
type SocketRole string

// The roles.
const (
	Client SocketRole = "client" // begins
	Server SocketRole = "server" // is begun with
)

// Ends is what the sockets of clients and servers have in common.
type Ends struct {
	Role SocketRole
	// Local is the address to bind, with port 0 for one of the kernel's choice (or none, for RawIP
	// and Echo). Its family is the socket's.
	Local netip.AddrPort
	// Remote is whom a client connects to; invalid for a server.
	Remote netip.AddrPort
	// Bindany lets the socket bind an address that is not the host's own
	// (SO_BINDANY, IP_BINDANY, IP_TRANSPARENT).
	Bindany bool
	// DualStack lets an IPv6 socket hear IPv4 too, with addresses mapped into IPv6 (RFC 3493, 3.7).
	DualStack bool
	// Diverted says that packets for a foreign address will be diverted to this
	// socket: it asks for each datagram's original destination and, where the
	// system wants that (Linux), is marked transparent.
	Diverted bool
	// Reuse sets SO_REUSEADDR: the second exchange of a reuse target binds a port of the first.
	Reuse bool
	// ReusePort sets SO_REUSEPORT: several servers have one address and port.
	ReusePort bool
	// Device, if valid, is an address of the interface to which the socket is bound (Linux).
	Device netip.Addr
	// FIB, if not 0, is the routing table of the socket (FreeBSD), or its routing domain (OpenBSD).
	FIB int
	// Proxys marks what the socket sends as a proxy's own (pfconf.ProxyMark; Linux).
	Proxys bool
	// Big is for messages as long as an IP packet can be, and for many at once: the
	// socket gets large buffers, and whole messages are kept.
	Big bool
	// Omit leaves pieces out on purpose, for tests which show that a test case notices.
	Omit []Piece
}

// Stream is a TCP socket.
type Stream struct {
	Ends
	// Segment, if not 0, is how many bytes a segment has at most (TCP_MAXSEG).
	Segment uint16
	// Window, if not 0, is how many bytes the socket has room for that were not read yet
	// (SO_RCVBUF).
	Window int
}

// Datagram is a UDP socket.
type Datagram struct {
	Ends
	// Arrival asks for the interface by which each datagram came.
	Arrival bool
}

// RawIP is a raw IP socket of protocol 254.
type RawIP struct {
	Ends
	// Only, if valid, leaves out what is neither from nor to this address: raw sockets that are
	// bound to one address hear the packets of all test cases that share it.
	Only netip.Addr
}

// Echo is a raw ICMP or ICMPv6 socket for echo requests and replies.
type Echo struct {
	Ends
	// Only is as in RawIP.
	Only netip.Addr
	// ID is the id of a client's first request. The request with sequence number n has the id
	// ID+n-1, as in upstream's icmp-reply-reuse, which sends two ids through one socket. So a
	// client knows its replies by id-seq+1, and clients with different IDs never take each other's.
	ID uint16
}

// Divert is a divert(4) socket, on Linux a netfilter queue. It rewrites diverted packets and
// reinjects them.
type Divert struct {
	// Local is the unspecified address of the socket's family, and the divert port.
	Local netip.AddrPort
	// Big keeps whole messages.
	Big bool
	// Corrupt makes something of what is reinjected wrong.
	Corrupt Corruption
	// Call is how packets are taken, where there are several ways.
	Call Call
	// Fragments takes fragments for what they are: a message's data is all behind the IP header.
	// Such a packet can't be relayed.
	Fragments bool
	// WriteTo, if valid, is the address to which packets are written in place of the one that they
	// came with; the name of the interface stays behind it (FreeBSD).
	WriteTo netip.Addr
	// Unprivileged has the process give up all privilege between opening the socket and binding it.
	// Only one that is there for this socket alone may.
	Unprivileged bool
	// Shared sets SO_REUSEPORT_LB: several divert sockets have one port (FreeBSD).
	Shared bool
	// Queue, if not 0, is how many packets may wait (Linux; elsewhere the socket's buffer bounds
	// them).
	Queue int
	// Omit is as in Ends.
	Omit []Piece
}

// SocketOf returns the socket of a client or server that speaks the protocol.
func SocketOf(p pfconf.Proto, e Ends) Socket {
	switch p {
	case pfconf.TCP:
		return Stream{Ends: e}
	case pfconf.UDP:
		return Datagram{Ends: e}
	case pfconf.Raw:
		return RawIP{Ends: e}
	}
	return Echo{Ends: e}
}

func (s Stream) String() string   { return s.name("stream") }
func (s Datagram) String() string { return s.name("datagram") }
func (s RawIP) String() string    { return s.name("raw") }
func (s Echo) String() string     { return s.name("echo") }
func (s Divert) String() string   { return fmt.Sprintf("divert packet on %v", s.Local) }

func (e Ends) name(kind string) string { return fmt.Sprintf("%s %s on %v", kind, e.Role, e.Local) }

// Corruption says what is made wrong; nothing without one.
type Corruption string

// What can be made wrong.
const (
	CorruptHeader  Corruption = "header"  // the checksum of the IPv4 header
	CorruptAll     Corruption = "all"     // that and the transport protocol's
	CorruptVersion Corruption = "version" // the IP version is 5
	CorruptLength  Corruption = "length"  // the IP header says that the packet is longer than it is
	CorruptShort   Corruption = "short"   // only 19 bytes are sent on
	// CorruptBeyond is an IPv4 header that says that it has 60 bytes, which the whole packet has
	// not. It crashes some kernels.
	CorruptBeyond Corruption = "beyond"
)

// Call is a system call that takes a packet from a divert socket.
type Call string

// The calls; recvfrom(2), which tells an address, without one of these.
const (
	Read Call = "read"
	Recv Call = "recv"
)

// Piece is something that a socket needs in order to do its part.
type Piece string

// The pieces that can be left out.
const (
	// Transparent is the socket's permission to be foreign: a Bindany socket
	// then fails to bind, a Diverted one is not marked (Linux).
	Transparent Piece = "transparent"
	// Right is the right to give a socket that permission (Linux: CAP_NET_ADMIN or CAP_NET_RAW).
	Right Piece = "right"
	// Checksum is the fixing of checksums in Relay.
	Checksum Piece = "checksum"
	// GoOn is that a packet which is reinjected goes on behind its rule (Linux, FreeBSD):
	// left out, it meets the rule again.
	GoOn Piece = "go-on"
	// Listen is the server's ear: a stream server binds but does not listen,
	// any other socket is closed again after it was bound.
	Listen Piece = "listen"
	// Reader is the packet role's ear: the divert socket is closed again.
	Reader Piece = "reader"
	// Back is that the kernel gets the packet which is reinjected: it is lost.
	Back Piece = "give-back"
	// Way is the address that a packet came with (the BSDs): one that came in has
	// none, as if it were to leave, and one that is to leave the loopback address.
	Way Piece = "way"
	// Name is the name of the interface that stands behind a diverted packet's address (FreeBSD):
	// left out, the packet role forgets it.
	Name Piece = "name"
	// Room is the room for packets that wait at the packet role (Linux).
	Room Piece = "room"
	// Segments is that packets which the kernel has joined are cut for the packet role (Linux):
	// left out, it gets them joined.
	Segments Piece = "segments"
)

var pieces = []Piece{Transparent, Right, Checksum, Listen, Reader, Room, Segments, GoOn, Back, Way, Name}

// Omits reports whether the piece is left out.
func (e Ends) Omits(p Piece) bool { return slices.Contains(e.Omit, p) }

// Omits reports whether the piece is left out.
func (s Divert) Omits(p Piece) bool { return slices.Contains(s.Omit, p) }

// Validate is that of Socket, for all kinds that have Ends.
func (e Ends) Validate() error {
	switch {
	case e.Role != Client && e.Role != Server:
		return fmt.Errorf("there is no role %q for a socket", e.Role)
	case !Plain(e.Local.Addr()):
		return fmt.Errorf("%s: %v is no plain address to bind", e.Role, e.Local)
	case e.Role == Client && (!Plain(e.Remote.Addr()) || e.Remote.Addr().Is4() != e.Local.Addr().Is4()):
		return fmt.Errorf("%s: cannot connect from %v to %v", e.Role, e.Local, e.Remote)
	}
	return knownPieces(e.Omit)
}

// Validate is that of Socket.
func (s Divert) Validate() error {
	switch {
	case !Plain(s.Local.Addr()):
		return fmt.Errorf("divert socket: %v is no plain address to bind", s.Local)
	case s.WriteTo.IsValid() && !Plain(s.WriteTo):
		return fmt.Errorf("divert socket: no one can write to %v", s.WriteTo)
	case s.Queue < 0 || s.Queue > MaxQueue:
		return fmt.Errorf("divert socket: no queue can have room for %d packets", s.Queue)
	}
	return knownPieces(s.Omit)
}

func knownPieces(omit []Piece) error {
	for _, p := range omit {
		if !slices.Contains(pieces, p) {
			return fmt.Errorf("a socket has no piece %q to omit", p)
		}
	}
	return nil
}

// Plain reports whether a is an address of one family, without a zone.
func Plain(a netip.Addr) bool { return a.IsValid() && !a.Is4In6() && a.Zone() == "" }

// MaxPacket is the longest IP packet (RFC 791, 3.1).
const MaxPacket = 65535

// QueueLength is how many packets may wait at a packet endpoint on Linux.
const QueueLength = 256

// MaxQueue is how many may wait at one that asks for room.
const MaxQueue = 1024
