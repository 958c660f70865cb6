package netfilter

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"pfdivert/pfconf"
	"pfdivert/roles/lab/labtest"
)

func TestMain(m *testing.M) { os.Exit(labtest.Main(m)) }

// testHost has a LAN at eth0, and eth1 leads away. No one knows whose the proxy's sockets are, but
// for port 3130.
var testHost = Host{
	Interfaces: []Interface{
		{Name: "eth0", Nets: []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24"), netip.MustParsePrefix("fd00:1::/64")}},
		{Name: "eth1", Nets: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("2001:db8:5::/64")}},
	},
	Addresses: []netip.Addr{netip.MustParseAddr("192.168.1.1"), netip.MustParseAddr("198.51.100.2")},
	Leaves:    map[pfconf.Family]string{pfconf.Inet: "eth1", pfconf.Inet6: "eth1"},
	Local:     func(mark uint32, _ pfconf.Family) bool { return mark == 1 },
	Owner: func(_ uint8, port uint16, _ pfconf.Family) int {
		if port == 3130 {
			return 1000
		}
		return -1
	},
}

// tellAll says what was found of rules, a line for each. IPv6 is left out where it is as IPv4.
func tellAll(all []Diverted, notes []string) string {
	var lines []string
	for _, d := range all {
		line := fmt.Sprintf("%s %d: %v %d", d.Rule.Chain.Name, d.Rule.Number, d.Family, d.Proto)
		if a := d.Action; a != nil {
			line += " " + a.Text
			if a.Does == Queue && a.Bypass {
				line += " bypass"
			}
			if a.Unknown != "" {
				line += " (" + a.Unknown + ")"
			}
		}
		if d.Socket || d.Marks {
			line += " only marks"
		}
		if d.Mark != 0 {
			line += fmt.Sprintf(" 0x%x", d.Mark)
		}
		if !d.Marked {
			line += " mark unknown"
		}
		if d.Unreached != "" {
			line += " UNREACHED"
		}
		for _, f := range d.Fates {
			line += fmt.Sprintf(" %s", f.What)
			if !f.All {
				line += " some"
			}
			if f.By == "" {
				line += " by no user"
			}
		}
		lines = append(lines, line)
	}
	lines = slices.DeleteFunc(lines, func(l string) bool {
		return strings.Contains(l, ": inet6 ") && slices.ContainsFunc(lines, func(o string) bool {
			strip := strings.NewReplacer(": inet6 ", ": ", ": inet ", ": ", "icmp6", "icmp")
			return o != l && strip.Replace(o) == strip.Replace(l)
		})
	})
	for _, n := range notes {
		lines = append(lines, "note "+n)
	}
	return strings.Join(lines, "\n")
}

const (
	pre  = "table inet p {\nchain pre {\ntype filter hook prerouting priority mangle\n"
	nat  = "table inet p {\nchain pre {\ntype nat hook prerouting priority dstnat\n"
	end  = "\n}\n}\n"
	to   = "tproxy to :3129 meta mark set 1 accept"
	web  = pre + "tcp dport 80 " + to + end
	is   = "pre 1: inet 6 tproxy to :3129 0x1"
	rdr  = nat + "tcp dport 80 redirect to :3129" + end
	isRd = "pre 1: inet 6 redirect to :3129"
)

// other is a chain of another table.
func other(hook, priority, rules string) string {
	return "table inet o {\nchain c {\ntype filter hook " + hook + " priority " + priority + "\n" + rules + "\n}\n}\n"
}

// input is one of the input hook that drops what it does not accept.
func input(rules string) string { return other("input", "0", "policy drop\n"+rules) }

