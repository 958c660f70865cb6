package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
	"pfdivert/pfconf/nft"
	"pfdivert/pfconf/rtnetlink"
	"pfdivert/roles/lab/labtest"
)

// lan joins this test's namespace, which is 10.188.1.1 and fd00:188:1::1, to another one,
// 10.188.1.2 and fd00:188:1::2, which answers echoes.
func lan(t *testing.T) {
	t.Helper()
	labtest.Need(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	here := openNet(t)
	check(t, unix.Unshare(unix.CLONE_NEWNET))
	other := openNet(t)
	check(t, unix.Setns(here, unix.CLONE_NEWNET))
	mac := func(n byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, n} }
	_, err := dialRoutes(t).AddLink(rtnetlink.NewLink{
		Name: "here", Kind: rtnetlink.Veth, Hardware: mac(1),
		Peer: &rtnetlink.NewLink{Name: "there", Hardware: mac(2), Namespace: other},
	})
	check(t, err)
	end := func(name string, n, other byte) {
		c := dialRoutes(t)
		for _, name := range []string{"lo", name} {
			l, err := c.Link(name)
			check(t, err)
			if l.Kind == rtnetlink.Veth {
				check(t, c.SetNoLinkLocal(l.Index)) // the kernel's own address comes when it likes
			}
			check(t, c.SetUp(l.Index))
		}
		l, err := c.Link(name)
		check(t, err)
		for _, s := range []string{"10.188.1.%d/24", "fd00:188:1::%d/64"} {
			own, there := netip.MustParsePrefix(fmt.Sprintf(s, n)), netip.MustParsePrefix(fmt.Sprintf(s, other))
			check(t, c.AddAddress(rtnetlink.Address{Link: l.Index, Prefix: own, Flags: unix.IFA_F_NODAD}))
			check(t, c.SetNeighbour(rtnetlink.Neighbour{Link: l.Index, State: unix.NUD_PERMANENT, Addr: there.Addr(),
				Hardware: mac(other)}))
		}
	}
	end("here", 1, 2)
	check(t, unix.Setns(other, unix.CLONE_NEWNET))
	end("there", 2, 1)
	ready(t, "fd00:188:1::2")
	check(t, unix.Setns(here, unix.CLONE_NEWNET))
	ready(t, "fd00:188:1::1")
	c := dialRoutes(t)
	t.Cleanup(func() {
		if l, err := c.Link("here"); err == nil {
			check(t, c.DeleteLink(l.Index))
		}
		unix.Close(here)
		unix.Close(other)
	})
}

// dialRoutes opens a socket for the current network namespace's routes.
func dialRoutes(t *testing.T) *rtnetlink.Conn {
	t.Helper()
	c, err := rtnetlink.Dial()
	check(t, err)
	t.Cleanup(func() { check(t, c.Close()) })
	return c
}

// ready waits until the kernel takes packets to the address: it makes the local route of an
// IPv6 address behind the caller's back.
func ready(t *testing.T, addr string) {
	t.Helper()
	c := dialRoutes(t)
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		list, err := c.Routes(unix.AF_INET6, unix.RT_TABLE_LOCAL)
		check(t, err)
		if slices.ContainsFunc(list,
			func(r rtnetlink.Route) bool { return r.Dst.Addr() == netip.MustParseAddr(addr) }) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("there is no local route to %s", addr)
		}
	}
}

func openNet(t *testing.T) int {
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	check(t, err)
	return fd
}

