package rtnetlink

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"pfdivert/roles/lab/labtest"
)

func TestMain(m *testing.M) { os.Exit(labtest.Main(m)) }

// alone returns a Conn of a network namespace that has nothing but lo.
func alone(t *testing.T) *Conn {
	t.Helper()
	labtest.Need(t)
	runtime.LockOSThread() // and so the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	c, err := Dial()
	check(t, err)
	t.Cleanup(func() { check(t, c.Close()) })
	return c
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ip runs ip(8), which is asked for what it sees of this program's changes.
func ip(t *testing.T, args ...string) string {
	t.Helper()
	labtest.Programs(t, "ip")
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("ip %q: %v\n%s", args, err, out)
	}
	return string(out)
}

func want(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("%q is not in\n%s", w, text)
		}
	}
}

// Links are made with the properties that ip(8) then shows, and read with the same.
func TestLinks(t *testing.T) {
	c := alone(t)
	mac := func(n byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, n} }
	veth, err := c.AddLink(NewLink{Name: "a", Kind: Veth, Hardware: mac(1), Queues: 1,
		Peer: &NewLink{Name: "b", Hardware: mac(2), Queues: 1}})
	check(t, err)
	bridge, err := c.AddLink(NewLink{Name: "bridge", Kind: Bridge})
	check(t, err)
	check(t, c.SetNoLinkLocal(veth.Index))
	check(t, c.SetMTU(veth.Index, 1280))
	check(t, c.SetMaster(veth.Index, bridge.Index))
	check(t, c.SetFlags(veth.Index, unix.IFF_UP|unix.IFF_NOARP, unix.IFF_UP|unix.IFF_NOARP))
	want(t, ip(t, "-d", "link", "show", "dev", "a"), "NOARP,UP", "mtu 1280", "master bridge", "02:00:00:00:00:01",
		"addrgenmode none", "numtxqueues 1 ")
	want(t, ip(t, "link", "show", "dev", "b"), "02:00:00:00:00:02")
	links, err := c.Links()
	check(t, err)
	got, err := c.LinkAt(veth.Index)
	check(t, err)
	if got.Name != "a" || got.Kind != Veth || got.MTU != 1280 || got.Flags&unix.IFF_UP == 0 ||
		got.Hardware.String() != "02:00:00:00:00:01" {
		t.Errorf("%+v", got)
	}
	if !slices.ContainsFunc(links, func(l Link) bool { return cmp.Equal(l, got) }) || len(links) < 4 {
		t.Errorf("%+v", links)
	}
	check(t, c.SetDown(veth.Index))
	check(t, c.SetName(veth.Index, "renamed"))
	want(t, ip(t, "link", "show", "dev", "renamed"), "state DOWN")
	if _, err := c.AddLink(NewLink{Name: "bridge", Kind: Bridge}); !errors.Is(err, unix.EEXIST) {
		t.Errorf("a second bridge: %v", err)
	}
	check(t, c.DeleteLink(veth.Index))
	for _, name := range []string{"renamed", "b"} {
		if _, err := c.Link(name); !errors.Is(err, unix.ENODEV) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

var comparable = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})

