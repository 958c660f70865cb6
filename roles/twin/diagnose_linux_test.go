package twin

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// A set-up is diagnosed with its cause and a fix; the fix that is printed is carried out, and
// helps. What works has nothing bad.
func TestDiagnose(t *testing.T) {
	proxy := socket("tcp", "0.0.0.0:7895", "transparent")
	proxyUDP := socket("udp", "0.0.0.0:7895", "transparent")
	redirected := socket("tcp", "0.0.0.0:12345")
	const (
		mwan  = "iptables -t mangle -A PREROUTING -i lan0 -p tcp -m mark --mark 0x0/0x3f00 -j MARK --set-xmark 0x100/0x3f00\n"
		wan   = "ip route add default via 10.91.2.2 table 1\n"
		ofUDP = "iptables -t mangle -A PREROUTING -i lan0 -p udp -m addrtype ! --dst-type LOCAL -j TPROXY --on-port 7895 --tproxy-mark 1\n"
		own   = `
iptables -t mangle -A OUTPUT -m mark --mark 0xff -j RETURN
iptables -t mangle -A OUTPUT -m conntrack --ctdir REPLY -j RETURN
iptables -t mangle -A OUTPUT -d 10.0.0.0/8 -j RETURN
iptables -t mangle -A OUTPUT -p tcp -j MARK --set-mark 1
`
		redirect = `
iptables -t nat -N SS; iptables -t nat -A SS -m mark --mark 255 -j RETURN; iptables -t nat -A SS -d 10.0.0.0/8 -j RETURN
iptables -t nat -A SS -p tcp -j REDIRECT --to-ports 12345
iptables -t nat -A PREROUTING -i lan0 -p tcp -j SS; iptables -t nat -A OUTPUT -p tcp -j SS
`
		inet = `
table inet p {
 chain prerouting { type filter hook prerouting priority mangle; policy accept;
  fib daddr type local return
  iifname "lan0" meta l4proto tcp meta nfproto ipv4 meta mark set 1 tproxy ip to 127.0.0.1:7895 accept
  iifname "lan0" meta l4proto tcp meta nfproto ipv6 meta mark set 1 tproxy ip6 to [::1]:7895 accept
 }
}
`
	)
	both := []BoundSocket{socket("tcp", "127.0.0.1:7895", "transparent"), socket("tcp", "[::1]:7895", "transparent")}
	for _, c := range []struct {
		name    string
		script  string
		sockets []BoundSocket
		bad     string // the cause of the one problem that is bad, "" for none
		warn    string // the cause of one that is a warning
		fixed   []BoundSocket
		unfixed bool   // no fix is known
		says    string // a part of what the problem says
	}{
		{name: "no rules", sockets: []BoundSocket{socket("tcp", "0.0.0.0:22")}},
		{name: "tproxy", script: toLo + ofLan, sockets: []BoundSocket{proxy}, warn: "listener-reachable"},
		{name: "tproxy of own", script: toLo + ofLan +
			"iptables -t mangle -A PREROUTING -i lo -p tcp -m mark --mark 1 -j TPROXY --on-port 7895 --tproxy-mark 1" +
			own, sockets: []BoundSocket{proxy}, warn: "listener-reachable"},
		{name: "redirect", script: redirect, sockets: []BoundSocket{redirected}},

		{name: "1 exemption by a mark that is changed", sockets: []BoundSocket{redirected}, bad: "own-traffic-diverted", script: `
iptables -t mangle -A OUTPUT -m mark --mark 0x0/0x3f00 -j MARK --set-xmark 0x100/0x3f00
iptables -t nat -A OUTPUT -m mark --mark 255 -j RETURN
iptables -t nat -A OUTPUT -p tcp ! -d 10.0.0.0/8 -j REDIRECT --to-ports 12345`},
		{name: "1 exemption of another group", sockets: []BoundSocket{socket("tcp", "0.0.0.0:12345", "gid=23333")}, bad: "own-traffic-diverted", script: `
iptables -t nat -A OUTPUT -d 10.0.0.0/8 -j RETURN
iptables -t nat -A OUTPUT -m owner --gid-owner 23334 -j RETURN
iptables -t nat -A OUTPUT -p tcp -j REDIRECT --to-ports 12345`},
		{name: "1 exemption of a group, the listener is root's", sockets: []BoundSocket{redirected}, bad: "own-traffic-diverted", script: `
iptables -t nat -A OUTPUT -d 10.0.0.0/8 -j RETURN
iptables -t nat -A OUTPUT -m owner --gid-owner 23334 -j RETURN
iptables -t nat -A OUTPUT -p tcp -j REDIRECT --to-ports 12345`},
		{name: "2 nothing is left out", sockets: []BoundSocket{redirected}, bad: "own-traffic-diverted",
			script: "iptables -t nat -A OUTPUT -p tcp -j REDIRECT --to-ports 12345"},
		{name: "2 only reserved networks are left out", sockets: []BoundSocket{redirected}, warn: "own-traffic-diverted", script: `
for n in 10.0.0.0/8 127.0.0.0/8 172.16.0.0/12 192.168.0.0/16; do iptables -t nat -A OUTPUT -d $n -j RETURN; done
iptables -t nat -A OUTPUT -p tcp -j REDIRECT --to-ports 12345`},
		{name: "2 marks of root's proxy", sockets: []BoundSocket{proxy}, bad: "own-traffic-diverted", script: toLo + ofLan + `
iptables -t mangle -A PREROUTING -i lo -p tcp -m mark --mark 1 -j TPROXY --on-port 7895 --tproxy-mark 1
iptables -t mangle -A OUTPUT -m conntrack --ctdir REPLY -j RETURN
iptables -t mangle -A OUTPUT -p tcp -j MARK --set-mark 1`},
		{name: "2 its server is left out", sockets: []BoundSocket{redirected}, script: `
iptables -t nat -A OUTPUT -d 198.51.100.7 -j RETURN; iptables -t nat -A OUTPUT -p tcp -j REDIRECT --to-ports 12345`},
		{name: "2 its cgroup is left out", sockets: []BoundSocket{redirected}, script: nft(`
table ip p {
 chain out { type nat hook output priority -100;
  meta cgroup 1048577 return
  ip protocol tcp redirect to :12345
 }
}`)},
		{name: "4 listener on loopback", sockets: []BoundSocket{socket("udp", "127.0.0.1:12346", "transparent")}, bad: "listener-elsewhere", script: toLo + `
iptables -t mangle -A PREROUTING -s 10.91.1.2 -p udp -j MARK --set-mark 1
iptables -t mangle -A PREROUTING -m mark --mark 1 -p udp -j TPROXY --tproxy-mark 1 --on-port 12346`},
		{name: "4 of nft", sockets: []BoundSocket{socket("tcp", "127.0.0.1:7895", "transparent")}, bad: "listener-elsewhere", script: toLo + nft(`
table ip p {
 chain pre { type filter hook prerouting priority mangle;
  iifname "lan0" ip protocol tcp fib daddr type != local meta mark set 1 tproxy to :7895 accept
 }
}`)},
		{name: "5 listener elsewhere", script: redirect, sockets: []BoundSocket{socket("tcp", "10.91.1.1:12345")},
			bad: "listener-elsewhere", fixed: []BoundSocket{redirected}},
		{name: "5 of nft", sockets: []BoundSocket{socket("tcp", "10.91.1.1:12345")}, bad: "listener-elsewhere", script: nft(`
table ip p {
 chain out { type nat hook output priority -100;
  ip daddr 10.0.0.0/8 return
  meta mark 255 return
  tcp dport { 80, 443 } redirect to :12345
 }
}`)},
		{name: "6 chain of type filter", sockets: both, bad: "chain-type", script: toLo + nft(inet+`
table inet o {
 chain pre { type filter hook prerouting priority mangle + 1;
  iifname "lo" meta mark 1 meta l4proto tcp meta nfproto ipv4 tproxy ip to 127.0.0.1:7895 accept
  iifname "lo" meta mark 1 meta l4proto tcp meta nfproto ipv6 tproxy ip6 to [::1]:7895 accept
 }
 chain out { type filter hook output priority mangle;
  ip daddr { 10.0.0.0/8, 127.0.0.0/8 } return
  meta mark 255 return
  ct direction reply return
  meta l4proto tcp meta mark set 1
 }
}`)},
		{name: "7 mark in another table", sockets: []BoundSocket{proxy}, bad: "chain-type", script: toLo + ofLan + `
iptables -t mangle -A PREROUTING -i lo -p tcp -m mark --mark 1 -j TPROXY --on-port 7895 --tproxy-mark 1
iptables -A OUTPUT -m mark --mark 0xff -j RETURN
iptables -A OUTPUT -m conntrack --ctdir REPLY -j RETURN
iptables -A OUTPUT -p tcp ! -d 10.0.0.0/8 -j MARK --set-mark 1`},
		{name: "7 mark of the connection", sockets: []BoundSocket{proxy}, bad: "chain-type", script: toLo + nft(`
table ip p {
 chain pre { type filter hook prerouting priority mangle;
  iifname "lo" meta mark 1 meta l4proto tcp tproxy to :7895 accept
 }
 chain out { type filter hook output priority filter;
  meta mark 255 return
  ct direction reply return
  ip daddr { 10.0.0.0/8, 127.0.0.0/8 } return
  meta l4proto tcp ct state new ct mark set 1
  meta l4proto tcp meta mark set ct mark
 }
}`)},
		{name: "7 mark of a map", sockets: []BoundSocket{proxy}, bad: "chain-type", script: toLo + nft(`
table ip p {
 map m { type ipv4_addr : mark; flags interval; elements = { 10.0.0.0/8 : 0, 11.0.0.0-223.255.255.255 : 1 }
 }
 chain pre { type filter hook prerouting priority mangle;
  iifname "lo" meta mark 1 meta l4proto tcp tproxy to :7895 accept
 }
 chain out { type filter hook output priority mangle;
  meta mark 255 return
  ct direction reply return
  meta l4proto tcp meta mark set ip daddr map @m
 }
}`)},
		{name: "7 mark of the connection, restored", sockets: []BoundSocket{proxy}, bad: "chain-type", script: toLo + ofLan + `
iptables -t mangle -A PREROUTING -i lo -p tcp -m mark --mark 1 -j TPROXY --on-port 7895 --tproxy-mark 1
iptables -A OUTPUT -m mark --mark 0xff -j RETURN
iptables -A OUTPUT -m conntrack --ctdir REPLY -j RETURN
iptables -A OUTPUT -p tcp ! -d 10.0.0.0/8 -j CONNMARK --set-mark 1
iptables -A OUTPUT -p tcp ! -d 10.0.0.0/8 -j CONNMARK --restore-mark`},
		{name: "8 firewalld's rpfilter", sockets: both, bad: "rpfilter", script: toLo + nft(inet+`
table inet firewalld {
 chain filter_PREROUTING { type filter hook prerouting priority filter + 10; policy accept;
  icmpv6 type { nd-router-advert, nd-neighbor-solicit } accept
  meta nfproto ipv6 fib saddr . mark . iif oif missing drop
 }
}`)},
		{name: "8 NixOS's rpfilter", sockets: both, bad: "rpfilter", script: toLo + nft(inet+`
table inet nixos-fw {
 chain rpfilter { type filter hook prerouting priority mangle + 10; policy drop;
  icmpv6 type { nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } accept
  fib saddr . mark . iif oif exists accept
 }
}`)},
		{name: "8 of iptables", sockets: []BoundSocket{proxy}, bad: "rpfilter", script: toLo + ofLan + `
iptables -t raw -A PREROUTING -i lan0 -p tcp -j MARK --set-mark 1
iptables -t mangle -I PREROUTING -m rpfilter --validmark --invert -j DROP`},
		{name: "9 answers of services are marked", sockets: []BoundSocket{redirected, socket("tcp", "0.0.0.0:22"), proxy}, bad: "answer-marked", script: toLo + `
iptables -t mangle -A OUTPUT -m mark --mark 0xff -j RETURN
iptables -t mangle -A OUTPUT -p tcp ! -d 192.168.0.0/16 -j MARK --set-mark 1
iptables -t mangle -A PREROUTING -i lo -p tcp -m mark --mark 1 -j TPROXY --on-port 7895 --tproxy-mark 1`},
		{name: "10 answers to public addresses", sockets: []BoundSocket{socket("tcp", "[::]:7892", "transparent")}, bad: "answer-marked", script: toLo + `
ip -6 addr add 2001:db8:1::1/64 dev lan0 nodad` + nft(`
table ip6 sing-box {
 chain prerouting { type filter hook prerouting priority mangle; policy accept;
  ip6 daddr { ::/128, ::1/128, fc00::/7, fe80::/10 } return
  fib daddr type local return
  meta l4proto tcp tproxy to :7892 meta mark set 1
 }
}
table ip6 proxy {
 chain output { type route hook output priority mangle; policy accept;
  meta mark 255 return
  ip6 daddr { ::/128, ::1/128, fc00::/7, fe80::/10 } return
  meta l4proto tcp meta mark set 1
 }
}`)},
		{name: "11 by a mark",
			script: "ip rule add pref 9000 fwmark 1/0xff lookup 100; ip route add local default dev lo table 100; ip rule add pref 2001 fwmark 0x100/0x3f00 lookup 1\n" +
				wan + mwan + strings.ReplaceAll(ofLan, "--tproxy-mark 1", "--tproxy-mark 1/0xff"),
			sockets: []BoundSocket{proxy}, bad: "policy-rule"},
		{name: "11 by the interface", script: toLo + wan + ofLan + "ip rule add pref 1001 iif lan0 lookup 1",
			sockets: []BoundSocket{proxy}, bad: "policy-rule"},
		{name: "11 by the network", script: toLo + ofLan + "ip rule add pref 1001 from 10.91.1.0/24 lookup main",
			sockets: []BoundSocket{proxy}, bad: "policy-rule"},
		{name: "11 by a port", script: toLo + ofLan + "ip rule add pref 1001 ipproto tcp dport 80 lookup main",
			sockets: []BoundSocket{proxy}, bad: "policy-rule"},
		{name: "11 for UDP",
			script:  "ip rule add fwmark 1 ipproto udp lookup 100; ip route add local default dev lo table 100\n" + ofLan,
			sockets: []BoundSocket{proxy}, bad: "no-policy-rule"},
		{name: "no policy rule", says: "a packet that tproxy assigned a socket is not forwarded", script: ofLan,
			sockets: []BoundSocket{proxy}, bad: "no-policy-rule"},
		{name: "another mark",
			script:  "ip rule add fwmark 2 lookup 100; ip route add local default dev lo table 100\n" + ofLan,
			sockets: []BoundSocket{proxy}, bad: "no-policy-rule"},
		{name: "no local route", script: "ip rule add fwmark 1 lookup 100\n" + ofLan, sockets: []BoundSocket{proxy},
			bad: "no-local-route"},
		{name: "a local route for one half", sockets: []BoundSocket{proxy}, bad: "no-local-route",
			script: "ip rule add fwmark 1 lookup 100; ip route add local 0.0.0.0/1 dev lo table 100\n" + ofLan},
		{name: "a local route for three quarters", sockets: []BoundSocket{proxy}, bad: "no-local-route",
			script: "ip rule add fwmark 1 lookup 100\n" +
				"for n in 0.0.0.0/2 64.0.0.0/2 128.0.0.0/2; do ip route add local $n dev lo table 100; done\n" + ofLan},
		{name: "local routes for both halves", sockets: []BoundSocket{proxy}, warn: "listener-reachable",
			script: "ip rule add fwmark 1 lookup 100\n" +
				"for n in 0.0.0.0/1 128.0.0.0/1; do ip route add local $n dev lo table 100; done\n" + ofLan},
		{name: "late rule",
			script:  "ip rule add pref 40000 fwmark 1 lookup 100; ip route add local default dev lo table 100\n" + ofLan,
			sockets: []BoundSocket{proxy}, bad: "no-policy-rule"},
		{name: "11 the answers are led elsewhere", sockets: []BoundSocket{redirected}, bad: "policy-rule", script: redirect + `
ip rule add pref 100 iif lo lookup 200; ip route add default via 10.91.2.2 table 200`},
		{name: "12 src_valid_mark", script: toLo + ofLan + "sysctl -qw net.ipv4.conf.all.src_valid_mark=1",
			sockets: []BoundSocket{proxy}, bad: "src-valid-mark"},
		{name: "12 with rp_filter", script: toLo + ofLan +
			"sysctl -qw net.ipv4.conf.all.src_valid_mark=1 net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.lan0.rp_filter=1",
			sockets: []BoundSocket{proxy}, bad: "src-valid-mark"},
		{name: "12 of the device", script: toLo + ofLan + "sysctl -qw net.ipv4.conf.lan0.src_valid_mark=1",
			sockets: []BoundSocket{proxy}, bad: "src-valid-mark"},
		{name: "13 socket transparent 0", sockets: []BoundSocket{proxy, socket("tcp", "0.0.0.0:80")},
			warn: "socket-rule", script: toLo + nft(`
table ip hy {
 chain pre { type filter hook prerouting priority mangle; policy accept;
  iifname != "lan0" return
  meta l4proto { tcp, udp } socket transparent 1 meta mark set 1 accept
  socket transparent 0 counter return
  ip daddr { 10.0.0.0/8, 127.0.0.0/8 } return
  ip protocol tcp meta mark set 1 tproxy ip to :7895 accept
 }
}`)},
		{name: "15 filter by the redirected port", sockets: []BoundSocket{socket("tcp", "0.0.0.0:43889")}, bad: "dropped", script: `
iptables -t nat -A PREROUTING -i lan0 -p tcp --dport 80 -j REDIRECT --to-ports 43889
iptables -P INPUT DROP; iptables -A INPUT -p tcp --dport 80 -j ACCEPT; iptables -A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT`},
		{name: "15 FORWARD drops what is sent to another host", bad: "dropped", script: `
iptables -t nat -A PREROUTING -i lan0 -p tcp --dport 80 -j DNAT --to-destination 10.91.2.2:3128
iptables -P FORWARD DROP; iptables -A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT`},
		{name: "16 dnat to loopback", script: "iptables -t nat -A PREROUTING -i lan0 -p tcp --dport 9050 -j DNAT --to-destination 127.0.0.1:9050",
			sockets: []BoundSocket{socket("tcp", "127.0.0.1:9050")}, bad: "route-localnet"},
		{name: "16 INPUT drops it", sockets: []BoundSocket{socket("tcp", "127.0.0.1:9050")}, bad: "dropped", script: `
iptables -t nat -A PREROUTING -i lan0 -p tcp --dport 9050 -j DNAT --to-destination 127.0.0.1:9050
sysctl -qw net.ipv4.conf.lan0.route_localnet=1
iptables -A INPUT -i lan0 -d 127.0.0.127/32 -j ACCEPT; iptables -A INPUT -i lan0 -d 127.0.0.0/8 -j DROP`},
		{name: "15 deep in ufw", sockets: []BoundSocket{proxy}, bad: "dropped", script: toLo + ofLan + `
iptables -N not-local; iptables -N user; iptables -P INPUT DROP; iptables -A INPUT -i lo -j ACCEPT; iptables -A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT
iptables -A INPUT -j not-local; iptables -A INPUT -j user; iptables -A not-local -m addrtype --dst-type LOCAL -j RETURN; iptables -A not-local -j DROP
iptables -A user -p tcp --dport 7895 -j ACCEPT`},
		{name: "15 two filters", says: "2 things stop it", sockets: []BoundSocket{redirected}, bad: "dropped", script: `
iptables -t nat -A PREROUTING -i lan0 -p tcp --dport 80 -j REDIRECT --to-ports 12345; iptables -A INPUT -p tcp --dport 12345 -j DROP
nft 'add table inet f; add chain inet f in { type filter hook input priority 10; policy drop; }; add rule inet f in ct state established accept; add rule inet f in iifname lo accept'`},
		{name: "15 lo's packets from other addresses are dropped", sockets: []BoundSocket{redirected}, bad: "dropped", script: redirect + `
iptables -A INPUT -i lo ! -s 127.0.0.0/8 -j DROP`},
		{name: "17 what is not tracked is invalid", sockets: []BoundSocket{proxy}, bad: "not-tracked", script: toLo + ofLan + `
iptables -t raw -A PREROUTING -i lan0 -p tcp ! -d 10.0.0.0/8 -j NOTRACK; iptables -A OUTPUT -m conntrack --ctstate INVALID -j DROP`},
		{name: "17 notrack and masquerade", sockets: []BoundSocket{proxy, proxyUDP}, bad: "source-translated", script: toLo + ofLan + ofUDP + `
iptables -t raw -A PREROUTING -i lan0 -d 203.0.113.0/24 -j NOTRACK
iptables -t nat -A POSTROUTING -j MASQUERADE`},
		{name: "18 a service at the proxy", sockets: []BoundSocket{socket("tcp", "0.0.0.0:7895", "transparent"),
			socket("tcp", "0.0.0.0:22")}, warn: "service-diverted",
			script: toLo + "iptables -t mangle -A PREROUTING -i lan0 -p tcp -j TPROXY --on-port 7895 --tproxy-mark 1"},
		{name: "19 no route", sockets: []BoundSocket{socket("tcp", "[::]:12345")}, warn: "no-route", script: "ip -6 route del default\n" + nft(`
table inet p {
 chain output { type nat hook output priority -100;
  meta mark 255 return
  tcp dport { 80, 443 } redirect to :12345
 }
}`)},
		{name: "20 the listener is asked for", script: toLo + ofLan, sockets: []BoundSocket{proxy},
			warn: "listener-reachable"},
		{name: "21 the answer's port is taken", script: toLo + ofUDP,
			sockets: []BoundSocket{proxyUDP, socket("udp", "0.0.0.0:53", "alone")}, bad: "port-taken",
			fixed: []BoundSocket{proxyUDP, socket("udp", "10.91.1.1:53", "alone")}},
		{name: "22 redirected to a transparent listener", script: redirect,
			sockets: []BoundSocket{socket("tcp", "0.0.0.0:12345", "transparent")}, warn: "redirect-to-transparent",
			fixed: []BoundSocket{redirected}},
		{name: "24 the answers to the host's own are diverted", sockets: []BoundSocket{proxy}, bad: "answer-diverted", script: toLo + `
iptables -t mangle -A PREROUTING -d 10.91.1.0/24 -j RETURN; iptables -t mangle -A PREROUTING -p tcp -j TPROXY --on-port 7895 --tproxy-mark 1`},
		{name: "24 redirected behind tproxy", sockets: []BoundSocket{proxy, redirected}, bad: "rule", script: toLo + ofLan + `
iptables -t nat -A PREROUTING -i lan0 -p tcp ! -d 10.0.0.0/8 -j REDIRECT --to-ports 12345`},
		{name: "24 for new connections", sockets: []BoundSocket{proxy}, bad: "later-packets",
			script: toLo + strings.Replace(ofLan, "-p tcp", "-p tcp -m conntrack --ctstate NEW", 1)},
		{name: "24 established ones pass before", sockets: []BoundSocket{proxy}, bad: "later-packets",
			script: toLo + "iptables -t mangle -A PREROUTING -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\n" + ofLan},
		{name: "24 the mark is restored", sockets: []BoundSocket{proxy}, bad: "later-packets", script: toLo + ofLan + `
iptables -t nat -A PREROUTING -j ACCEPT
nft 'add table inet qos; add chain inet qos pre { type filter hook prerouting priority mangle + 5; }; add rule inet qos pre ct state established meta mark set ct mark'`},
		{name: "25 another port", script: toLo + ofLan, sockets: []BoundSocket{socket("tcp", "0.0.0.0:7896",
			"transparent")}, bad: "no-listener", fixed: []BoundSocket{proxy}},
		{name: "nothing listens", script: toLo + ofLan, bad: "no-listener", fixed: []BoundSocket{proxy}},
		{name: "nothing listens, of nft", bad: "no-listener", fixed: []BoundSocket{proxy}, script: toLo + nft(`
table ip p {
 chain pre { type filter hook prerouting priority mangle;
  iifname "lan0" ip protocol tcp fib daddr type != local tproxy to :7895 meta mark set 1 accept
 }
}`)},
		{name: "nothing listens, redirect", says: "port 12345, where no socket is", script: redirect,
			bad: "no-listener", fixed: []BoundSocket{redirected}},
		{name: "IPv4 alone listens", script: toLo + nft(inet), sockets: both[:1], bad: "no-listener", fixed: both},
		{name: "not transparent", says: "takes only listeners that are", script: toLo + ofLan,
			sockets: []BoundSocket{socket("tcp", "0.0.0.0:7895")}, bad: "not-transparent", fixed: []BoundSocket{proxy}},
		{name: "two things: no policy rule, src_valid_mark", says: "2 things stop it", sockets: []BoundSocket{proxy},
			bad: "src-valid-mark", script: ofLan + "sysctl -qw net.ipv4.conf.all.src_valid_mark=1"},
		{name: "two things: no local route, src_valid_mark", says: "2 things stop it", sockets: []BoundSocket{proxy},
			bad:    "src-valid-mark",
			script: "ip rule add fwmark 1 lookup 100\n" + ofLan + "sysctl -qw net.ipv4.conf.all.src_valid_mark=1"},
		{name: "two things: a policy rule before, src_valid_mark", says: "2 things stop it",
			sockets: []BoundSocket{proxy},
			bad:     "src-valid-mark", script: toLo + ofLan + "ip rule add pref 1001 iif lan0 lookup main\n" +
				"sysctl -qw net.ipv4.conf.all.src_valid_mark=1"},
		{name: "three things: a rule drops it, no policy rule, src_valid_mark", says: "3 things stop it",
			sockets: []BoundSocket{proxy},
			bad:     "src-valid-mark", script: ofLan + "iptables -A INPUT -i lan0 -p tcp -j DROP; sysctl -qw net.ipv4.conf.all.src_valid_mark=1"},
		{name: "three things: nothing listens, no policy rule, src_valid_mark, mark before tproxy", says: "3 things stop it",
			bad: "no-policy-rule", fixed: []BoundSocket{proxy}, script: "sysctl -qw net.ipv4.conf.all.src_valid_mark=1\n" + nft(`
table ip p {
 chain pre { type filter hook prerouting priority mangle;
  iifname "lan0" ip protocol tcp fib daddr type != local meta mark set 1 tproxy to :7895 accept
 }
}`)},
		{name: "two things: nothing listens, src_valid_mark, mark before tproxy", says: "2 things stop it",
			bad: "src-valid-mark", fixed: []BoundSocket{proxy}, script: toLo + "sysctl -qw net.ipv4.conf.all.src_valid_mark=1\n" + nft(`
table ip p {
 chain pre { type filter hook prerouting priority mangle;
  iifname "lan0" ip protocol tcp fib daddr type != local meta mark set 1 tproxy to :7895 accept
 }
}`)},
		{name: "three things: nothing listens, no policy rule, src_valid_mark", says: "3 things stop it",
			bad: "no-listener", fixed: []BoundSocket{proxy},
			script: ofLan + "sysctl -qw net.ipv4.conf.all.src_valid_mark=1"},
		{name: "two things: no policy rule, nothing listens", script: ofLan, bad: "no-listener",
			fixed: []BoundSocket{proxy}},
		{name: "two things: no policy rule, not transparent", script: ofLan,
			sockets: []BoundSocket{socket("tcp", "0.0.0.0:7895")}, bad: "not-transparent", fixed: []BoundSocket{proxy}},
		{name: "two things: no policy rule, nothing listens, mark before tproxy", says: "whose tproxy found no socket and ended the rule", bad: "no-listener", fixed: []BoundSocket{proxy}, script: nft(`
table ip p {
 chain pre { type filter hook prerouting priority mangle;
  iifname "lan0" ip protocol tcp fib daddr type != local meta mark set 1 tproxy to :7895 accept
 }
}`)},
		{name: "two things: another mark, not transparent, mark before tproxy", sockets: []BoundSocket{socket("tcp", "0.0.0.0:7895")}, bad: "not-transparent", fixed: []BoundSocket{proxy}, script: "ip rule add fwmark 2 lookup 100; ip route add local default dev lo table 100\n" + nft(`
table ip p {
 chain pre { type filter hook prerouting priority mangle;
  iifname "lan0" ip protocol tcp fib daddr type != local meta mark set 1 tproxy to :7895 accept
 }
}`)},
		{name: "two things: no policy rule, nothing listens, mark after tproxy", bad: "no-listener", fixed: []BoundSocket{proxy}, script: nft(`
table ip p {
 chain pre { type filter hook prerouting priority mangle;
  iifname "lan0" ip protocol tcp fib daddr type != local tproxy to :7895 meta mark set 1 accept
 }
}`)},
		{name: "two things: another mark, not transparent, mark after tproxy", sockets: []BoundSocket{socket("tcp", "0.0.0.0:7895")}, bad: "not-transparent", fixed: []BoundSocket{proxy}, script: "ip rule add fwmark 2 lookup 100; ip route add local default dev lo table 100\n" + nft(`
table ip p {
 chain pre { type filter hook prerouting priority mangle;
  iifname "lan0" ip protocol tcp fib daddr type != local tproxy to :7895 meta mark set 1 accept
 }
}`)},
		{name: "two things: nothing listens, src_valid_mark", bad: "no-listener", fixed: []BoundSocket{proxy},
			script: toLo + ofLan + "sysctl -qw net.ipv4.conf.all.src_valid_mark=1"},
		{name: "two things: INPUT drops it, nothing listens", bad: "dropped", fixed: []BoundSocket{redirected}, script: `
iptables -t nat -A PREROUTING -i lan0 -p tcp --dport 80 -j REDIRECT --to-ports 12345
iptables -P INPUT DROP; iptables -A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT`},
		{name: "two things: no mark, nothing listens", says: "2 things stop it", bad: "no-listener",
			fixed:  []BoundSocket{proxy},
			script: toLo + strings.Replace(ofLan, "--tproxy-mark 1", "", 1)},
		{name: "no mark", sockets: []BoundSocket{proxy}, bad: "no-mark",
			script: toLo + strings.Replace(ofLan, "--tproxy-mark 1", "", 1)},
		{name: "no mark, no policy rule", sockets: []BoundSocket{proxy}, bad: "no-mark", script: nft(`
table inet p {
 chain pre { type filter hook prerouting priority mangle;
  iifname "lan0" meta l4proto tcp fib daddr type != local tproxy ip to :7895 accept
 }
}`)},
		{name: "not transparent, mark after tproxy", sockets: []BoundSocket{socket("tcp", "0.0.0.0:7895")}, bad: "not-transparent", fixed: []BoundSocket{proxy}, script: toLo + nft(`
table ip p {
 chain pre { type filter hook prerouting priority mangle;
  iifname "lan0" ip protocol tcp fib daddr type != local tproxy to :7895 meta mark set 1 accept
 }
}`)},
		{name: "two things: IPv4 alone listens, no policy rule of IPv6", sockets: both[:1], bad: "no-listener",
			fixed:  both,
			script: "ip rule add fwmark 1 lookup 100; ip route add local default dev lo table 100\n" + nft(inet)},
		{name: "own traffic alone, no policy rule", sockets: []BoundSocket{proxy}, bad: "no-policy-rule", script: nft(`
table ip p {
 chain pre { type filter hook prerouting priority mangle;
  iifname "lo" ip protocol tcp meta mark 1 tproxy to :7895 accept
 }
 chain out { type route hook output priority mangle;
  ip daddr { 10.0.0.0/8, 127.0.0.0/8 } return
  meta mark 255 return
  ct direction reply return
  ip protocol tcp meta mark set 1
 }
}`)},
		{name: "26 bound to a device", script: toLo + ofLan, sockets: []BoundSocket{socket("tcp", "0.0.0.0:7895",
			"transparent", "index=1")}, bad: "listener-device", fixed: []BoundSocket{proxy}},
		{name: "27 lo is left out", script: toLo + ofLan + own, sockets: []BoundSocket{proxy}, bad: "lo-left-out"},
		{name: "28 the other family", sockets: []BoundSocket{proxy}, warn: "listener-reachable", script: toLo + nft(`
table inet p {
 chain pre { type filter hook prerouting priority mangle; policy accept;
  socket transparent 1 meta mark set 1 accept
  iifname "lan0" ip protocol tcp fib daddr type != local meta mark set 1 tproxy ip to :7895 accept
 }
}`)},
		{name: "a rule names a bridge's port", sockets: []BoundSocket{proxy}, warn: "bridge-port", unfixed: true, script: toLo + ofLan + `
ip addr flush dev lan0; ip link add br0 type bridge; ip link set lan0 master br0; ip link set br0 up; ip addr add 10.91.1.1/24 dev br0
sysctl -qw net.bridge.bridge-nf-call-iptables=0`},
		{name: "a bridge with br_netfilter", sockets: []BoundSocket{proxy}, bad: "bridge-netfilter", script: toLo + strings.Replace(ofLan, "lan0", "br0", 1) + `
ip addr flush dev lan0; ip link add br0 type bridge; ip link set lan0 master br0; ip link set br0 up; ip addr add 10.91.1.1/24 dev br0
sysctl -qw net.bridge.bridge-nf-call-iptables=1`},
		{name: "a bridge with its own switch of br_netfilter", sockets: []BoundSocket{proxy}, bad: "bridge-netfilter", script: toLo + strings.Replace(ofLan, "lan0", "br0", 1) + `
ip addr flush dev lan0; ip link add br0 type bridge; ip link set lan0 master br0; ip link set br0 up; ip addr add 10.91.1.1/24 dev br0
sysctl -qw net.bridge.bridge-nf-call-iptables=0; ip link set br0 type bridge nf_call_iptables	1`},
		{name: "14 reserved networks are left out", sockets: []BoundSocket{redirected}, script: `
iptables -t nat -N REDSOCKS
for n in 0.0.0.0/8 10.0.0.0/8 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.168.0.0/16 224.0.0.0/4 240.0.0.0/4; do iptables -t nat -A REDSOCKS -d $n -j RETURN; done
for p in 80 443 11371; do iptables -t nat -A REDSOCKS -p tcp --dport $p -j REDIRECT --to-ports 12345; iptables -t nat -A PREROUTING -p tcp --dport $p -j REDSOCKS; done
iptables -t nat -A OUTPUT -p tcp -j REDSOCKS`},
		{name: "forwarding is off", bad: "forwarding", script: `
iptables -t nat -A PREROUTING -i lan0 -p tcp --dport 80 -j DNAT --to-destination 10.91.2.2:3128; sysctl -qw net.ipv4.ip_forward=0`},
		{name: "forwarding of a device is off", bad: "forwarding", script: `
iptables -t nat -A PREROUTING -i lan0 -p tcp --dport 80 -j DNAT --to-destination 10.91.2.2:3128; sysctl -qw net.ipv4.conf.lan0.forwarding=0`},
		{name: "a route of the mark's table", sockets: []BoundSocket{proxy}, bad: "table-route",
			script: toLo + ofLan + "ip route add blackhole 45.99.0.0/16 table 100"},
		{name: "a proxy beside the client", bad: "hairpin", script: `
iptables -t nat -A PREROUTING -i lan0 -p tcp --dport 80 ! -s 10.91.1.50 -j DNAT --to-destination 10.91.1.50:3128`},
		{name: "a proxy beside the client, of nft", bad: "hairpin", script: nft(`
table ip p {
 chain pre { type nat hook prerouting priority dstnat;
  iifname "lan0" ip saddr != 10.91.1.50 tcp dport 80 dnat to 10.91.1.50:3128
 }
}`)},
		{name: "a proxy beside the client, translated", script: `
iptables -t nat -A PREROUTING -i lan0 -p tcp --dport 80 ! -s 10.91.1.50 -j DNAT --to-destination 10.91.1.50:3128
iptables -t nat -A POSTROUTING -o lan0 -s 10.91.1.0/24 -d 10.91.1.50 -j MASQUERADE`},
		{name: "by hardware address", sockets: []BoundSocket{proxy}, bad: "no-policy-rule",
			script: strings.Replace(ofLan, "-p tcp", "-p tcp -m mac --mac-source 02:11:22:33:44:55", 1)},
		{name: "by hardware address, of nft", sockets: []BoundSocket{proxy}, bad: "no-policy-rule", script: nft(`
table inet p {
 set macs { type ether_addr; elements = { 02:11:22:33:44:55, 02:11:22:33:44:66 }
 }
 chain pre { type filter hook prerouting priority mangle;
  ether saddr @macs ip protocol tcp fib daddr type != local meta mark set 1 tproxy ip to :7895 accept
 }
}`)},
		{name: "a proxy with its clients' addresses", bad: "no-policy-rule", script: `
iptables -t mangle -N DIVERT; iptables -t mangle -A PREROUTING -p tcp -m socket -j DIVERT
iptables -t mangle -A DIVERT -j MARK --set-mark 1; iptables -t mangle -A DIVERT -j ACCEPT`},
		{name: "a resolver that asks itself", sockets: []BoundSocket{socket("udp", "0.0.0.0:1053")},
			warn:   "own-traffic-diverted",
			script: "iptables -t nat -A OUTPUT -p udp --dport 53 -j REDIRECT --to-ports 1053"},
		{name: "answers of clients that the internet asks", bad: "answer-marked",
			sockets: []BoundSocket{socket("tcp", "[::]:7892", "transparent")}, script: toLo + `
ip -6 addr add 2001:db8:1::1/64 dev lan0 nodad` + nft(`
table ip6 p {
 chain pre { type filter hook prerouting priority mangle; policy accept;
  ip6 daddr { ::1/128, fc00::/7, fe80::/10 } return
  iifname "lan0" meta l4proto tcp fib daddr type != local tproxy to :7892 meta mark set 1 accept
 }
}`)},
		{name: "a mark is accepted before tproxy", sockets: []BoundSocket{proxy}, bad: "rule", script: toLo + `
iptables -t mangle -A PREROUTING -m mark --mark 1 -j ACCEPT
iptables -t mangle -A PREROUTING -p tcp -m addrtype ! --dst-type LOCAL -j TPROXY --on-port 7895 --tproxy-mark 1` + own},
		{name: "redirected in OUTPUT, whose policy drops", sockets: []BoundSocket{redirected}, bad: "dropped", script: `
iptables -t nat -A OUTPUT -d 10.0.0.0/8 -j RETURN; iptables -t nat -A OUTPUT -m mark --mark 255 -j RETURN
iptables -t nat -A OUTPUT -p tcp -j REDIRECT --to-ports 12345
iptables -P OUTPUT DROP; iptables -A OUTPUT -m mark --mark 255 -j ACCEPT; iptables -A OUTPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT`},
		{name: "sslh: answers of a server that is asked directly, too", bad: "answer-marked",
			sockets: []BoundSocket{socket("tcp", "0.0.0.0:22")}, script: toLo + `
iptables -t mangle -N SSLH; iptables -t mangle -A OUTPUT -p tcp -o wan0 --sport 22 -j SSLH
iptables -t mangle -A SSLH -j MARK --set-mark 1; iptables -t mangle -A SSLH -j ACCEPT`},
		{name: "sslh, of nft", bad: "answer-marked", sockets: []BoundSocket{socket("tcp", "0.0.0.0:22")}, script: toLo + nft(`
table ip sslh {
 chain out { type route hook output priority mangle;
  oifname "wan0" tcp sport 22 meta mark set 1 accept
 }
}`)},
		{name: "an exempt mark that is restored away", sockets: []BoundSocket{redirected}, bad: "own-traffic-diverted", script: `
iptables -t mangle -A OUTPUT -j CONNMARK --restore-mark; iptables -t nat -A OUTPUT -m mark --mark 255 -j RETURN
iptables -t nat -A OUTPUT -d 10.0.0.0/8 -j RETURN; iptables -t nat -A OUTPUT -p tcp -j REDIRECT --to-ports 12345`},
		{name: "all of a device is local, and TCP alone is taken", sockets: []BoundSocket{proxy}, bad: "policy-rule", script: `
ip rule add iif lan0 lookup 100; ip route add local default dev lo table 100
iptables -t mangle -A PREROUTING -i lan0 -p tcp -m addrtype ! --dst-type LOCAL -j TPROXY --on-port 7895`},
		{name: "a set with intervals and time-outs", sockets: []BoundSocket{proxy}, bad: "no-policy-rule", script: nft(`
table ip p {
 set blocked { type ipv4_addr; flags interval,timeout; timeout 1h; elements = { 45.99.0.0/16, 46.0.0.1 timeout 5m }
 }
 chain pre { type filter hook prerouting priority mangle;
  iifname "lan0" ip daddr @blocked meta l4proto tcp tproxy to :7895 meta mark set 1 accept
 }
}`)},
		{name: "a default route by a nexthop object", sockets: []BoundSocket{proxy}, bad: "no-policy-rule", script: `
ip route del default; ip nexthop add id 7 via 10.91.2.2 dev wan0; ip nexthop add id 9 group 7; ip route add default nhid 9
` + ofLan},
		{name: "dropped before it is diverted", sockets: []BoundSocket{proxy}, warn: "dropped-before",
			script: toLo + ofLan + "iptables -t raw -A PREROUTING -i lan0 -p tcp ! -d 10.0.0.0/8 -j DROP"},
		{name: "dropped at ingress", sockets: []BoundSocket{proxy}, warn: "dropped-before", unfixed: true,
			script: toLo + ofLan + nft(`
table netdev f {
 chain in { type filter hook ingress device "lan0" priority 0;
  ip daddr != 10.0.0.0/8 ip protocol tcp drop
 }
}`)},
		{name: "a zone of PREROUTING alone", sockets: []BoundSocket{redirected}, bad: "rule", script: `
iptables -t raw -A PREROUTING -i lan0 -j CT --zone 5; iptables -t nat -A PREROUTING -i lan0 -p tcp -j REDIRECT --to-ports 12345`},
		{name: "FORWARD drops on purpose", script: toLo + ofLan + "iptables -P FORWARD DROP",
			sockets: []BoundSocket{proxy}, warn: "listener-reachable"},
	} {
		tools := []string{"iptables"}
		if strings.Contains(c.script, "iptables ") {
			tools = append(tools, "iptables-legacy")
		}
		for _, tool := range tools {
			t.Run(c.name+" "+tool, func(t *testing.T) {
				live := router(t, strings.ReplaceAll(c.script, "iptables ", tool+" "))
				d := diagnose(t, live, c.sockets)
				for _, n := range d.Notes {
					if strings.HasPrefix(n, "not the same in the twin: n") { // nf_tables, nexthop objects
						t.Error(n)
					}
				}
				for _, kind := range []struct {
					severity Severity
					cause    string
				}{{Bad, c.bad}, {Warn, c.warn}} {
					i := slices.IndexFunc(d.Problems, func(p Problem) bool {
						return p.Severity == kind.severity &&
							p.Cause == kind.cause
					})
					for _, p := range d.Problems {
						if p.Severity == Bad && p.Cause != c.bad {
							t.Errorf("it is bad: %s: %s\n%s", p.Cause, p.What, strings.Join(p.Seen, "\n"))
						}
					}
					if kind.cause == "" {
						continue
					}
					if i < 0 {
						t.Fatalf("no problem is %s %q: %v", kind.severity, kind.cause, causes(d))
					}
					p := d.Problems[i]
					if text := p.Why + strings.Join(p.Seen, "\n"); !strings.Contains(text, c.says) {
						t.Errorf("it does not say %q:\n%s", c.says, text)
					}
					if c.unfixed {
						continue
					}
					if !p.Confirmed || p.Fix == "" || p.What == "" || p.Check == "" || len(p.Flows) == 0 {
						t.Errorf("it lacks something: %+v", p)
					}
					sockets := c.sockets
					for command := range strings.Lines(p.Fix) {
						if !strings.HasPrefix(command, "have ") && !strings.HasPrefix(command, "start ") {
							sh(t, live, command)
						} else if sockets = c.fixed; sockets == nil {
							t.Fatalf("the fix is no command: %s", p.Fix)
						}
					}
					after := diagnose(t, live, sockets)
					for _, q := range after.Problems {
						if q.Severity == Bad && kind.severity == Bad || q.Cause == kind.cause {
							t.Errorf("after the fix\n%s\nthere is %s %s: %s\n%s", p.Fix, q.Severity, q.Cause, q.What,
								strings.Join(q.Seen, "\n"))
						}
					}
				}
			})
		}
	}
}