// picture is what of this namespace an agent changes.
func picture(t *testing.T) string {
	t.Helper()
	var lines []string
	c := dialRoutes(t)
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		rules, err := c.Rules(family)
		check(t, err)
		for _, r := range rules {
			lines = append(lines, fmt.Sprintf("rule %+v", r))
		}
		list, err := c.Routes(family, unix.RT_TABLE_UNSPEC)
		check(t, err)
		for _, r := range list {
			if !r.Dst.Addr().IsMulticast() {
				lines = append(lines, fmt.Sprintf("route %v via %v dev %d type %d table %d", r.Dst, r.Via, r.Link,
					r.Type, r.Table))
			}
		}
	}
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_early_demux")
	check(t, err)
	lines = append(lines, "early demux "+string(b))
	_, err = nft.Ask(t.Context(), nft.Config{})
	lines = append(lines, fmt.Sprintf("tables: %v", err))
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// The Setups of the two hosts; both name FAKE addresses that are no one's.
func setupOf(remote bool) script.Setup {
	s := script.Setup{Remote: remote, Rounds: 1, By: "tester@here", Fakes: []netip.Prefix{
		netip.MustParsePrefix("10.188.2.9/32"), netip.MustParsePrefix("fd00:188:2::/64"),
	}}
	for _, p := range [][2]string{{"10.188.1.1", "10.188.1.2"}, {"fd00:188:1::1", "fd00:188:1::2"}} {
		s.Paths = append(s.Paths, script.Path{Here: netip.MustParseAddr(p[0]), There: netip.MustParseAddr(p[1])})
	}
	return s
}

const (
	alive       = testHeartbeat / 4
	noHeartbeat = "no heartbeat"
)

// child is an agent in a process of its own, in this test's namespace.
type child struct {
	*Conn
	cmd    *exec.Cmd
	in     *os.File
	stderr strings.Builder
	ended  bool
}

// startAgent starts one; beat is how often it is shown that the test is alive.
func startAgent(t *testing.T, dir string, beat time.Duration) *child {
	t.Helper()
	c := &child{cmd: exec.Command("/proc/self/exe")}
	c.cmd.Env = append(os.Environ(), asAgent+"="+dir)
	c.cmd.Stderr = &c.stderr
	in, w, err := os.Pipe()
	check(t, err)
	r, out, err := os.Pipe()
	check(t, err)
	c.cmd.Stdin, c.cmd.Stdout, c.in = in, out, w
	check(t, c.cmd.Start())
	in.Close()
	out.Close()
	c.Conn, err = Dial(t.Context(), r, w, beat)
	check(t, err)
	t.Cleanup(func() {
		_ = c.Close()
		c.wait(t)
		r.Close()
	})
	return c
}

// wait waits for the agent's end and gives its exit status, -1 for a signal.
func (c *child) wait(t *testing.T) int {
	t.Helper()
	if !c.ended {
		c.ended = true
		defer time.AfterFunc(30*time.Second, func() { _ = c.cmd.Process.Kill() }).Stop()
		_ = c.cmd.Wait()
		if c.stderr.Len() > 0 {
			t.Logf("agent %d said: %s", c.cmd.Process.Pid, &c.stderr)
		}
	}
	return c.cmd.ProcessState.ExitCode()
}

// use has the agent change what it changes as LOCAL or REMOTE.
func (c *child) use(t *testing.T, s script.Setup) {
	t.Helper()
	_, err := c.Setup(t.Context(), s)
	check(t, err)
	if !s.Remote {
		return
	}
	faults, err := c.Change(t.Context(), []script.RuleChange{{Add: []pfconf.Rule{{
		Label: "regress-test", Family: pfconf.Inet, Action: pfconf.DivertReply, Direction: pfconf.Out,
		Proto: pfconf.UDP,
		From:  s.Fakes[0].Addr(), To: s.Paths[0].There, Port: 4000,
	}}}})
	check(t, err)
	if faults[0] != nil {
		t.Fatal(faults[0])
	}
}

// ends are the ways in which an agent ends. Those that only kill it leave all to a cleanup.
var ends = []struct {
	name   string
	end    func(t *testing.T, c *child)
	killed bool
}{
	{"bye", func(t *testing.T, c *child) { check(t, c.Bye(t.Context())); check(t, c.Close()) }, false},
	{"input ends", func(t *testing.T, c *child) { check(t, c.in.Close()) }, false},
	{"SIGTERM", func(t *testing.T, c *child) { check(t, c.cmd.Process.Signal(syscall.SIGTERM)) }, false},
	{"SIGHUP, then the input ends", func(t *testing.T, c *child) {
		check(t, c.cmd.Process.Signal(syscall.SIGHUP))
		check(t, c.in.Close())
	}, false},
	{noHeartbeat, func(*testing.T, *child) {}, false},
	{"SIGKILL", func(t *testing.T, c *child) { check(t, c.cmd.Process.Kill()) }, true},
}

