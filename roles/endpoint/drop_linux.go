package endpoint

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf/need"
)

// sockDiag is the process's socket for asking about sockets. It stays open:
// see queues.
var sockDiag struct {
	mu      sync.Mutex
	netlink netlinkSocket
	finds   bool // tcpDiag has found that it does
}

// tcpStates are the BSDs' names of the kernel's states (include/net/tcp_states.h).
var tcpStates = map[uint8]string{
	1: "ESTABLISHED", 2: "SYN_SENT", 3: "SYN_RCVD", 4: "FIN_WAIT_1", 5: "FIN_WAIT_2", 6: "TIME_WAIT",
	7: "CLOSED", 8: "CLOSE_WAIT", 9: "LAST_ACK", 10: "LISTEN", 11: "CLOSING", 12: "SYN_RCVD",
}

// diagSocketID is a struct inet_diag_sockid (uapi/linux/inet_diag.h): ports and
// addresses in network order, interface, cookie.
type diagSocketID [48]byte

func socketID(local, remote netip.AddrPort) (id diagSocketID) {
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
func (id diagSocketID) sameNames(other diagSocketID) bool {
	return bytes.Equal(id[:36], other[:36])
}

func tcpState(_ context.Context, local, remote netip.AddrPort) (string, error) {
	sockDiag.mu.Lock()
	defer sockDiag.mu.Unlock()
	state, _, err := findSocket(local, remote)
	return state, err
}

func tcpDrop(_ context.Context, local, remote netip.AddrPort) error {
	sockDiag.mu.Lock()
	defer sockDiag.mu.Unlock()
	// The kernel's look-up falls back to a listener (inet_diag_find_one_icsk):
	// the socket is looked at first, and destroyed by the cookie it has then.
	_, id, err := findSocket(local, remote)
	if err != nil {
		return err
	}
	if _, err := diagnose(unix.SOCK_DESTROY, unix.NLM_F_ACK, local, id); err != nil {
		return fmt.Errorf("SOCK_DESTROY: %w", noSocket(err))
	}
	return nil
}

// findSocket looks the socket up and gives its state and id.
func findSocket(local, remote netip.AddrPort) (string, diagSocketID, error) {
	want := socketID(local, remote)
	b, err := diagnose(unix.SOCK_DIAG_BY_FAMILY, 0, local, want)
	if err != nil {
		return "", want, noSocket(err)
	}
	// struct inet_diag_msg: family, state, timer, retrans, id …
	if len(b) < 4+len(want) {
		return "", want, fmt.Errorf("sock_diag: %w", errShort)
	}
	state, id := tcpStates[b[1]], diagSocketID(b[4:])
	if state == "LISTEN" || !id.sameNames(want) {
		return "", want, ErrNoSocket
	}
	if state == "" {
		return "", want, fmt.Errorf("sock_diag: unknown TCP state %d", b[1])
	}
	return state, id, nil
}

// noSocket turns the kernel's answer into ErrNoSocket if it is that. A kernel that looks for no TCP
// sockets answers the same.
func noSocket(err error) error {
	if !errors.Is(err, unix.ENOENT) {
		return err
	}
	if err := tcpDiag(); err != nil {
		return err
	}
	return ErrNoSocket
}

// tcpDiag reports whether the kernel finds a TCP socket that is there: a listener of this process's.
// The error is a *need.MissingError when it does not. Once it does, it is not asked again.
func tcpDiag() error {
	if sockDiag.finds {
		return nil
	}
	fd, err := newSocket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return fmt.Errorf("probe tcp_diag: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Listen(fd, 1); err != nil { // which binds it
		return fmt.Errorf("probe tcp_diag: %w", err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return fmt.Errorf("probe tcp_diag: %w", err)
	}
	own := name.(*unix.SockaddrInet4)
	none := netip.IPv4Unspecified()
	local := netip.AddrPortFrom(none, uint16(own.Port))
	_, err = diagnose(unix.SOCK_DIAG_BY_FAMILY, 0, local, socketID(local, netip.AddrPortFrom(none, 0)))
	if errors.Is(err, unix.ENOENT) {
		return &need.MissingError{Feature: need.SockDiag, Err: err}
	}
	sockDiag.finds = err == nil
	return err
}

// ProbeTCPDiag returns a *need.MissingError when this kernel can't be asked about TCP sockets.
func ProbeTCPDiag() error {
	sockDiag.mu.Lock()
	defer sockDiag.mu.Unlock()
	return tcpDiag()
}

// diagnose sends a struct inet_diag_req_v2 about one socket and gives the body
// of the answer.
func diagnose(typ, flags uint16, local netip.AddrPort, id diagSocketID) ([]byte, error) {
	n := &sockDiag.netlink
	if err := n.open(unix.NETLINK_SOCK_DIAG); err != nil {
		return nil, err
	}
	const anyState = 0xff // of each of the four bytes
	n.request(typ, flags, byte(family(local.Addr())), unix.IPPROTO_TCP, 0, 0, anyState, anyState, anyState, anyState)
	n.out = append(n.out, id[:]...)
	if err := n.send(); err != nil {
		return nil, fmt.Errorf("sock_diag: %w", err)
	}
	var body []byte
	answer := errors.New("sock_diag: the kernel did not answer")
	err := n.receive(func(m netlinkMessage) {
		switch {
		case m.sequence != n.sequence:
		case m.typ == unix.NLMSG_ERROR:
			answer = m.acknowledged()
		default:
			body, answer = bytes.Clone(m.body), nil
		}
	})
	return body, errors.Join(answer, err)
}