func causes(d *Diagnosis) []string {
	var all []string
	for _, p := range d.Problems {
		all = append(all, string(p.Severity)+" "+p.Cause+": "+p.What+"\n"+strings.Join(p.Seen, "\n"))
	}
	return all
}

func diagnose(t *testing.T, live *Netns, sockets []BoundSocket) *Diagnosis {
	t.Helper()
	d, err := Diagnose(context.Background(), readHost(t, live, sockets), Options{})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// What a twin lacks although the kernel refused nothing is found by reading the twin, and is said
// once: not again where the kernel said it.
func TestTwinCompared(t *testing.T) {
	host := newNetns(t)
	shell(t, host, "ip link set lo up\nip rule add fwmark 1 lookup 100 pref 1000\nip route add local default dev lo table 100")
	ctx := context.Background()
	live, err := host.Read(ctx)
	if err != nil {
		t.Fatal(err)
	}
	twin, err := Build(ctx, live)
	if err != nil {
		t.Fatal(err)
	}
	defer twin.Close()
	compared := func() string {
		different, err := twin.compare(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(different)
	}
	if got := compared(); got != "[]" {
		t.Errorf("of a twin like the host: %s", got)
	}
	shell(t, twin.Inside, "ip rule del pref 1000\nip route add blackhole 10.9.9.0/24 table 100")
	for _, want := range []string{"policy rule: the twin lacks 1000: fwmark 0x1/0xffffffff lookup 100",
		"route: the twin has blackhole 10.9.9.0/24 table 100"} {
		if got := compared(); !strings.Contains(got, want) {
			t.Errorf("%s, without %q", got, want)
		}
	}
	twin.Differences = []Difference{{"policy rule", "1000: operation not supported"}}
	if got := compared(); strings.Contains(got, "policy rule") || !strings.Contains(got, "route") {
		t.Errorf("where the kernel said it: %s", got)
	}
}
