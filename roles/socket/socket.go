package socket

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"pfdivert/matrix/script"
)

// socket is what the kinds have in common. It is a plain descriptor, read and
// polled by the calling goroutine: the net package's connections know neither
// divert sockets nor "take what is there", and add a poller.
type socket struct {
	spec        script.Ends
	ports       bool // the sockets of this kind are told apart by ports
	log         *transcript
	fd          int // -1 when closed
	local, peer netip.AddrPort
	// buf and oob take one message and its control messages.
	buf, oob []byte
	control  []byte // the part of oob that has the last message's
	// reportsErrors: the kernel keeps ICMP errors for this socket, see Errors.
	reportsErrors bool
	icmpErrors    []string
	// only: take only what is from or to this address, if it is valid (raw sockets).
	only netip.Addr
	// onlyTo: take only what was sent to this address, if it is valid (raw sockets).
	onlyTo netip.Addr
	closed bool
}

// openSocket makes the socket, sets its options and binds it.
func openSocket(s script.Ends, log *transcript, typ, proto int) (*socket, error) {
	fd, err := newSocket(family(s.Local.Addr()), typ, proto)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	k := &socket{spec: s, ports: typ != unix.SOCK_RAW, log: log, fd: fd}
	if err := k.setUp(); err != nil {
		_ = closeSocket(fd)
		return nil, err
	}
	return k, nil
}

func (k *socket) setUp() error {
	s, f := k.spec, family(k.spec.Local.Addr())
	if f == unix.AF_INET6 && k.ports {
		// Not to hear the other family too is the default on the BSDs alone.
		only := 1
		if s.DualStack {
			only = 0
		}
		if err := unix.SetsockoptInt(k.fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only); err != nil {
			return fmt.Errorf("IPV6_V6ONLY: %w", err)
		}
	}
	// With SO_REUSEADDR and port 0 Linux hands out one UDP port twice.
	if s.Reuse && s.Local.Port() != 0 {
		if err := unix.SetsockoptInt(k.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return fmt.Errorf("SO_REUSEADDR: %w", err)
		}
	}
	if s.Device.IsValid() {
		if err := bindDevice(k.fd, s.Device); err != nil {
			return fmt.Errorf("bind to the interface of %v: %w", s.Device, err)
		}
	}
	if s.FIB != 0 {
		if err := setFIB(k.fd, s.FIB); err != nil {
			return fmt.Errorf("FIB %d: %w", s.FIB, err)
		}
	}
	if s.Proxys {
		if err := markProxys(k.fd); err != nil {
			return fmt.Errorf("mark what a proxy sends: %w", err)
		}
	}
	if s.ReusePort {
		if err := unix.SetsockoptInt(k.fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			return fmt.Errorf("SO_REUSEPORT: %w", err)
		}
	}
	if s.Big {
		for _, option := range []int{unix.SO_SNDBUF, unix.SO_RCVBUF} {
			if err := unix.SetsockoptInt(k.fd, unix.SOL_SOCKET, option, bigBuffer); err != nil {
				return fmt.Errorf("socket buffer of %d bytes: %w", bigBuffer, err)
			}
		}
	}
	if !k.ports {
		if err := k.makeRoom(); err != nil {
			return err
		}
	}
	if s.Bindany && !s.Omits(script.Transparent) {
		if err := k.byRight(setBindany, f); err != nil {
			return fmt.Errorf("bindany: %w", err)
		}
	}
	if s.Diverted && !s.Omits(script.Transparent) {
		if err := k.byRight(markDiverted, f); err != nil {
			return fmt.Errorf("transparent: %w", err)
		}
	}
	if s.Local.Addr().IsUnspecified() && s.Local.Port() == 0 && s.Role == script.Client {
		return nil
	}
	return k.bind()
}

// byRight returns the socket the permission to be foreign, without the right to if that is left
// out.
func (k *socket) byRight(permit func(fd, family int) error, family int) error {
	if k.spec.Omits(script.Right) {
		return withoutRight(func() error { return permit(k.fd, family) })
	}
	return permit(k.fd, family)
}

// bigBuffer has room for some of the longest packets, in bytes. Every system gives that
// much to whoever asks (Linux: net.core.rmem_max is 212992).
const bigBuffer = 200 << 10

// crowd is the room, in bytes, that a raw socket asks for. It hears all that comes to its address,
// other cells' packets and the fences of all among it, and what comes when it is full is lost:
// FreeBSD gives 9 KB unasked, which 28 echo requests fill.
const crowd = 1 << 20

// makeRoom asks for a crowd's room, and for less where the system refuses that. Linux never does,
// and returns what it may.
func (k *socket) makeRoom() error {
	for room := crowd; ; room /= 2 {
		err := unix.SetsockoptInt(k.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, room)
		if err == nil {
			return nil
		}
		if room <= bigBuffer {
			return fmt.Errorf("socket buffer of %d bytes: %w", room, err)
		}
	}
}

func (k *socket) bind() error {
	to := k.spec.Local
	if !k.ports {
		to = portless(to)
		if done, err := bindForeignRaw(k.fd, k.spec); done || err != nil {
			k.local, k.onlyTo = to, to.Addr()
			return err
		}
	}
	if err := unix.Bind(k.fd, sockaddr(to)); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	return nil
}

// sockName and peerName ask the kernel; invalid where the system has no name.
func (k *socket) sockName(fd int) netip.AddrPort {
	sa, _ := unix.Getsockname(fd)
	return k.named(sa)
}

func (k *socket) peerName(fd int) netip.AddrPort {
	sa, _ := unix.Getpeername(fd)
	return k.named(sa)
}

