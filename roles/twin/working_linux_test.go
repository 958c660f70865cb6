package twin

import (
	"fmt"
	"strings"
	"testing"
)

// Hosts that work, with the rules that their generators write, have no problem.
func TestWorking(t *testing.T) {
	for _, c := range []struct {
		name    string
		script  string // run before the rules
		load    string
		rules   string
		sockets []BoundSocket
	}{
		{name: "docker", script: bridges(4), load: "iptables-restore", rules: dockerRules(60),
			sockets: []BoundSocket{socket("tcp", "0.0.0.0:22"), socket("udp", "127.0.0.53:53")}},
		{name: "docker of legacy", script: bridges(4), load: "iptables-legacy-restore", rules: dockerRules(60),
			sockets: []BoundSocket{socket("tcp", "0.0.0.0:22")}},
		{name: "kube-proxy", script: bridges(1), load: "iptables-restore", rules: kubeRules(40),
			sockets: []BoundSocket{socket("tcp", "[::]:10250"), socket("tcp", "0.0.0.0:22")}},
		{name: "ufw", load: "iptables-restore", rules: ufwRules(60),
			sockets: []BoundSocket{socket("tcp", "0.0.0.0:22"), socket("tcp", "0.0.0.0:8080"),
				socket("udp", "0.0.0.0:53")}},
		{name: "firewalld", load: "nft -f -", rules: firewalldRules(),
			sockets: []BoundSocket{socket("tcp", "[::]:22"), socket("udp", "[::]:546"), socket("tcp", "[::]:9090")}},
		{name: "fw4 with a proxy", script: toLo, load: "nft -f -", rules: fw4Rules(40), sockets: []BoundSocket{
			socket("tcp", "[::]:5330", "transparent"), socket("udp", "[::]:5330", "transparent"),
			socket("tcp", "[::]:22"), socket("udp", "0.0.0.0:53"), socket("tcp", "[::]:80")}},
		{name: "mwan3 with a proxy", load: "iptables-restore", rules: mwanRules(80), sockets: []BoundSocket{
			socket("tcp", "0.0.0.0:7895", "transparent"), socket("udp", "0.0.0.0:7895", "transparent"),
			socket("tcp", "0.0.0.0:22")},
			script: `ip rule add pref 900 fwmark 1/0xff lookup 900; ip route add local default dev lo table 900
ip route add default via 10.91.2.2 table 1; ip route add 10.91.1.0/24 dev lan0 table 1; ip rule add pref 1001 iif wan0 lookup 1; ip rule add pref 2001 fwmark 0x100/0x3f00 lookup 1`},
		{name: "istio", load: "iptables-restore", rules: istioRules(280), sockets: []BoundSocket{
			socket("tcp", "0.0.0.0:15001", "uid=1337"), socket("tcp", "0.0.0.0:15006", "uid=1337"),
			socket("tcp", "0.0.0.0:15090", "uid=1337"), socket("tcp", "0.0.0.0:8080")}},
		{name: "tailscale and ufw", load: "iptables-restore", rules: tailscaleRules(60),
			sockets: []BoundSocket{socket("tcp", "0.0.0.0:22"), socket("udp", "0.0.0.0:41641")},
			script: `ip tuntap add dev tailscale0 mode tun; ip addr add 100.101.102.103/32 dev tailscale0; ip link set tailscale0 up
for f in -4 -6; do ip $f rule add pref 5210 fwmark 0x80000/0xff0000 lookup main; ip $f rule add pref 5230 fwmark 0x80000/0xff0000 lookup default
ip $f rule add pref 5250 fwmark 0x80000/0xff0000 unreachable; ip $f rule add pref 5270 lookup 52; done; ip route add 100.64.0.9 dev tailscale0 table 52`},
		{name: "cilium",
			script: "ip rule add pref 9 fwmark 0x200/0xf00 lookup 2004; ip route add local default dev lo table 2004\n" + bridges(1),
			load:   "iptables-restore", rules: ciliumRules(70),
			sockets: []BoundSocket{socket("tcp", "127.0.0.1:10001", "transparent"), socket("tcp", "0.0.0.0:22")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if n := strings.Count(strings.TrimSpace(c.rules), "\n"); n < 300 {
				t.Errorf("%d lines of rules are no whole set-up", n)
			}
			live := router(t, c.script+"\n"+c.load+" <<'RULES'\n"+c.rules+"\nRULES")
			d := diagnose(t, live, c.sockets)
			for _, p := range d.Problems {
				t.Errorf("%s %s: %s\n%s\n%s", p.Severity, p.Cause, p.What, p.Why, strings.Join(p.Seen, "\n"))
			}
			if len(d.Results) < 12 {
				t.Errorf("only %d flows were run", len(d.Results))
			}
		})
	}
}

