package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"pfdivert/matrix/script"
	"pfdivert/pfconf/program"
	"pfdivert/roles/lab/bsd"
)

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
		err = hinted{fmt.Errorf("this host has no routing domain %d: %w", n, err), fmt.Sprintf("put REMOTE's interface into it: ifconfig IF rdomain %d", n)}
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
			c.no(name, fmt.Sprintf("-rdomain %d, or the addresses of another interface", there), "%s with %v is in %d and not in %d", nic, p.Here, there, domain)
		case there != domain:
			c.no(name, fmt.Sprintf("route -T%d exec pfdivert …, or the addresses of another interface", there), "%s with %v is in %d and not in %d", nic, p.Here, there, domain)
		default:
			c.ok(name, "%s is in %d", nic, there)
		}
	}
}
