package nft

import (
	"context"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf"
	"pfdivert/pfconf/rtnetlink"
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

// route opens a socket for the current namespace's routes.
func route(t testing.TB) *rtnetlink.Conn {
	t.Helper()
	c, err := rtnetlink.Dial()
	check(t, err)
	t.Cleanup(func() { check(t, c.Close()) })
	return c
}

func up(t testing.TB, name string) {
	t.Helper()
	c := route(t)
	l, err := c.Link(name)
	check(t, err)
	check(t, c.SetUp(l.Index))
}

// lab is LOCAL and REMOTE, joined by a veth pair: v1 and v0.
type lab struct{ local, remote namespace }

func newLab(t testing.TB) lab {
	t.Helper()
	l := lab{newNamespace(t), newNamespace(t)}
	l.remote.do(t, func() {
		_, err := route(t).AddLink(rtnetlink.NewLink{
			Name: "v0", Kind: rtnetlink.Veth, Hardware: mac(1),
			Peer: &rtnetlink.NewLink{Name: "v1", Hardware: mac(2), Namespace: int(l.local)},
		})
		check(t, err)
		end(t, "v0", 1, 2)
	})
	l.local.do(t, func() {
		v1 := end(t, "v1", 2, 1)
		for _, f := range pfconf.Families {
			check(t, route(t).AddRoute(rtnetlink.Route{Link: v1, Via: addr(f, 1, 1), Dst: network(addr(f, 2, 0))}))
		}
	})
	for i, n := range []namespace{l.local, l.remote} {
		n.do(t, func() { ready(t, []string{"v1", "v0"}[i]) })
	}
	return l
}

func mac(host byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, host} }

// network is the address with the length of its network's prefix.
func network(a netip.Addr) netip.Prefix {
	if a.Is4() {
		return netip.PrefixFrom(a, 24)
	}
	return netip.PrefixFrom(a, 64)
}

// end returns the interface's index, once it has its addresses. The other end's are known for ever,
// so that no one asks for them, and nothing waits for duplicate detection.
func end(t testing.TB, name string, host, peer byte) int {
	c := route(t)
	l, err := c.Link(name)
	check(t, err)
	check(t, c.SetNoLinkLocal(l.Index))
	check(t, c.SetUp(l.Index))
	for _, f := range pfconf.Families {
		check(t, c.AddAddress(rtnetlink.Address{Link: l.Index, Prefix: network(addr(f, 1, host)),
			Flags: unix.IFA_F_NODAD}))
		check(t, c.SetNeighbour(rtnetlink.Neighbour{
			Link: l.Index, State: unix.NUD_PERMANENT, Addr: addr(f, 1, peer), Hardware: mac(peer),
		}))
	}
	return l.Index
}

// ready waits until the link carries packets and the kernel's work queue has
// made the IPv6 address's local route.
func ready(t testing.TB, name string) {
	c := route(t)
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(100 * time.Microsecond) {
		l, err := c.Link(name)
		check(t, err)
		routes, err := c.Routes(unix.AF_INET6, unix.RT_TABLE_LOCAL)
		check(t, err)
		local := slices.ContainsFunc(routes, func(r rtnetlink.Route) bool {
			return r.Link == l.Index &&
				r.Type == unix.RTN_LOCAL
		})
		if l.State == rtnetlink.OperUp && local {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is not ready: %v, routes %v", name, l.State, routes)
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