func TestAllIsPutBack(t *testing.T) {
	lan(t)
	for _, remote := range []bool{false, true} {
		for _, e := range ends {
			t.Run(fmt.Sprintf("remote=%v/%s", remote, e.name), func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "state")
				before := picture(t)
				c := startAgent(t, dir, map[bool]time.Duration{true: time.Hour, false: alive}[e.name == noHeartbeat])
				c.use(t, setupOf(remote))
				if picture(t) == before {
					t.Fatal("the agent has changed nothing")
				}
				e.end(t, c)
				status := c.wait(t)
				if e.killed {
					if picture(t) == before {
						t.Fatal("a killed agent has put things back: what does the cleanup prove?")
					}
					left, err := Cleanup(t.Context(), dir, true)
					check(t, err)
					if len(left) != 1 || !left[0].Stale() || left[0].PID != c.cmd.Process.Pid ||
						len(left[0].Steps) == 0 || left[0].Undone != nil {
						t.Fatalf("before the cleanup: %+v", left)
					}
					left, err = Cleanup(t.Context(), dir, false)
					check(t, err)
					if left[0].Err != "" || len(left[0].Undone) != len(left[0].Steps) {
						t.Fatalf("cleanup: %+v", left[0])
					}
				} else if want := map[bool]int{false: 0, true: 2}[e.name == noHeartbeat]; status != want {
					t.Errorf("exit status %d, want %d", status, want)
				}
				if after := picture(t); after != before {
					t.Errorf("not put back:\n%s\n\nbefore:\n%s", after, before)
				}
				if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("the state directory is left: %v", err)
				}
			})
		}
	}
}

// The next run undoes what a killed one left.
func TestNextRunMends(t *testing.T) {
	lan(t)
	dir := filepath.Join(t.TempDir(), "state")
	before := picture(t)
	first := startAgent(t, dir, alive)
	first.use(t, setupOf(true))
	check(t, first.cmd.Process.Kill())
	first.wait(t)
	second := startAgent(t, dir, alive)
	second.use(t, setupOf(true))
	select {
	case said := <-second.Notices:
		if want := fmt.Sprintf("agent %d, started ", first.cmd.Process.Pid); !strings.HasPrefix(said, want) ||
			!strings.Contains(said, "tester@here was killed") {
			t.Errorf("notice %q, want it to begin with %q", said, want)
		}
	default:
		t.Error("nothing is said of the killed run")
	}
	check(t, second.Bye(t.Context()))
	if after := picture(t); after != before {
		t.Errorf("not put back:\n%s\n\nbefore:\n%s", after, before)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the state directory is left: %v", err)
	}
}

// Two runs that are LOCAL here at once share the route; the last one removes it.
func TestSharedRoute(t *testing.T) {
	lan(t)
	for _, killed := range []bool{false, true} {
		t.Run(fmt.Sprintf("killed=%v", killed), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "state")
			before := picture(t)
			first, second := startAgent(t, dir, alive), startAgent(t, dir, alive)
			first.use(t, setupOf(false))
			during := picture(t)
			second.use(t, setupOf(false))
			if killed {
				check(t, first.cmd.Process.Kill())
				first.wait(t)
				left, err := Cleanup(t.Context(), dir, false)
				check(t, err)
				if len(left) != 2 {
					t.Fatalf("journals: %v", left)
				}
			} else {
				check(t, first.Bye(t.Context()))
			}
			if now := picture(t); now != during {
				t.Errorf("after the first run's end, while the second is at work:\n%s\nwant\n%s", now, during)
			}
			check(t, second.Bye(t.Context()))
			if after := picture(t); after != before {
				t.Errorf("not put back:\n%s\n\nbefore:\n%s", after, before)
			}
		})
	}
}

