package socket

import (
	"fmt"
	"net/netip"
	"pfdivert/matrix/script"
	"time"

	"golang.org/x/sys/unix"
)

// rawProtocol is the protocol of raw IP cells: "use for experimentation and
// testing" (RFC 3692).
const rawProtocol = 254

// raw is a raw IP client or server of protocol 254.
type raw struct {
	*socket
	last netip.AddrPort // whom a server received from last
}

func openRaw(s script.RawIP, log *transcript) (Endpoint, error) {
	k, err := openRawSocket(s.Ends, s.Only, log, rawProtocol)
	if err != nil {
		return nil, err
	}
	return &raw{socket: k}, nil
}

// openRawSocket opens a raw socket of an IP protocol.
func openRawSocket(s script.Ends, only netip.Addr, log *transcript, proto int) (*socket, error) {
	k, err := openSocket(s, log, unix.SOCK_RAW, proto)
	if err != nil {
		return nil, err
	}
	k.only = only
	if s.Local.Addr().Is6() {
		// IPv6 raw sockets do not deliver the IP header (RFC 3542, 3).
		if err := unix.SetsockoptInt(k.fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1); err != nil {
			_ = closeSocket(k.fd)
			return nil, fmt.Errorf("IPV6_RECVPKTINFO: %w", err)
		}
	}
	// Until it is bound, a raw socket hears everything, and what is on its way to it on
	// another CPU arrives even after discard. A diverted packet's destination is not the
	// address that the socket is bound to, unless that is a foreign one.
	if a := s.Local.Addr(); !a.IsUnspecified() && (!s.Diverted || s.Bindany) {
		k.onlyTo = a
	}
	if s.Role == script.Client {
		k.reportsErrors = askErrors(k.fd, family(s.Local.Addr()))
		return k, nil
	}
	if !k.local.IsValid() {
		k.local = k.sockName(k.fd)
	}
	k.discard()
	log.address("listen sock", k.local)
	return k, nil
}

// Connect connects the socket to its peer's address.
func (e *raw) Connect() error { return e.connectRaw() }

func (k *socket) connectRaw() error {
	if err := k.Connect(); err != nil {
		return err
	}
	k.discard()
	return nil
}

// Send sends one packet; the kernel makes its IP header.
func (e *raw) Send(data []byte, _ uint16) error {
	if err := e.answer(data, e.last); err != nil {
		return err
	}
	e.log.data(">>>", data)
	return nil
}

// Receive takes one packet.
func (e *raw) Receive(deadline time.Time) (script.Message, error) {
	b, from, to, err := e.receiveRaw(deadline, rawProtocol)
	if err != nil {
		return script.Message{}, err
	}
	if e.spec.Role == script.Server {
		e.last = from
	}
	m := script.Message{Data: bounded(e.spec.Big, b), From: from, To: to}
	e.logReceived(m)
	e.log.data("<<<", m.Data)
	return m, nil
}

// receiveRaw takes one packet without its IP header.
func (k *socket) receiveRaw(deadline time.Time, proto uint8) (b []byte, from, to netip.AddrPort, err error) {
	for {
		b, from, to, err = k.receiveMessage(deadline)
		if err != nil {
			return nil, from, to, err
		}
		from = portless(from)
		if from.Addr().Is4() {
			h, err := parseIPv4(b)
			if err == nil && h.proto != proto {
				err = fmt.Errorf("protocol %d on a socket of protocol %d", h.proto, proto)
			}
			if err != nil {
				return nil, from, to, fmt.Errorf("receive from %v: %w", from, err)
			}
			b, to = b[h.size:h.total], netip.AddrPortFrom(h.to, 0)
		}
		if k.onlyTo.IsValid() && to.Addr() != k.onlyTo {
			continue
		}
		if k.only.IsValid() && from.Addr() != k.only && to.Addr() != k.only {
			continue
		}
		return b, from, to, nil
	}
}

// Rest takes the packets that are waiting.
func (e *raw) Rest() ([]script.Message, error) { return rest(e.Receive) }
