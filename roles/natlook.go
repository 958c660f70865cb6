package roles

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"

	"pfdivert/pfconf"
	"pfdivert/roles/agent"
	"pfdivert/roles/terminal"
)

var natlookRole = Role{
	Name: "natlook", Usage: "[FLAGS] SRC SPORT DST DPORT", Link: true,
	Summary: "tell who is behind a translated connection of this host",
	Help: `A proxy to which a rule redirects connections (rdr-to, dnat) asks for whom one was
meant: SRC SPORT is its client, DST DPORT the own name of its socket, -direction out.
Who got a packet from a host that translates (nat-to, snat) asks there who sent it: SRC
SPORT is where it came from, DST DPORT where it arrived, -direction in. Without
-direction either is looked for.

'internal host' is who began the connection, 'original destination' whom it was meant
for. pf is asked by DIOCNATLOOK on /dev/pf (pf(4) has this as its example), Linux
for the entry in its conntrack table. It takes root.

Exit status: 0 when it is known, 1 when there is no such state, 2 when the
question could not be asked.`,
	run: runNatlook,
}

func runNatlook(_ context.Context, c *call) (int, error) {
	const example = "pfdivert natlook -direction out 10.188.1.1 8000 10.188.1.2 20000"
	f := c.flags()
	q := pfconf.NATQuery{}
	proto := f.String("proto", "tcp", "`PROTO` is tcp or udp")
	f.Func("direction", "`SIDE` is out: as a socket of this host sees a redirected connection; or in: as the other\nhost sees one whose source was translated", func(s string) error {
		return q.Direction.UnmarshalText([]byte(s))
	})
	f.IntVar(&q.Domain, "rdomain", 0, "routing domain `N` of SRC and DST (OpenBSD)")
	if err := c.parse(f); err != nil {
		return exitError, err
	}
	if f.NArg() != 4 {
		return exitError, terminal.WithHint(fmt.Errorf(
			"natlook needs two addresses with their ports, four words, not %d", f.NArg()), example)
	}
	var err error
	if q.Proto, err = protocol(*proto); err != nil {
		return exitError, err
	}
	for i, end := range []*netip.AddrPort{&q.Src, &q.Dst} {
		if *end, err = addressAndPort(f.Arg(2*i), f.Arg(2*i+1)); err != nil {
			return exitError, terminal.WithHint(err, example)
		}
	}
	if err := q.Validate(); err != nil {
		return exitError, terminal.WithHint(err, example)
	}
	answer, err := agent.Natlook(q)
	if errors.Is(err, pfconf.ErrNoState) {
		terminal.PrintError(c.Err, err)
		return exitFail, nil
	}
	if err != nil {
		return exitError, err
	}
	fmt.Fprintf(c.Out, "internal host %v\noriginal destination %v\n", answer.Src, answer.Dst)
	if answer.Domain != q.Domain {
		fmt.Fprintf(c.Out, "routing domain %d\n", answer.Domain)
	}
	return exitOK, nil
}

// addressAndPort reads an address and a port that are words of their own.
func addressAndPort(address, port string) (netip.AddrPort, error) {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("address %q: %w", address, err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return netip.AddrPort{}, fmt.Errorf("port %q: ports are numbers from 1 to 65535", port)
	}
	return netip.AddrPortFrom(a, uint16(n)), nil
}
