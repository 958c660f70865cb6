package roles

import (
	"context"
	"errors"
	"fmt"
	"time"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
	"pfdivert/roles/socket"
	"pfdivert/roles/terminal"
)

var serverRole = Role{
	Name: "server", Usage: "[FLAGS]", Link: true, NoUndo: true,
	Summary: "wait for a client's line, and answer",
	Help: `With divert-to the server runs on the host that filters: -diverted, bound to the
address and port that the rule diverts to (on Linux a raw or ICMP server is bound to
FAKE, with -bindany). A TCP server always writes its line and closes first; the
others answer with -answer.

` + socketHelp,
	run: runServer,
}

func runServer(_ context.Context, c *call) (int, error) {
	f := c.flags()
	var o socketFlags
	o.add(f)
	diverted := f.Bool("diverted", false, "packets for a foreign address will be diverted here")
	answer := f.Bool("answer", false, "answer to whom the line came from (udp, rip)")
	if err := c.parse(f); err != nil {
		return exitError, err
	}
	if err := c.noArgs(f); err != nil {
		return exitError, err
	}
	proto, err := protocol(o.proto)
	if err != nil {
		return exitError, err
	}
	if !o.bind.IsValid() {
		return exitError, terminal.WithHint(errors.New("server needs an address to bind"),
			"pfdivert server -bind 127.0.0.1:4000 -diverted")
	}
	e, err := socket.Open(script.SocketOf(proto, script.Ends{
		Role: script.Server, Local: o.bind, Bindany: o.bindany, Diverted: *diverted,
	}), c.Out)
	if err != nil {
		return exitError, err
	}
	defer e.Close()
	deadline := time.Now().Add(o.timeout)
	var s chain
	if proto == pfconf.TCP {
		s.do("accept", func() error { return e.Accept(deadline) })
		s.do("send", func() error { return e.Send([]byte(script.ServerLine), 0) })
		s.do("receive", func() error { return receiveClient(e, deadline) })
		s.do("close", e.CloseConn)
	} else {
		s.do("receive", func() error { return receiveClient(e, deadline) })
		if *answer {
			s.do("send", func() error { return e.Send([]byte(script.ServerLine), 0) })
		}
	}
	if s.err != nil {
		terminal.PrintError(c.Err, s.err)
		return exitFail, nil
	}
	return exitOK, nil
}

// receiveClient receives one message, which must be the client's line or what a packet
// role made of it.
func receiveClient(e socket.Endpoint, deadline time.Time) error {
	m, err := e.Receive(deadline)
	if err != nil {
		return err
	}
	if s := string(m.Data); s != script.ClientLine && s != script.PacketLine {
		return fmt.Errorf("received %q, neither a client's nor a packet role's line", s)
	}
	return nil
}
