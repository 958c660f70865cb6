package twin

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pfdivert/roles/lab/labtest"
)

// router makes a namespace with a router's devices, addresses and routes, and runs a script there:
//
//	client 10.91.1.2 -- lan0 [10.91.1.1, 10.91.2.1] wan0 -- internet by 10.91.2.2
//
// and the same with fd91:1::/64 and fd91:2::/64.
func router(t *testing.T, script string) *Netns {
	t.Helper()
	labtest.Root(t)
	live, beyond := netns(t), netns(t)
	sh(t, live, fmt.Sprintf(routerScript, fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), beyond.FD())))
	sh(t, beyond, "ip link set lan-peer up; ip link set wan-peer up")
	sh(t, live, script)
	return live
}

// host is a router's configuration, with sockets.
func host(t *testing.T, script string, sockets []BoundSocket) *Snapshot {
	t.Helper()
	return readHost(t, router(t, script), sockets)
}

func readHost(t *testing.T, live *Netns, sockets []BoundSocket) *Snapshot {
	t.Helper()
	// The kernel makes the routes of IPv6 addresses some time after the addresses.
	complete := func(c *Snapshot) bool {
		for _, a := range c.Addrs {
			if a.Local.Is6() && !slices.ContainsFunc(c.Routes,
				func(r Route) bool { return r.Type == unix.RTN_LOCAL && r.Dst.Addr() == a.Local }) {
				return false
			}
		}
		return true
	}
	events, err := live.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer events.Close()
	if err := errors.Join(events.JoinGroup(unix.RTNLGRP_IPV6_ROUTE),
		events.SetReadDeadline(time.Now().Add(30*time.Second))); err != nil {
		t.Fatal(err)
	}
	for {
		c, err := live.Read(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if complete(c) {
			c.Sockets = sockets
			return c
		}
		if _, err := events.Receive(); err != nil {
			t.Fatalf("the routes of addresses %v: %v", c.Addrs, err)
		}
	}
}

const routerScript = `
sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0
ip link add lan0 type veth peer name lan-peer
ip link add wan0 type veth peer name wan-peer
ip link set dev lan-peer netns %[1]s
ip link set dev wan-peer netns %[1]s
ip link set lo up
ip addr add 10.91.1.1/24 dev lan0; ip -6 addr add fd91:1::1/64 dev lan0 nodad
ip addr add 10.91.2.1/24 dev wan0; ip -6 addr add fd91:2::1/64 dev wan0 nodad
ip link set lan0 up; ip link set wan0 up
ip route add default via 10.91.2.2; ip -6 route add default via fd91:2::2
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
`

func netns(t *testing.T) *Netns {
	t.Helper()
	n, err := NewNetns()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	return n
}

func sh(t *testing.T, n *Netns, script string) {
	t.Helper()
	var out []byte
	err := n.Do(func() (err error) {
		out, err = exec.Command("sh", "-ec", script).CombinedOutput()
		return err
	})
	if err != nil {
		labtest.Shell(t, out)
		t.Fatalf("%v: %s", err, out)
	}
}

func socket(proto, local string, options ...string) BoundSocket {
	s := BoundSocket{Proto: proto, Local: netip.MustParseAddrPort(local), Comm: "proxy", ReuseAddr: true,
		OptionsKnown: true}
	for _, o := range options {
		switch o {
		case "transparent":
			s.Transparent, s.OrigDst = true, true
		case "alone":
			s.ReuseAddr = false
		default:
			_, _ = fmt.Sscanf(o, "index=%d", &s.Index)
			_, _ = fmt.Sscanf(o, "uid=%d", &s.UID)
			_, _ = fmt.Sscanf(o, "gid=%d", &s.GID)
			_, _ = fmt.Sscanf(o, "mark=%d", &s.Mark)
		}
	}
	return s
}

// want is what all flows of some kind have to show, and that there are some.
type want struct {
	flows   string // words that the ID has to have, after the kind: "client tcp lan0 :80"
	outcome FlowOutcome
	reached Reached
}

func (w want) of(f Flow) bool {
	words := append(strings.Fields(f.ID), string(f.Kind), map[bool]string{false: "IPv4", true: "IPv6"}[f.IPv6()])
	for _, word := range strings.Fields(w.flows) {
		if !slices.Contains(words, word) && word != fmt.Sprintf(":%d", f.To.Port()) {
			return false
		}
	}
	return true
}

const (
	toLo     = "ip rule add fwmark 1 lookup 100; ip route add local default dev lo table 100; ip -6 rule add fwmark 1 lookup 100; ip -6 route add local default dev lo table 100\n"
	ofLan    = "iptables -t mangle -A PREROUTING -i lan0 -p tcp -m addrtype ! --dst-type LOCAL -j TPROXY --on-port 7895 --tproxy-mark 1\n"
	ofBridge = `
ip link add br0 type bridge; ip addr flush dev lan0; ip -6 addr flush dev lan0; ip link set lan0 master br0; ip link set br0 up
ip addr add 10.91.1.1/24 dev br0; ip -6 addr add fd91:1::1/64 dev br0 nodad
iptables -t mangle -A PREROUTING -i br0 -p tcp -m addrtype ! --dst-type LOCAL -j TPROXY --on-port 7895 --tproxy-mark 1
`
	private = "ip daddr { 10.0.0.0/8, 127.0.0.0/8 } return"
)

// nft is a command that loads rules.
func nft(rules string) string {
	return "\nnft -f - <<'X'\n" + strings.ReplaceAll(rules, "} }", "}\n}") + "\nX\n"
}

func TestPlay(t *testing.T) {
	proxy := socket("tcp", "0.0.0.0:7895", "transparent")
	for _, c := range []struct {
		name    string
		script  string
		sockets []BoundSocket
		wants   []want
	}{
		{"no rules", "", []BoundSocket{socket("tcp", "0.0.0.0:22"), socket("udp", "[::]:53")}, []want{
			{"client lan0", Complete, Internet},
			{"own", Complete, Internet},
			{"service tcp lan0 :22", Complete, AtSocket},
			{"service tcp wan0 :22", Complete, AtSocket},
			{"service udp :53", Complete, AtSocket},
		}},
		{"tproxy", toLo + ofLan, []BoundSocket{proxy}, []want{
			{"client tcp lan0 IPv4", Complete, AtSocket},
			{"client udp lan0", Complete, Internet},
			{"client tcp lan0 IPv6", Complete, Internet},
			{"own", Complete, Internet},
			{"asked lan0 10.91.1.1:7895", Complete, AtSocket},
		}},
		{"4: listener on loopback, tproxy without an address", toLo + `
iptables -t mangle -A PREROUTING -s 10.91.1.2 -p udp -j MARK --set-mark 1
iptables -t mangle -A PREROUTING -m mark --mark 1 -p udp -j TPROXY --tproxy-mark 1 --on-port 12346`,
			[]BoundSocket{socket("udp", "127.0.0.1:12346", "transparent")}, []want{
				{"client udp 10.91.1.2", Silence, Nobody},
				{"client tcp IPv4", Complete, Internet},
			}},
		{"4 fixed", toLo + `
iptables -t mangle -A PREROUTING -s 10.91.1.2 -p udp -j MARK --set-mark 1
iptables -t mangle -A PREROUTING -m mark --mark 1 -p udp -j TPROXY --tproxy-mark 1 --on-port 12346 --on-ip 127.0.0.1`,
			[]BoundSocket{socket("udp", "127.0.0.1:12346", "transparent")}, []want{
				{"client udp 10.91.1.2", Complete, AtSocket},
			}},
		{"5: own output to a listener elsewhere", `
iptables -t nat -N SS; iptables -t nat -A SS -m mark --mark 255 -j RETURN; iptables -t nat -A SS -d 10.0.0.0/8 -j RETURN
iptables -t nat -A SS -p tcp -j REDIRECT --to-ports 12345
iptables -t nat -A PREROUTING -i lan0 -p tcp -j SS; iptables -t nat -A OUTPUT -p tcp -j SS`,
			[]BoundSocket{socket("tcp", "10.91.1.1:12345")}, []want{
				{"client tcp IPv4 lan0", Complete, AtSocket},
				{"own tcp IPv4", Refused, Nobody},
				{"exempt tcp IPv4 0xff", Complete, Internet},
			}},
		{"5 fixed", `
iptables -t nat -N SS; iptables -t nat -A SS -m mark --mark 255 -j RETURN; iptables -t nat -A SS -d 10.0.0.0/8 -j RETURN
iptables -t nat -A SS -p tcp -j REDIRECT --to-ports 12345
iptables -t nat -A PREROUTING -i lan0 -p tcp -j SS; iptables -t nat -A OUTPUT -p tcp -j SS`,
			[]BoundSocket{socket("tcp", "0.0.0.0:12345")}, []want{
				{"client tcp IPv4 lan0", Complete, AtSocket},
				{"own tcp IPv4", Complete, AtSocket},
				{"exempt tcp IPv4 0xff", Complete, Internet},
			}},
		{"1: exemption by a mark that another rule changes", `
iptables -t mangle -A OUTPUT -m mark --mark 0x0/0x3f00 -j MARK --set-xmark 0x100/0x3f00
iptables -t nat -A OUTPUT -m mark --mark 255 -j RETURN
iptables -t nat -A OUTPUT -p tcp ! -d 10.0.0.0/8 -j REDIRECT --to-ports 12345`,
			[]BoundSocket{socket("tcp", "0.0.0.0:12345")}, []want{
				{"exempt tcp IPv4 0xff", Complete, AtSocket},
				{"own tcp IPv4", Complete, AtSocket},
			}},
		{"6: output chain of type filter", toLo + nft(`
table inet p {
 chain prerouting { type filter hook prerouting priority mangle; policy accept;
  `+private+`
  meta mark 255 return
  ip protocol tcp meta mark set 1 tproxy ip to 127.0.0.1:7895 accept
 }
 chain output { type filter hook output priority mangle; policy accept;
  `+private+`
  meta mark 255 return
  ip protocol tcp meta mark set 1
 }
}`), []BoundSocket{socket("tcp", "127.0.0.1:7895", "transparent")}, []want{
			{"client tcp IPv4 lan0", Complete, AtSocket},
			{"own tcp IPv4", Complete, Internet},
			{"exempt tcp IPv4 0xff", Complete, Internet},
		}},
		{"6 fixed", toLo + nft(`
table inet p {
 chain prerouting { type filter hook prerouting priority mangle; policy accept;
  `+private+`
  meta mark 255 return
  ip protocol tcp meta mark set 1 tproxy ip to 127.0.0.1:7895 accept
 }
 chain output { type route hook output priority mangle; policy accept;
  `+private+`
  meta mark 255 return
  ip protocol tcp meta mark set 1
 }
}`), []BoundSocket{socket("tcp", "127.0.0.1:7895", "transparent")}, []want{
			{"own tcp IPv4", Complete, AtSocket},
			{"exempt tcp IPv4 0xff", Complete, Internet},
		}},
		{"8: firewalld's rpfilter", toLo + nft(`
table inet p {
 chain prerouting { type filter hook prerouting priority mangle; policy accept;
  fib daddr type local return
  iifname "lan0" meta l4proto tcp meta nfproto ipv4 meta mark set 1 tproxy ip to 127.0.0.1:7895 accept
  iifname "lan0" meta l4proto tcp meta nfproto ipv6 meta mark set 1 tproxy ip6 to [::1]:7895 accept
 }
}
table inet firewalld {
 chain filter_PREROUTING { type filter hook prerouting priority filter + 10; policy accept;
  icmpv6 type { nd-router-advert, nd-neighbor-solicit } accept
  meta nfproto ipv6 fib saddr . mark . iif oif missing drop
 }
}`), []BoundSocket{socket("tcp", "127.0.0.1:7895", "transparent"), socket("tcp", "[::1]:7895", "transparent")}, []want{
			{"client tcp lan0 IPv4", Complete, AtSocket},
			{"client tcp lan0 IPv6", Silence, Nobody},
			{"client udp lan0 IPv6", Complete, Internet},
		}},
		{"10: answers to clients with public addresses", toLo + `
ip -6 addr add 2001:db8:1::1/64 dev lan0 nodad` + nft(`
table ip6 sing-box {
 chain prerouting { type filter hook prerouting priority mangle; policy accept;
  ip6 daddr { ::/128, ::1/128, fc00::/7, fe80::/10 } return
  fib daddr type local return
  meta l4proto { tcp, udp } tproxy to :7892 meta mark set 1
 }
}
table ip6 proxy {
 chain output { type route hook output priority mangle; policy accept;
  meta mark 255 return
  ip6 daddr { ::/128, ::1/128, fc00::/7, fe80::/10 } return
  meta l4proto { tcp, udp } meta mark set 1
 }
}`), []BoundSocket{socket("tcp", "[::]:7892", "transparent"), socket("udp", "[::]:7892", "transparent")}, []want{
			{"client tcp lan0 fd91:1::e7", Complete, AtSocket},
			{"client tcp lan0 2001:db8:1::e7", Silence, Nobody},
			{"client udp lan0 2001:db8:1::e7", Silence, AtSocket},
			{"own tcp IPv6", Complete, AtSocket},
			{"exempt tcp IPv6 0xff", Complete, Internet},
		}},
		{"11: a policy rule before the proxy's", toLo + ofLan +
			"ip route add default via 10.91.2.2 table 1; ip rule add pref 1001 iif lan0 lookup 1",
			[]BoundSocket{proxy}, []want{{"client tcp lan0 IPv4", Silence, Nobody}}},
		{"11: of a port", toLo + ofLan + "ip route add default via 10.91.2.2 table 1; ip rule add pref 1001 ipproto tcp dport 4711 lookup main",
			[]BoundSocket{proxy}, []want{{"client tcp lan0 IPv4 :4711", Silence, Nobody},
				{"client tcp lan0 IPv4 :80", Complete, AtSocket}}},
		{"13: socket transparent 0", toLo + nft(`
table ip hy {
 chain pre { type filter hook prerouting priority mangle; policy accept;
  iifname != "lan0" return
  meta l4proto { tcp, udp } socket transparent 1 meta mark set 1 accept
  socket transparent 0 counter return
  `+private+`
  ip protocol tcp meta mark set 1 tproxy ip to :7895 accept
 }
}`), []BoundSocket{proxy, socket("tcp", "0.0.0.0:80")}, []want{
			{"client tcp lan0 :80 IPv4", Complete, Internet},
			{"client tcp lan0 :443 IPv4", Complete, AtSocket},
		}},
		{"15: filter by the redirected port", `
iptables -t nat -A PREROUTING -i lan0 -p tcp --dport 80 -j REDIRECT --to-ports 43889
iptables -P INPUT DROP; iptables -A INPUT -p tcp --dport 80 -j ACCEPT; iptables -A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT`,
			[]BoundSocket{socket("tcp", "0.0.0.0:43889")}, []want{
				{"client tcp lan0 :80 IPv4", Silence, Nobody},
				{"client tcp lan0 :443 IPv4", Complete, Internet},
			}},
		{"16: dnat to loopback", "iptables -t nat -A PREROUTING -i lan0 -p tcp --dport 9050 -j DNAT --to-destination 127.0.0.1:9050",
			[]BoundSocket{socket("tcp", "127.0.0.1:9050")},
			[]want{{"service tcp lan0 10.91.1.1:9050", Silence, Nobody}}},
		{"16 fixed", "iptables -t nat -A PREROUTING -i lan0 -p tcp --dport 9050 -j DNAT --to-destination 127.0.0.1:9050; sysctl -qw net.ipv4.conf.lan0.route_localnet=1",
			[]BoundSocket{socket("tcp", "127.0.0.1:9050")},
			[]want{{"service tcp lan0 10.91.1.1:9050", Complete, AtSocket}}},
		{"17: notrack and masquerade", toLo + ofLan + `
iptables -t mangle -A PREROUTING -i lan0 -p udp -m addrtype ! --dst-type LOCAL -j TPROXY --on-port 7895 --tproxy-mark 1
iptables -t raw -A PREROUTING -i lan0 ! -d 10.0.0.0/8 -j NOTRACK
iptables -t nat -A POSTROUTING -j MASQUERADE`,
			[]BoundSocket{proxy, socket("udp", "0.0.0.0:7895", "transparent")}, []want{
				{"client tcp lan0 IPv4 :443", Hang, AtSocket},
				{"client udp lan0 IPv4 :443", Silence, AtSocket},
			}},
		{"18: a service at the proxy", toLo + "iptables -t mangle -A PREROUTING -i lan0 -p tcp -j TPROXY --on-port 7895 --tproxy-mark 1",
			[]BoundSocket{proxy, socket("tcp", "0.0.0.0:22")},
			[]want{{"service tcp lan0 10.91.1.1:22", Complete, AtSocket}}},
		{"a queue without a program", "iptables -A FORWARD -p tcp --dport 443 -j NFQUEUE --queue-num 200", nil, []want{
			{"client tcp lan0 IPv4 :443", Silence, Nobody},
			{"client tcp lan0 IPv4 :80", Complete, Internet},
		}},
		{"an uplink without neighbors", "ip link set wan0 arp off", []BoundSocket{socket("tcp", "0.0.0.0:22")}, []want{
			{"client", Complete, Internet},
			{"own", Complete, Internet},
			{"service tcp wan0 :22", Complete, AtSocket},
		}},
		{"clients behind a bridge", toLo + ofBridge + "sysctl -qw net.bridge.bridge-nf-call-iptables=0",
			[]BoundSocket{proxy, socket("udp", "0.0.0.0:53")}, []want{
				{"client tcp lan0 10.91.1.231 IPv4", Complete, AtSocket},
				{"client udp lan0 10.91.1.231 IPv4", Complete, Internet},
				{"client tcp lan0 IPv6", Complete, Internet},
				{"service udp lan0 10.91.1.1:53", Complete, AtSocket},
			}},
		{"a bridge whose packets iptables sees first", toLo + ofBridge +
			"sysctl -qw net.bridge.bridge-nf-call-iptables=1", []BoundSocket{proxy}, []want{
			{"client tcp lan0 10.91.1.231 IPv4", Silence, Nobody},
			{"client udp lan0 10.91.1.231 IPv4", Complete, Internet},
		}},
		{"answers belong to the socket's user", "iptables -A OUTPUT -m owner --uid-owner 1337 -j DROP; ip6tables -A OUTPUT -m owner --gid-owner 99 -j DROP",
			[]BoundSocket{
				socket("tcp", "0.0.0.0:22", "uid=1337"), socket("tcp", "0.0.0.0:23"),
				socket("udp", "0.0.0.0:53", "uid=1337"), socket("udp", "0.0.0.0:69"),
				socket("tcp", "[fd91:1::1]:24", "gid=99"), socket("tcp", "[fd91:1::1]:25", "gid=98"),
			}, []want{
				{"service tcp lan0 10.91.1.1:22", Silence, Nobody},
				{"service tcp lan0 10.91.1.1:23", Complete, AtSocket},
				{"service udp lan0 10.91.1.1:53", Silence, AtSocket},
				{"service udp lan0 10.91.1.1:69", Complete, AtSocket},
				{"service tcp lan0 [fd91:1::1]:24", Silence, Nobody},
				{"service tcp lan0 [fd91:1::1]:25", Complete, AtSocket},
			}},
		{"answers have the socket's mark", toLo + "iptables -A OUTPUT -m mark --mark 5 -j DROP",
			[]BoundSocket{socket("tcp", "0.0.0.0:22", "mark=5"), socket("tcp", "0.0.0.0:23", "mark=6")}, []want{
				{"service tcp lan0 10.91.1.1:22", Silence, Nobody},
				{"service tcp lan0 10.91.1.1:23", Complete, AtSocket},
			}},
		{"19: no route", "ip -6 route del default\n" + nft(`
table inet p {
 chain output {
  type nat hook output priority -100;
  meta mark 255 return
  tcp dport { 80, 443 } redirect to :12345
 }
}`),
			[]BoundSocket{socket("tcp", "[::]:12345")}, []want{
				{"own tcp IPv6", NoRoute, Nobody},
				{"own tcp IPv4 :80", Complete, AtSocket},
				{"exempt tcp IPv4", Complete, Internet},
			}},
		{"21: the answer's port is taken", toLo + "iptables -t mangle -A PREROUTING -i lan0 -p udp -m addrtype ! --dst-type LOCAL -j TPROXY --on-port 7895 --tproxy-mark 1",
			[]BoundSocket{socket("udp", "0.0.0.0:7895", "transparent"), socket("udp", "0.0.0.0:53", "alone")}, []want{
				{"client udp lan0 IPv4 :53", Silence, AtSocket},
				{"client udp lan0 IPv4 :443", Complete, AtSocket},
			}},
		{"24: TPROXY for new connections", toLo + "iptables -t mangle -A PREROUTING -i lan0 -p tcp -m conntrack --ctstate NEW -m addrtype ! --dst-type LOCAL -j TPROXY --on-port 7895 --tproxy-mark 1",
			[]BoundSocket{proxy}, []want{{"client tcp lan0 IPv4", Hang, Nobody}}},
		{"26: a listener bound to a device", toLo + ofLan,
			[]BoundSocket{socket("tcp", "0.0.0.0:7895", "transparent", "index=1")},
			[]want{{"client tcp lan0 IPv4", Silence, Nobody}}},
		{"27: lo is left out", toLo + `
iptables -t mangle -A PREROUTING ! -i lo -p tcp -m addrtype ! --dst-type LOCAL -j TPROXY --on-port 7895 --tproxy-mark 1
iptables -t mangle -A OUTPUT -m mark --mark 0xff -j RETURN; iptables -t mangle -A OUTPUT -m conntrack --ctdir REPLY -j RETURN
iptables -t mangle -A OUTPUT -p tcp -m addrtype ! --dst-type LOCAL -j MARK --set-mark 1`,
			[]BoundSocket{proxy}, []want{
				{"client tcp lan0 IPv4", Complete, AtSocket},
				{"exempt tcp IPv4", Complete, Internet},
				{"own tcp IPv4", Silence, Nobody},
			}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			play(t, host(t, c.script, c.sockets), c.wants)
		})
	}
}

