package middlebox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"pfdivert/matrix/script"
	"pfdivert/roles/socket"
)

// listener says what a listening socket has besides its name.
type listener struct {
	transparent bool
	device      string // "" for any
}

// control sets the socket's options before it is bound.
func (l listener) control(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		level, option := unix.SOL_IP, unix.IP_TRANSPARENT
		if v, _ := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN); v == unix.AF_INET6 {
			level, option = unix.SOL_IPV6, unix.IPV6_TRANSPARENT
		}
		if l.transparent {
			failed = os.NewSyscallError("setsockopt(IP_TRANSPARENT)",
				unix.SetsockoptInt(int(fd), level, option, 1))
		}
		if failed == nil && l.device != "" {
			failed = os.NewSyscallError("setsockopt(SO_BINDTODEVICE)", unix.BindToDevice(int(fd), l.device))
		}
	})
	return errors.Join(err, failed)
}

// listen opens a listener in the thread's namespace, whose connections come to b.accepted.
func (b *box) listen(ctx context.Context, at script.Listener, name netip.AddrPort, l listener) error {
	config := net.ListenConfig{Control: l.control}
	config.SetMultipathTCP(false)
	socket, err := config.Listen(ctx, network(name), name.String())
	if err != nil {
		return fmt.Errorf("listen as %s on %v: %w", at, name, err)
	}
	b.listeners = append(b.listeners, socket)
	go func() {
		for {
			conn, err := socket.Accept()
			if err != nil {
				return
			}
			b.accepted <- accepted{at, conn}
		}
	}()
	return nil
}

func network(a netip.AddrPort) string {
	if a.Addr().Is4() {
		return "tcp4"
	}
	return "tcp6"
}

// pair is a connection with both ends open.
type pair struct {
	client net.Conn
	accepted
}

func (p pair) close() {
	for _, c := range []net.Conn{p.client, p.conn} {
		if t, ok := c.(*net.TCPConn); ok {
			_ = t.SetLinger(0)
			_ = t.Close()
		}
	}
}

// connect connects the client. fence runs when the connection is neither there nor refused at once,
// and returns when all that the client sent before has been processed, with what answers it. Where
// there is no connection then, the pair has no ends.
func (b *box) connect(ctx context.Context, from, to netip.AddrPort,
	fence func(ctx context.Context, fd int) error) (script.Connection, pair, error) {
	var c script.Connection
	if err := b.client.enter(); err != nil {
		return c, pair{}, err
	}
	fd, err := begin(from, to)
	if err == nil {
		err = ended(fd)
	}
	if errors.Is(err, unix.EAGAIN) {
		if err := fence(ctx, fd); err != nil {
			_ = unix.Close(fd)
			return c, pair{}, err
		}
		err = ended(fd)
	}
	if err != nil {
		_ = unix.Close(fd)
		c.Err = err.Error()
		if errors.Is(err, unix.EAGAIN) {
			c.Err = "no answer"
		}
		return c, pair{}, nil
	}
	file := os.NewFile(uintptr(fd), "client")
	conn, err := net.FileConn(file)
	_ = file.Close()
	if err != nil {
		return c, pair{}, err
	}
	p := pair{client: conn}
	select {
	case p.accepted = <-b.accepted:
	case <-ctx.Done():
		_ = conn.Close()
		return c, pair{}, fmt.Errorf("the client is connected, and no one has accepted it: %w", context.Cause(ctx))
	}
	c.At, c.Own, c.Peer = p.at, named(p.conn.LocalAddr()), named(p.conn.RemoteAddr())
	return c, p, nil
}

// begin sends the first packet of a connection from the thread's namespace. The descriptor is -1
// or the caller's to close, whatever the error.
func begin(from, to netip.AddrPort) (fd int, err error) {
	family := unix.AF_INET6
	if to.Addr().Is4() {
		family = unix.AF_INET
	}
	fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err := unix.Bind(fd, sockaddr(from)); err != nil {
		return fd, os.NewSyscallError("bind", err)
	}
	if err := unix.Connect(fd, sockaddr(to)); err != nil && err != unix.EINPROGRESS {
		return fd, os.NewSyscallError("connect", err)
	}
	return fd, nil
}

// ended returns how a connection began: EAGAIN where that is open.
func ended(fd int) error {
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	for {
		n, err := unix.Poll(poll, 0)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return os.NewSyscallError("poll", err)
		case n == 0:
			return unix.EAGAIN
		}
		break
	}
	code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && code != 0 {
		err = unix.Errno(code)
	}
	return err
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

func named(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	p := t.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

// exchange has each end send its line, until ctx is done.
func (p pair) exchange(ctx context.Context, c *script.Connection) {
	stop := context.AfterFunc(ctx, func() {
		_, _ = p.client.SetDeadline(time.Unix(1, 0)), p.conn.SetDeadline(time.Unix(1, 0))
	})
	defer stop()
	c.Read, c.Err = pass(p.client, p.conn, script.ClientLine)
	if c.Err == "" {
		c.Heard, c.Err = pass(p.conn, p.client, script.ServerLine)
	}
}

// pass sends a line and returns what came of it.
func pass(from, to net.Conn, line string) (got, failed string) {
	if _, err := io.WriteString(from, line); err != nil {
		return "", err.Error()
	}
	b := make([]byte, len(line))
	n, err := io.ReadFull(to, b)
	if err != nil {
		failed = err.Error()
	}
	return string(b[:n]), failed
}

// talk connects the client and has both ends send. What is lost is lost by the kernel: another
// connection, which is not diverted, comes to the server.
func (b *box) talk(ctx context.Context, from, to netip.AddrPort) (script.Connection, error) {
	c, p, err := b.connect(ctx, from, to,
		func(ctx context.Context, _ int) error { return b.reaches(ctx, b.Beside) })
	if err != nil {
		return c, err
	}
	defer func() {
		_, _ = fmt.Fprintf(b.log, "connection from %v to %v: came to %q, from %v to %v; it read %q, the client %q; %s\n",
			from, to, c.At, c.Peer, c.Own, c.Read, c.Heard, c.Err)
		p.close()
	}()
	if p.client == nil {
		return c, nil
	}
	patient, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if p.exchange(patient, &c); c.Err != "" {
		if err := b.reaches(ctx, b.Beside); err != nil {
			return c, fmt.Errorf("the connection to %v failed (%s): %w", to, c.Err, err)
		}
	}
	return c, nil
}

// waits is a fence for a connection that must come to be.
func waits(ctx context.Context, fd int) error { return socket.Await(ctx, fd, unix.POLLOUT) }

// reaches runs a connection that must come to the server.
func (b *box) reaches(ctx context.Context, to netip.AddrPort) error {
	c, p, err := b.connect(ctx, netip.AddrPortFrom(b.Client.Addr(), 0), to, waits)
	if err != nil {
		return err
	}
	defer p.close()
	if p.client != nil {
		p.exchange(ctx, &c)
	}
	if c.At != script.AtServer || c.Err != "" {
		return fmt.Errorf("a connection to %v that no rule is about came to %q, not to the server: %s", to, c.At, c.Err)
	}
	return nil
}
