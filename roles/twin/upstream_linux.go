package twin

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf/netlink"
)

// maxUpstreams bounds how many sockets of a kind are kept.
const maxUpstreams = 6

// upstreams reads the connections that programs have to others which take diverted packets: rules
// for the host's own packets must leave them out. It looks for them only where there are such
// rules.
func (c *Snapshot) upstreams(ctx context.Context) ([]Upstream, error) {
	h := c.hints()
	if !slices.ContainsFunc(h.seen, func(s hookSeen) bool {
		return s.hook == unix.NF_INET_LOCAL_OUT &&
			h.diverts[s.base]
	}) {
		return nil, nil
	}
	var ports []uint16
	programs := map[string]BoundSocket{}
	for _, s := range c.Sockets {
		if s.Comm != "" && h.listens(s) {
			programs[s.Comm] = s
			ports = append(ports, s.Local.Port())
		}
	}
	if len(programs) == 0 {
		return nil, nil
	}
	owners := socketsOf(programs)
	var all []Upstream
	for _, p := range protocols {
		if listed, err := netlinkHas(unix.NETLINK_SOCK_DIAG); err != nil || !listed {
			return nil, err
		}
		if listed, err := p.lister.there(); err != nil || !listed {
			return nil, err
		}
		for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
			if family == unix.AF_INET6 && !hasIPv6() {
				continue
			}
			some, err := connections(ctx, family, p.number, p.name)
			if err != nil {
				return nil, err
			}
			for _, u := range some {
				owner, ok := owners[u.inode]
				to := u.remote.Addr()
				if !ok || !c.isOwn(u.Local.Addr()) || slices.Contains(ports, u.Local.Port()) || c.isOwn(to) ||
					to.IsLoopback() || !to.IsGlobalUnicast() {
					continue
				}
				x := Upstream{Proto: u.Proto, Remote: u.remote, IPv6: to.Is6(), Mark: u.Mark, UID: u.UID,
					GID: owner.GID, Comm: owner.Comm}
				alike := 0
				for _, o := range all {
					if o.Proto == x.Proto && o.IPv6 == x.IPv6 && o.Mark == x.Mark && o.UID == x.UID {
						alike++
					}
				}
				if alike < maxUpstreams && !slices.Contains(all, x) {
					all = append(all, x)
				}
			}
		}
	}
	return all, nil
}

// connection is a socket that has a peer.
type connection struct {
	found
	remote netip.AddrPort
}

// connections lists those of a protocol that are made, or about to be.
func connections(ctx context.Context, family, protocol byte, name string) ([]connection, error) {
	listed, err := listInet(ctx, family, protocol,
		netlink.StateEstablished, netlink.StateSynSent, netlink.StateCloseWait)
	var all []connection
	for _, s := range listed {
		local := netip.AddrPortFrom(s.Local.Addr().Unmap(), s.Local.Port())
		all = append(all, connection{
			found{BoundSocket{Proto: name, Local: local, Mark: s.Mark, UID: s.UID}, uint64(s.Inode)},
			netip.AddrPortFrom(s.Remote.Addr().Unmap(), s.Remote.Port()),
		})
	}
	return all, err
}

// socketsOf finds the sockets of all processes of some programs, by their inodes.
func socketsOf(programs map[string]BoundSocket) map[uint64]BoundSocket {
	all := map[uint64]BoundSocket{}
	names, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, name := range names {
		comm, err := os.ReadFile(name)
		owner, ok := programs[strings.TrimSpace(string(comm))]
		if err != nil || !ok {
			continue
		}
		fds, _ := filepath.Glob(filepath.Dir(name) + "/fd/*")
		for _, fd := range fds {
			if link, err := os.Readlink(fd); err == nil {
				if inode, ok := socketInode(link); ok {
					all[inode] = owner
				}
			}
		}
	}
	return all
}

// socketInode reads a link to a socket in /proc/PID/fd: "socket:[12345]".
func socketInode(link string) (uint64, bool) {
	number, ok := strings.CutPrefix(link, "socket:[")
	n, err := strconv.ParseUint(strings.TrimSuffix(number, "]"), 10, 64)
	return n, ok && err == nil
}