// bridges are those of containers, each with a container's port.
func bridges(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "ip link add br%[1]d type bridge; ip addr add 172.%[2]d.0.1/16 dev br%[1]d; ip link add c%[1]d type veth peer name p%[1]d\n", i, 17+i)
		fmt.Fprintf(&b, "ip link set c%[1]d master br%[1]d; ip link set c%[1]d up; ip link set p%[1]d up; ip link set br%[1]d up\n", i)
	}
	return b.String()
}

type rulesText struct{ strings.Builder }

func (r *rulesText) say(format string, args ...any) { fmt.Fprintf(r, format+"\n", args...) }

// dockerRules are those of Docker 27, with published ports on four networks.
func dockerRules(ports int) string {
	var r rulesText
	r.say("*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:DOCKER - [0:0]")
	r.say("-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER")
	for i := range 4 {
		r.say("-A POSTROUTING -s 172.%d.0.0/16 ! -o br%d -j MASQUERADE", 17+i, i)
	}
	for p := range ports {
		r.say("-A POSTROUTING -s 172.%d.0.%d/32 -d 172.%d.0.%d/32 -p tcp -m tcp --dport 80 -j MASQUERADE", 17+p%4, 2+p, 17+p%4, 2+p)
	}
	for i := range 4 {
		r.say("-A DOCKER -i br%d -j RETURN", i)
	}
	for p := range ports {
		r.say("-A DOCKER ! -i br%d -p tcp -m tcp --dport %d -j DNAT --to-destination 172.%d.0.%d:80", p%4, 8000+p, 17+p%4, 2+p)
	}
	r.say("COMMIT\n*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n:DOCKER - [0:0]\n:DOCKER-ISOLATION-STAGE-1 - [0:0]\n:DOCKER-ISOLATION-STAGE-2 - [0:0]\n:DOCKER-USER - [0:0]")
	r.say("-A FORWARD -j DOCKER-USER\n-A FORWARD -j DOCKER-ISOLATION-STAGE-1")
	for i := range 4 {
		r.say("-A FORWARD -o br%[1]d -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n-A FORWARD -o br%[1]d -j DOCKER\n-A FORWARD -i br%[1]d ! -o br%[1]d -j ACCEPT\n-A FORWARD -i br%[1]d -o br%[1]d -j ACCEPT", i)
	}
	for p := range ports {
		r.say("-A DOCKER -d 172.%d.0.%d/32 ! -i br%d -o br%d -p tcp -m tcp --dport 80 -j ACCEPT", 17+p%4, 2+p, p%4, p%4)
	}
	for i := range 4 {
		r.say("-A DOCKER-ISOLATION-STAGE-1 -i br%[1]d ! -o br%[1]d -j DOCKER-ISOLATION-STAGE-2\n-A DOCKER-ISOLATION-STAGE-2 -o br%[1]d -j DROP", i)
	}
	r.say("-A DOCKER-ISOLATION-STAGE-1 -j RETURN\n-A DOCKER-ISOLATION-STAGE-2 -j RETURN\n-A DOCKER-USER -j RETURN\nCOMMIT")
	for p := range 80 {
		if p == 0 {
			r.say("*raw\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]")
		}
		r.say("-A PREROUTING -d 172.%d.0.%d/32 ! -i br%d -j DROP", 17+p%4, 150+p, p%4)
	}
	r.say("COMMIT")
	return r.String()
}

