package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"pfdivert/pfconf"
	"pfdivert/pfconf/rtnetlink"
	"pfdivert/roles/lab/labtest"
	"pfdivert/roles/lab/namespace"
)

func TestMain(m *testing.M) {
	// Run starts this program again; see TestRun.
	if len(os.Args) > 1 && os.Args[1] == InnerArgument {
		exit, err := Inner(context.Background(), os.Args[2:], Stdio{os.Stdin, os.Stdout, os.Stderr})
		if err != nil {
			fmt.Fprintln(os.Stderr, "error:", err)
			exit = 2
		}
		os.Exit(exit)
	}
	os.Exit(labtest.Main(m))
}

// build builds a lab whose LOCAL is fresh, too.
func build(t testing.TB, c Config) *Lab {
	t.Helper()
	labtest.Need(t)
	l, err := tryBuild(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

func tryBuild(ctx context.Context, c Config) (l *Lab, err error) {
	done := make(chan struct{})
	namespace.OwnThread(func() {
		defer close(done)
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			l, err = Build(ctx, c)
		}
	})
	<-done
	return l, err
}

// in runs f in the host and fails the test if f does.
func in(t testing.TB, l *Lab, h HostName, f func() error) {
	t.Helper()
	if err := l.In(h, f); err != nil {
		t.Fatalf("on %s: %v", h, err)
	}
}

// listenUDP and dialUDP bind a socket of the host.
func listenUDP(t testing.TB, l *Lab, h HostName, a netip.Addr) (c *net.UDPConn) {
	t.Helper()
	in(t, l, h, func() (err error) {
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 0)))
		return err
	})
	t.Cleanup(func() { c.Close() })
	return c
}

func dialUDP(t testing.TB, l *Lab, h HostName, from netip.Addr, to net.Addr) (c *net.UDPConn) {
	t.Helper()
	in(t, l, h, func() (err error) {
		c, err = net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), to.(*net.UDPAddr))
		return err
	})
	t.Cleanup(func() { c.Close() })
	return c
}

// firstPackets sends the first packet of a fresh lab, both ways and without
// delay. Nothing sends it again.
func firstPackets(t *testing.T, l *Lab, p AddressPlan) {
	t.Helper()
	local, _, err := p.Pair(7)
	if err != nil {
		t.Fatal(err)
	}
	server := listenUDP(t, l, Remote, p.Remote.Addr())
	client := dialUDP(t, l, Local, local, server.LocalAddr())
	for _, c := range []*net.UDPConn{server, client} {
		c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
	}
	b := make([]byte, 16)
	if _, err := client.Write([]byte("Client")); err != nil {
		t.Fatal(err)
	}
	n, from, err := server.ReadFromUDPAddrPort(b)
	if err != nil || string(b[:n]) != "Client" || from.Addr().Unmap() != local {
		t.Fatalf("REMOTE received %q from %v: %v", b[:n], from, err)
	}
	if _, err := server.WriteToUDPAddrPort([]byte("Server"), from); err != nil {
		t.Fatal(err)
	}
	if n, err = client.Read(b); err != nil || string(b[:n]) != "Server" {
		t.Fatalf("LOCAL received %q: %v", b[:n], err)
	}
}

func TestFirstPacket(t *testing.T) {
	for round := range 200 {
		// A test of its own, so that the lab ends with it.
		ok := t.Run("", func(t *testing.T) {
			for _, c := range []Config{{}, {Single: true}}[round%2 : round%2+1] {
				l := build(t, c)
				families := l.Families
				if round%4 > 1 { // which family is first must not matter
					families = []pfconf.Family{families[len(families)-1], families[0]}
				}
				for _, f := range families {
					firstPackets(t, l, l.Config.PlanOf(f))
				}
			}
		})
		if !ok {
			t.Fatalf("in lab number %d", round)
		}
	}
}

// Every address of LOCAL's prefix serves every protocol, and the kernel answers
// echo requests for it.
func TestLocals(t *testing.T) {
	l := build(t, Config{})
	for _, f := range l.Families {
		p := l.Config.PlanOf(f)
		for _, n := range []int{1, 255, 1<<20 - 1} {
			local, _, err := p.Pair(n)
			if err != nil {
				t.Fatal(err)
			}
			t.Run(local.String(), func(t *testing.T) {
				t.Run("tcp", func(t *testing.T) { exchangeTCP(t, l, local) })
				t.Run("udp", func(t *testing.T) {
					server := listenUDP(t, l, Local, local)
					client := dialUDP(t, l, Remote, p.Remote.Addr(), server.LocalAddr())
					client.Write([]byte("x"))
					server.SetReadDeadline(time.Now().Add(time.Second))
					b := make([]byte, 4)
					_, from, err := server.ReadFromUDP(b)
					if err != nil {
						t.Fatal(err)
					}
					server.WriteToUDP([]byte("y"), from)
					client.SetReadDeadline(time.Now().Add(time.Second))
					if n, err := client.Read(b); err != nil || n != 1 {
						t.Errorf("the answer: %v", err)
					}
				})
				t.Run("raw", func(t *testing.T) {
					exchangeRaw(t, l, Local, local, p.Remote.Addr())
					exchangeRaw(t, l, Remote, p.Remote.Addr(), local)
				})
				t.Run("kernel echo", func(t *testing.T) { ping(t, l, p.Remote.Addr(), local) })
			})
		}
	}
}