// TestFollow: rules of nft, as the kernel has them, and what happens to packets.
func TestFollow(t *testing.T) {
	labtest.Need(t)
	labtest.Programs(t, "nft")
	for _, c := range []struct{ name, rules, want string }{
		{"nothing", "", ""},
		{"plain", web, is},
		{"a rule that drops elsewhere", web + other("prerouting", "-300", "tcp dport 25 drop"), is},
		{"one that depends on the sender", web + other("prerouting", "-300", "ip saddr 10.1.2.3 drop"), is},
		{"all dropped before", web + other("prerouting", "-300", "meta l4proto tcp drop"), "pre 1: inet 6 tproxy to :3129 dropped-before"},
		{"some dropped before", pre + "meta l4proto tcp " + to + end + other("prerouting", "-300", "tcp dport 25 drop"), is + " dropped-before some"},
		{"one of two interfaces is closed", web + other("prerouting", "-300", "iifname eth1 drop"), is},
		{"both are", web + other("prerouting", "-300", "iifname { eth0, eth1 } drop"), "pre 1: inet 6 tproxy to :3129 dropped-before"},
		{"a chain accepts before", pre + "tcp dport 1-1023 accept\ntcp dport 80 " + to + end, "pre 2: inet 6 tproxy to :3129 passed-before"},
		{"another table accepts before", web + other("prerouting", "-300", "tcp dport 80 accept"), is},
		{"dropped after", web + input("ct state established,related accept\niifname lo accept\ntcp dport 22 accept"), is + " dropped-after"},
		{"accepted by mark", web + input("ct state vmap { established : accept, invalid : drop }\nmeta mark 1 accept"), is},
		{"accepted by sender", web + input("ip saddr 192.168.0.0/16 accept\nip6 saddr fd00::/8 accept"), is},
		{"accepted by an unknown set", "table inet o {\nset s { type ipv4_addr; }\nset s6 { type ipv6_addr; }\nchain c {\ntype filter hook input priority 0; policy drop\nip saddr @s accept\nip6 saddr @s6 accept\n}\n}\n" + web, is},
		{"half accepted", pre + "tcp dport { 80, 443 } " + to + end + input("tcp dport 80 accept"), is + " dropped-after some"},
		{"rejected", web + other("input", "0", "tcp dport 80 reject"), is + " dropped-after"},
		{"redirect", rdr, isRd},
		{"redirect and the old port is accepted", rdr + input("tcp dport 80 accept"), isRd + " dropped-after"},
		{"redirect and the new port is", rdr + input("tcp dport 3129 accept"), isRd},
		{"redirect without tracking", rdr + other("prerouting", "-300", "tcp dport 80 notrack"), isRd + " untracked"},
		{"tproxy without tracking", web + other("prerouting", "-300", "tcp dport 80 notrack"), is},
		{"dnat to own address", nat + "meta nfproto ipv4 tcp dport 80 dnat ip to 192.168.1.1:3129" + end, "pre 1: inet 6 dnat to 192.168.1.1:3129"},
		{"dnat away", nat + "meta nfproto ipv4 tcp dport 80 dnat ip to 10.9.9.9:80" + end, ""},
		{"tproxy, and redirect besides", web + "table inet n {\nchain c {\ntype nat hook prerouting priority dstnat\ntcp dport 80 redirect to :3129\n}\n}\n", is + " translated\nc 1: inet 6 redirect to :3129"},
		{"no mark", pre + "tcp dport 80 tproxy to :3129" + end, "pre 1: inet 6 tproxy to :3129"},
		{"marked by a rule before", pre + "meta mark set 1\ntcp dport 80 tproxy to :3129" + end, "pre 2: inet 6 tproxy to :3129 0x1"},
		{"cleared", web + other("prerouting", "0", "meta mark set 0"), is + " mark-cleared"},
		{"marked anew", web + other("prerouting", "0", "meta mark set 5"), "pre 1: inet 6 tproxy to :3129 0x5"},
		{"mark of bits", pre + "meta mark set 3\ntcp dport 80 tproxy to :3129 meta mark set meta mark & 0xfffffffe | 0x10 accept" + end, "pre 2: inet 6 tproxy to :3129 0x12"},
		{"mark of a map", pre + "tcp dport { 80, 443 } tproxy to :3129 meta mark set tcp dport map { 80 : 1, 443 : 2 }" + end, "pre 1: inet 6 tproxy to :3129 mark unknown"},
		{"port of a map", pre + "meta l4proto tcp tproxy to :tcp dport map { 80 : 3128, 443 : 3129 } meta mark set 1" + end, "pre 1: inet 6 tproxy to :3128,3129 0x1"},
		{"connection's mark", pre + "meta mark set ct mark\nmeta mark 1 accept\ntcp dport 80 tproxy to :3129 meta mark set 1 ct mark set meta mark" + end, "pre 3: inet 6 tproxy to :3129 0x1"},
		{"a map of chains", "table inet p {\nchain web {\nmeta l4proto tcp " + to + "\n}\nchain pre {\ntype filter hook prerouting priority mangle\ntcp dport vmap { 80 : goto web, 53 : accept }\n}\n}\n", "web 1: inet 6 tproxy to :3129 0x1"},
		{"several protocols", pre + "meta l4proto { tcp, udp } th dport 53 " + to + end, is + "\npre 1: inet 17 tproxy to :3129 0x1"},
		{"families", pre + "meta l4proto tcp meta mark set 1 tproxy ip to 127.0.0.1:3129 accept\nmeta l4proto tcp meta mark set 1 tproxy ip6 to [::1]:3129 accept" + end,
			"pre 1: inet 6 tproxy to 127.0.0.1:3129 0x1\npre 2: inet6 6 tproxy to [::1]:3129 0x1"},
		{"a chain that no rule calls", "table inet p {\nchain c {\ntcp dport 80 " + to + "\n}\n}\n", "c 1: inet 6 tproxy to :3129 UNREACHED"},
		{"a table that sleeps", strings.Replace(web, "{", "{\nflags dormant\n", 1), "pre 1: inet 6 tproxy to :3129 UNREACHED"},
		{"names with a wildcard", pre + "iifname \"eth*\" tcp dport 80 " + to + end, is},
		{"an interface that is not there", pre + "iifname tun0 tcp dport 80 " + to + end, "pre 1: inet 6 tproxy to :3129 interface"},
		{"what comes back by lo", pre + "iifname lo tcp dport 80 " + to + end, "pre 1: inet 6 tproxy to :3129"},
		{"a named set", "table inet p {\nset s { type inet_service; flags interval; elements = { 80, 8000-8080 }; }\nchain pre {\ntype filter hook prerouting priority mangle\ntcp dport @s " + to + "\n}\n}\n" + other("prerouting", "-300", "tcp dport 8000-8080 drop"), is + " dropped-before some"},
		{"several in one key", "table inet p {\nset s { type ifname . inet_service; elements = { eth0 . 80 }; }\nchain pre {\ntype filter hook prerouting priority mangle\niifname . tcp dport @s " + to + "\n}\n}\n", is},
		{"local addresses apart", pre + "fib daddr type local accept\nip daddr { 127.0.0.0/8, 10.0.0.0/8 } accept\ntcp dport 80 " + to + end, "pre 3: inet 6 tproxy to :3129 0x1"},
		{"sockets", pre + "meta l4proto tcp socket transparent 1 meta mark set 1 accept\ntcp dport 80 " + to + end, "pre 2: inet 6 tproxy to :3129 0x1\npre 1: inet 6 only marks 0x1"},
		{"sockets without a mark", pre + "meta l4proto tcp socket transparent 1 accept" + end, "pre 1: inet 6 only marks"},
		{"back to a proxy", pre + "tcp sport 80 meta mark set 1" + end, "pre 1: inet 6 only marks 0x1"},
		{"marks for others", pre + "tcp sport 80 meta mark set 7" + end, ""},
		{"own traffic", "table inet p {\nchain o {\ntype nat hook output priority -100\nip daddr { 127.0.0.0/8, 192.168.0.0/16 } return\nmeta l4proto tcp redirect to :3129\n}\n}\n", "o 2: inet 6 redirect to :3129 looped"},
		{"own traffic but the proxy's mark", "table inet p {\nchain o {\ntype nat hook output priority -100\nmeta mark 0xff return\nmeta l4proto tcp redirect to :3129\n}\n}\n", "o 2: inet 6 redirect to :3129"},
		{"own traffic but to its server", "table inet p {\nchain o {\ntype nat hook output priority -100\nip daddr 9.9.9.9 return\nip6 daddr 2620:fe::9 return\nmeta l4proto tcp redirect to :3129\n}\n}\n", "o 3: inet 6 redirect to :3129"},
		{"own traffic but the proxy's user", "table inet p {\nchain o {\ntype nat hook output priority -100\nmeta l4proto tcp meta skuid != 1000 redirect to :3130\n}\n}\n", "o 1: inet 6 redirect to :3130"},
		{"own traffic and another user", "table inet p {\nchain o {\ntype nat hook output priority -100\nmeta l4proto tcp meta skuid != 999 redirect to :3130\n}\n}\n", "o 1: inet 6 redirect to :3130 looped"},
		{"own traffic that is marked", pre + "meta l4proto tcp " + to + end + strings.Replace(other("output", "-150", "meta l4proto tcp meta mark set 1"), "filter", "route", 1), is + " looped"},
		{"own traffic that is marked, by group", pre + "meta l4proto tcp " + to + end + strings.Replace(other("output", "-150", "meta skgid 101 return\nmeta l4proto tcp meta mark set 1"), "filter", "route", 1), is},
		{"own traffic that is not taken", pre + "iifname eth0 meta l4proto tcp " + to + end + strings.Replace(other("output", "-150", "meta l4proto tcp meta mark set 1"), "filter", "route", 1), is},
		{"answers are dropped", web + other("output", "0", "policy drop\nct state new accept"), is + " dropped-out"},
		{"answers pass", web + other("output", "0", "policy drop\nct state established accept"), is},
		{"masquerade does no harm", web + "table inet n {\nchain c {\ntype nat hook postrouting priority srcnat\nmasquerade\n}\n}\n", is},
		{"what is not followed", pre + "meta day Sunday tcp dport 81 accept\nip dscp cs1 accept\nlimit rate over 400/minute drop\nct count over 20 drop\nnumgen random mod 10 < 3 accept\ntcp dport 80 jhash ip saddr mod 2 == 0 accept\ntcp dport 80 " + to + end, "pre 7: inet 6 tproxy to :3129 0x1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			load(t, "flush ruleset\n"+c.rules, "nft", "-f", "-")
			r, errs := Read()
			if len(errs) > 0 {
				t.Fatal(errs)
			}
			h := testHost
			if got := tellAll(r.Follow(&h)); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
	load(t, "flush ruleset\n", "nft", "-f", "-")
}

func load(t *testing.T, rules string, program ...string) {
	t.Helper()
	cmd := exec.Command(program[0], program[1:]...)
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%q: %v\n%s\n%s", program, err, out, rules)
	}
}

// TestFollowTables: rules of both iptables are understood alike.
func TestFollowTables(t *testing.T) {
	labtest.Need(t)
	const mangle = "*mangle\n:PREROUTING ACCEPT\n:INPUT ACCEPT\n:OUTPUT ACCEPT\n:DIVERT -\n:USER -\n"
	const natTable = "*nat\n:PREROUTING ACCEPT\n:OUTPUT ACCEPT\n:R -\n"
	const filter = "*filter\n:INPUT DROP\n:FORWARD ACCEPT\n"
	const divert = "-A DIVERT -j MARK --set-mark 1\n-A DIVERT -j ACCEPT\n-A PREROUTING -p tcp -m socket --transparent -j DIVERT\n"
	const tproxy = "-A PREROUTING -p tcp -m tcp --dport 80 -j TPROXY --tproxy-mark 0x1/0x1 --on-port 3129\n"
	const is = " inet 6 -j TPROXY --on-port :3129 --tproxy-mark 0x1/0x1"
	const squid = "PREROUTING 2:" + is + " 0x1%s\nPREROUTING 1: inet 6 only marks 0x1"
	for _, c := range []struct{ name, rules, want string }{
		{"squid", mangle + divert + tproxy + "COMMIT\n", fmt.Sprintf(squid, "")},
		{"input drops", mangle + divert + tproxy + "COMMIT\n" + filter + "-A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\n-A INPUT -i lo -j ACCEPT\nCOMMIT\n", fmt.Sprintf(squid, " dropped-after")},
		{"input accepts by mark", mangle + divert + tproxy + "COMMIT\n" + filter + "-A INPUT -m mark --mark 0x1/0x1 -j ACCEPT\nCOMMIT\n", fmt.Sprintf(squid, "")},
		{"input accepts by port", mangle + divert + tproxy + "COMMIT\n" + filter + "-A INPUT -p tcp -m multiport --dports 22,79:81 -j ACCEPT\nCOMMIT\n", fmt.Sprintf(squid, "")},
		{"input accepts by sender", mangle + divert + tproxy + "COMMIT\n" + filter + "-A INPUT -s 192.168.0.0/16 -j ACCEPT\nCOMMIT\n", fmt.Sprintf(squid, "")},
		{"new ones are accepted", mangle + divert + tproxy + "COMMIT\n" + filter + "-A INPUT -p tcp -m state --state NEW -m tcp --dport 80 --syn -j ACCEPT\nCOMMIT\n", fmt.Sprintf(squid, "")},
		{"goto", mangle + "-A USER -p tcp -j TPROXY --tproxy-mark 0x1/0x1 --on-port 3129\n-A PREROUTING ! -i eth1 -g USER\n-A PREROUTING -p tcp -j DROP\nCOMMIT\n", "USER 1:" + is + " 0x1"},
		{"returned", mangle + "-A USER -i eth+ -j RETURN\n-A USER -p tcp -j TPROXY --tproxy-mark 0x1/0x1 --on-port 3129\n-A PREROUTING -j USER\nCOMMIT\n", "USER 2:" + is + " passed-before"},
		{"not called", mangle + "-A USER -p tcp -j TPROXY --tproxy-mark 0x1/0x1 --on-port 3129\nCOMMIT\n", "USER 1:" + is + " UNREACHED"},
		{"redirect", natTable + "-A R -d 10.0.0.0/8 -j RETURN\n-A R -p tcp -j REDIRECT --to-ports 12345\n-A PREROUTING -p tcp -m tcp --dport 443 -j R\n-A OUTPUT -p tcp -m owner --uid-owner 1000 -j R\nCOMMIT\n", "R 2: inet 6 -j REDIRECT to :12345"},
		{"redirect of the proxy's own", natTable + "-A OUTPUT -p tcp -j REDIRECT --to-ports 12345\nCOMMIT\n", "OUTPUT 1: inet 6 -j REDIRECT to :12345 looped"},
		{"range of ports", natTable + "-A PREROUTING -p tcp -j REDIRECT --to-ports 3128-3130\nCOMMIT\n", "PREROUTING 1: inet 6 -j REDIRECT to :3128,3129,3130"},
		{"dnat", natTable + "-A PREROUTING -p tcp -j DNAT --to-destination 192.168.1.1:3128\nCOMMIT\n", "PREROUTING 1: inet 6 -j DNAT to 192.168.1.1:3128"},
		{"dropped before", mangle + "-A PREROUTING -p tcp -m tcp --dport 3129 -j DROP\nCOMMIT\n" + natTable + "-A PREROUTING -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 3129\nCOMMIT\n", "PREROUTING 1: inet 6 -j REDIRECT to :3129"},
		{"not tracked", "*raw\n:PREROUTING ACCEPT\n-A PREROUTING -p tcp -m tcp --dport 80 -j CT --notrack\nCOMMIT\n" + natTable + "-A PREROUTING -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 3129\nCOMMIT\n", "PREROUTING 1: inet 6 -j REDIRECT to :3129 untracked"},
		{"queues", "*filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\n-A FORWARD -j NFQUEUE --queue-balance 1:4 --queue-bypass\n-A INPUT -p udp -j NFQUEUE --queue-num 7\nCOMMIT\n", "INPUT 1: inet 17 -j NFQUEUE 7:7\nFORWARD 1: inet 0 -j NFQUEUE 1:4 bypass"},
		{"connection's mark", mangle + "-A PREROUTING -j CONNMARK --restore-mark\n-A PREROUTING -m mark --mark 1 -j ACCEPT\n" + tproxy + "-A PREROUTING -m mark --mark 1 -j CONNMARK --save-mark\nCOMMIT\n", "PREROUTING 3:" + is + " 0x1"},
		{"local destinations", mangle + "-A PREROUTING -m addrtype --dst-type LOCAL -j ACCEPT\n-A PREROUTING -m comment --comment \"a proxy\" -m limit --limit 5/min -j ACCEPT\n" + tproxy + "COMMIT\n", "PREROUTING 3:" + is + " 0x1"},
	} {
		for _, kind := range []string{"legacy", "nft"} {
			t.Run(c.name+" "+kind, func(t *testing.T) {
				labtest.Programs(t, "iptables-"+kind+"-restore", "ip6tables-"+kind+"-restore")
				const none = "*raw\nCOMMIT\n*mangle\nCOMMIT\n*nat\nCOMMIT\n*filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\nCOMMIT\n"
				programs := []string{"iptables-" + kind + "-restore"}
				if six := !strings.Contains(c.rules, "192.168") && !strings.Contains(c.rules, "10.0.0.0"); six {
					programs = append(programs, "ip6tables-"+kind+"-restore")
				}
				for _, program := range programs {
					load(t, c.rules, program)
					defer load(t, none, program)
				}
				r, errs := Read()
				if len(errs) > 0 {
					t.Fatal(errs)
				}
				h := testHost
				if got := tellAll(r.Follow(&h)); got != c.want {
					t.Errorf("got\n%s\nwant\n%s", got, c.want)
				}
			})
		}
	}
}