// kubeRules are those of kube-proxy in its iptables mode, with cluster addresses and node ports.
func kubeRules(services int) string {
	var r, chains rulesText
	chains.say("*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:KUBE-MARK-MASQ - [0:0]\n:KUBE-NODEPORTS - [0:0]\n:KUBE-POSTROUTING - [0:0]\n:KUBE-SERVICES - [0:0]")
	r.say(`-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES`)
	r.say(`-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES`)
	r.say(`-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING`)
	r.say("-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000\n-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN")
	r.say("-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0\n-A KUBE-POSTROUTING -j MASQUERADE --random-fully")
	for s := range services {
		svc, ext := fmt.Sprintf("KUBE-SVC-%016X", s), fmt.Sprintf("KUBE-EXT-%016X", s)
		chains.say(":%s - [0:0]", svc)
		r.say(`-A KUBE-SERVICES -d 10.96.%d.%d/32 -p tcp -m comment --comment "default/app%d:http cluster IP" -m tcp --dport 80 -j %s`, s/200, s%200+1, s, svc)
		if s%4 == 0 {
			chains.say(":%s - [0:0]", ext)
			r.say(`-A KUBE-NODEPORTS -p tcp -m comment --comment "default/app%d:http" -m tcp --dport %d -j %s`, s, 30000+s, ext)
			r.say("-A %s -j KUBE-MARK-MASQ\n-A %s -j %s", ext, ext, svc)
		}
		r.say(`-A %s ! -s 172.17.0.0/16 -d 10.96.%d.%d/32 -p tcp -m tcp --dport 80 -j KUBE-MARK-MASQ`, svc, s/200, s%200+1)
		for e := range 3 {
			sep := fmt.Sprintf("KUBE-SEP-%012X%04X", s, e)
			chains.say(":%s - [0:0]", sep)
			if e < 2 {
				r.say(`-A %s -m comment --comment "default/app%d:http" -m statistic --mode random --probability %.11f -j %s`, svc, s, 1/float64(3-e), sep)
			} else {
				r.say(`-A %s -m comment --comment "default/app%d:http" -j %s`, svc, s, sep)
			}
			r.say("-A %s -s 172.17.0.%d/32 -j KUBE-MARK-MASQ", sep, 2+(s*3+e)%250)
			r.say("-A %s -p tcp -m tcp -j DNAT --to-destination 172.17.0.%d:8080", sep, 2+(s*3+e)%250)
		}
	}
	r.say(`-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS`)
	r.say("COMMIT\n*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:KUBE-FIREWALL - [0:0]\n:KUBE-FORWARD - [0:0]")
	r.say("-A INPUT -j KUBE-FIREWALL\n-A FORWARD -j KUBE-FORWARD\n-A OUTPUT -j KUBE-FIREWALL")
	r.say(`-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment "block incoming localnet connections" -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP`)
	r.say("-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP\n-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT\n-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\nCOMMIT")
	return chains.String() + r.String()
}

