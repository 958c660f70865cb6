package twin

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf/xt"
	"pfdivert/roles/lab/labtest"
	"pfdivert/roles/lab/namespace"
)

// newNetns makes a namespace for a test, or skips it where the system gives none.
func newNetns(t *testing.T) *Netns {
	t.Helper()
	n, err := NewNetns()
	var forbidden *namespace.ForbiddenError
	if errors.As(err, &forbidden) {
		labtest.Lacks(t, "network namespaces", err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	return n
}

// shell runs a script in a namespace.
func shell(t testing.TB, n *Netns, script string) {
	t.Helper()
	var out []byte
	if err := n.Do(func() (err error) {
		out, err = exec.Command("sh", "-euc", script).CombinedOutput()
		return err
	}); err != nil {
		labtest.Shell(t, out)
		t.Fatalf("%v: %s\n%s", err, out, script)
	}
}

// twinOf replays the configuration of a namespace in another one, and returns both as they were
// read.
func twinOf(t *testing.T, host *Netns) (live, twin *Snapshot, lacks []Difference) {
	t.Helper()
	ctx := context.Background()
	live, err := host.Read(ctx)
	if err != nil {
		t.Fatal(err)
	}
	inside, outside := newNetns(t), newNetns(t)
	if lacks, err = live.Replay(ctx, inside, outside); err != nil {
		t.Fatal(err)
	}
	if twin, err = inside.Read(ctx); err != nil {
		t.Fatal(err)
	}
	return live, twin, lacks
}

// A host's configuration and its copy are the same, whatever tool wrote it.
func TestReplay(t *testing.T) {
	for _, c := range []struct{ name, script string }{
		{"empty", "true"},
		{"router", `
			ip link add wan0 index 7 type veth peer name wan0x
			ip link add lan0 index 9 address 02:11:22:33:44:55 mtu 1400 type veth peer name lan0x
			ip link set lo up
			ip addr add 198.51.100.2/24 dev wan0
			ip addr add 192.168.1.1/24 dev lan0
			ip addr add 192.168.1.2/24 dev lan0
			ip addr add 2001:db8:1::1/64 dev lan0 nodad
			for l in wan0 wan0x lan0 lan0x; do ip link set $l up; done
			ip addr add 2001:db8:2::1/64 dev wan0 nodad
			ip addr add 2001:db8:2::2/64 dev wan0 nodad
			ip route add default via 198.51.100.1
			ip route add default via 2001:db8:2::99
			ip route add 10.0.0.0/8 nexthop via 198.51.100.5 weight 1 nexthop via 192.168.1.7 weight 3
			ip route add blackhole 10.9.0.0/16
			ip route add 172.16.0.0/12 via 10.8.8.8 dev wan0 onlink metric 50
			ip route add local 0.0.0.0/0 dev lo table 100
			ip -6 route add local ::/0 dev lo table 100
			ip rule add fwmark 0x1/0xff lookup 100
			ip rule add pref 0 iif lan0 lookup 100
			ip rule add not from 10.0.0.0/8 uidrange 1000-1001 lookup 7 pref 99
			ip -6 rule add fwmark 1 lookup 100 pref 1001
			ip rule del pref 32767
			sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.lan0.rp_filter=2 \
				net.ipv4.conf.all.src_valid_mark=1 net.ipv4.conf.wan0.route_localnet=1 net.ipv6.conf.wan0.proxy_ndp=1 net.ipv4.tcp_l3mdev_accept=1
		`},
		{"nexthops", `
			ip link add wan0 type veth peer name wan0x
			ip link set wan0 up
			ip link set wan0x up
			ip addr add 198.51.100.2/24 dev wan0
			ip nexthop add id 5 via 198.51.100.3 dev wan0
			ip nexthop add id 6 via 198.51.100.4 dev wan0
			ip nexthop add id 1 group 5/6
			ip route add 10.0.0.0/8 nhid 1
			ip route add 11.0.0.0/8 nhid 5
		`},
		{"bridge", `
			ip link add br0 index 20 type bridge nf_call_iptables 1
			ip link add docker0 index 4 type bridge
			ip link add p0 index 21 type veth peer name p0x
			ip link set p0 master br0
			bridge link set dev p0 hairpin on
			ip addr add 10.0.0.1/24 dev br0
			ip addr add 172.17.0.1/16 dev docker0
			for l in br0 p0 p0x docker0; do ip link set $l up; done
			until ip link show br0 | grep -q LOWER_UP; do :; done
			for l in br0 p0 p0x; do until ip -6 route show table local | grep -q "ff00::/8 dev $l"; do :; done; done
		`},
		{"no carrier", `
			ip tuntap add tun0 mode tun
			ip addr add 10.9.0.1/24 dev tun0
			ip link set tun0 up
		`},
		{"nft", "nft -f testdata/replay/rules.nft"},
		{"iptables-nft", `
			iptables-nft-restore < testdata/replay/rules.iptables
			ip6tables-nft-restore < testdata/replay/rules.ip6tables
		`},
		{"iptables-legacy", `
			iptables-legacy-restore < testdata/replay/rules.iptables
			ip6tables-legacy-restore < testdata/replay/rules.ip6tables
		`},
		{"ipset", `
			ipset restore < testdata/replay/sets.ipset
			ipset destroy gap
			iptables-legacy -t mangle -A PREROUTING -p tcp -m set --match-set nets src -j MARK --set-mark 1
			iptables-nft -t mangle -A PREROUTING -p tcp -m set ! --match-set ports dst -j MARK --set-mark 2
		`},
	} {
		t.Run(c.name, func(t *testing.T) {
			host := newNetns(t)
			shell(t, host, c.script)
			live, twin, lacks := twinOf(t, host)
			for _, d := range append(lacks, Compare(live, twin)...) {
				t.Error(d)
			}
			for _, u := range append(live.Unread, twin.Unread...) {
				t.Error("not read:", u)
			}
		})
	}
}

// Where the namespace of the copy has a device of its own, it is said which.
func TestOccupied(t *testing.T) {
	host, inside, outside := newNetns(t), newNetns(t), newNetns(t)
	shell(t, host, "ip link add eth0 index 2 type veth peer name other index 3")
	shell(t, inside, "ip link add tunl0 index 2 type bridge")
	live, err := host.Read(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	_, err = live.Replay(context.Background(), inside, outside)
	var occupied *OccupiedError
	if !errors.As(err, &occupied) || *occupied != (OccupiedError{"tunl0", 2, "eth0"}) || occupied.Hint() == "" {
		t.Error(err)
	}
}

// Nothing in a copy writes to the host's log: no rule, and no packet with an address that does not
// belong where it comes from. Rules keep their numbers.
func TestNoLog(t *testing.T) {
	host, inside, outside := newNetns(t), newNetns(t), newNetns(t)
	shell(t, host, `
		ip link set lo up
		sysctl -qw net.ipv4.conf.all.log_martians=1 net.ipv4.conf.lo.log_martians=1
		nft add table ip t
		nft add chain ip t c '{ type filter hook output priority 0; }'
		nft add rule ip t c log prefix \"nft \" counter
		nft add rule ip t c log group 3
		iptables-nft -A OUTPUT -j LOG --log-prefix nft-
		iptables-legacy -A OUTPUT -j LOG --log-prefix legacy-
		iptables-legacy -A OUTPUT -j ACCEPT
	`)
	live, err := host.Read(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	martians := []string{"ipv4/conf/all/log_martians", "ipv4/conf/default/log_martians", "ipv4/conf/lo/log_martians"}
	for _, n := range []*Netns{inside, outside} {
		if err := n.Do(func() error {
			for _, name := range martians { // as where the first namespace has it
				if err := writeSetting(name, "1"); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	if lacks, err := live.Replay(context.Background(), inside, outside); err != nil || len(lacks) > 0 {
		t.Fatal(lacks, err)
	}
	for _, n := range []*Netns{inside, outside} {
		if err := n.Do(func() error {
			for _, name := range martians {
				if b, err := os.ReadFile("/proc/sys/net/" + name); err != nil || string(b) != "0\n" {
					t.Errorf("%s is %q, %v", name, b, err)
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := inside.Do(func() error {
		conn, err := net.Dial("udp", "127.0.0.1:9")
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = conn.Write([]byte("x"))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	twin, err := inside.Read(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	groups, rules := 0, 0
	for _, table := range twin.Tables {
		for _, chain := range table.Chains {
			for _, r := range chain.Rules {
				rules++
				for _, e := range r.Exprs {
					data, err := split(e.Data, 0)
					if err != nil {
						t.Fatal(err)
					}
					if e.Name == "log" && data.has(unix.NFTA_LOG_GROUP) {
						groups++
					} else if e.Name == "log" || e.Name == "target" {
						t.Errorf("chain %s has an expression %s", chain.Name, e.Name)
					}
				}
			}
		}
	}
	if groups != 1 || rules != 3 {
		t.Errorf("%d rules, of which %d log to a group; want 3 and 1", rules, groups)
	}
	var counters []uint64
	table := &twin.Legacy[0]
	if err := table.each(func(e []byte, _ string) error {
		counters = append(counters, binary.NativeEndian.Uint64(e[xt.LayoutOf(table.IPv6).Counters:]))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	// Policies of INPUT and FORWARD, LOG, ACCEPT, policy of OUTPUT, end. The datagram's ICMP error
	// is not counted apart: it is ACCEPTed too.
	if len(counters) != 6 || counters[2] != 0 || counters[3] == 0 {
		t.Errorf("the rules of iptables-legacy counted %d", counters)
	}
}
