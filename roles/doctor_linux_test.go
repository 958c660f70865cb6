package roles

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pfdivert/roles/lab/labtest"
)

// A proxy's set-up as manuals have it, on REMOTE; RULES is what a case adds before.
const proxySetup = `set -e
ip rule add fwmark 0x1 lookup 100
ip -6 rule add fwmark 0x1 lookup 100
ip route add local default dev lo table 100
ip -6 route add local default dev lo table 100
cat >rules <<N
table inet proxy {
	chain pre {
		type filter hook prerouting priority mangle; policy accept;
		meta l4proto tcp tproxy to :3128 meta mark set 0x1 accept
	}
}
N
`

// The proxy: a transparent socket for each family.
const (
	proxyListens4 = "pfdivert server -proto tcp -diverted -timeout 20s -bind 0.0.0.0:3128 >said4 &\n"
	proxyListens6 = "pfdivert server -proto tcp -diverted -timeout 20s -bind '[::]:3128' >said6 &\n"
	proxyListens  = proxyListens4 + proxyListens6
)

// queueRule loads a rule that hands packets to a queue.
const queueRule = "pfdivert pf-setup -action divert-packet -proto udp -from 10.188.1.1 -to 10.188.1.2 -port 4000 -divert-port 666 >said4 2>&1 &\n" +
	"for i in $(seq 100); do grep -q loaded said4 || sleep 0.1; done\n"