// ufwRules are ufw's before, user, after and logging chains, with rules of a user's.
func ufwRules(user int) string {
	var r, chains rulesText
	chains.say("*filter\n:INPUT DROP [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]")
	for _, dir := range []string{"input", "output", "forward"} {
		for _, part := range []string{"before-logging", "before", "after", "after-logging", "reject", "track"} {
			name := "ufw-" + part + "-" + dir
			if strings.HasSuffix(part, "logging") {
				name = "ufw-" + strings.TrimSuffix(part, "logging") + "logging-" + dir
			}
			chains.say(":%s - [0:0]", name)
			r.say("-A %s -j %s", strings.ToUpper(dir), name)
		}
		chains.say(":ufw-user-%s - [0:0]\n:ufw-skip-to-policy-%s - [0:0]", dir, dir)
	}
	chains.say(":ufw-not-local - [0:0]\n:ufw-logging-deny - [0:0]\n:ufw-logging-allow - [0:0]")
	r.say("-A ufw-before-input -i lo -j ACCEPT\n-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n-A ufw-before-input -m conntrack --ctstate INVALID -j ufw-logging-deny\n-A ufw-before-input -m conntrack --ctstate INVALID -j DROP")
	for _, n := range []int{3, 11, 12, 8} {
		r.say("-A ufw-before-input -p icmp -m icmp --icmp-type %d -j ACCEPT\n-A ufw-before-forward -p icmp -m icmp --icmp-type %d -j ACCEPT", n, n)
	}
	r.say("-A ufw-before-input -p udp -m udp --sport 67 --dport 68 -j ACCEPT\n-A ufw-before-input -j ufw-not-local\n-A ufw-before-input -d 224.0.0.251/32 -p udp -m udp --dport 5353 -j ACCEPT\n-A ufw-before-input -j ufw-user-input")
	for _, kind := range []string{"LOCAL", "MULTICAST", "BROADCAST"} {
		r.say("-A ufw-not-local -m addrtype --dst-type %s -j RETURN", kind)
	}
	r.say("-A ufw-not-local -m limit --limit 3/min --limit-burst 10 -j ufw-logging-deny\n-A ufw-not-local -j DROP\n-A ufw-before-output -o lo -j ACCEPT\n-A ufw-before-output -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n-A ufw-before-output -j ufw-user-output\n-A ufw-before-forward -j ufw-user-forward")
	for _, p := range []int{137, 138, 139, 445, 67, 68} {
		r.say("-A ufw-after-input -p udp -m udp --dport %d -j ufw-skip-to-policy-input", p)
	}
	r.say("-A ufw-skip-to-policy-input -j DROP\n-A ufw-skip-to-policy-output -j ACCEPT\n-A ufw-skip-to-policy-forward -j ACCEPT\n-A ufw-track-output -p tcp -m conntrack --ctstate NEW -j ACCEPT\n-A ufw-track-output -p udp -m conntrack --ctstate NEW -j ACCEPT")
	r.say("-A ufw-user-input -p tcp -m tcp --dport 22 -j ACCEPT\n-A ufw-user-input -p tcp -m tcp --dport 8080 -j ACCEPT\n-A ufw-user-input -p udp -m udp --dport 53 -j ACCEPT")
	for i := range user {
		r.say("-A ufw-user-input -s 192.168.%d.0/24 -p tcp -m multiport --dports %d:%d -j ACCEPT\n-A ufw-user-input -s 203.0.113.%d/32 -j DROP\n-A ufw-user-output -d 198.51.100.%d/32 -j REJECT --reject-with icmp-port-unreachable\n-A ufw-user-forward -s 192.0.2.%d/32 -j DROP", i, 1000+i, 1005+i, i, i, i)
	}
	r.say("COMMIT")
	return chains.String() + r.String()
}

