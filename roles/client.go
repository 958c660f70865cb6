package roles

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"pfdivert/matrix/script"
	"time"

	"pfdivert/pfconf"
	"pfdivert/roles/socket"
	"pfdivert/roles/terminal"
)

var clientRole = Role{
	Name: "client", Usage: "[FLAGS] ADDRESS", Link: true, NoUndo: true,
	Summary: "connect to ADDRESS, send 'Client' and wait for the answer",
	Help: `With divert-reply the client runs on the host that filters: -bindany -bind FAKE.
A TCP client reads the server's line and the end of the stream; the others wait for
an answer with -answer, and an ICMP client always does.

` + socketHelp,
	run: runClient,
}

func runClient(_ context.Context, c *call) (int, error) {
	f := c.flags()
	var o socketFlags
	o.add(f)
	answer := f.Bool("answer", false, "wait for the server's answer (udp, rip)")
	if err := c.parse(f); err != nil {
		return exitError, err
	}
	if f.NArg() != 1 {
		return exitError, terminal.WithHint(fmt.Errorf("client needs one address, not %d", f.NArg()),
			"pfdivert client -proto udp 10.188.2.9:4000")
	}
	proto, err := protocol(o.proto)
	if err != nil {
		return exitError, err
	}
	remote, err := address(f.Arg(0))
	if err != nil {
		return exitError, terminal.WithHint(fmt.Errorf("client %q: %w", f.Arg(0), err),
			"pfdivert client 10.188.2.9:4000")
	}
	if remote.Port() == 0 && proto.HasPorts() {
		return exitError, terminal.WithHint(fmt.Errorf("client %s: %v takes a port", f.Arg(0), proto),
			"pfdivert client -proto "+proto.String()+" "+netip.AddrPortFrom(remote.Addr(), 4000).String())
	}
	if !o.bind.IsValid() {
		o.bind = netip.AddrPortFrom(pfconf.FamilyOf(remote.Addr()).Unspecified(), 0)
	}
	e, err := socket.Open(clientSocket(proto, script.Ends{
		Role: script.Client, Local: o.bind, Remote: remote, Bindany: o.bindany,
	}), c.Out)
	if err != nil {
		return exitError, err
	}
	defer e.Close()
	deadline := time.Now().Add(o.timeout)
	stream := proto == pfconf.TCP
	var s chain
	s.do("connect", e.Connect)
	if stream {
		s.do("connect", func() error { return e.Connected(deadline) })
	}
	s.do("send", func() error { return e.Send([]byte(script.ClientLine), 1) })
	if stream || *answer || proto == pfconf.ICMP {
		s.do("receive", func() error { _, err := e.Receive(deadline); return err })
	}
	if stream {
		s.do("end of stream", func() error {
			if _, err := e.Receive(deadline); !errors.Is(err, io.EOF) {
				return fmt.Errorf("it did not come: %v", err)
			}
			return nil
		})
	}
	if s.err != nil {
		terminal.PrintError(c.Err, s.err)
		return exitFail, nil
	}
	return exitOK, nil
}

// clientSocket is the client's socket. Echoes have the process's own id.
func clientSocket(proto pfconf.Proto, e script.Ends) script.Socket {
	s := script.SocketOf(proto, e)
	if echo, ok := s.(script.Echo); ok {
		echo.ID = uint16(os.Getpid())
		return echo
	}
	return s
}

// socketTimeout is how long client, server and packet wait: long enough to start the other end by
// hand.
const socketTimeout = time.Minute

// socketFlags are the flags that client and server share.
type socketFlags struct {
	proto   string
	bind    netip.AddrPort
	bindany bool
	timeout time.Duration
}

func (o *socketFlags) add(f *flag.FlagSet) {
	f.StringVar(&o.proto, "proto", "tcp", "`PROTO` is tcp, udp, rip (raw IP, protocol 254) or icmp (echo)")
	f.Func("bind", "own `ADDRESS` (10.1.2.3, 10.1.2.3:4000, [fd00::1]:4000)", func(s string) (err error) {
		o.bind, err = address(s)
		return err
	})
	f.BoolVar(&o.bindany, "bindany", false, "the own address need not be one of this host (SO_BINDANY, IP_TRANSPARENT)")
	f.DurationVar(&o.timeout, "timeout", socketTimeout, "give up after this `TIME`")
}

// address reads an address with or without port.
func address(s string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(a, 0), nil
	}
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		return a, errors.New("this is no address, such as 10.1.2.3, 10.1.2.3:4000 or [fd00::1]:4000")
	}
	return a, nil
}

// protocol returns the protocol that a flag names.
func protocol(name string) (p pfconf.Proto, err error) {
	if err = p.UnmarshalText([]byte(name)); err != nil {
		err = terminal.WithHint(err, "-proto tcp, udp, rip or icmp")
	}
	return p, err
}

// chain runs steps until one fails.
type chain struct{ err error }

func (c *chain) do(what string, step func() error) {
	if c.err == nil {
		if err := step(); err != nil {
			c.err = fmt.Errorf("%s: %w", what, err)
		}
	}
}

// socketHelp ends the help of the roles that open a socket.
const socketHelp = `Exit status: 0 when all was sent and received, 1 when something did not arrive,
2 when the socket could not be opened.`
