package agent

import (
	"context"
	"io"
	"net/netip"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
	"pfdivert/pfconf/ipfw"
	"pfdivert/pfconf/pf"
	"pfdivert/pfconf/program"
	"pfdivert/roles/endpoint"
)

// system looks at ipfw and at divert sockets.
func (c *checks) system(ctx context.Context, s *script.Setup, _ bool) {
	c.ipfw(ctx, ipfw.NewControl(nil), s)
	release, _ := kernel()
	c.pfBeside(ctx, pf.NewControl(program.Exec, 0), release)
	const name = "divert socket"
	e, err := endpoint.Open(script.Divert{Local: netip.AddrPortFrom(pfconf.Inet.Unspecified(), 0)}, io.Discard)
	if err == nil {
		err = e.Close()
	}
	if err != nil {
		c.no(name, "kldload ipdivert", "%v", err)
		return
	}
	c.ok(name, "can be opened")
}

// ownFilter looks whether LOCAL's packet filter lets the suite's packets pass.
func (c *checks) ownFilter(ctx context.Context, s *script.Setup) {
	c.unknownProtocols(ctx, ipfw.NewControl(nil), s)
}

// locals is for Linux, where a route can make an address the host's.
func locals([]netip.Prefix) ([]string, error) { return nil, nil }
