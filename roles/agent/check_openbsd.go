package agent

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
	"pfdivert/pfconf/pf"
	"pfdivert/pfconf/program"
)

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