// firewalldRules are those of firewalld with nftables, with seven zones.
func firewalldRules() string {
	var r rulesText
	zones := []string{"public", "trusted", "internal", "dmz", "work", "home", "external", "block", "drop"}
	r.say("table inet firewalld {")
	for _, hook := range []struct{ name, kind, hook, priority string }{
		{"mangle_PREROUTING", "filter", "prerouting", "mangle + 10"},
		{"nat_PREROUTING", "nat", "prerouting", "dstnat + 10"},
		{"nat_POSTROUTING", "nat", "postrouting", "srcnat + 10"},
		{"filter_PREROUTING", "filter", "prerouting", "filter + 10"}, {"filter_INPUT", "filter", "input",
			"filter + 10"}, {"filter_FORWARD", "filter", "forward", "filter + 10"},
		{"filter_OUTPUT", "filter", "output", "filter + 10"},
	} {
		switch hook.name {
		case "filter_PREROUTING":
			r.say(" chain %s { type %s hook %s priority %s; policy accept;\n  icmpv6 type { nd-router-advert, nd-neighbor-solicit } accept\n  meta nfproto ipv6 fib saddr . mark . iif oif missing drop\n }",
				hook.name, hook.kind, hook.hook, hook.priority)
		case "filter_INPUT":
			r.say(" chain filter_INPUT { type filter hook input priority %s; policy accept;\n  ct state { established, related } accept\n  ct status dnat accept\n  iifname \"lo\" accept\n  ct state invalid drop\n  jump filter_INPUT_ZONES\n  reject with icmpx admin-prohibited\n }", hook.priority)
		case "filter_FORWARD":
			r.say(" chain filter_FORWARD { type filter hook forward priority %s; policy accept;\n  ct state { established, related } accept\n  ct status dnat accept\n  iifname \"lo\" accept\n  ct state invalid drop\n  iifname \"lan0\" accept\n  reject with icmpx admin-prohibited\n }", hook.priority)
		case "filter_OUTPUT":
			r.say(" chain filter_OUTPUT { type filter hook output priority %s; policy accept;\n  ct state { established, related } accept\n  oifname \"lo\" accept\n  ip6 daddr { ::/96, ::ffff:0.0.0.0/96, 2002:a00::/24, 2002:7f00::/24 } reject with icmpv6 addr-unreachable\n }", hook.priority)
		default:
			r.say(" chain %s { type %s hook %s priority %s; policy accept;\n  jump %s_ZONES\n }", hook.name, hook.kind,
				hook.hook, hook.priority, hook.name)
		}
	}
	for _, base := range []string{"mangle_PREROUTING", "nat_PREROUTING", "nat_POSTROUTING", "filter_INPUT"} {
		short := map[string]string{"mangle_PREROUTING": "mangle_PRE", "nat_PREROUTING": "nat_PRE",
			"nat_POSTROUTING": "nat_POST", "filter_INPUT": "filter_IN"}[base]
		device := "iifname"
		if base == "nat_POSTROUTING" {
			device = "oifname"
		}
		r.say(" chain %s_ZONES {\n  %s \"lan0\" goto %s_trusted\n  %s \"wan0\" goto %s_public\n  goto %s_public\n }", base, device, short, device, short, short)
		for _, zone := range zones {
			r.say(" chain %s_%s {", short, zone)
			for _, part := range []string{"pre", "log", "deny", "allow", "post"} {
				r.say("  jump %s_%s_%s", short, zone, part)
			}
			if zone == "trusted" && short == "filter_IN" {
				r.say("  accept")
			}
			r.say(" }")
			for _, part := range []string{"pre", "log", "deny", "allow", "post"} {
				r.say(" chain %s_%s_%s {", short, zone, part)
				if part == "allow" && short == "filter_IN" {
					r.say("  tcp dport 22 ct state { new, untracked } accept\n  ip6 daddr fe80::/64 udp dport 546 ct state { new, untracked } accept\n  tcp dport 9090 ct state { new, untracked } accept")
				}
				if part == "allow" && short == "nat_POST" && zone == "public" {
					r.say("  meta nfproto ipv4 oifname != \"lo\" masquerade")
				}
				r.say(" }")
			}
		}
	}
	r.say("}")
	return r.String()
}

