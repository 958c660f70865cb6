package socket

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxHeaders is room for the headers that come with a raw message: an IPv4
// header with options and an ICMP header.
const maxHeaders = 60 + 8

// controlSpace is room for the control messages that are asked for, the
// largest an IPv6 socket address.
const controlSpace = 128

// receiveMessage waits for one message, b valid until the next call. to is the
// destination that a control message told, if one was asked for.
func (k *socket) receiveMessage(deadline time.Time) (b []byte, from, to netip.AddrPort, err error) {
	if k.buf == nil {
		k.buf = make([]byte, longest(k.spec.Big)+maxHeaders)
		k.oob = make([]byte, controlSpace)
	}
	var pending error
	for {
		n, oobn, _, sa, err := unix.Recvmsg(k.fd, k.buf, k.oob, 0)
		switch {
		case err == nil:
			k.control = k.oob[:oobn]
			return k.buf[:n], addrPort(sa), destination(k.control), nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			if pending != nil {
				return nil, from, to, pending
			}
			if err := wait(k.fd, unix.POLLIN, deadline); err != nil {
				return nil, from, to, err
			}
		case k.takeErrors():
			// The error came from an ICMP message. Messages that wait behind it
			// go first; a soft error, which without the error queue the socket would
			// not have reported, is only kept for Errors.
			if !softError(err) {
				pending = fmt.Errorf("receive: %w", err)
			}
		default:
			return nil, from, to, fmt.Errorf("receive: %w", err)
		}
	}
}

// softError reports whether an ICMP error leaves hope (RFC 1122, 4.2.3.9).
func softError(err error) bool {
	return errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTUNREACH)
}

// sendMessage sends to the peer, or to whom to names.
func (k *socket) sendMessage(b []byte, to netip.AddrPort) error {
	var sa unix.Sockaddr
	if to.IsValid() {
		sa = sockaddr(to)
	}
	for try := 0; ; {
		_, err := unix.SendmsgN(k.fd, b, nil, sa, 0)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
		case try == 0 && k.takeErrors():
			// That was an error of an earlier message; nothing was sent.
			try++
		default:
			return fmt.Errorf("send: %w", err)
		}
	}
}

// discard throws away what a raw socket heard before it was bound and
// connected: until then it gets every packet of its protocol.
func (k *socket) discard() {
	var b [1]byte
	for range 10 * drainLimit {
		_, _, err := unix.Recvfrom(k.fd, b[:], 0)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// destination finds the destination in control messages; invalid without.
func destination(oob []byte) netip.AddrPort {
	if len(oob) == 0 {
		return netip.AddrPort{}
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return netip.AddrPort{}
	}
	var d origDst
	for i := range messages {
		d.read(&messages[i])
	}
	if !d.addr.IsValid() {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(d.addr, d.port)
}

// origDst gathers the destination; on OpenBSD address and port come apart.
type origDst struct {
	addr netip.Addr
	port uint16
}

// packetInfo reads a struct in6_pktinfo (RFC 3542, 6.2): the address first.
func (d *origDst) packetInfo(b []byte) {
	if len(b) >= 16 && !d.addr.IsValid() {
		d.addr = netip.AddrFrom16([16]byte(b))
	}
}
