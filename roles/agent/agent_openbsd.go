package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
	"pfdivert/pfconf/pf"
	"pfdivert/pfconf/program"
	"pfdivert/roles/lab/bsd"
	"pfdivert/roles/socket"
)

// WarmUp does nothing: pf needs no questions.
func WarmUp() {}

// OpenFilter opens pf's anchor. pf has every feature: divert-to, divert-reply and
// divert-packet are parts of its grammar.
func OpenFilter(ctx context.Context, s *script.Setup, opt Options) (pfconf.Firewall, error) {
	c := pf.Config{Anchor: "regress", Run: program.ExecBy(socket.Start), Journal: opt.Journal, Domain: opt.Domain}
	for _, p := range s.Paths {
		for _, f := range s.Fakes {
			if pfconf.FamilyOf(f.Addr()) == pfconf.FamilyOf(p.There) {
				c.Between = append(c.Between, [2]netip.Prefix{netip.PrefixFrom(p.There, p.There.BitLen()), f.Masked()})
			}
		}
	}
	return pf.Open(ctx, c)
}

// OpenInspector opens this host's pf for pf-setup.
func OpenInspector() (pfconf.Inspector, error) { return pf.OpenInspector(nil, false), nil }

// EnterDomain has this process work in a routing domain: all sockets that it and the programs
// which it starts open afterwards are in it (setrtable(2)). It takes root to leave another
// than 0. A number below 0 stays where the process was started. It gives the number in force.
func EnterDomain(n int) (int, error) {
	if n < 0 {
		n, err := unix.Getrtable()
		return n, os.NewSyscallError("getrtable", err)
	}
	err := os.NewSyscallError("setrtable", unix.Setrtable(n))
	switch {
	case errors.Is(err, unix.EINVAL):
		err = hinted{fmt.Errorf("this host has no routing domain %d: %w", n, err),
			fmt.Sprintf("put REMOTE's interface into it: ifconfig IF rdomain %d", n)}
	case errors.Is(err, unix.EPERM):
		err = hinted{fmt.Errorf("enter the routing domain %d: %w", n, err), "it takes root: set SUDO to doas"}
	}
	return n, err
}

// domain looks whether the host's addresses are in the routing domain in which the agent
// works.
func (c *checks) domain(ctx context.Context, s *script.Setup, domain int) {
	const name = "routing domain"
	var seen []string
	for _, p := range s.Paths {
		nic, err := interfaceOf(p.Here)
		if err != nil || nic == "" || slices.Contains(seen, nic) {
			continue // said before
		}
		seen = append(seen, nic)
		switch there, err := bsd.DomainOf(ctx, program.Exec, nic); {
		case err != nil:
			c.fail(name, err)
		case there != domain && s.Remote:
			c.no(name, fmt.Sprintf("-rdomain %d, or the addresses of another interface", there),
				"%s with %v is in %d and not in %d", nic, p.Here, there, domain)
		case there != domain:
			c.no(name, fmt.Sprintf("route -T%d exec pfdivert …, or the addresses of another interface", there),
				"%s with %v is in %d and not in %d", nic, p.Here, there, domain)
		default:
			c.ok(name, "%s is in %d", nic, there)
		}
	}
}

// system looks at pf and at divert sockets.
func (c *checks) system(ctx context.Context, s *script.Setup, _ bool) {
	var nics []string
	for _, p := range s.Paths {
		nic, err := interfaceOf(p.Here)
		if err == nil && nic != "" && !slices.Contains(nics, nic) { // else said before
			nics = append(nics, nic)
		}
	}
	c.pf(ctx, pf.NewControl(program.Exec, 0), s, nics)
	for _, p := range s.Paths {
		family := pfconf.FamilyOf(p.Here)
		name := fmt.Sprintf("%v divert socket", family)
		domain := unix.AF_INET
		if family == pfconf.Inet6 {
			domain = unix.AF_INET6
		}
		fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_DIVERT)
		if err != nil {
			c.no(name, "run a kernel with pf's divert(4), as GENERIC is", "socket: %v", err)
			continue
		}
		_ = unix.Close(fd)
		c.ok(name, "can be opened")
	}
}

// locals is for Linux, where a route can make an address the host's.
func locals([]netip.Prefix) ([]string, error) { return nil, nil }

// natlook asks pf.
func natlook(q pfconf.NATQuery) (pfconf.NATAnswer, error) { return pf.Natlook(q) }

// ownFilter is for FreeBSD, whose ipfw drops by default what the raw IPv6 cells send.
func (*checks) ownFilter(context.Context, *script.Setup) {}