// The second run that wants the host as REMOTE waits for the first.
func TestTurns(t *testing.T) {
	lan(t)
	dir := filepath.Join(t.TempDir(), "state")
	first := startAgent(t, dir, alive)
	first.use(t, setupOf(true))

	impatient := startAgent(t, dir, alive)
	_, err := impatient.Setup(t.Context(), setupOf(true))
	var fault *script.Error
	if !errors.As(err, &fault) || fault.Code != script.CodeBusy || fault.Hint == "" ||
		!strings.Contains(fault.Text, fmt.Sprintf("tester@here, agent %d since ", first.cmd.Process.Pid)) {
		t.Fatalf("while another run has the host: %v", err)
	}

	patient := startAgent(t, dir, alive)
	s := setupOf(true)
	s.WaitSeconds = 20
	done := make(chan error, 1)
	go func() {
		_, err := patient.Setup(context.Background(), s)
		done <- err
	}()
	if said := <-patient.Notices; !strings.Contains(said, "tester@here") {
		t.Errorf("notice %q", said)
	}
	select {
	case err := <-done:
		t.Fatalf("two runs have the host: %v", err)
	default:
	}
	check(t, first.Bye(t.Context()))
	check(t, <-done)
	check(t, patient.Bye(t.Context()))
}

// A route of the host's own is used and left, one that leads elsewhere is an error.
func TestRoutesOfTheHost(t *testing.T) {
	lan(t)
	fake := netip.MustParseAddr("10.188.2.9")
	for _, c := range []struct {
		name string
		dst  string
		via  string
		want string // of the error
	}{
		{"the same", "10.188.2.9/32", "10.188.1.2", ""},
		{"wider, by REMOTE", "10.188.2.0/24", "10.188.1.2", ""},
		{"wider, elsewhere", "10.188.2.0/24", "10.188.1.77", ""},
		{"the same, elsewhere", "10.188.2.9/32", "10.188.1.77",
			"this host has a route to 10.188.2.9/32 via 10.188.1.77; it must be via REMOTE 10.188.1.2"},
		{"part of it elsewhere", "fd00:188:2::5/128", "fd00:188:1::77",
			"this host has a route to fd00:188:2::5/128 via fd00:188:1::77; it must be via REMOTE fd00:188:1::2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			kernel := dialRoutes(t)
			own := rtnetlink.Route{Dst: netip.MustParsePrefix(c.dst), Via: netip.MustParseAddr(c.via)}
			check(t, kernel.AddRoute(own))
			defer func() { check(t, kernel.DeleteRoute(own)) }()
			before := picture(t)
			a := startAgent(t, filepath.Join(t.TempDir(), "state"), alive)
			_, err := a.Setup(t.Context(), setupOf(false))
			var fault *script.Error
			switch {
			case c.want == "":
				check(t, err)
				got, err := kernel.RouteTo(fake, rtnetlink.RouteQuery{})
				check(t, err)
				if got.Via.String() != "10.188.1.2" {
					t.Errorf("packets to FAKE go to %v", got.Via)
				}
			case !errors.As(err, &fault) || fault.Code != script.CodeSetup || fault.Hint == "" ||
				!strings.Contains(fault.Text, c.want):
				t.Errorf("error %v, want %s", err, c.want)
			}
			check(t, a.Bye(t.Context()))
			if after := picture(t); after != before {
				t.Errorf("not put back:\n%s\n\nbefore:\n%s", after, before)
			}
		})
	}
}

