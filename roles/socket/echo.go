package socket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"pfdivert/matrix/script"
	"strconv"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// echo is a client that sends echo requests and takes their replies, or a
// server that takes requests and leaves the replies to the kernel.
type echo struct {
	*socket
	proto uint8
	id    uint16 // of a client's first request
}

func openEcho(s script.Echo, log *transcript) (Endpoint, error) {
	e := &echo{proto: unix.IPPROTO_ICMP, id: s.ID}
	if s.Local.Addr().Is6() {
		e.proto = unix.IPPROTO_ICMPV6
	}
	var err error
	if e.socket, err = openRawSocket(s.Ends, s.Only, log, int(e.proto)); err != nil {
		return nil, err
	}
	// Neighbour discovery and other programs' messages need not come here at all.
	if err := filterICMP(e.fd, family(s.Local.Addr()), e.wanted()); err != nil {
		_ = closeSocket(e.fd)
		return nil, fmt.Errorf("ICMP filter: %w", err)
	}
	e.discard()
	return e, nil
}

// wanted is the type of the messages that the endpoint takes.
func (e *echo) wanted() uint8 {
	client := e.spec.Role == script.Client
	switch {
	case e.proto == unix.IPPROTO_ICMP && client:
		return uint8(ipv4.ICMPTypeEchoReply)
	case e.proto == unix.IPPROTO_ICMP:
		return uint8(ipv4.ICMPTypeEcho)
	case client:
		return uint8(ipv6.ICMPTypeEchoReply)
	}
	return uint8(ipv6.ICMPTypeEchoRequest)
}

// Connect connects the socket to its peer's address.
func (e *echo) Connect() error { return e.connectRaw() }

// Send sends an echo request.
func (e *echo) Send(data []byte, seq uint16) error {
	if e.spec.Role == script.Server {
		return errors.New("send: echo replies are the kernel's")
	}
	m := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: int(e.id + seq - 1), Seq: int(seq), Data: data}}
	if e.proto == unix.IPPROTO_ICMPV6 {
		m.Type = ipv6.ICMPTypeEchoRequest
	}
	// The kernel fills an ICMPv6 checksum in (RFC 3542, 3.1).
	b, err := m.Marshal(nil)
	if err != nil {
		return fmt.Errorf("echo message: %w", err)
	}
	if err := e.sendMessage(b, netip.AddrPort{}); err != nil {
		return err
	}
	h, _, _ := e.parse(b, e.local, e.peer)
	e.logMessage(">>>", h, data)
	return nil
}

// Receive takes one message that is meant for this endpoint.
func (e *echo) Receive(deadline time.Time) (script.Message, error) {
	for {
		b, from, to, err := e.receiveRaw(deadline, e.proto)
		if err != nil {
			return script.Message{}, err
		}
		h, data, ok := e.parse(b, from, to)
		if !ok || h.Type != e.wanted() || e.spec.Role == script.Client && h.ID-h.Seq+1 != e.id {
			continue
		}
		m := script.Message{Data: bounded(e.spec.Big, data), From: from, To: to, Echo: &h}
		e.logReceived(m)
		e.logMessage("<<<", h, m.Data)
		return m, nil
	}
}

// parse reads an echo message (RFC 792; RFC 4443, 4).
func (e *echo) parse(b []byte, from, to netip.AddrPort) (h script.EchoHeader, data []byte, ok bool) {
	if len(b) < 8 {
		return h, nil, false
	}
	var s uint32
	if e.proto == unix.IPPROTO_ICMPV6 && from.IsValid() && to.IsValid() {
		s = pseudoSum(from.Addr(), to.Addr(), e.proto, len(b))
	}
	return script.EchoHeader{
		Type: b[0], Code: b[1],
		ID: binary.BigEndian.Uint16(b[4:]), Seq: binary.BigEndian.Uint16(b[6:]),
		Checksum: checksum(sum(s, b)) == 0,
	}, b[8:], true
}

func (e *echo) logMessage(arrow string, h script.EchoHeader, data []byte) {
	b := make([]byte, 0, 64)
	b = append(b, "icmp type "...)
	b = strconv.AppendUint(b, uint64(h.Type), 10)
	b = append(b, " code "...)
	b = strconv.AppendUint(b, uint64(h.Code), 10)
	b = append(b, " id "...)
	b = strconv.AppendUint(b, uint64(h.ID), 10)
	b = append(b, " seq "...)
	b = strconv.AppendUint(b, uint64(h.Seq), 10)
	if len(data) > 0 {
		b = append(append(b, ' '), data...)
	}
	e.log.data(arrow, b)
}

// Rest takes the messages that are waiting.
func (e *echo) Rest() ([]script.Message, error) { return rest(e.Receive) }