// fw4Rules are those of OpenWrt's fw4 with homeproxy's chains.
func fw4Rules(forwards int) string {
	var r rulesText
	r.say("table inet fw4 {\n set hp_private4 { type ipv4_addr; flags interval; auto-merge; elements = { 0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, 192.168.0.0/16, 224.0.0.0/3 } }")
	r.say(" set hp_private6 { type ipv6_addr; flags interval; auto-merge; elements = { ::/127, fc00::/7, fe80::/10, ff00::/8 } }")
	zones := map[string]string{"lan": "lan0", "wan": "wan0"}
	r.say(" chain input { type filter hook input priority filter; policy drop;\n  iifname \"lo\" accept\n  ct state established,related accept\n  ct status dnat accept\n  meta mark & 0x1 == 0x1 accept\n  iifname \"lan0\" jump input_lan\n  iifname \"wan0\" jump input_wan\n  jump handle_reject\n }")
	r.say(" chain forward { type filter hook forward priority filter; policy drop;\n  ct state established,related accept\n  iifname \"lan0\" jump forward_lan\n  iifname \"wan0\" jump forward_wan\n  jump handle_reject\n }")
	r.say(" chain output { type filter hook output priority filter; policy accept;\n  oifname \"lo\" accept\n  ct state established,related accept\n  oifname \"lan0\" jump output_lan\n  oifname \"wan0\" jump output_wan\n }")
	r.say(" chain handle_reject {\n  meta l4proto tcp reject with tcp reset\n  reject\n }")
	for _, zone := range []string{"lan", "wan", "guest", "vpn", "iot", "dmz"} {
		device := zones[zone]
		if device == "" {
			device = zone + "0"
		}
		to := map[bool]string{true: "accept", false: "reject"}[zone == "lan"]
		r.say(" chain input_%s {", zone)
		if zone == "lan" {
			r.say("  tcp dport 5330 fib daddr type local reject with tcp reset")
			for n := range forwards {
				r.say("  ip saddr 192.168.%d.0/24 tcp dport %d counter accept", n, 20000+n)
			}
		}
		for _, rule := range []string{"meta nfproto ipv4 udp dport 68 counter accept",
			"icmp type echo-request counter accept", "meta nfproto ipv4 meta l4proto igmp counter accept",
			"meta nfproto ipv6 udp dport 546 counter accept",
			"icmpv6 type { destination-unreachable, time-exceeded, echo-request, echo-reply, nd-router-solicit, nd-router-advert } limit rate 1000/second counter accept"} {
			r.say("  %s", rule)
		}
		r.say("  jump %s_from_%s\n }\n chain output_%s {\n  jump accept_to_%s\n }\n chain forward_%s {", to, zone, zone, zone, zone)
		if zone == "lan" {
			r.say("  jump accept_to_wan")
		}
		r.say("  jump %s_to_%s\n }", to, zone)
		r.say(" chain accept_from_%s {\n  iifname \"%s\" counter accept\n }\n chain accept_to_%s {\n  meta nfproto ipv4 oifname \"%s\" ct state invalid counter drop\n  oifname \"%s\" counter accept\n }\n chain reject_from_%s {\n  iifname \"%s\" counter jump handle_reject\n }\n chain reject_to_%s {\n  oifname \"%s\" counter jump handle_reject\n }",
			zone, device, zone, device, device, zone, device, zone, device)
	}
	r.say(" chain dstnat { type nat hook prerouting priority dstnat; policy accept;\n  iifname \"wan0\" jump dstnat_wan\n }\n chain dstnat_wan {")
	for n := range forwards {
		r.say("  meta nfproto ipv4 tcp dport %d counter dnat ip to 192.168.9.%d:80", 10000+n, 10+n)
	}
	r.say(" }\n chain srcnat { type nat hook postrouting priority srcnat; policy accept;\n  oifname \"wan0\" jump srcnat_wan\n }\n chain srcnat_wan {\n  meta nfproto ipv4 counter masquerade\n }")
	r.say(" chain mangle_prerouting { type filter hook prerouting priority mangle; policy accept;\n  iifname { \"lan0\", \"lo\" } jump hp_tproxy\n }\n chain hp_tproxy {\n  fib daddr type local return\n  ip daddr @hp_private4 return\n  ip6 daddr @hp_private6 return\n  ct direction reply return\n  meta l4proto { tcp, udp } meta mark set 0x1 tproxy to :5330 counter accept\n }")
	r.say(" chain mangle_output { type route hook output priority mangle; policy accept;\n  meta mark 0x64 return\n  ct direction reply return\n  ip daddr @hp_private4 return\n  ip6 daddr @hp_private6 return\n  meta l4proto { tcp, udp } meta mark set 0x1\n }\n}")
	for n := range forwards {
		r.say("add rule inet fw4 forward_wan ip daddr 192.168.9.%d tcp dport 80 counter accept", 10+n)
	}
	return r.String()
}