// What is set of addresses, neighbours, routes and rules is what is read, and what ip(8) shows.
func TestValues(t *testing.T) {
	for _, f := range []struct {
		family                     uint8
		flag                       string
		own, peer, dst, everything string
		away                       string
	}{
		{unix.AF_INET, "-4", "10.0.0.1/24", "10.0.0.2", "192.0.2.0/25", "0.0.0.0/0", "198.51.100.1"},
		{unix.AF_INET6, "-6", "fd00::1/64", "fd00::2", "2001:db8:1::/57", "::/0", "2001:db8:3::1"},
	} {
		t.Run(f.flag, func(t *testing.T) {
			c := alone(t)
			check(t, c.SetUp(1))
			link, err := c.AddLink(NewLink{Name: "a", Kind: Veth, Peer: &NewLink{Name: "b"}})
			check(t, err)
			check(t, c.SetUp(link.Index))
			b, err := c.Link("b")
			check(t, err)
			check(t, c.SetUp(b.Index)) // without a carrier, no IPv6 address becomes local
			peer := netip.MustParseAddr(f.peer)

			address := Address{Link: link.Index, Prefix: netip.MustParsePrefix(f.own),
				Flags: unix.IFA_F_NODAD | unix.IFA_F_NOPREFIXROUTE}
			check(t, c.AddAddress(address))
			if err := c.AddAddress(address); !errors.Is(err, unix.EEXIST) {
				t.Errorf("the address again: %v", err)
			}
			addresses, err := c.Addresses(f.family)
			check(t, err)
			if !slices.ContainsFunc(addresses, func(a Address) bool {
				return a.Link == address.Link && a.Prefix == address.Prefix && a.Flags&unix.IFA_F_NOPREFIXROUTE != 0
			}) {
				t.Errorf("%+v", addresses)
			}
			want(t, ip(t, f.flag, "addr", "show", "dev", "a"), f.own, "noprefixroute")

			neighbour := Neighbour{Link: link.Index, Addr: peer, Hardware: net.HardwareAddr{2, 0, 0, 0, 0, 9},
				State: unix.NUD_PERMANENT}
			check(t, c.SetNeighbour(neighbour))
			neighbours, err := c.Neighbours()
			check(t, err)
			if !slices.ContainsFunc(neighbours, func(n Neighbour) bool { return cmp.Equal(n, neighbour, comparable) }) {
				t.Errorf("%+v", neighbours)
			}
			want(t, ip(t, f.flag, "neigh"), f.peer+" dev a lladdr 02:00:00:00:00:09 PERMANENT")

			scope := uint8(unix.RT_SCOPE_LINK)
			if f.family == unix.AF_INET6 {
				scope = 0 // which has none
			}
			onLink := Route{Dst: netip.PrefixFrom(peer, peer.BitLen()), Link: link.Index, Scope: scope,
				Table: unix.RT_TABLE_MAIN,
				Type:  unix.RTN_UNICAST, Protocol: unix.RTPROT_STATIC, Priority: 5}
			via := Route{Dst: netip.MustParsePrefix(f.dst), Link: link.Index, Via: peer, Table: 28774,
				Type:     unix.RTN_UNICAST,
				Protocol: unix.RTPROT_BOOT, Priority: 5, MTU: 1400, QuickACK: 1}
			standard := Route{Dst: netip.MustParsePrefix(f.everything), Link: link.Index, Via: peer,
				Src:   address.Prefix.Addr(),
				Table: unix.RT_TABLE_MAIN, Type: unix.RTN_UNICAST, Protocol: unix.RTPROT_BOOT, Priority: 6}
			routes := []Route{onLink, via, standard}
			for _, r := range routes {
				check(t, c.AddRoute(r))
				if err := c.AddRoute(r); !errors.Is(err, unix.EEXIST) {
					t.Errorf("%v again: %v", r, err)
				}
				check(t, c.ReplaceRoute(r))
				list, err := c.Routes(f.family, r.Table)
				check(t, err)
				if !slices.ContainsFunc(list, func(x Route) bool { return cmp.Equal(x, r, comparable) }) {
					t.Errorf("%+v is not in %+v", r, list)
				}
			}
			want(t, ip(t, "-d", f.flag, "route", "show", "table", "28774"),
				"unicast "+f.dst+" via "+f.peer+" dev a proto boot", "mtu 1400", "quickack 1")
			want(t, ip(t, f.flag, "route", "show"), "default via "+f.peer+" dev a",
				"src "+address.Prefix.Addr().String())

			away := netip.MustParseAddr(f.away)
			found, err := c.RouteTo(away, RouteQuery{})
			check(t, err)
			if found.Via != peer || found.Link != link.Index {
				t.Errorf("to %v: %+v", away, found)
			}
			if found, err = c.RouteTo(away, RouteQuery{Entry: true}); err != nil || found.Dst != standard.Dst {
				t.Errorf("entry for %v: %+v, %v", away, found, err)
			}

			rule := PolicyRule{Family: f.family, Priority: 7, Src: netip.MustParsePrefix(f.own).Masked(),
				Mark: 0x70660076,
				Mask: 0xffffffff, In: "a",
				Table: 28774, Action: ToTable, Protocol: 118}
			not := PolicyRule{Family: f.family, Priority: 8, Invert: true, Dst: netip.MustParsePrefix(f.dst), Out: "a",
				Action: unix.RTN_BLACKHOLE}
			for _, r := range []PolicyRule{rule, not} {
				check(t, c.AddRule(r))
				rules, err := c.Rules(f.family)
				check(t, err)
				for i := range rules {
					if r.Protocol == 0 {
						rules[i].Protocol = 0
					}
				}
				if !slices.ContainsFunc(rules, func(x PolicyRule) bool { return cmp.Equal(x, r, comparable) }) {
					t.Errorf("%+v is not in %+v", r, rules)
				}
			}
			want(t, ip(t, f.flag, "rule"),
				"7:	from "+rule.Src.String()+" fwmark 0x70660076 iif a lookup 28774 proto 118",
				"8:	not from all to "+f.dst+" oif a blackhole")
			local := func() bool { // the kernel makes IPv6's in a work queue
				list, err := c.Routes(f.family, unix.RT_TABLE_LOCAL)
				check(t, err)
				return slices.ContainsFunc(list, func(r Route) bool { return r.Dst.Addr() == address.Prefix.Addr() })
			}
			for end := time.Now().Add(5 * time.Second); !local() && time.Now().Before(end); {
				runtime.Gosched()
			}
			own, err := c.RouteTo(address.Prefix.Addr(), RouteQuery{Src: peer, Incoming: link.Index, Mark: 1})
			if err != nil || own.Type != unix.RTN_LOCAL {
				t.Errorf("what comes in for the own address: %+v, %v", own, err)
			}
			for _, r := range []PolicyRule{rule, not} {
				check(t, c.DeleteRule(r))
			}
			if err := c.DeleteRule(rule); !errors.Is(err, unix.ENOENT) {
				t.Errorf("the rule again: %v", err)
			}
			for _, r := range routes {
				check(t, c.DeleteRoute(r))
				if err := c.DeleteRoute(r); !errors.Is(err, unix.ESRCH) {
					t.Errorf("%v again: %v", r, err)
				}
			}
			if found, err := c.RouteTo(away, RouteQuery{}); !errors.Is(err, unix.ENETUNREACH) {
				t.Errorf("%+v, %v", found, err)
			}
			check(t, c.DeleteAddress(address))
		})
	}
}

// FuzzParse: whatever comes, the parsers stay within it.
func FuzzParse(f *testing.F) {
	rule := PolicyRule{Family: unix.AF_INET, Mark: 1, In: "a",
		Src: netip.MustParsePrefix("10.0.0.0/8")}.message(ToTable)
	b, err := rule.attributes.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append(rule.header, b...))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = parseLink(b)
		_, _ = parseAddress(b)
		_, _ = parseNeighbour(b)
		_, _ = parseRoute(b)
		_, _ = parseRule(b)
	})
}
