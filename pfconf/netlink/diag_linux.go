package netlink

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// ErrNoSocket is the error when there is no socket with the addresses.
var ErrNoSocket = errors.New("no such socket")

// SocketID is a struct inet_diag_sockid (uapi/linux/inet_diag.h): ports and addresses in network
// order, interface, cookie.
type SocketID [48]byte

func socketID(local, remote netip.AddrPort) (id SocketID) {
	binary.BigEndian.PutUint16(id[0:], local.Port())
	binary.BigEndian.PutUint16(id[2:], remote.Port())
	copy(id[4:20], local.Addr().AsSlice())
	copy(id[20:36], remote.Addr().AsSlice())
	for i := 40; i < 48; i++ {
		id[i] = 0xff // INET_DIAG_NOCOOKIE
	}
	return id
}

// sameNames reports whether the ids have the same ports and addresses.
func (id SocketID) sameNames(other SocketID) bool { return bytes.Equal(id[:36], other[:36]) }

// InetSocket is a socket that the kernel told of.
type InetSocket struct {
	State            uint8 // see TCPState
	ID               SocketID
	Local, Remote    netip.AddrPort
	Interface        int    // that the socket is bound to, 0 for none
	Mark             uint32 // 0 without CAP_NET_ADMIN
	UID              uint32
	Inode            uint32
	Only6            bool // IPV6_V6ONLY
	Transparent      bool // IP_TRANSPARENT
	FreeBind         bool // IP_FREEBIND
	TransparentKnown bool // since Linux 5.10 the kernel tells of it, and of FreeBind
}

// Numbers of states, for ListInet. A UDP socket that is not connected is in StateClose.
const (
	StateEstablished = 1
	StateSynSent     = 2
	StateClose       = 7
	StateCloseWait   = 8
	StateListen      = 10
)

// FindTCP looks up the TCP socket with the addresses on a NETLINK_SOCK_DIAG socket. That there is
// none, or only a listener, is ErrNoSocket.
func (s *Socket) FindTCP(local, remote netip.AddrPort) (InetSocket, error) {
	want := socketID(local, remote)
	var found InetSocket
	answer := errNoAnswer
	r := s.Request()
	r.Add(unix.SOCK_DIAG_BY_FAMILY, 0, inetRequest(family(local.Addr()), unix.IPPROTO_TCP, anyState, want)...)
	err := s.Exchange(r, func(m Message) bool {
		if m.Kind == unix.NLMSG_ERROR {
			answer = noSocket(m.Acknowledged())
		} else {
			found, answer = parseInet(m.Body, binary.NativeEndian)
		}
		return false
	})
	if err := errors.Join(err, answer); err != nil {
		return found, fmt.Errorf("sock_diag: %w", err)
	}
	// The kernel's look-up falls back to a listener (inet_diag_find_one_icsk).
	if found.State == StateListen || !found.ID.sameNames(want) {
		return found, ErrNoSocket
	}
	return found, nil
}

// DestroyTCP ends the TCP socket with the addresses, as tcpdrop(8) does: by the cookie that
// FindTCP returns, so that no other is hit.
func (s *Socket) DestroyTCP(local, remote netip.AddrPort) error {
	found, err := s.FindTCP(local, remote)
	if err != nil {
		return err
	}
	answer := errNoAnswer
	r := s.Request()
	r.Add(unix.SOCK_DESTROY, unix.NLM_F_ACK, inetRequest(family(local.Addr()), unix.IPPROTO_TCP, anyState, found.ID)...)
	err = s.Exchange(r, func(m Message) bool {
		answer = noSocket(m.Acknowledged())
		return false
	})
	if err := errors.Join(err, answer); err != nil {
		return fmt.Errorf("SOCK_DESTROY: %w", err)
	}
	return nil
}

// ListInet lists the sockets of an address family (AF_INET, AF_INET6) and protocol that are in one
// of the states, on a NETLINK_SOCK_DIAG socket.
func (s *Socket) ListInet(family, protocol uint8, states ...uint8) ([]InetSocket, error) {
	var all []InetSocket
	set := uint32(0)
	for _, state := range states {
		set |= 1 << state
	}
	r := s.Request()
	r.Add(unix.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP, inetRequest(family, protocol, set, SocketID{})...)
	err := s.Dump(r, func(m Message) error {
		one, err := parseInet(m.Body, binary.NativeEndian)
		all = append(all, one)
		return err
	})
	return all, err
}

const anyState = 1<<32 - 1

// inetRequest is a struct inet_diag_req_v2: family, protocol, extensions, padding, states, id.
func inetRequest(family, protocol uint8, states uint32, id SocketID) []byte {
	b := binary.NativeEndian.AppendUint32([]byte{family, protocol, 0, 0}, states)
	return append(b, id[:]...)
}

// Attributes of an answer, linux/inet_diag.h.
const (
	diagV6Only  = 11 // INET_DIAG_SKV6ONLY
	diagMark    = 15 // INET_DIAG_MARK
	diagSockopt = 22 // INET_DIAG_SOCKOPT: a struct inet_diag_sockopt
)

// parseInet reads a struct inet_diag_msg with its attributes: family, state, timer,
// retransmissions, the id, five numbers of 32 bits: expiry, two queues, user and inode.
func parseInet(b []byte, order binary.ByteOrder) (s InetSocket, err error) {
	const header = 72
	if len(b) < header {
		return s, fmt.Errorf("a message of %d bytes", len(b))
	}
	size := 4
	if b[0] == unix.AF_INET6 {
		size = 16
	}
	at := func(address, port int) netip.AddrPort {
		a, _ := netip.AddrFromSlice(b[address : address+size])
		return netip.AddrPortFrom(a, binary.BigEndian.Uint16(b[port:]))
	}
	s.State, s.ID = b[1], SocketID(b[4:])
	s.Local, s.Remote, s.Interface = at(8, 4), at(24, 6), int(order.Uint32(b[40:]))
	s.UID, s.Inode = order.Uint32(b[64:]), order.Uint32(b[68:])
	for kind, data := range Attributes(b[header:]) {
		switch {
		case kind == diagV6Only && len(data) > 0:
			s.Only6 = data[0] != 0
		case kind == diagMark && len(data) == 4:
			s.Mark = order.Uint32(data)
		case kind == diagSockopt && len(data) > 0:
			s.TransparentKnown = true
			s.FreeBind, s.Transparent = data[0]&optionBit(2, order) != 0, data[0]&optionBit(5, order) != 0
		}
	}
	return s, nil
}

// optionBit is one of the C bit-fields of struct inet_diag_sockopt: recverr, is_icsk, freebind,
// hdrincl, mc_loop, transparent, mc_all, nodefrag. Compilers give them out from the lowest bit on
// where the lowest byte comes first, and from the highest on elsewhere.
func optionBit(number int, order binary.ByteOrder) uint8 {
	if order.Uint16([]byte{1, 0}) == 1 {
		return 1 << number
	}
	return 0x80 >> number
}

// noSocket turns the kernel's answer into ErrNoSocket if it is that.
func noSocket(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return ErrNoSocket
	}
	return err
}

func family(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