// The packets of a queue that a program has are accepted in the twin, and those of others are
// dropped.
func TestQueue(t *testing.T) {
	c := host(t, "iptables -A FORWARD -p tcp --dport 443 -j NFQUEUE --queue-num 200; iptables -A OUTPUT -p udp --dport 53 -j NFQUEUE --queue-balance 201:202", nil)
	c.Queues = []uint16{200, 201, 202}
	play(t, c, []want{{"client tcp lan0 IPv4 :443", Complete, Internet}, {"own udp IPv4 :53", Complete, Internet}})
	c.Queues = []uint16{200}
	play(t, c, []want{{"client tcp lan0 IPv4 :443", Complete, Internet}, {"own udp IPv4 :53", Silence, Nobody}})
}

func play(t *testing.T, c *Snapshot, wants []want) {
	t.Helper()
	ctx := context.Background()
	begin := time.Now()
	twin, err := Build(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	defer twin.Close()
	built := time.Now()
	flows := Plan(c)
	planned := time.Now()
	results, err := twin.Play(ctx, flows)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("built in %v, planned in %v, %d flows in %v", built.Sub(begin), planned.Sub(built), len(flows),
		time.Since(planned))
	for _, w := range twin.Warnings {
		t.Errorf("warning: %s", w)
	}
	for _, d := range twin.Differences {
		t.Errorf("difference: %v", d)
	}
	for _, w := range wants {
		n := 0
		for _, r := range results {
			if !w.of(r.Flow) {
				continue
			}
			n++
			if r.Outcome != w.outcome || r.Reached != w.reached {
				t.Errorf("%s: %s: %s at %q, want %s at %q", w.flows, r.Flow.ID, r.Outcome, r.Reached, w.outcome,
					w.reached)
			}
		}
		if n == 0 {
			t.Errorf("no flow is %q", w.flows)
		}
	}
	for _, r := range results {
		if !t.Failed() {
			break
		}
		t.Logf("%-8s %-70s %-9s %-8s seen %v -> %v original %v out %s rounds %d/%d %s %s", r.Flow.Kind, r.Flow.ID,
			r.Outcome, r.Reached, r.SeenFrom, r.SeenTo, r.Original, r.Out, r.Received, r.Rounds, r.Error, r.AnswerError)
	}
}
