package twin

import (
	"bytes"
	"context"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"pfdivert/roles/wire"
)

// common is how many bits two addresses have in common from the left.
func common(a, b netip.Addr) int {
	n := 0
	for n < a.BitLen() {
		p, _ := a.Prefix(n + 1)
		if !p.Contains(b) {
			break
		}
		n++
	}
	return n
}

// Pseudonyms keep what addresses have in common, whether they are private or have a meaning, and
// the last part of one in a network of the host's own.
func TestPseudonymsOfAddresses(t *testing.T) {
	p := &pseudonyms{key: [32]byte{1}, own: prefixes("192.168.7.0/24"), flips: map[netip.Prefix]byte{}}
	some := []string{"10.1.2.3", "192.168.7.20", "192.168.7.255", "192.168.9.9", "8.8.8.8", "127.0.0.1", "203.0.113.7",
		"224.0.0.1", "100.64.3.3", "172.20.1.1",
		"2a00:1450::1", "2600:1f18::5", "fd12:3456::1", "fe80::1", "::1", "2001:db8::7", "ff02::1", "2001:67c::1"}
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string) netip.Addr {
			a := netip.MustParseAddr(rapid.SampledFrom(some).Draw(t, name))
			b := a.AsSlice()
			keep := rapid.IntRange(0, min(len(b), 8)).Draw(t, name+" bytes kept")
			for i := keep; i < min(len(b), 8); i++ {
				b[i] = rapid.Byte().Draw(t, name+" byte")
			}
			a, _ = netip.AddrFromSlice(b)
			return a
		}
		a, b := draw("a"), draw("b")
		x, y := p.addr(a), p.addr(b)
		if a.Is4() == b.Is4() && common(a, b) != common(x, y) {
			t.Fatalf("%v and %v have %d bits in common, %v and %v %d", a, b, common(a, b), x, y, common(x, y))
		}
		for _, n := range append(closedNetworks, keptNetworks...) {
			if n.Contains(a) != n.Contains(x) {
				t.Fatalf("%v became %v: one is in %v", a, x, n)
			}
		}
		for _, n := range keptNetworks {
			if n.Contains(a) && a != x {
				t.Fatalf("%v became %v", a, x)
			}
		}
	})
	if a := p.addr(netip.MustParseAddr("192.168.7.255")); a.As4()[3] != 255 {
		t.Errorf("the address of all in the network became %v", a)
	}
	if a := p.addr(netip.MustParseAddr("8.8.8.8")); a == netip.MustParseAddr("8.8.8.8") {
		t.Error("a public address stays as it is")
	}
	if a := p.addr(netip.MustParseAddr("2a00:1450::216:3eff:fe12:3456")); !strings.HasSuffix(a.String(),
		":0:ff:fe12:3456") {
		t.Errorf("the vendor is in %v", a)
	}
}

// secretHost has addresses that are no one's business, wherever they can be.
const secretHost = `
	ip link add wan0 index 7 type veth peer name wan0x
	ip link add lan0 index 9 type veth peer name lan0x
	ip link set lo up
	for l in wan0 wan0x lan0 lan0x; do ip link set $l addrgenmode none; ip link set $l up; done
	ip addr add 81.82.83.84/24 dev wan0
	ip addr add 192.168.77.1/24 dev lan0
	ip addr add 2a11:b1:c1:d1::1/64 dev lan0 nodad
	ip route add default via 81.82.83.1
	ip route add 10.77.0.0/16 nexthop via 192.168.77.9 nexthop via 192.168.77.10
	ip route add default via 2a11:b1:c1:d1::9
	ip rule add from 192.168.77.0/24 lookup 100
	ip rule add to 85.86.0.0/16 lookup 100
	ip route add local 0.0.0.0/0 dev lo table 100
	ip neigh add 192.168.77.20 lladdr 02:16:3e:01:02:03 dev lan0
	nft -f - <<'X'
	table inet t {
		set nets { type ipv4_addr; flags interval; elements = { 81.82.0.0/16, 87.1.2.3-87.1.9.200, 10.0.0.0/8, 250.0.0.0-255.255.255.255 } }
		set six { type ipv6_addr; flags interval; elements = { 2a11:b1::/32, fc00::/7 } }
		set pairs { type ipv4_addr . inet_service; flags interval; elements = { 87.1.0.0/16 . 80-90 } }
		map to { type ipv4_addr : ipv4_addr; elements = { 81.82.83.84 : 192.168.77.30 } }
		map ranges { type ipv4_addr : verdict; flags interval; elements = { 87.1.0.0/16 : accept } }
		chain pre { type filter hook prerouting priority mangle;
			ip daddr 81.82.83.0/24 return
			ip saddr 192.168.77.20 ip daddr 87.1.2.3 tcp dport 80 accept
			ip daddr != 87.88.89.0/25 accept
			ip6 daddr 2a11:b1::/32 return
			ip6 saddr 2a11:b1:c1:d1::20 accept
			ip daddr { 87.1.1.1, 87.1.1.2 } accept
			ip daddr @nets accept
			ip saddr . tcp dport @pairs accept
			ip6 daddr @six accept
			ip saddr vmap @ranges
			ct original ip daddr 81.82.83.84 accept
			meta l4proto tcp tproxy ip to 127.0.0.1:1234 meta mark set 1 accept
		}
		chain nat { type nat hook prerouting priority dstnat;
			ip daddr 81.82.83.84 tcp dport 22 dnat ip to 192.168.77.22:22
			dnat ip to ip daddr map @to
		}
		chain post { type nat hook postrouting priority srcnat;
			ip saddr 192.168.77.0/24 snat ip to 81.82.83.84
		}
	}
X
	iptables-nft -t mangle -A PREROUTING -s 192.168.77.0/24 -d 81.82.83.84 -j MARK --set-mark 5
	iptables-legacy -t nat -A PREROUTING -d 81.82.83.84 -p tcp --dport 25 -j DNAT --to-destination 192.168.77.25
	iptables-legacy -A FORWARD -m iprange --src-range 87.1.4.0-87.1.4.255 -j ACCEPT
	iptables-legacy -A FORWARD -m conntrack --ctorigdst 81.82.83.84 -j ACCEPT
	ip6tables-legacy -A FORWARD -s 2a11:b1:c1::/48 -j ACCEPT
	ipset create nets hash:net
	ipset add nets 87.1.0.0/16
	ipset create one hash:ip,port
	ipset add one 81.82.83.84,tcp:80
`

