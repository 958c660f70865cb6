package socket

import (
	"errors"
	"fmt"
	"net/netip"
	"pfdivert/matrix/script"
	"time"

	"golang.org/x/sys/unix"
)

// datagram is a UDP client or server.
type datagram struct {
	*socket
	arrival bool           // the interface by which each datagram came is asked for
	last    netip.AddrPort // whom a server received from last
}

func openDatagram(s script.Datagram, log *transcript) (Endpoint, error) {
	k, err := openSocket(s.Ends, log, unix.SOCK_DGRAM, unix.IPPROTO_UDP)
	if err != nil {
		return nil, err
	}
	if s.Arrival {
		if err := askArrival(k.fd, family(s.Local.Addr())); err != nil {
			_ = closeSocket(k.fd)
			return nil, fmt.Errorf("interface of arrival: %w", err)
		}
	}
	e := &datagram{socket: k, arrival: s.Arrival}
	if s.Role == script.Client {
		k.reportsErrors = askErrors(k.fd, family(s.Local.Addr()))
		return e, nil
	}
	if s.Diverted {
		if err := askOrigDst(k.fd, family(s.Local.Addr())); err != nil {
			_ = closeSocket(k.fd)
			return nil, fmt.Errorf("original destination: %w", err)
		}
	}
	k.local = k.sockName(k.fd)
	log.address("listen sock", k.local)
	return e, nil
}

// Send sends one datagram.
func (e *datagram) Send(data []byte, _ uint16) error {
	if err := e.answer(data, e.last); err != nil {
		return err
	}
	e.log.data(">>>", data)
	return nil
}

// sendJoined sends the messages of a burst in one call.
func (e *datagram) sendJoined(b script.Burst) error {
	if err := setSegment(e.fd, b.Size); err != nil {
		return fmt.Errorf("UDP_SEGMENT: %w", err)
	}
	var all []byte
	for i := range b.Count {
		all = append(all, b.Message(b.First+i)...)
	}
	return errors.Join(e.Send(all, 0), setSegment(e.fd, 0))
}

// answer sends to the client's peer or to the server's last sender.
func (k *socket) answer(b []byte, last netip.AddrPort) error {
	if k.spec.Role == script.Server && !last.IsValid() {
		return errors.New("send: nothing was received that could be answered")
	}
	return k.sendMessage(b, last)
}

// Receive takes one datagram.
func (e *datagram) Receive(deadline time.Time) (script.Message, error) {
	b, from, to, err := e.receiveMessage(deadline)
	if err != nil {
		return script.Message{}, err
	}
	if e.spec.Role == script.Server {
		e.last = from
	}
	m := script.Message{Data: bounded(e.spec.Big, b), From: from, To: to}
	if e.arrival {
		a, err := arrival(e.control, family(e.spec.Local.Addr()))
		if err != nil {
			return script.Message{}, fmt.Errorf("interface of arrival: %w", err)
		}
		m.Via = netip.AddrPortFrom(a, 0)
	}
	e.logReceived(m)
	e.log.data("<<<", m.Data)
	return m, nil
}

func (k *socket) logReceived(m script.Message) {
	k.log.address("recv from", m.From)
	if k.spec.Diverted {
		k.log.address("orig dst", m.To)
	}
}

// Rest takes the datagrams that are waiting.
func (e *datagram) Rest() ([]script.Message, error) { return rest(e.Receive) }