// What can keep packets from the packet filter is said.
func TestWay(t *testing.T) {
	lan(t)
	a := &agent{opt: Options{Ephemeral: true}}
	kernel := dialRoutes(t)
	for own, n := range map[string]rtnetlink.NewLink{
		"10.188.3.1/24": {Name: "bridge", Kind: rtnetlink.Bridge},
		"10.188.4.1/24": {Name: "aside", Kind: rtnetlink.Veth, Peer: &rtnetlink.NewLink{Name: "nowhere"}},
	} {
		link, err := kernel.AddLink(n)
		check(t, err)
		t.Cleanup(func() { check(t, kernel.DeleteLink(link.Index)) })
		check(t, kernel.AddAddress(rtnetlink.Address{Link: link.Index, Prefix: netip.MustParsePrefix(own)}))
		check(t, kernel.SetUp(link.Index))
	}
	for _, c := range []struct {
		name, here, there string
		sysctl, value     string
		wrong             string // the item
		cure              string
	}{
		{"nothing in the way", "10.188.1.1", "10.188.1.2", "ipv4/conf/here/rp_filter", "1", "", ""},
		{"another way back", "10.188.1.1", "10.188.4.2", "ipv4/conf/here/rp_filter", "0", "", ""},
		{"another way back, strict", "10.188.1.1", "10.188.4.2", "ipv4/conf/here/rp_filter", "1", "rp_filter",
			"sysctl -w net.ipv4.conf.here.rp_filter=2"},
		{"another way back, all strict", "10.188.1.1", "10.188.4.2", "ipv4/conf/all/rp_filter", "1", "rp_filter",
			"sysctl -w net.ipv4.conf.here.rp_filter=2"},
		{"another way back, all loose", "10.188.1.1", "10.188.4.2", "ipv4/conf/all/rp_filter", "2", "", ""},
		{"bridge", "10.188.3.1", "10.188.3.2", "bridge/bridge-nf-call-iptables", "0", "", ""},
		{"bridge with netfilter", "10.188.3.1", "10.188.3.2", "bridge/bridge-nf-call-iptables", "1",
			"bridge-nf-call-iptables", "sysctl -w net.bridge.bridge-nf-call-iptables=0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := "/proc/sys/net/" + c.sysctl
			before, err := os.ReadFile(file)
			if errors.Is(err, os.ErrNotExist) {
				t.Skip("this kernel, or this user's namespace, has no br_netfilter")
			}
			check(t, err)
			check(t, os.WriteFile(file, []byte(c.value), 0))
			defer func() { check(t, os.WriteFile(file, before, 0)) }()
			s := script.Setup{Remote: true, Paths: []script.Path{{Here: netip.MustParseAddr(c.here),
				There: netip.MustParseAddr(c.there)}}}
			for _, i := range a.check(t.Context(), &s, true) {
				if i.OK == (i.Name == c.wrong) || !i.OK && i.Cure != c.cure {
					t.Errorf("%+v", i)
				}
			}
		})
	}
}

var counted = regexp.MustCompile(`\d+ echo requests`)

// What is wrong with a host is said, with what fixes it, and a run does not begin.
func TestUnfit(t *testing.T) {
	lan(t)
	command := func(f func() error) func(*testing.T) { return func(t *testing.T) { check(t, f()) } }
	kernel := dialRoutes(t)
	here, err := kernel.Link("here")
	check(t, err)
	lo, err := kernel.Link("lo")
	check(t, err)
	fake := rtnetlink.Address{Link: lo.Index, Prefix: netip.MustParsePrefix("10.188.2.9/32")}
	local := rtnetlink.Route{Dst: netip.MustParsePrefix("fd00:188:2::/64"), Link: lo.Index, Type: unix.RTN_LOCAL,
		Table: unix.RT_TABLE_LOCAL, Scope: unix.RT_SCOPE_HOST}
	rule := rtnetlink.PolicyRule{Family: unix.AF_INET, Mark: nft.Mark, Table: nft.Table}
	for _, c := range []struct {
		name      string
		remote    bool
		do, undo  func(*testing.T)
		item      string
		cure      string
		otherwise func(*script.Setup)
	}{
		{"FAKE on an interface", true, command(func() error { return kernel.AddAddress(fake) }),
			command(func() error { return kernel.DeleteAddress(fake) }), "FAKE must be unassigned", "another FAKE",
			nil},
		{"FAKE in a local route", true, command(func() error { return kernel.AddRoute(local) }),
			command(func() error { return kernel.DeleteRoute(local) }), "FAKE must be unassigned", "another FAKE",
			nil},
		{"names taken", true, command(func() error { return kernel.AddRule(rule) }),
			command(func() error { return kernel.DeleteRule(rule) }),
			"table, policy rules and routing table of pfdivert", "ip rule del fwmark 0x70660076", nil},
		{"no such address", true, nil, nil, "inet address", "correct REMOTE_ADDR",
			func(s *script.Setup) { s.Paths[0].Here = netip.MustParseAddr("10.188.1.66") }},
		{"no way to LOCAL", true, nil, nil, "way to LOCAL 192.0.2.1", "ip route add 192.0.2.1 dev ",
			func(s *script.Setup) { s.Paths[0].There = netip.MustParseAddr("192.0.2.1") }},
		{"REMOTE does not answer", false, nil, nil, "inet REMOTE answers", "ping 10.188.1.66",
			func(s *script.Setup) { s.Paths[0].There = netip.MustParseAddr("10.188.1.66") }},
		{"no carrier", false, command(func() error { return kernel.SetDown(here.Index) }),
			command(func() error { return kernel.SetUp(here.Index) }), "inet REMOTE answers", "ping", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := startAgent(t, filepath.Join(t.TempDir(), "state"), alive)
			s := setupOf(c.remote)
			items, err := a.Check(t.Context(), s)
			check(t, err)
			for _, i := range items {
				if !i.OK {
					t.Fatalf("before: %+v", i)
				}
			}
			if c.do != nil {
				c.do(t)
				defer c.undo(t)
			}
			if c.otherwise != nil {
				c.otherwise(&s)
			}
			if items, err = a.Check(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(items, func(i CheckItem) bool { return !i.OK && strings.HasPrefix(i.Name, c.item) })
			if i < 0 || !strings.Contains(items[i].Cure, c.cure) {
				t.Fatalf("%+v", items)
			}
			_, err = a.Setup(t.Context(), s)
			var fault *script.Error
			// How many times it asked within its time is not the same twice.
			detail := counted.ReplaceAllString(strings.TrimPrefix(items[i].Detail, "ask nftables: "), "n echo requests")
			if !errors.As(err, &fault) || !strings.Contains(counted.ReplaceAllString(fault.Text, "n echo requests"),
				detail) || !strings.Contains(fault.Hint, c.cure) {
				t.Errorf("set up: %v, checked: %s", err, items[i].Detail)
			}
		})
	}
}

