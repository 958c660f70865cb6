package twin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Read reads the configuration of the network namespace that this process is in. It changes nothing
// there, sends no packet, starts no program and has the kernel load no module. What it may not or
// can not read is in Unread. Reading rules and sockets' options needs root.
func Read(ctx context.Context) (*Snapshot, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return read(ctx, true)
}

// Read reads the configuration of the namespace, but for its sockets: they are of this process.
func (n *Netns) Read(ctx context.Context) (c *Snapshot, err error) {
	err = n.Do(func() error {
		c, err = read(ctx, false)
		return err
	})
	return c, err
}

// read reads the configuration of the calling thread's namespace.
func read(ctx context.Context, sockets bool) (*Snapshot, error) {
	d := &Dump{System: system(), Settings: map[string]string{}}
	if err := d.readRoutes(ctx); err != nil {
		return nil, err
	}
	for _, part := range []struct {
		what string
		read func(context.Context) error
	}{
		{"the rules of nf_tables", d.readNFT},
		{"the sets of ipset", d.readIPSets},
		{"the rules of iptables-legacy", d.readLegacy},
	} {
		if err := part.read(ctx); err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			d.Unread = append(d.Unread, fmt.Sprintf("%s: %v", part.what, err))
		}
	}
	c, err := decode(d)
	if err != nil {
		return nil, err
	}
	d.readSettings()
	d.readQueues()
	if sockets {
		if err := d.readSockets(ctx); err != nil {
			d.Unread = append(d.Unread, fmt.Sprintf("the sockets: %v", err))
		}
	}
	c.Dump = *d
	if sockets {
		if c.Upstreams, err = c.upstreams(ctx); err != nil {
			c.Unread = append(c.Unread, fmt.Sprintf("the connections of listeners: %v", err))
		}
		c.NotCloned = c.notCloned(ctx)
	}
	if len(c.Partial) > 0 {
		if err := c.Ask(ctx, Plan(c)); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// system describes the running kernel.
func system() System {
	var u unix.Utsname
	_ = unix.Uname(&u) // it fails for a bad pointer only
	return System{
		Kernel: unix.ByteSliceToString(u.Release[:]), Machine: unix.ByteSliceToString(u.Machine[:]),
		BigEndian: bigEndian, PointerBits: pointerBits,
	}
}

// readRoutes reads what rtnetlink has, links, addresses, routes, rules and neighbors, or some of
// it: what RTM_GET… asks for.
func (d *Dump) readRoutes(ctx context.Context, some ...uint16) error {
	c, err := dial(unix.NETLINK_ROUTE, 0)
	if err != nil {
		return err
	}
	defer c.Close()
	link := make([]byte, unix.SizeofIfInfomsg)
	link = appendAttr(link, unix.IFLA_EXT_MASK, native(1<<3)) // RTEXT_FILTER_SKIP_STATS
	any := func([]byte) bool { return true }
	// Other families are those of multicast routing, MPLS and the like.
	ip := func(m []byte) bool { return len(m) > 0 && (m[0] == unix.AF_INET || m[0] == unix.AF_INET6) }
	// What is cloned is an exception that a packet made (path MTU, redirect).
	lasting := func(m []byte) bool {
		return ip(m) && len(m) >= unix.SizeofRtMsg && host32(m[8:12])&unix.RTM_F_CLONED == 0
	}
	route := func(family byte) []byte { return append([]byte{family}, make([]byte, unix.SizeofRtMsg-1)...) }
	for _, part := range []struct {
		what    string
		get     uint16
		request []byte
		to      *[][]byte
		ours    func([]byte) bool
	}{
		{"network devices", unix.RTM_GETLINK, link, &d.Links, any},
		{"addresses", unix.RTM_GETADDR, make([]byte, unix.SizeofIfAddrmsg), &d.Addrs, ip},
		{"nexthop objects", unix.RTM_GETNEXTHOP, make([]byte, unix.SizeofNhmsg), &d.Nexthops, any},
		{"IPv4 routes", unix.RTM_GETROUTE, route(unix.AF_INET), &d.Routes, lasting},
		{"IPv6 routes", unix.RTM_GETROUTE, route(unix.AF_INET6), &d.Routes, lasting},
		{"IPv4 policy rules", unix.RTM_GETRULE, route(unix.AF_INET), &d.Rules, ip},
		{"IPv6 policy rules", unix.RTM_GETRULE, route(unix.AF_INET6), &d.Rules, ip},
		{"neighbors", unix.RTM_GETNEIGH, make([]byte, unix.SizeofNdMsg), &d.Neighbors, any},
	} {
		if part.request[0] == unix.AF_INET6 && !hasIPv6() || len(some) > 0 && !slices.Contains(some, part.get) {
			continue
		}
		all, err := dump(ctx, c, part.get, part.request)
		if errors.Is(err, unix.EOPNOTSUPP) {
			continue // nexthop objects came with Linux 5.3; policy rules are an option of the kernel
		} else if err != nil {
			return fmt.Errorf("list of %s: %w", part.what, err)
		}
		for _, m := range all {
			if m.Type != part.get-2 || !part.ours(m.Data) { // RTM_NEW… precedes RTM_GET… by two
				continue
			}
			*part.to = append(*part.to, m.Data)
		}
	}
	return nil
}

// hasIPv6 reports whether the kernel has IPv6: another request would be answered for all families.
func hasIPv6() bool {
	_, err := os.Stat("/proc/thread-self/net/if_inet6")
	return err == nil
}

// netfilterDump dumps messages of a netfilter subsystem.
func netfilterDump(ctx context.Context, c *netlink.Conn, subsystem, message uint16, family byte,
	attributes []byte) ([]NetlinkMessage, error) {
	return dump(ctx, c, subsystem<<8|message, append([]byte{family, unix.NFNETLINK_V0, 0, 0}, attributes...))
}

// procNet reads a file of the thread's namespace below /proc/net.
func procNet(name string) ([]byte, error) { return os.ReadFile("/proc/thread-self/net/" + name) }

// netlinkHas reports whether the kernel has a netlink protocol, without asking for it: a socket of
// one that it has not would have it load a module. Its own socket is listed where it has.
func netlinkHas(protocol int) (bool, error) {
	table, err := procNet("netlink")
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil // a kernel without this file is none with modules for it
	} else if err != nil {
		return false, err
	}
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); len(f) > 2 && f[1] == fmt.Sprint(protocol) {
			return true, nil
		}
	}
	return false, nil
}
