package twin

import (
	"slices"
	"strings"
	"testing"
)

// The same rules in the syntax of each tool give the same flows.
func TestPlan(t *testing.T) {
	const fake4, fake6 = "45.33.32.156", "[2600:3c01::f03c:91ff:fe18:bb2f]"
	legacy := func(script string) string { return strings.ReplaceAll(script, "iptables ", "iptables-legacy ") }
	iptables := func(script string) []string { return []string{script, legacy(script)} }
	proxy := socket("tcp", "0.0.0.0:7895", "transparent")
	for _, c := range []struct {
		name    string
		scripts []string
		sockets []BoundSocket
		with    []string // kind and ID
		without []string // kind and part of an ID
	}{
		{"no rules", []string{""}, []BoundSocket{socket("tcp", "0.0.0.0:22"), socket("tcp", "127.0.0.1:631")}, []string{
			"client tcp lan0 10.91.1.231 -> " + fake4 + ":80", "client udp lan0 fd91:1::e7 -> " + fake6 + ":53",
			"own tcp host -> " + fake4 + ":443",
			"client tcp lan0 10.91.1.231 -> " + fake4 + ":22", "service tcp lan0 10.91.1.231 -> 10.91.1.1:22",
			"service tcp wan0 185.15.59.224 -> 10.91.2.1:22",
		}, []string{"client wan0", "service tcp lan0 10.91.1.231 -> 10.91.1.1:631", "asked", "exempt", "borrowed"}},
		{"ports, clients and addresses", append(iptables(`
iptables -t nat -A PREROUTING -s 10.91.1.44 -p tcp --dport 8000:9000 -j REDIRECT --to-ports 7895
iptables -t nat -A PREROUTING -p udp -m multiport --dports 123,5353 -j REDIRECT --to-ports 7895
iptables -t nat -A PREROUTING -d 9.9.9.0/24 -p tcp -j REDIRECT --to-ports 7895`), nft(`
table ip p { chain c {
 type nat hook prerouting priority -100;
 ip saddr 10.91.1.44 tcp dport 8000-9000 redirect to :7895
 udp dport { 123, 5353 } redirect to :7895
 ip daddr 9.9.9.0/24 ip protocol tcp redirect to :7895
 }
}
`)), []BoundSocket{socket("tcp", "0.0.0.0:7895")}, []string{
			"client tcp lan0 10.91.1.44 -> " + fake4 + ":8000", "client udp lan0 10.91.1.44 -> " + fake4 + ":123",
			"client udp lan0 10.91.1.44 -> " + fake4 + ":5353",
			"client tcp lan0 10.91.1.231 -> " + fake4 + ":80", "client tcp lan0 10.91.1.44 -> 9.9.9.1:80",
			"asked tcp lan0 10.91.1.44 -> 10.91.1.1:7895",
		}, nil},
		{"sets", []string{nft(`
table inet p {
 set far { type ipv4_addr; flags interval; elements = { 9.9.9.0/24, 45.33.0.0/16 }; }
 set who { type ipv4_addr . inet_service; elements = { 10.91.1.77 . 8443 }; }
 chain c {
  type filter hook prerouting priority mangle;
  ip daddr @far return
  ip saddr . tcp dport @who meta mark set 1 tproxy ip to :7895
 }
}`), `
ipset create far hash:net; ipset add far 9.9.9.0/24; ipset add far 45.33.0.0/16
iptables -t mangle -A PREROUTING -m set --match-set far dst -j RETURN
iptables -t mangle -A PREROUTING -s 10.91.1.77 -p tcp --dport 8443 -j TPROXY --on-port 7895 --tproxy-mark 1`,
		}, []BoundSocket{proxy}, []string{
			"client tcp lan0 10.91.1.77 -> 151.101.193.69:8443", "client tcp lan0 10.91.1.77 -> 9.9.9.1:80",
		}, []string{"45.33.32.156"}},
		{"what the rules leave out", append(iptables(toLo+`
iptables -t mangle -A OUTPUT -m mark --mark 0xff -j RETURN
iptables -t mangle -A OUTPUT -m mark --mark 0x100/0x300 -j ACCEPT
iptables -t mangle -A OUTPUT -m owner --uid-owner 1337 -j RETURN
iptables -t mangle -A OUTPUT -m owner --gid-owner 7 -j RETURN
iptables -t mangle -A OUTPUT -p tcp -m owner ! --uid-owner 99 -j MARK --set-mark 1`), toLo+nft(`
table ip p { chain c {
 type route hook output priority mangle;
 meta mark 0xff return
 meta mark & 0x300 == 0x100 accept
 meta skuid 1337 return
 meta skgid 7 return
 ip protocol tcp meta skuid != 99 meta mark set 1
 }
}`), toLo+nft(`
table inet p {
 chain c { type route hook output priority mangle; meta mark vmap { 0xff : return, 0x100-0x1ff : accept }; meta skuid { 1337, 1337 } return; jump d; }
 chain d { meta skgid 7 return; ip protocol tcp meta skuid != 99 meta mark set meta mark | 1; }
}`)), []BoundSocket{proxy}, []string{
			"exempt tcp host mark 0xff -> " + fake4 + ":80", "exempt tcp host mark 0x100 -> " + fake4 + ":80",
			"exempt tcp host uid 1337 -> " + fake4 + ":80",
			"exempt tcp host gid 7 -> " + fake4 + ":80", "exempt tcp host uid 99 -> " + fake4 + ":80",
			"own tcp host -> " + fake4 + ":80",
		}, nil},
		{"a firewall's accept is no exemption", iptables(`
iptables -P OUTPUT DROP; iptables -A OUTPUT -m mark --mark 5 -j ACCEPT; iptables -A OUTPUT -m owner --uid-owner 1337 -j ACCEPT
iptables -t nat -A OUTPUT -p tcp --dport 80 -j REDIRECT --to-ports 7895`), []BoundSocket{socket("tcp", "0.0.0.0:7895")}, nil, []string{"exempt"}},
		{"a mark that is routed to the listener is no exemption", iptables(toLo + `
iptables -t mangle -A OUTPUT -m mark --mark 1 -j RETURN
iptables -t mangle -A OUTPUT -p tcp -j MARK --set-mark 1`), []BoundSocket{proxy}, nil, []string{"exempt"}},
		{"a diversion of one user",
			iptables("iptables -t nat -A OUTPUT -p tcp -m owner --uid-owner 1000 -j REDIRECT --to-ports 7895"),
			[]BoundSocket{socket("tcp", "0.0.0.0:7895")}, []string{
				"own tcp host uid 64999 gid 1000 -> " + fake4 + ":80",
				"own tcp host uid 1000 gid 1000 -> " + fake4 + ":80",
			}, []string{"exempt"}},
		{"a listener of another user than those left out", iptables(`
iptables -t nat -A OUTPUT -p tcp -m owner --uid-owner 1337 -j RETURN; iptables -t nat -A OUTPUT -p tcp -j REDIRECT --to-ports 7895`),
			[]BoundSocket{socket("tcp", "0.0.0.0:7895", "uid=1338")},
			[]string{"exempt tcp host uid 1337 gid 1000 -> " + fake4 + ":80",
				"guessed tcp host uid 1338 -> " + fake4 + ":80"},
			nil},
		{"dnat", append(iptables("iptables -t nat -A PREROUTING -i lan0 -p tcp --dport 9050 -j DNAT --to-destination 127.0.0.1:9051"), nft(`
table inet p { chain c {
 type nat hook prerouting priority -100;
 iifname lan0 meta nfproto ipv4 tcp dport 9050 dnat to 127.0.0.1:9051
 }
}`)), []BoundSocket{socket("tcp", "127.0.0.1:9051")}, []string{"service tcp lan0 10.91.1.231 -> 10.91.1.1:9050", "client tcp lan0 10.91.1.231 -> " + fake4 + ":9050"},
			[]string{"service tcp wan0"}},
		{"answers by their source port", iptables(toLo + "iptables -t mangle -A OUTPUT -p tcp --sport 443 -j MARK --set-mark 1"),
			[]BoundSocket{socket("tcp", "127.0.0.1:443")}, []string{"borrowed tcp host 10.91.1.231 -> 127.0.0.1:443"},
			nil},
		{"a policy rule's port", []string{"ip rule add ipproto tcp dport 4711 lookup main"}, nil,
			[]string{"client tcp lan0 10.91.1.231 -> " + fake4 + ":4711"}, []string{"udp :4711"}},
	} {
		for i, script := range c.scripts {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				flows := Plan(host(t, script, c.sockets))
				var ids []string
				for _, f := range flows {
					ids = append(ids, string(f.Kind)+" "+f.ID)
				}
				for _, id := range c.with {
					if !slices.Contains(ids, id) {
						t.Errorf("script %d: no flow %q among %q", i, id, ids)
					}
				}
				for _, words := range c.without {
					for _, id := range ids {
						all := strings.Fields(id)
						if !slices.ContainsFunc(strings.Fields(words), func(w string) bool {
							return !slices.ContainsFunc(all, func(x string) bool {
								return x == w || strings.HasPrefix(w, ":") && strings.HasSuffix(x, w) ||
									strings.HasPrefix(x, w+":")
							})
						}) {
							t.Errorf("script %d: flow %q, which should not be there", i, id)
						}
					}
				}
			})
		}
	}
}
