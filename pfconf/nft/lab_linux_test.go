package nft

import (
	"context"
	"net"
	"net/netip"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"pfdivert/pfconf"
	"pfdivert/roles/lab/labtest"
)

// namespace is a network namespace.
type namespace int

// do runs fn in the namespace: what it opens there stays there.
func (n namespace) do(t testing.TB, fn func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := current(t)
	defer unix.Close(int(before))
	check(t, unix.Setns(int(n), unix.CLONE_NEWNET))
	defer func() { check(t, unix.Setns(int(before), unix.CLONE_NEWNET)) }()
	fn()
}

func current(t testing.TB) namespace {
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	check(t, err)
	return namespace(fd)
}

// newNamespace makes one in which only lo is, up.
func newNamespace(t testing.TB) namespace {
	t.Helper()
	labtest.Need(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := current(t)
	defer unix.Close(int(before))
	check(t, unix.Unshare(unix.CLONE_NEWNET))
	n := current(t)
	check(t, unix.Setns(int(before), unix.CLONE_NEWNET))
	t.Cleanup(func() { unix.Close(int(n)) })
	n.do(t, func() { up(t, "lo") })
	return n
}

func up(t testing.TB, name string) netlink.Link {
	l, err := netlink.LinkByName(name)
	check(t, err)
	check(t, netlink.LinkSetUp(l))
	return l
}

// lab is LOCAL and REMOTE, joined by a veth pair: v1 and v0.
type lab struct{ local, remote namespace }

func newLab(t testing.TB) lab {
	t.Helper()
	l := lab{newNamespace(t), newNamespace(t)}
	l.remote.do(t, func() {
		check(t, netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: "v0", HardwareAddr: mac(1)},
			PeerName:  "v1", PeerHardwareAddr: mac(2), PeerNamespace: netlink.NsFd(l.local),
		}))
		end(t, "v0", 1, 2)
	})
	l.local.do(t, func() {
		v1 := end(t, "v1", 2, 1)
		for _, f := range pfconf.Families {
			check(t, netlink.RouteAdd(&netlink.Route{
				LinkIndex: v1.Attrs().Index, Gw: addr(f, 1, 1).AsSlice(), Dst: ipNet(addr(f, 2, 0), 24, 64),
			}))
		}
	})
	for i, n := range []namespace{l.local, l.remote} {
		n.do(t, func() { ready(t, []string{"v1", "v0"}[i]) })
	}
	return l
}

func mac(host byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, host} }

func ipNet(a netip.Addr, bits4, bits6 int) *net.IPNet {
	bits := bits6
	if a.Is4() {
		bits = bits4
	}
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, a.BitLen())}
}

// end returns the interface its addresses. The other end's are known for ever,
// so that no one asks for them, and nothing waits for duplicate detection.
func end(t testing.TB, name string, host, peer byte) netlink.Link {
	l, err := netlink.LinkByName(name)
	check(t, err)
	check(t, netlink.LinkSetIP6AddrGenMode(l, 1)) // none
	up(t, name)
	for _, f := range pfconf.Families {
		check(t, netlink.AddrAdd(l, &netlink.Addr{IPNet: ipNet(addr(f, 1, host), 24, 64), Flags: unix.IFA_F_NODAD}))
		check(t, netlink.NeighSet(&netlink.Neigh{
			LinkIndex: l.Attrs().Index, State: netlink.NUD_PERMANENT,
			IP: addr(f, 1, peer).AsSlice(), HardwareAddr: mac(peer),
		}))
	}
	return l
}

// ready waits until the link carries packets and the kernel's work queue has
// made the IPv6 address's local route.
func ready(t testing.TB, name string) {
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(100 * time.Microsecond) {
		l, err := netlink.LinkByName(name)
		check(t, err)
		routes, err := netlink.RouteListFiltered(unix.AF_INET6, &netlink.Route{Table: 255, Type: unix.RTN_LOCAL, LinkIndex: l.Attrs().Index},
			netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE|netlink.RT_FILTER_OIF)
		check(t, err)
		if l.Attrs().OperState == netlink.OperUp && len(routes) > 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is not ready: %v, %d local routes", name, l.Attrs().OperState, len(routes))
		}
	}
}

// open opens the firewall of the namespace and closes it after the test.
func (n namespace) open(t testing.TB, c Config) *Firewall {
	t.Helper()
	var f *Firewall
	n.do(t, func() {
		var err error
		f, err = Open(t.Context(), c)
		check(t, err)
	})
	t.Cleanup(func() { check(t, f.Close(context.Background())) })
	return f
}

// transparent lets a socket bind FAKE, and be found by tproxy.
func transparent(_, _ string, c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) {
		if err = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1); err != nil {
			err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TRANSPARENT, 1)
		}
	}); e != nil {
		return e
	}
	return os.NewSyscallError("setsockopt TRANSPARENT", err)
}

// ended is when a test gives up waiting for what should have come long before.
func ended() time.Time { return time.Now().Add(5 * time.Second) }

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// aMoment is enough to take what has arrived.
func aMoment() time.Time { return time.Now().Add(time.Millisecond) }
