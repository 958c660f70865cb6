package script

import (
	"net/netip"
)

// Message is something that a socket received.
type Message struct {
	Data []byte         `json:"data"` // payload without the headers; at most MaxData bytes, or all for a Big endpoint
	From netip.AddrPort `json:"from"` // sender; port 0 for protocols without
	// To is the original destination, as the system reports it (IP_RECVDSTADDR,
	// IP_RECVORIGDSTADDR, IP header of a raw packet …); for a stream the accepted or
	// connected socket's own name. Invalid where it was not asked for.
	To   netip.AddrPort `json:"to,omitzero"`
	Echo *EchoHeader    `json:"echo,omitempty"` // of ICMP messages
	// Via is what a divert socket gives as the sender: an address of the interface by which the
	// packet came in, or the unspecified address of one that leaves; on FreeBSD with the rule's
	// number as port. Invalid for a netfilter queue. Of a datagram whose interface was asked for
	// (Datagram.Arrival) the address that it is known by (socket.KnownBy).
	Via netip.AddrPort `json:"via,omitzero"`
	// Interface is the name that FreeBSD's divert socket puts behind that address: of the interface
	// by which the packet came to this host, and empty for one that began here.
	Interface string `json:"interface,omitempty"`
	// Sent is what the packet role sent on in place of Data.
	Sent []byte `json:"sent,omitempty"`
}

// EchoHeader is the header of an ICMP or ICMPv6 message.
type EchoHeader struct {
	Type     uint8  `json:"type"`
	Code     uint8  `json:"code"`
	ID       uint16 `json:"id"`
	Seq      uint16 `json:"seq"`
	Checksum bool   `json:"checksum"` // the checksum was right (with the pseudo header, for ICMPv6)
}

// The lines that are exchanged.
const (
	ClientLine = "Client\n"
	ServerLine = "Server\n"
	PacketLine = "Packet\n"
)

// Dropped is what a kernel has dropped that was to be diverted.
type Dropped struct {
	// NoSocket counts packets for which no one listened, NoRoom those for which the
	// socket, or the netfilter queue, was full. Of the divert port on Linux, which
	// does not count NoSocket; of all ports of the family on OpenBSD.
	NoSocket uint64 `json:"noSocket"`
	NoRoom   uint64 `json:"noRoom"`
	// Room is how many bytes of packets may wait, 0 where the number of packets is bounded.
	Room int `json:"room,omitempty"`
}
