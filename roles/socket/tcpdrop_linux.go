package socket

import (
	"context"
	"errors"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf/netlink"
)

// sockDiag is the process's socket for asking about sockets, nil until the first question. It
// stays open as long as the process.
var sockDiag struct {
	mu     sync.Mutex
	socket *netlink.Socket
}

// diagnose passes the process's sock_diag socket to ask, alone.
func diagnose(ask func(*netlink.Socket) error) (err error) {
	sockDiag.mu.Lock()
	defer sockDiag.mu.Unlock()
	if sockDiag.socket == nil {
		if sockDiag.socket, err = netlink.Open(unix.NETLINK_SOCK_DIAG); err != nil {
			return err
		}
	}
	if err = ask(sockDiag.socket); errors.Is(err, netlink.ErrNoSocket) {
		return ErrNoSocket
	}
	return err
}

func tcpState(_ context.Context, local, remote netip.AddrPort) (state string, err error) {
	err = diagnose(func(s *netlink.Socket) error {
		found, err := s.FindTCP(local, remote)
		if err == nil {
			state, err = netlink.TCPState(found.State)
		}
		return err
	})
	return state, err
}

func tcpDrop(_ context.Context, local, remote netip.AddrPort) error {
	return diagnose(func(s *netlink.Socket) error { return s.DestroyTCP(local, remote) })
}
