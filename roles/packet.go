package roles

import (
	"context"
	"fmt"
	"net/netip"
	"pfdivert/matrix/script"
	"time"

	"pfdivert/pfconf"
	"pfdivert/roles/socket"
	"pfdivert/roles/terminal"
)

var packetRole = Role{
	Name: "packet", Usage: "[FLAGS] PORT", Link: true, NoUndo: true,
	Summary: "take a packet from divert port PORT, rewrite 'Client' to 'Packet', send it on",
	Help: `PORT is the divert port of a divert-packet rule; on Linux the number of a
netfilter queue.

` + socketHelp,
	run: runPacket,
}

func runPacket(_ context.Context, c *call) (int, error) {
	f := c.flags()
	six := f.Bool("6", false, "IPv6")
	timeout := f.Duration("timeout", socketTimeout, "give up after this `TIME`")
	if err := c.parse(f); err != nil {
		return exitError, err
	}
	var port uint16
	if n, err := fmt.Sscan(f.Arg(0), &port); n != 1 || err != nil || port == 0 || f.NArg() != 1 {
		return exitError, terminal.WithHint(fmt.Errorf("packet needs one divert port between 1 and 65535, not %q",
			f.Args()), "pfdivert packet 666")
	}
	family := pfconf.Inet
	if *six {
		family = pfconf.Inet6
	}
	e, err := socket.Open(script.Divert{Local: netip.AddrPortFrom(family.Unspecified(), port)}, c.Out)
	if err != nil {
		return exitError, err
	}
	defer e.Close()
	var s chain
	s.do("receive", func() error { _, err := e.Receive(time.Now().Add(*timeout)); return err })
	s.do("send on", func() error {
		_, err := e.Relay([]byte(script.ClientLine), []byte(script.PacketLine))
		return err
	})
	if s.err != nil {
		terminal.PrintError(c.Err, s.err)
		return exitFail, nil
	}
	return exitOK, nil
}