// A snapshot with pseudonyms has no address of the host's, and replays: what was in a set or a
// network is.
func TestPseudonyms(t *testing.T) {
	host := newNetns(t)
	shell(t, host, secretHost)
	live, err := host.Read(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	live.Sockets = []BoundSocket{{Proto: "tcp", Local: netip.MustParseAddrPort("192.168.77.1:80")}}
	mapped, err := live.pseudonyms([32]byte{1}) // by another key one may become itself
	if err != nil {
		t.Fatal(err)
	}
	b, err := wire.Append(nil, mapped.Dump)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"\x51\x52\x53", "\x57\x01", "\x57\x58", "\x55\x56\x00\x00", "\xc0\xa8\x4d",
		"\x2a\x11\x00\xb1"} {
		if at := bytes.Index(b, []byte(secret)); at >= 0 {
			t.Errorf("the address %x is in it: %x", secret, b[max(0, at-40):min(len(b), at+20)])
		}
	}
	inside, outside := newNetns(t), newNetns(t)
	lacks, err := mapped.Replay(context.Background(), inside, outside)
	if err != nil {
		t.Fatal(err)
	}
	twin, err := inside.Read(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range append(lacks, Compare(mapped, twin)...) {
		t.Error(d)
	}
	count := func(c *Snapshot) map[string]int {
		n := map[string]int{"devices": len(c.Links), "addresses": len(c.Addrs), "routes": len(c.Routes),
			"policy rules": len(c.PolicyRules)}
		for _, table := range c.Tables {
			n["sets"] += len(table.Sets)
			for _, chain := range table.Chains {
				n["rules"] += len(chain.Rules)
			}
		}
		return n
	}
	if diff := cmp.Diff(count(live), count(mapped)); diff != "" {
		t.Errorf("(-live +mapped)\n%s", diff)
	}
	// A range that is no prefix has become several.
	for _, table := range live.Tables {
		for i, s := range table.Sets {
			for _, other := range mapped.Tables {
				if other.Name == table.Name && other.Family == table.Family && starts(other.Sets[i]) < starts(s) {
					t.Errorf("set %s has %d elements, want %d", s.Name, starts(other.Sets[i]), starts(s))
				}
			}
		}
	}
	if s := mapped.Sockets[0].Local; s.Addr().As4()[3] != 1 || s.Port() != 80 {
		t.Errorf("the socket is at %v", s)
	}
}

// starts counts a set's elements, each interval once.
func starts(s *Set) int {
	n := 0
	for _, e := range s.Elements {
		n += b2i(!e.End)
	}
	return n
}

// What is not understood, or is no prefix, is refused.
func TestPseudonymsRefused(t *testing.T) {
	for _, c := range []struct{ name, script, want string }{
		{"range", "iptables-legacy -A INPUT -m iprange --src-range 87.1.4.7-87.1.4.9 -j ACCEPT", "a range of addresses"},
		{"match", "iptables-legacy -A INPUT -m u32 --u32 0xc=0x51525354 -j ACCEPT || iptables-legacy -A INPUT -m string --algo bm --string x -j ACCEPT", "-m "},
		{"NETMAP", "iptables-legacy -t nat -A PREROUTING -d 81.82.83.0/24 -j NETMAP --to 192.168.77.0/24", "-j NETMAP"},
		{"raw payload", "nft add table ip t; nft add chain ip t c; nft add rule ip t c @nh,104,16 0x5253 accept", "a part of an address"},
		{"mask", "iptables-legacy -A INPUT -s 81.0.0.84/255.0.0.255 -j ACCEPT", "a mask"},
		{"range of nft", "nft add table ip t; nft add chain ip t c; nft add rule ip t c ip saddr 87.1.4.7-87.1.4.9 accept", "a range of addresses"},
	} {
		t.Run(c.name, func(t *testing.T) {
			host := newNetns(t)
			shell(t, host, c.script)
			live, err := host.Read(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := live.Pseudonyms(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; want %q in it", err, c.want)
			}
		})
	}
}