func (k *socket) named(sa unix.Sockaddr) netip.AddrPort {
	a := addrPort(sa)
	if a.IsValid() && !k.ports {
		return portless(a)
	}
	return a
}

// Names returns the names that were asked for when they last changed.
func (k *socket) Names() (local, peer netip.AddrPort) { return k.local, k.peer }

// Connect connects a client of a kind that does so at once.
func (k *socket) Connect() error {
	if k.spec.Role != script.Client {
		return fmt.Errorf("connect: a %s does not connect", k.spec.Role)
	}
	to := k.spec.Remote
	if !k.ports {
		to = portless(to)
	}
	if err := unix.Connect(k.fd, sockaddr(to)); err != nil {
		return fmt.Errorf("connect to %v: %w", to, err)
	}
	k.local, k.peer = k.sockName(k.fd), k.peerName(k.fd)
	k.logConnected()
	return nil
}

func (k *socket) logConnected() {
	k.log.address("connect sock", k.local)
	k.log.address("connect peer", k.peer)
}

// Connected has nothing to wait for.
func (k *socket) Connected(time.Time) error { return nil }

// Accept is for streams.
func (k *socket) Accept(time.Time) error {
	return errors.New("accept: a socket that is no stream has no connections")
}

// Relay is for the packet role.
func (k *socket) Relay(_, _ []byte) (script.Message, error) {
	return script.Message{}, fmt.Errorf("relay: a %s is not in the packet's way", k.spec.Role)
}

// CloseConn is for streams.
func (k *socket) CloseConn() error { return nil }

// Close closes the socket.
func (k *socket) Close() error {
	if k.closed {
		return nil
	}
	k.closed = true
	err := k.closeFD()
	k.log.text("Shutdown " + string(k.spec.Role))
	return err
}

func (k *socket) closeFD() error {
	if k.fd < 0 {
		return nil
	}
	fd := k.fd
	k.fd = -1
	if err := closeSocket(fd); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	return nil
}

// Errors returns the ICMP errors since the last call.
func (k *socket) Errors() []string {
	k.takeErrors()
	e := k.icmpErrors
	k.icmpErrors = nil
	return e
}

// maxErrors bounds the ICMP errors that are kept of one socket.
const maxErrors = 16

// takeErrors moves the socket's ICMP errors from the kernel to icmpErrors and
// reports whether there were any.
func (k *socket) takeErrors() bool {
	if !k.reportsErrors || k.fd < 0 {
		return false
	}
	texts := readErrors(k.fd)
	k.icmpErrors = append(k.icmpErrors, texts...)
	k.icmpErrors = k.icmpErrors[:min(len(k.icmpErrors), maxErrors)]
	return len(texts) > 0
}

// wait waits until the descriptor is ready or the deadline has passed
// (ErrNothing).
func wait(fd int, events int16, deadline time.Time) error {
	return waitAny([]unix.PollFd{{Fd: int32(fd), Events: events}}, deadline)
}

// heedEvery is how often a wait looks whether its context is done.
const heedEvery = 100 * time.Millisecond

// Await waits until the descriptor is ready. When ctx is done, the error is ctx's cause.
func Await(ctx context.Context, fd int, events int16) error {
	return awaited(ctx, func(until time.Time) error { return wait(fd, events, until) })
}

// awaited waits, in parts, until one of them ends with something else than ErrNothing.
func awaited(ctx context.Context, part func(until time.Time) error) error {
	for {
		if err := part(time.Now().Add(heedEvery)); !errors.Is(err, ErrNothing) {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

func waitAny(fds []unix.PollFd, deadline time.Time) error {
	for {
		// poll(2) counts milliseconds: rounding up, it does not end before the
		// deadline. Long waits are cut, to fit an int.
		left := max(0, min(time.Until(deadline), time.Hour))
		n, err := unix.Poll(fds, int((left+time.Millisecond-1)/time.Millisecond))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("poll: %w", err)
		case n > 0:
			return nil
		case time.Until(deadline) <= 0:
			return ErrNothing
		}
	}
}

// drainLimit bounds what Rest takes.
const drainLimit = 64

// rest receives until nothing is left.
func rest(receive func(time.Time) (script.Message, error)) ([]script.Message, error) {
	var all []script.Message
	for len(all) < drainLimit {
		m, err := receive(Now)
		if errors.Is(err, ErrNothing) {
			break
		}
		if err != nil {
			return all, err
		}
		all = append(all, m)
	}
	return all, nil
}

// longest is how many bytes of one message are kept.
func longest(big bool) int {
	if big {
		return script.MaxPacket
	}
	return MaxData
}

// bounded is a copy of a message's payload, as far as it is kept.
func bounded(big bool, b []byte) []byte { return slices.Clone(b[:min(len(b), longest(big))]) }

// forks keeps the beginnings of programs and the ends of sockets apart. From fork to
// exec a child holds every descriptor of this process, those too that are closed on
// exec: a socket that is closed here in that time lives on, connected and with
// its state in pf, until the child has come to exec. Sockets are closed side by
// side (Linux takes 11 ms for some), programs start alone.
var forks sync.RWMutex

// Start starts a program while no socket of an endpoint is being closed. Use it, not cmd.Start, in
// a process that has endpoints.
func Start(cmd *exec.Cmd) error {
	forks.Lock()
	defer forks.Unlock()
	return cmd.Start() // comes back when the child is past exec
}

// closeSocket closes a socket of an endpoint.
func closeSocket(fd int) error {
	forks.RLock()
	defer forks.RUnlock()
	return unix.Close(fd)
}