// mwanRules are those of mwan3 for two uplinks, and a proxy's that look at other bits of the mark.
func mwanRules(rules int) string {
	var r rulesText
	r.say("*mangle\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:mwan3_connected - [0:0]\n:mwan3_hook - [0:0]\n:mwan3_iface_in_wan - [0:0]\n:mwan3_ifaces_in - [0:0]\n:mwan3_policy_balanced - [0:0]\n:mwan3_rules - [0:0]\n:PROXY - [0:0]")
	r.say("-A PREROUTING -j mwan3_hook\n-A PREROUTING -i lan0 -j PROXY\n-A OUTPUT -j mwan3_hook")
	r.say("-A mwan3_hook -m mark --mark 0x0/0x3f00 -j CONNMARK --restore-mark --nfmask 0x3f00 --ctmask 0x3f00\n-A mwan3_hook -m mark --mark 0x0/0x3f00 -j mwan3_ifaces_in\n-A mwan3_hook -m mark --mark 0x0/0x3f00 -j mwan3_connected\n-A mwan3_hook -m mark --mark 0x0/0x3f00 -j mwan3_rules\n-A mwan3_hook -j CONNMARK --save-mark --nfmask 0x3f00 --ctmask 0x3f00")
	for _, n := range []string{"10.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3", "192.168.0.0/16"} {
		r.say("-A mwan3_connected -d %s -j MARK --set-xmark 0x3f00/0x3f00", n)
		r.say("-A PROXY -d %s -j RETURN", n)
	}
	r.say("-A mwan3_ifaces_in -m mark --mark 0x0/0x3f00 -j mwan3_iface_in_wan\n-A mwan3_iface_in_wan -i wan0 -m mark --mark 0x0/0x3f00 -j MARK --set-xmark 0x100/0x3f00")
	for n := range rules {
		r.say("-A mwan3_rules -s 192.168.%d.0/24 -p tcp -m multiport --dports 443 -m mark --mark 0x0/0x3f00 -j mwan3_policy_balanced", n)
		r.say("-A mwan3_rules -d 198.51.100.%d/32 -m mark --mark 0x0/0x3f00 -j MARK --set-xmark 0x3f00/0x3f00", n)
		r.say("-A PROXY -d 203.0.113.%d/32 -j RETURN", n)
	}
	r.say("-A mwan3_rules -m mark --mark 0x0/0x3f00 -j mwan3_policy_balanced\n-A mwan3_policy_balanced -m mark --mark 0x0/0x3f00 -j MARK --set-xmark 0x100/0x3f00")
	r.say("-A PROXY -p tcp -m addrtype ! --dst-type LOCAL -j TPROXY --on-port 7895 --on-ip 0.0.0.0 --tproxy-mark 0x1/0xff\n-A PROXY -p udp -m addrtype ! --dst-type LOCAL -j TPROXY --on-port 7895 --on-ip 0.0.0.0 --tproxy-mark 0x1/0xff\nCOMMIT")
	r.say("*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n-A INPUT -p tcp -m tcp --dport 7895 -m addrtype --dst-type LOCAL -j REJECT --reject-with tcp-reset")
	for n := range rules {
		r.say("-A FORWARD -s 192.168.%d.0/24 -d 198.18.0.0/15 -j REJECT --reject-with icmp-port-unreachable", n)
	}
	r.say("COMMIT\n*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -o wan0 -j MASQUERADE\nCOMMIT")
	return r.String()
}

// istioRules are those of istio-init in a pod, with ports and networks that are left out.
func istioRules(out int) string {
	var r rulesText
	r.say("*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:ISTIO_INBOUND - [0:0]\n:ISTIO_IN_REDIRECT - [0:0]\n:ISTIO_OUTPUT - [0:0]\n:ISTIO_REDIRECT - [0:0]")
	r.say("-A PREROUTING -p tcp -j ISTIO_INBOUND\n-A OUTPUT -p tcp -j ISTIO_OUTPUT")
	for _, p := range []int{15008, 15090, 15021, 15020, 22} {
		r.say("-A ISTIO_INBOUND -p tcp -m tcp --dport %d -j RETURN", p)
	}
	r.say("-A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT\n-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006")
	r.say("-A ISTIO_OUTPUT -s 127.0.0.6/32 -o lo -j RETURN\n-A ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo -p tcp -m tcp ! --dport 15008 -m owner --uid-owner 1337 -j ISTIO_IN_REDIRECT\n-A ISTIO_OUTPUT -o lo -m owner ! --uid-owner 1337 -j RETURN\n-A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN")
	r.say("-A ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo -p tcp -m tcp ! --dport 15008 -m owner --gid-owner 1337 -j ISTIO_IN_REDIRECT\n-A ISTIO_OUTPUT -o lo -m owner ! --gid-owner 1337 -j RETURN\n-A ISTIO_OUTPUT -m owner --gid-owner 1337 -j RETURN\n-A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN")
	for n := range out {
		r.say("-A ISTIO_OUTPUT -d 10.%d.%d.0/24 -j RETURN", 100+n/200, n%200)
	}
	r.say("-A ISTIO_OUTPUT -j ISTIO_REDIRECT\n-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001\nCOMMIT")
	return r.String()
}

