package socket

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf/need"
	"pfdivert/pfconf/netlink"
)

// sockDiag is the process's socket for asking about sockets, nil until the first question. It
// stays open as long as the process.
var sockDiag struct {
	mu     sync.Mutex
	socket *netlink.Socket
	finds  bool // it has found a socket
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
	if err = ask(sockDiag.socket); !errors.Is(err, netlink.ErrNoSocket) {
		return err
	}
	// A kernel that looks for no TCP sockets answers the same.
	if err := findsOwn(sockDiag.socket); err != nil {
		return err
	}
	return ErrNoSocket
}

// findsOwn reports whether the kernel finds a TCP socket that is there: a listener of this
// process's. The error is a *need.MissingError when it does not. Once it does, it is not asked
// again.
func findsOwn(s *netlink.Socket) error {
	if sockDiag.finds {
		return nil
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
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
	found, err := s.ListInet(unix.AF_INET, unix.IPPROTO_TCP, tcpListen)
	switch port := name.(*unix.SockaddrInet4).Port; {
	case errors.Is(err, netlink.ErrNoSocket), errors.Is(err, unix.ENOENT):
		return &need.MissingError{Feature: need.SockDiag, Err: unix.ENOENT}
	case err != nil:
		return fmt.Errorf("probe tcp_diag: %w", err)
	case !slices.ContainsFunc(found, func(i netlink.InetSocket) bool { return int(i.Local.Port()) == port }):
		return &need.MissingError{Feature: need.SockDiag, Err: unix.ENOENT}
	}
	sockDiag.finds = true
	return nil
}

// tcpListen is TCP_LISTEN of linux/net/tcp_states.h.
const tcpListen = 10

// ProbeTCPDiag returns a *need.MissingError when this kernel can't be asked about TCP sockets.
func ProbeTCPDiag() error {
	err := diagnose(func(*netlink.Socket) error { return netlink.ErrNoSocket })
	if errors.Is(err, ErrNoSocket) {
		return nil
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