// TestDoctor: a set-up that is right has nothing bad, and what is broken in one is found, by the
// code of its cause.
func TestDoctor(t *testing.T) {
	labtest.Need(t)
	labtest.Programs(t, "nft", "ip", "sysctl")
	bin := program(t)
	const noRule = "no-policy-rule"
	for _, c := range []struct {
		name      string
		change    string // of the set-up, before the rules are loaded
		listens   string // in place of proxyListens
		needs     string // a program
		bad, warn []string
	}{
		{name: "healthy"},
		{name: "no rule for IPv4", change: "ip rule del fwmark 0x1", bad: []string{noRule}},
		{name: "no rule for IPv6", change: "ip -6 rule del fwmark 0x1", bad: []string{noRule}},
		{name: "another mark", change: "ip rule del fwmark 0x1\nip rule add fwmark 0x2 lookup 100", bad: []string{"mark-mismatch"}},
		{name: "another mask", change: "ip rule del fwmark 0x1\nip rule add fwmark 0x100/0xff00 lookup 100", bad: []string{"mark-mismatch"}},
		{name: "no route", change: "ip route flush table 100", bad: []string{"no-local-route"}},
		{name: "late rule", change: "ip rule del fwmark 0x1\nip rule add fwmark 0x1 lookup 100 priority 40000\nip route add default via 10.188.1.1", bad: []string{"late-policy-rule"}},
		{name: "strict", change: "sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.all.src_valid_mark=1", bad: []string{"rp-filter"}},
		{name: "IPv6 off", change: "sysctl -qw net.ipv6.conf.lo.disable_ipv6=1", bad: []string{"inet6-disabled", "no-local-route"}},
		{name: "not marked", change: "sed -i 's/meta mark set 0x1//' rules", bad: []string{"mark-not-set"}},
		{name: "no process listens", listens: ":\n", bad: []string{"no-listener"}},
		{name: "another port", listens: strings.Replace(proxyListens, "0.0.0.0:3128", "0.0.0.0:3129", 1), bad: []string{"listener-elsewhere"}},
		{name: "on loopback", listens: strings.Replace(proxyListens, "0.0.0.0", "127.0.0.1", 1), bad: []string{"listener-elsewhere"}},
		{name: "IPv4 only", listens: proxyListens4, bad: []string{"no-listener"}},
		{name: "not transparent", listens: strings.Replace(proxyListens, "-diverted", "", 1), bad: []string{"not-transparent"}},
		{name: "queue", change: "rm rules; touch rules", listens: queueRule, bad: []string{"queue-unheard"}},
		{name: "queue that is heard", change: "rm rules; touch rules", listens: queueRule + "pfdivert packet -timeout 20s 666 >said6 &\n"},
		{name: "redirect", change: redirects},
		{name: "redirect that is not tracked", change: redirects + otherChain("prerouting", "-300", "notrack"), warn: []string{"not-tracked"}},
		{name: "redirect besides", change: strings.Replace(otherChain("prerouting", "-100", "redirect to :3128"), "type filter", "type nat", 1), warn: []string{"destination-translated"}},
		{name: "old iptables", change: oldRules, needs: "iptables-legacy"},
		{name: "old iptables, no rule", change: oldRules + "ip rule del fwmark 0x1\n", needs: "iptables-legacy", bad: []string{noRule}},
		{name: "iptables-nft", change: strings.ReplaceAll(oldRules, "-legacy", "-nft"), needs: "iptables-nft"},
		{name: "half of the queues", change: "rm rules; touch rules\niptables-nft -A FORWARD -j NFQUEUE --queue-balance 666:667\n", needs: "iptables-nft",
			listens: "pfdivert packet -timeout 20s 666 >said6 &\n", bad: []string{"queue-unheard"}},
		{name: "another interface's rule", change: "ip rule del fwmark 0x1\nip rule add fwmark 0x1 iif nowhere0 lookup 100", bad: []string{noRule}},
		{name: "marks of others", change: "ip rule add not fwmark 0xca6c lookup 51820\nip rule add fwmark 0x80000/0xff0000 lookup main"},
		{name: "not called", change: "sed -i 's/type filter.*//' rules", bad: []string{"not-evaluated"}},
		{name: "dropped before", change: otherChain("prerouting", "-300", "drop"), warn: []string{"dropped-before"}},
		{name: "dropped after", change: otherChain("input", "0", "drop"), warn: []string{"dropped-after"}},
		{name: "mark cleared", change: otherChain("prerouting", "0", "meta mark set 0"), warn: []string{"mark-cleared"}},
		{name: "not tracked", change: otherChain("prerouting", "-300", "notrack")}, // tproxy needs no tracking
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.needs != "" {
				labtest.Programs(t, c.needs)
			}
			if c.listens == "" {
				c.listens = proxyListens
			}
			script := proxySetup + c.change + "\nnft -f rules\n" + c.listens
			for _, said := range []string{"said4", "said6"} {
				if strings.Contains(c.listens, said) { // its first line says that it listens
					script += "for i in $(seq 100); do test -s " + said + " || sleep 0.1; done\n"
				}
			}
			script += "status=0\npfdivert doctor -json || status=$?\necho $status >status\n"
			dir := t.TempDir()
			cmd := exec.Command(filepath.Join(bin, "pfdivert"), "lab", "-q", "-host", "remote", "--", "sh", "-c", script)
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), asProgram+"=1", "PATH="+bin+string(filepath.ListSeparator)+os.Getenv("PATH"))
			var said strings.Builder
			cmd.Stderr = &said
			out, err := cmd.Output()
			var found diagnosis
			if err == nil {
				err = json.Unmarshal(out, &found)
			}
			if err != nil {
				t.Fatalf("%v\n%s\n%s", err, out, &said)
			}
			levels := map[string][]string{}
			for _, a := range found.Found {
				if a.Level != levelOK {
					levels[a.Level] = append(levels[a.Level], a.Cause)
				}
				if a.Level != levelOK && (a.Likely == "" || a.Check == "" || a.Mend == "") {
					t.Errorf("%+v", a)
				}
			}
			for level, want := range map[string][]string{levelBad: c.bad, levelWarn: c.warn} {
				slices.Sort(levels[level])
				if got := slices.Compact(levels[level]); !slices.Equal(got, want) {
					t.Errorf("%s are %q, want %q: %s", level, got, want, out)
				}
			}
			want := "0\n"
			if c.bad != nil {
				want = "1\n"
			}
			if status, err := os.ReadFile(filepath.Join(dir, "status")); err != nil || string(status) != want {
				t.Errorf("exit status %q, %v, want %q", status, err, want)
			}
			if len(found.Unseen) > 0 {
				t.Errorf("not seen: %q", found.Unseen)
			}
		})
	}
}

// redirects makes a set-up of one that diverts by tproxy.
const redirects = "sed -i 's/type filter.*/type nat hook prerouting priority dstnat;/; s/tproxy.*/redirect to :3128/' rules\n"

// oldRules are those that squid's manual has, in place of nft's.
const oldRules = `rm rules; touch rules
for i in iptables-legacy ip6tables-legacy; do
	$i -t mangle -N DIVERT
	$i -t mangle -A DIVERT -j MARK --set-mark 1
	$i -t mangle -A DIVERT -j ACCEPT
	$i -t mangle -A PREROUTING -p tcp -m socket -j DIVERT
	$i -t mangle -A PREROUTING -p tcp --dport 80 -j TPROXY --tproxy-mark 0x1/0x1 --on-port 3128
	$i -A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT
	$i -A INPUT -m mark --mark 1 -j ACCEPT
	$i -P INPUT DROP
done
`

// otherChain is one of another table.
func otherChain(hook, priority, does string) string {
	return "cat >>rules <<N\ntable inet other {\n\tchain c {\n\t\ttype filter hook " + hook + " priority " + priority + "; policy accept;\n\t\ttcp dport 80 " + does + "\n\t}\n}\nN\n"
}
