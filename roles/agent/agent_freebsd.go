package agent

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"pfdivert/pfconf/pf"
	"runtime"
	"slices"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
	"pfdivert/pfconf/ipfw"
	"pfdivert/pfconf/program"
	"pfdivert/roles/socket"
)

// WarmUp does nothing: ipfw needs no questions.
func WarmUp() {}

// OpenFilter opens ipfw, and pf beside it where it can be used. FreeBSD's pf has no divert-reply,
// and its divert-to is a divert-packet.
func OpenFilter(ctx context.Context, s *script.Setup, opt Options) (pfconf.Firewall, error) {
	run := program.ExecBy(socket.Start)
	c := ipfw.Config{Run: run, Journal: opt.Journal}
	for _, fake := range s.Fakes {
		if f := pfconf.FamilyOf(fake.Addr()); !slices.Contains(c.Families, f) {
			c.Families = append(c.Families, f)
		}
	}
	fw, err := ipfw.Open(ctx, c)
	if err != nil {
		return nil, err
	}
	return put(ctx, fw, s, run, opt.Journal), nil
}

// OpenInspector opens this host's ipfw, and its pf if that is switched on, for pf-setup.
func OpenInspector() (pfconf.Inspector, error) { return openInspectors(context.Background(), nil) }

// system looks at ipfw and at divert sockets.
func (c *checks) system(ctx context.Context, s *script.Setup, _ bool) {
	c.ipfw(ctx, ipfw.NewControl(nil), s)
	release, _ := kernel()
	c.pfBeside(ctx, pf.NewControl(program.Exec, 0), release)
	const name = "divert socket"
	e, err := socket.Open(script.Divert{Local: netip.AddrPortFrom(pfconf.Inet.Unspecified(), 0)}, io.Discard)
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

// natlook asks pf.
func natlook(q pfconf.NATQuery) (pfconf.NATAnswer, error) { return pf.Natlook(q) }

// EnterDomain returns an error unless n is 0: only OpenBSD has routing domains.
func EnterDomain(n int) (int, error) {
	if n <= 0 {
		return 0, nil
	}
	return 0, hinted{errors.New(runtime.GOOS + " has no routing domains"), "leave out -rdomain"}
}

// domain has nothing to look at.
func (c *checks) domain(context.Context, *script.Setup, int) {}
