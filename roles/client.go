package roles

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
	"pfdivert/roles/endpoint"
)

var clientRole = Role{
	Name: "client", Usage: "[FLAGS] ADDRESS", Link: true,
	Summary: "connect to ADDRESS, send 'Client' and wait for the answer",
	Help: `With divert-reply the client runs on the host that filters: -bindany -bind FAKE.
A TCP client reads the server's line and the end of the stream; the others wait for
an answer with -answer, and an ICMP client always does.

` + handHelp,
	run: runClient,
}

func runClient(_ context.Context, c *call) (int, error) {
	f := c.flags()
	var h handFlags
	h.add(f)
	answer := f.Bool("answer", false, "wait for the server's answer (udp, rip)")
	if err := c.parse(f); err != nil {
		return exitError, err
	}
	if f.NArg() != 1 {
		return exitError, hinted{fmt.Errorf("client needs one address, not %d", f.NArg()), "pfdivert client -proto udp 10.188.2.9:4000"}
	}
	proto, err := protocol(h.proto)
	if err != nil {
		return exitError, err
	}
	remote, err := address(f.Arg(0))
	if err != nil {
		return exitError, hinted{fmt.Errorf("address %q: %w", f.Arg(0), err), "10.1.2.3, 10.1.2.3:4000 or [fd00::1]:4000"}
	}
	if !h.bind.IsValid() {
		h.bind = netip.AddrPortFrom(pfconf.FamilyOf(remote.Addr()).Unspecified(), 0)
	}
	e, err := endpoint.Open(clientSocket(proto, script.Ends{Role: script.Client, Local: h.bind, Remote: remote, Bindany: h.bindany}), c.Out)
	if err != nil {
		return exitError, err
	}
	defer e.Close()
	deadline := time.Now().Add(h.timeout)
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
		tell(c.Err, s.err)
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