// tailscaleRules are those of tailscaled beside ufw's.
func tailscaleRules(user int) string {
	ufw := ufwRules(user)
	head, rest, _ := strings.Cut(ufw, "-A INPUT")
	var r rulesText
	r.say(":ts-forward - [0:0]\n:ts-input - [0:0]\n-A INPUT -j ts-input\n-A FORWARD -j ts-forward\n-A ts-input -s 100.101.102.103/32 -i lo -j ACCEPT\n-A ts-input -s 100.115.92.0/23 ! -i tailscale0 -j RETURN\n-A ts-input -s 100.64.0.0/10 ! -i tailscale0 -j DROP")
	r.say("-A ts-input -i tailscale0 -j ACCEPT\n-A ts-input -p udp -m udp --dport 41641 -j ACCEPT\n-A ts-forward -i tailscale0 -j MARK --set-xmark 0x40000/0xff0000\n-A ts-forward -m mark --mark 0x40000/0xff0000 -j ACCEPT\n-A ts-forward -s 100.64.0.0/10 -o tailscale0 -j DROP\n-A ts-forward -o tailscale0 -j ACCEPT")
	var nat rulesText
	nat.say("*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:ts-postrouting - [0:0]\n-A POSTROUTING -j ts-postrouting\n-A ts-postrouting -m mark --mark 0x40000/0xff0000 -j MASQUERADE\nCOMMIT")
	return head + r.String() + "-A INPUT" + rest + nat.String()
}

// ciliumRules are those that cilium-agent writes for its proxy, with one redirect for each port.
func ciliumRules(ports int) string {
	var r rulesText
	r.say("*raw\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:CILIUM_OUTPUT_raw - [0:0]\n:CILIUM_PRE_raw - [0:0]\n-A PREROUTING -j CILIUM_PRE_raw\n-A OUTPUT -j CILIUM_OUTPUT_raw")
	r.say("-A CILIUM_OUTPUT_raw -m mark --mark 0xa00/0xfffffeff -j CT --notrack\n-A CILIUM_OUTPUT_raw -m mark --mark 0x800/0xe00 -j CT --notrack\n-A CILIUM_PRE_raw -m mark --mark 0x200/0xf00 -j CT --notrack\nCOMMIT")
	r.say("*mangle\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:CILIUM_PRE_mangle - [0:0]\n-A PREROUTING -j CILIUM_PRE_mangle\n-A CILIUM_PRE_mangle ! -o lo -m socket --transparent -m mark ! --mark 0xe00/0xf00 -m mark ! --mark 0x800/0xf00 -j MARK --set-xmark 0x200/0xffffffff")
	for n := range ports {
		for _, proto := range []string{"tcp", "udp"} {
			r.say("-A CILIUM_PRE_mangle -p %s -m mark --mark 0x%04x0200 -j TPROXY --on-port %d --on-ip 127.0.0.1 --tproxy-mark 0x200/0xffffffff", proto, 0x1127+n*256, 10001+n)
		}
	}
	r.say("COMMIT\n*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:CILIUM_OUTPUT_nat - [0:0]\n:CILIUM_POST_nat - [0:0]\n:CILIUM_PRE_nat - [0:0]\n-A PREROUTING -j CILIUM_PRE_nat\n-A OUTPUT -j CILIUM_OUTPUT_nat\n-A POSTROUTING -j CILIUM_POST_nat")
	r.say("-A CILIUM_POST_nat -s 172.17.0.0/16 ! -d 172.17.0.0/16 -o wan0 -j MASQUERADE\nCOMMIT\n*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:CILIUM_FORWARD - [0:0]\n:CILIUM_INPUT - [0:0]\n:CILIUM_OUTPUT - [0:0]\n-A INPUT -j CILIUM_INPUT\n-A FORWARD -j CILIUM_FORWARD\n-A OUTPUT -j CILIUM_OUTPUT")
	r.say("-A CILIUM_INPUT -m mark --mark 0x200/0xf00 -j ACCEPT\n-A CILIUM_OUTPUT -m mark --mark 0xa00/0xe00 -j ACCEPT\n-A CILIUM_OUTPUT -m mark ! --mark 0xe00/0xf00 -m mark ! --mark 0xd00/0xf00 -m mark ! --mark 0xa00/0xe00 -m mark ! --mark 0x800/0xe00 -j MARK --set-xmark 0xc00/0xf00")
	for n := range 2 * ports {
		r.say("-A CILIUM_FORWARD -o lxc%04x -j ACCEPT\n-A CILIUM_FORWARD -i lxc%04x -j ACCEPT", n, n)
	}
	r.say("COMMIT")
	return r.String()
}