func exchangeTCP(t *testing.T, l *Lab, at netip.Addr) {
	var server *net.TCPListener
	in(t, l, Local, func() (err error) {
		server, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(at, 0)))
		return err
	})
	defer server.Close()
	server.SetDeadline(time.Now().Add(time.Second))
	var client net.Conn
	in(t, l, Remote, func() (err error) {
		client, err = net.DialTimeout("tcp", server.Addr().String(), 500*time.Millisecond)
		return err
	})
	defer client.Close()
	c, err := server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if got := c.LocalAddr().(*net.TCPAddr).AddrPort().Addr(); got != at {
		t.Errorf("accepted at %v", got)
	}
	c.Close()
}

// exchangeRaw sends a packet of protocol 254 from an address of h to the other
// host.
func exchangeRaw(t *testing.T, l *Lab, h HostName, from, to netip.Addr) {
	t.Helper()
	network := "ip4:254"
	if to.Is6() {
		network = "ip6:254"
	}
	other := Remote
	if h == Remote {
		other = Local
	}
	var client, server *net.IPConn
	in(t, l, other, func() (err error) {
		server, err = net.ListenIP(network, &net.IPAddr{IP: to.AsSlice()})
		return err
	})
	defer server.Close()
	in(t, l, h, func() (err error) {
		client, err = net.DialIP(network, &net.IPAddr{IP: from.AsSlice()}, &net.IPAddr{IP: to.AsSlice()})
		return err
	})
	defer client.Close()
	if _, err := client.Write([]byte("Client")); err != nil {
		t.Fatal(err)
	}
	server.SetReadDeadline(time.Now().Add(time.Second))
	b := make([]byte, 64)
	n, source, err := server.ReadFromIP(b)
	if err != nil || string(b[:n]) != "Client" || !source.IP.Equal(from.AsSlice()) {
		t.Errorf("%s received %q from %v: %v", other, b[:n], source, err)
	}
}

// ping has REMOTE ping an address of LOCAL.
func ping(t *testing.T, l *Lab, from, to netip.Addr) {
	network, kind := "ip4:1", icmp.Type(ipv4.ICMPTypeEcho)
	if to.Is6() {
		network, kind = "ip6:58", ipv6.ICMPTypeEchoRequest
	}
	var c *net.IPConn
	in(t, l, Remote, func() (err error) {
		c, err = net.DialIP(network, &net.IPAddr{IP: from.AsSlice()}, &net.IPAddr{IP: to.AsSlice()})
		return err
	})
	defer c.Close()
	m, err := (&icmp.Message{Type: kind, Body: &icmp.Echo{ID: 77, Seq: 1}}).Marshal(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(m); err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(time.Second))
	if _, source, err := c.ReadFromIP(make([]byte, 64)); err != nil || !source.IP.Equal(to.AsSlice()) {
		t.Errorf("reply from %v: %v", source, err)
	}
}

// FAKE is no one's: what LOCAL sends there reaches REMOTE's interface and no
// socket, and no one answers for it.
func TestFakesRouted(t *testing.T) {
	for _, c := range []Config{{}, {Single: true}} {
		l := build(t, c)
		for _, f := range l.Families {
			_, fake, err := c.PlanOf(f).Pair(3)
			if err != nil {
				t.Fatal(err)
			}
			before := received(t, l)
			client := dialUDP(t, l, Local, c.PlanOf(f).Local.Addr(), &net.UDPAddr{IP: fake.AsSlice(), Port: 9})
			if _, err := client.Write([]byte("Client")); err != nil {
				t.Fatal(err)
			}
			// More than one: LOCAL's multicast listener reports come when they like.
			if received(t, l) == before {
				t.Errorf("%v: REMOTE's interface received nothing", fake)
			}
			in(t, l, Remote, func() error {
				s, err := net.ListenUDP("udp", &net.UDPAddr{IP: fake.AsSlice()})
				if err == nil {
					s.Close()
					return fmt.Errorf("%v can be bound", fake)
				}
				return nil
			})
		}
	}
}

// received counts the packets that REMOTE's interface has received.
func received(t *testing.T, l *Lab) (n uint64) {
	in(t, l, Remote, func() error {
		b, err := os.ReadFile("/proc/thread-self/net/dev")
		if err == nil {
			_, line, _ := strings.Cut(string(b), RemoteInterface+":")
			n, err = strconv.ParseUint(strings.Fields(line)[1], 10, 64) // behind the bytes
		}
		return err
	})
	return n
}