// A host with a proxy has all addresses local in a table, as its manual says. Who sends only marked
// packets there leaves FAKE no one's.
func TestTableOfProxy(t *testing.T) {
	lan(t)
	kernel := dialRoutes(t)
	lo, err := kernel.Link("lo")
	check(t, err)
	const table = 100
	local := rtnetlink.Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), Link: lo.Index, Type: unix.RTN_LOCAL,
		Table: table, Scope: unix.RT_SCOPE_HOST}
	check(t, kernel.AddRoute(local))
	defer func() { check(t, kernel.DeleteRoute(local)) }()
	owned := func(t *testing.T) bool {
		a := startAgent(t, filepath.Join(t.TempDir(), "state"), alive)
		items, err := a.Check(t.Context(), setupOf(true))
		check(t, err)
		i := slices.IndexFunc(items, func(i CheckItem) bool { return i.Name == "FAKE must be unassigned" })
		if i < 0 {
			t.Fatalf("%+v", items)
		}
		if !items[i].OK && !strings.Contains(items[i].Detail, "a local route to 0.0.0.0/0 in table 100") {
			t.Errorf("%+v", items[i])
		}
		return !items[i].OK
	}
	if owned(t) {
		t.Error("refused although no packets are sent to the table")
	}
	for _, mark := range []uint32{1, 0} {
		rule := rtnetlink.PolicyRule{Family: unix.AF_INET, Mark: mark, Table: table}
		check(t, kernel.AddRule(rule))
		if got := owned(t); got != (mark == 0) {
			t.Errorf("with a rule for mark %d: refused %v", mark, got)
		}
		check(t, kernel.DeleteRule(rule))
	}
}

// LOCAL's own states can be asked for and killed on every system; Linux has none in the way.
func TestStatesOfLocal(t *testing.T) {
	lan(t)
	a := startAgent(t, filepath.Join(t.TempDir(), "state"), alive)
	flow := pfconf.Flow{Family: pfconf.Inet, Proto: pfconf.TCP, Near: netip.MustParseAddrPort("10.188.1.1:8001"),
		Far: netip.MustParseAddrPort("10.188.2.9:20001")}
	script := script.Script{Cell: "c", Steps: []script.Step{script.Lookup{Flow: flow}, script.Kill{Flow: flow}}}
	for _, set := range []bool{false, true} {
		if set {
			_, err := a.Setup(t.Context(), setupOf(false))
			check(t, err)
		}
		out, err := a.Script(t.Context(), script)
		check(t, err)
		for _, o := range out {
			if (o.Err == nil) != set || o.Count != 0 || o.States != nil {
				t.Errorf("set up %v: %+v", set, o)
			}
		}
	}
}
