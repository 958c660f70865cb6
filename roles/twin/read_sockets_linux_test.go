package twin

import (
	"context"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// listen opens a socket with options: its level, its name and the value 1 each.
func listen(t *testing.T, domain, kind int, local unix.Sockaddr, options ...[2]int) {
	t.Helper()
	fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o[0], o[1], 1); err != nil {
			t.Fatal(o, err)
		}
	}
	if err := unix.Bind(fd, local); err != nil {
		t.Fatal(err)
	}
	if kind == unix.SOCK_STREAM {
		if err := unix.Listen(fd, 1); err != nil {
			t.Fatal(err)
		}
	}
}

// Each way to list sockets tells the same of them, with their options where they can be asked.
func TestReadSockets(t *testing.T) {
	host := newNetns(t)
	if err := host.Do(func() error {
		listen(t, unix.AF_INET, unix.SOCK_STREAM, &unix.SockaddrInet4{Port: 1001, Addr: [4]byte{127, 0, 0, 1}})
		listen(t, unix.AF_INET, unix.SOCK_STREAM, &unix.SockaddrInet4{Port: 1002},
			[2]int{unix.SOL_IP, unix.IP_TRANSPARENT},
			[2]int{unix.SOL_SOCKET, unix.SO_REUSEADDR}, [2]int{unix.SOL_SOCKET, unix.SO_MARK},
			[2]int{unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX})
		listen(t, unix.AF_INET6, unix.SOCK_STREAM, &unix.SockaddrInet6{Port: 1003},
			[2]int{unix.SOL_IPV6, unix.IPV6_V6ONLY},
			[2]int{unix.SOL_IPV6, unix.IPV6_TRANSPARENT})
		listen(t, unix.AF_INET6, unix.SOCK_STREAM, &unix.SockaddrInet6{Port: 1004},
			[2]int{unix.SOL_IP, unix.IP_FREEBIND})
		listen(t, unix.AF_INET, unix.SOCK_DGRAM, &unix.SockaddrInet4{Port: 1005},
			[2]int{unix.SOL_IP, unix.IP_RECVORIGDSTADDR},
			[2]int{unix.SOL_SOCKET, unix.SO_REUSEPORT})
		listen(t, unix.AF_INET6, unix.SOCK_DGRAM, &unix.SockaddrInet6{Port: 1006},
			[2]int{unix.SOL_IPV6, unix.IPV6_RECVORIGDSTADDR})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	at := func(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
	want := []BoundSocket{
		{Proto: "tcp", Local: at("127.0.0.1:1001")},
		{Proto: "tcp", Local: at("0.0.0.0:1002"), Transparent: true, ReuseAddr: true, Mark: 1, Index: 1},
		{Proto: "tcp", Local: at("[::]:1003"), V6Only: true, Transparent: true},
		{Proto: "tcp", Local: at("[::]:1004"), FreeBind: true},
		{Proto: "udp", Local: at("0.0.0.0:1005"), OrigDst: true, ReusePort: true},
		{Proto: "udp", Local: at("[::]:1006"), OrigDst6: true},
	}
	for i := range want {
		want[i].UID, want[i].GID = uint32(os.Geteuid()), uint32(os.Getegid())
		want[i].Comm, want[i].OptionsKnown = strings.TrimSpace(string(comm)), true
	}
	for _, c := range []struct {
		name string
		list func(family, state byte, protocol byte, name string) ([]found, error)
	}{
		{"netlink", func(family, state, protocol byte, name string) ([]found, error) {
			return diagSockets(context.Background(), family, protocol, state, name)
		}},
		{"proc", func(family, state, _ byte, name string) ([]found, error) { return procSockets(family, state, name) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			var all []found
			if err := host.Do(func() error {
				for _, p := range protocols {
					for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
						some, err := c.list(family, p.state, p.number, p.name)
						if err != nil {
							return err
						}
						all = append(all, some...)
					}
				}
				slices.SortFunc(all, func(a, b found) int { return int(a.Local.Port()) - int(b.Local.Port()) })
				if c.name == "netlink" { // it knows all but what no answer has
					for i, f := range all {
						got := f.BoundSocket
						got.ReuseAddr, got.ReusePort, got.OrigDst, got.OrigDst6 = want[i].ReuseAddr, want[i].ReusePort,
							want[i].OrigDst, want[i].OrigDst6
						got.GID, got.Comm, got.OptionsKnown = want[i].GID, want[i].Comm, true
						if diff := cmp.Diff(want[i], got,
							cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
							t.Errorf("before the options are asked (-want +got):\n%s", diff)
						}
					}
				}
				askOwners(all)
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			var got []BoundSocket
			for _, f := range all {
				got = append(got, f.BoundSocket)
			}
			if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