// No packet is sent that no test sent: counters of cells must be exact.
func TestQuiet(t *testing.T) {
	l := build(t, Config{})
	before := received(t, l)
	for _, f := range l.Families {
		firstPackets(t, l, l.Config.PlanOf(f))
	}
	if got, want := received(t, l)-before, uint64(len(l.Families)); got != want {
		t.Errorf("REMOTE received %d packets, want %d", got, want)
	}
}

func TestWithoutInet6(t *testing.T) {
	labtest.Need(t)
	probe := probeInet6
	defer func() { probeInet6 = probe }()
	probeInet6 = func() error { return os.NewSyscallError("socket(AF_INET6)", unix.EAFNOSUPPORT) }
	l := build(t, Config{})
	if len(l.Families) != 1 || l.Families[0] != pfconf.Inet ||
		!strings.Contains(l.Missing[pfconf.Inet6], "socket(AF_INET6): address family not supported") {
		t.Errorf("families %v, missing %v", l.Families, l.Missing)
	}
	firstPackets(t, l, l.Config.PlanOf(pfconf.Inet))

	probeInet6 = func() error { return unix.EMFILE }
	if _, err := tryBuild(t.Context(), Config{}); !errors.Is(err, unix.EMFILE) {
		t.Errorf("a failed probe gave %v", err)
	}
}

// What the machine is set to does not matter. (A new namespace takes these
// from the machine's first one, which a test must not touch; so LOCAL is set.)
func TestSysctls(t *testing.T) {
	labtest.Need(t)
	done := make(chan error)
	namespace.OwnThread(func() {
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return err
			}
			for _, s := range [][2]string{{"net/ipv4/ip_forward", "1"}, {"net/ipv6/conf/all/disable_ipv6", "1"},
				{"net/ipv6/conf/default/disable_ipv6", "1"}} {
				if err := setSysctl(s[0], s[1]); err != nil {
					return err
				}
			}
			l, err := Build(t.Context(), Config{})
			if err != nil {
				return err
			}
			defer l.Close()
			for _, f := range l.Families {
				firstPackets(t, l, l.Config.PlanOf(f))
			}
			b, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
			if string(b) != "0\n" {
				return fmt.Errorf("ip_forward is %q, %v", b, err)
			}
			return nil
		}()
	})
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A lab that is given up takes REMOTE, and with it the cable, away.
func TestClose(t *testing.T) {
	l := build(t, Config{})
	h, err := handleIn(l, Local)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if _, err := h.Link(LocalInterface); err != nil {
		t.Fatal(err)
	}
	sleep := exec.Command("sleep", "60")
	sleep.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := l.Start(sleep, Remote); err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := sleep.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("a process in the lab: %v", err)
	}
	// The kernel takes a namespace apart in a work queue.
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := h.Link(LocalInterface); err != nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the cable is still there")
		}
	}
	if err := l.In(Remote, func() error { return nil }); !errors.Is(err, errClosed) {
		t.Errorf("a closed lab: %v", err)
	}
	if err := l.In("nowhere", func() error { return nil }); err == nil {
		t.Error("no error for a host that does not exist")
	}
}

func handleIn(l *Lab, host HostName) (h *rtnetlink.Conn, err error) {
	err = l.In(host, func() (err error) {
		h, err = rtnetlink.Dial()
		return err
	})
	return h, err
}

func TestBuildCancelled(t *testing.T) {
	labtest.Need(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	start := time.Now()
	l, err := tryBuild(ctx, Config{})
	if err == nil {
		l.Close() // it stood before anything had to be waited for
	} else if !errors.Is(err, context.Canceled) || time.Since(start) > time.Second {
		t.Errorf("after %v: %v", time.Since(start), err)
	}
}

// Without privilege there is no lab, and the error is the typed one.
func TestBuildForbidden(t *testing.T) {
	labtest.Need(t)
	labtest.NeedUsers(t)
	if os.Getenv("PFDIVERT_UNPRIVILEGED") != "" {
		_, err := Build(t.Context(), Config{})
		var f *namespace.ForbiddenError
		if !errors.As(err, &f) {
			t.Errorf("got %v", err)
		}
		return
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestBuildForbidden$", "-test.v")
	cmd.Env = append(os.Environ(), "PFDIVERT_UNPRIVILEGED=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 1, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 1, HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestBuildForbidden") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestAsNobody(t *testing.T) {
	labtest.Programs(t, "ip", "nsenter") // for TestRun and TestDescribe
	labtest.AsNobody(t, "^(TestFirstPacket|TestLocals|TestFakesRouted|TestQuiet|TestSysctls|TestClose|TestRun|TestDescribe)$")
}

func BenchmarkBuild(b *testing.B) {
	labtest.Need(b)
	for b.Loop() {
		l, err := tryBuild(b.Context(), Config{})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		l.Close()
		b.StartTimer()
	}
}
