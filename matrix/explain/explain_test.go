package explain

import (
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pfdivert/matrix/evidence"
	"pfdivert/pfconf"
)

func answers(all ...string) []evidence.Answer {
	var list []evidence.Answer
	for i := 0; i < len(all); i += 2 {
		list = append(list, evidence.Answer{Command: all[i], Text: all[i+1]})
	}
	return list
}

// healthy are what a Linux REMOTE and its LOCAL answer when all is well (from a lab).
func healthy() (local, remote HostFacts) {
	local.Answers = answers(
		"ip link show dev local0", "local0: UP mtu 1500 veth",
		"ip addr show to 10.208.0.3", "(none)",
		"ip route get 10.208.0.3 from 10.192.0.3", "10.208.0.3 via 10.188.1.2 dev local0 table main",
		"nft list ruleset", "(none)",
	)
	remote.Remote = true
	remote.Answers = answers(
		"ip link show dev remote0", "remote0: UP mtu 1500 veth",
		"ip addr show to 10.208.0.3", "(none)",
		"ip rule", "0:\tfrom all lookup local\n32765:\tfrom all fwmark 0x70660076 lookup 28774 proto 118\n32766:\tfrom all lookup main\n32767:\tfrom all lookup default",
		"ip route show table 28774", "local 10.208.0.0/12 dev lo table 28774",
		"ip route get 10.208.0.3 from 10.192.0.3 iif remote0 mark 0x70660076",
		"local 10.208.0.3 dev lo table 28774 src 10.188.1.2",
		"sysctl net.ipv4.ip_forward", "net.ipv4.ip_forward = 0",
		"sysctl net.ipv4.conf.all.rp_filter", "net.ipv4.conf.all.rp_filter = 0",
		"nft list ruleset", "(none)",
	)
	return local, remote
}

// to is a UDP cell of divert-to whose rule matched, and nothing arrived.
func to() Case {
	c := Case{
		Reason: "not-delivered", Detail: "remote server: nothing arrived", Firewall: nftables, Proto: pfconf.UDP,
		Mechanism: DivertTo,
		LocalAddr: netip.MustParseAddr("10.192.0.3"), RemoteAddr: netip.MustParseAddr("10.188.1.2"),
		Fake:   netip.MustParseAddr("10.208.0.3"),
		Divert: netip.MustParseAddrPort("127.0.0.1:20003"), Server: 20003,
		Counters: pfconf.Counters{Matched: 1, Done: 1}, CountersKnown: true,
	}
	c.Local, c.Remote = healthy()
	c.Remote.Rules = []evidence.FilterRule{{Text: `inet pfdivert pre: iifname "remote0" ip saddr 10.192.0.3 udp dport 20003 counter tproxy ip to 127.0.0.1:20003 meta mark set 0x70660076 ct mark set 0x70660076 counter accept`}}
	c.Remote.Sockets = []evidence.SocketEntry{{Proto: "udp", Local: c.Divert}}
	return c
}

// looked is to, with a rule of the program of sk_lookup, which does something with the packet. FAKE
// is local.
func looked(does string) Case {
	c := to()
	c.Remote.Answers = slices.DeleteFunc(c.Remote.Answers, func(a evidence.Answer) bool {
		return strings.Contains(a.Command, " mark ") || strings.HasPrefix(a.Command, "ip route show table")
	})
	c.Remote.Answers = append(c.Remote.Answers, evidence.Answer{
		Command: "ip route get 10.208.0.3 from 10.192.0.3 iif remote0", Text: "local 10.208.0.3 dev lo table local"})
	c.Remote.Rules = []evidence.FilterRule{{
		Text: `sk_lookup: iifname "remote0" ip saddr 10.192.0.3 ip daddr 10.208.0.3 udp dport 20003 ` + does}}
	return c
}

// reply is one of divert-reply, whose answer did not come back.
func reply() Case {
	c := to()
	c.Reason, c.Mechanism, c.Answered, c.Divert = "no-reply", DivertReply, true, netip.AddrPort{}
	c.Remote.Rules[0].Text = "inet pfdivert out: ip saddr 10.208.0.3 counter ct mark set 0x70660076 ct mark 0x70660076 counter\n" +
		`inet pfdivert pre: iifname "remote0" ip saddr 10.192.0.3 ct mark 0x70660076 counter meta mark set 0x70660076 accept`
	c.Local.Sockets = []evidence.SocketEntry{{Proto: "udp", Local: netip.MustParseAddrPort("10.192.0.3:20003")}}
	return c
}

func queued() Case {
	c := to()
	c.Mechanism, c.Divert = PacketIn, netip.MustParseAddrPort("0.0.0.0:26600")
	c.Remote.Rules[0].Text = "inet pfdivert in: udp dport 20003 counter jump queue-26600"
	return c
}

// read is a case whose queue someone reads, with so many packets that wait in it.
func read(c Case, waiting int) Case {
	c.Remote.Sockets = append(slices.Clone(c.Remote.Sockets), evidence.SocketEntry{
		Proto: "divert", Local: c.Divert,
		Text: fmt.Sprintf("netfilter queue, %d waiting, dropped 0 by the full queue and 0 by the full socket, last id 1", waiting),
	})
	return c
}

// raw is to, for a protocol without ports.
func raw() Case {
	c := to()
	c.Proto = pfconf.Raw
	c.Remote.Sockets = []evidence.SocketEntry{{Proto: "raw 254", Local: netip.AddrPortFrom(c.Fake, 0)}}
	return c
}

// asked has a host answer otherwise.
func asked(h *HostFacts, command, text string) {
	h.Answers = slices.DeleteFunc(h.Answers,
		func(a evidence.Answer) bool { return strings.HasPrefix(a.Command, command) })
	h.Answers = append(h.Answers, evidence.Answer{Command: command, Text: text})
}

func because(c Case, reason, detail string) Case {
	c.Reason, c.Detail = reason, detail
	return c
}

func counted(c Case, n pfconf.Counters) Case {
	c.Counters, c.CountersKnown = n, true
	return c
}

// logged is what pf's log has of a packet for which rule 2 had the action, 0 for pass and 1 for
// block.
func logged(action byte) []evidence.Packet {
	header := make([]byte, 100)
	copy(header, []byte{100, 2, action})
	copy(header[4:], "vio1")
	header[39], header[60] = 2, 1
	copy(header[40:], []byte{255, 255, 255, 255})
	return []evidence.Packet{{Link: evidence.LinkPflog, Data: append(header, 0x45)}}
}

// TestLogged: the rule that pf's log names is the one of that number.
func TestLogged(t *testing.T) {
	c := on(to(), pf)
	c.Remote.Packets = logged(1)
	c.Remote.Answers = []evidence.Answer{{Command: "pfctl -vv -s rules",
		Text: "@1 pass all\n  [ Evaluations: 1 ]\n@2 block drop in log quick on vio1\n@20 pass"}}
	if got, want := c.logged("block"), "block in on vio1, rule 2: @2 block drop in log quick on vio1"; got != want {
		t.Errorf("%q, not %q", got, want)
	}
	if got := c.logged("pass"); got != "" {
		t.Errorf("passed: %q", got)
	}
}

func on(c Case, firewall string) Case {
	c.Firewall, c.StatesFirst = firewall, firewall == pf
	c.Local, c.Remote = HostFacts{}, HostFacts{}
	c.Remote.Remote = true
	return c
}

func remote(c Case, command, text string) Case {
	c.Remote.Answers = slices.Clone(c.Remote.Answers)
	asked(&c.Remote, command, text)
	return c
}

func local(c Case, command, text string) Case {
	c.Local.Answers = slices.Clone(c.Local.Answers)
	asked(&c.Local, command, text)
	return c
}

// chain is the only one of someone else's filter on REMOTE.
func chain(c Case, hook, priority, does string) Case {
	return remote(c, "nft list ruleset",
		"table ip other chain c type filter hook "+hook+" priority "+priority+": "+does)
}

func change(c Case, f func(*Case)) Case {
	f(&c)
	return c
}

const table = "ip route show table 28774"

// Every cause is reached, and by what it is about.
// TestNeed: what fixes a lack is what pfconf/need says of it, whichever feature it is.
func TestNeed(t *testing.T) {
	for text, want := range map[string]string{
		"REMOTE: state of x: this kernel has no tcp_diag: no such file": "on the host itself: modprobe -a inet_diag tcp_diag; ",
		"REMOTE: rule: this kernel has no tproxy: no such file":         "on the host itself: modprobe -a nft_tproxy; ",
		"REMOTE: something else":                                        "on the host itself: load the module, or run a kernel that has it",
	} {
		if got := Explain(because(to(), "no-feature", text)).Mend; !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

func TestExplain(t *testing.T) {
	none, undone := pfconf.Counters{}, pfconf.Counters{Matched: 1}
	v6 := func(c *Case) { c.Fake = netip.MustParseAddr("fd00:188:2::3") }
	ethernet := func(from, to string) []evidence.Packet {
		ip := make([]byte, 20)
		ip[0] = 0x45
		copy(ip[12:], netip.MustParseAddr(from).AsSlice())
		copy(ip[16:], netip.MustParseAddr(to).AsSlice())
		return []evidence.Packet{{Link: evidence.LinkEthernet, Data: append(make([]byte, 14), ip...)}}
	}
	reached := map[string]bool{}
	for _, x := range []struct {
		want string
		c    Case
	}{
		{"echo-reflected", change(because(to(), "no-feature", "REMOTE's kernel answered"),
			func(c *Case) { c.Firewall, c.Proto = ipfw, pfconf.ICMP })},
		{"kernel-bug", because(to(), "kernel-splat", "the kernel's log has \"BUG: \"")},
		{"kernel-too-old", because(to(), "no-feature", "remote server: Linux before 5.17 binds no raw IPv4 socket")},
		{"network-missing", because(to(), "no-feature",
			"REMOTE: it does not forward IPv4: sysctl net.inet.ip.forwarding is 0 (sysctl net.inet.ip.forwarding=1)")},
		{"network-missing", because(to(), "no-feature", "REMOTE: no third host is named to forward to (set MIRROR_ADDR)")},
		{"module-missing", because(to(), "no-feature", "this kernel has no tproxy")},
		{"no-such-family", because(to(), "no-family", "")},
		{"fake-owned", remote(to(), "ip addr show to 10.208.0.3", "10.208.0.3/32 dev lo")},
		{"fake-owned", because(on(to(), pf), "fake-owned", "")},
		{"inet6-disabled", change(remote(to(), "sysctl net.ipv6.conf.lo.disable_ipv6",
			"net.ipv6.conf.lo.disable_ipv6 = 1"), v6)},
		{"hosts-apart", because(to(), "fence-lost", "")},
		{"port-in-use", because(to(), "socket-failed", "server: open: bind: address already in use")},
		{"no-privilege", because(to(), "socket-failed", "server: open: transparent: operation not permitted")},
		{"no-privilege", because(on(to(), pf), "rule-refused", "pfctl: /dev/pf: Permission denied")},
		{"not-tested", because(to(), "question-failed", "netstat printed nonsense")},
		{"not-tested", because(Case{}, "agent-lost", "")},
		{"not-tested", change(because(Case{}, "agent-lost", ""), func(c *Case) { c.Remote.Cut = true })},
		{"not-looked-at", change(remote(to(), "ip rule", "0:\tfrom all lookup local"),
			func(c *Case) { c.Remote.Cut = true })},
		{"not-looked-at", change(because(to(), "not-counted", ""), func(c *Case) { c.Local.Cut = true })},
		{"not-looked-at", change(remote(to(), "ip rule", strings.Repeat("0:\tfrom all lookup local\n", 1<<12)),
			func(c *Case) { c.Remote.Bound() })},
		{"socket-trouble", because(to(), "socket-failed", "server: open: too many open files")},

		{"no-route-to-fake", because(to(), "local-route", "")},
		{"no-route-to-fake", local(to(), "ip route get 10.208.0.3", "RTNETLINK answers: Network is unreachable")},
		{"fake-routed-elsewhere", local(to(), "ip route get 10.208.0.3",
			"10.208.0.3 via 192.0.2.1 dev wlan0 table main")},
		{"fake-on-link", local(to(), "ip route get 10.208.0.3", "10.208.0.3 dev local0 table main")},
		{"own-traffic-diverted", remote(chain(because(reply(), "control-lost", ""), "output", "-150", "mark set"),
			table, "local default dev lo table 28774")},
		{"reply-routed-elsewhere", remote(because(reply(), "control-lost", ""), "ip rule",
			"100:\tfrom 10.208.0.0/12 lookup 200\n32765:\tfrom all fwmark 0x70660076 lookup 28774\n32766:\tfrom all lookup main")},
		{"no-policy-rule", remote(to(), "ip rule", "0:\tfrom all lookup local\n32766:\tfrom all lookup main")},
		{"mark-mismatch", remote(to(), "ip rule", "32765:\tfrom all fwmark 0x1 lookup 28774\n32766:\tfrom all lookup main")},
		{"mark-mismatch", remote(to(), "ip rule", "32765:\tfrom all fwmark 0x1/0xff lookup 28774\n32766:\tfrom all lookup main")},
		{"no-local-route", remote(to(), table, "(none)")},
		{"no-route-localnet", remote(change(to(), func(c *Case) { c.Should = "redirected to 127.0.0.1" }),
			"sysctl net.ipv4.conf.remote0.route_localnet", "net.ipv4.conf.remote0.route_localnet = 0")},
		{"rp-filter", remote(to(), "ip route get 10.208.0.3 from 10.192.0.3 iif remote0 mark 0x70660076",
			"RTNETLINK answers: Invalid cross-device link")},
		{"late-policy-rule", remote(remote(to(), "ip rule",
			"32766:\tfrom all lookup main\n32767:\tfrom all fwmark 0x70660076 lookup 28774"),
			"ip route get 10.208.0.3 from 10.192.0.3 iif remote0 mark 0x70660076", "RTNETLINK answers: No route to host")},
		{"bridge-netfilter", remote(remote(to(), "ip link show dev remote0", "remote0: UP mtu 1500 bridge"),
			"sysctl net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-iptables = 1")},

		{"not-tracked", counted(chain(reply(), "output", "-300", "notrack"), undone)},
		{"other-zone", chain(reply(), "prerouting", "-300", "ct zone set")},
		{"source-translated", chain(because(reply(), "wrong-address", ""), "postrouting", "100", "masquerade")},
		{"source-translated", because(on(reply(), pf), "wrong-address", "")},
		{"destination-translated", chain(because(to(), "wrong-address", ""), "prerouting", "-100", "redirect")},
		{"destination-translated", because(on(to(), ipfw), "wrong-address", "")},
		{"diverted-by-another", because(to(), "control-delivered", "")},
		{"dropped-out", chain(because(reply(), "control-lost", ""), "output", "0", "drop")},
		{"dropped-out", chain(because(reply(), "socket-failed", "client: send: send: operation not permitted"),
			"output", "0", "drop")},
		{"dropped-before", remote(counted(on(to(), ipfw), none), "ipfw -a list | grep -v '// regress-'",
			"00001    58   3480 deny ip4 from any to 10.208.0.0/12 in\n65535 9 9 allow ip from any to any")},
		{"rule-mismatch", remote(counted(on(to(), ipfw), none), "ipfw -a list | grep -v '// regress-'",
			"00001    58   3480 deny ip6 from any to fd00:188:2::/64 in\n00002 0 0 deny ip from any to any")},
		{"dropped-before", remote(counted(on(to(), pf), none), "pfctl -vv -s rules",
			"@0 block drop in quick inet from any to 10.188.4.0/24\n  [ Evaluations: 9         Packets: 3         Bytes: 84          States: 0     ]")},
		{"rule-mismatch", remote(counted(on(to(), pf), none), "pfctl -vv -s rules",
			"@0 block drop all\n  [ Evaluations: 9         Packets: 0         Bytes: 0           States: 0     ]\n@1 pass all flags S/SA\n  [ Evaluations: 9         Packets: 9         Bytes: 0           States: 0     ]")},
		{"dropped-on-local", local(because(on(reply(), ipfw), "control-lost", ""),
			"ipfw -a list | grep -v '// regress-'", "00001    58   3480 deny ip4 from 10.208.0.0/12 to any in")},
		{"answer-lost", change(because(reply(), "control-lost", ""),
			func(c *Case) { c.Local.Sockets, c.Local.Missing = nil, []string{"sockets of raw: netstat: timed out"} })},
		{"dropped-out", because(on(reply(), ipfw), "socket-failed",
			"remote client: client: connect: connect to 10.188.1.1:25674: permission denied")},
		{"dropped-on-local", local(because(reply(), "control-lost", ""), "nft list ruleset",
			"table ip f chain in type filter hook input priority 0: drop")},
		{"dropped-before", chain(counted(to(), none), "prerouting", "-300", "drop")},
		{"dropped-before", change(counted(on(to(), pf), none), func(c *Case) { c.Remote.Packets = logged(1) })},
		{"rule-mismatch", change(counted(on(to(), pf), none), func(c *Case) { c.Remote.Packets = logged(0) })},
		{"mark-cleared", chain(to(), "prerouting", "-149", "mark set")},
		{"dropped-after", chain(to(), "input", "0", "drop, reject")},

		{"no-tproxy", change(to(),
			func(c *Case) { c.Remote.Rules = []evidence.FilterRule{{Text: "counter meta mark set 0x70660076"}} })},
		{"mark-not-set", change(to(),
			func(c *Case) { c.Remote.Rules = []evidence.FilterRule{{Text: "counter tproxy ip to 127.0.0.1:20003"}} })},
		{"state-not-marked", change(counted(reply(), undone),
			func(c *Case) { c.Remote.Rules = []evidence.FilterRule{{Text: "out: counter"}} })},
		{"no-rule-back", change(reply(),
			func(c *Case) { c.Remote.Rules = []evidence.FilterRule{{Text: "out: counter ct mark set 0x70660076"}} })},
		{"rule-other-interface", change(counted(to(), none),
			func(c *Case) { c.Remote.Rules[0].Text = `pre: iifname "eth9" tproxy meta mark set` })},
		{"rule-mismatch", change(counted(to(), none),
			func(c *Case) { c.Remote.Rules[0].Text = `pre: iifname "lo" tproxy meta mark set` })},
		{"stale-state", change(reply(),
			func(c *Case) { c.Second = true; c.Remote.Rules[0].Text += " ct direction reply" })},
		{"stale-state", change(on(reply(), pf), func(c *Case) { c.Second = true })},
		{"forwarded", remote(counted(to(), none), "sysctl net.ipv4.ip_forward", "net.ipv4.ip_forward = 1")},
		{"lost-on-the-way", change(counted(to(), none),
			func(c *Case) { c.Local.Packets = ethernet("10.192.0.3", "10.208.0.3") })},
		{"rule-mismatch", counted(to(), none)},
		{"rule-mismatch", counted(on(to(), pf), none)},
		{"kernel-answers", change(because(to(), "duplicate", "local client: 1 more than was sent"),
			func(c *Case) { c.Proto = pfconf.ICMP })},

		{"listener-elsewhere", change(counted(to(), undone),
			func(c *Case) { c.Remote.Sockets[0].Local = netip.MustParseAddrPort("127.0.0.1:4000") })},
		{"listener-elsewhere", change(counted(to(), undone),
			func(c *Case) { c.Remote.Sockets[0].Local = netip.MustParseAddrPort("10.188.1.2:20003") })},
		{"no-listener", change(counted(to(), undone), func(c *Case) { c.Remote.Sockets = nil })},
		{"no-listener", change(because(reply(), "control-lost", ""), func(c *Case) { c.Local.Sockets = nil })},
		{"no-listener", change(on(to(), pf), func(c *Case) {
			c.Counters = pfconf.Counters{Matched: 1, States: 1}
			c.Remote.Sockets = []evidence.SocketEntry{{Proto: "udp", Local: c.Divert, State: "closed"}}
		})},
		{"not-transparent", counted(to(), undone)},
		{"socket-not-in-map", counted(looked("sk_assign 127.0.0.1:20003"), undone)},
		{"no-tproxy", counted(looked(""), undone)},
		{"dropped-before", chain(counted(looked("sk_assign 127.0.0.1:20003"), none), "input", "0", "drop")},
		{"diverted-by-another", chain(because(counted(looked("sk_assign 127.0.0.1:20003"), none), "not-counted", ""),
			"prerouting", "-151", "tproxy")},
		{"destination-translated", chain(counted(looked("sk_assign 127.0.0.1:20003"), none), "prerouting", "-100",
			"redirect")},
		{"no-local-route", remote(counted(looked("sk_assign 127.0.0.1:20003"), none),
			"ip route get 10.208.0.3 from 10.192.0.3 iif remote0", "RTNETLINK answers: No route to host")},
		{"dropped-after", chain(change(to(), func(c *Case) {
			c.Remote.Rules[0].Text = "tc ingress: udp dport 20003 sk_assign 127.0.0.1:20003 skb->mark = 0x70660076"
		}), "prerouting", "-300", "drop")},
		{"not-transparent", because(on(reply(), pf), "no-bindany", "")},
		{"time-wait", because(reply(), "port-blocked", "")},
		{"queue-full", change(queued(), func(c *Case) {
			c.Remote.Sockets = append(c.Remote.Sockets, evidence.SocketEntry{Proto: "divert",
				Text: "netfilter queue, 0 waiting, dropped 1 by the full queue and 0 by the full socket, last id 1"})
		})},
		{"queue-bypassed", because(queued(), "not-rewritten", "")},
		{"queue-bypassed", change(because(queued(), "not-lost", ""),
			func(c *Case) { c.Remote.Rules[0].Text += "-bypass" })},
		{"queue-unheard", queued()},
		{"queue-unheard", because(queued(), "not-bypassed", "")},
		{"queue-stuck", read(because(queued(), "not-bypassed", ""), 1)},
		{"given-back-unchanged", read(because(queued(), "not-rewritten", ""), 0)},
		{"given-back-unchanged", read(because(queued(), "wrong-data", `remote server: received "Client\n", not "x"`),
			0)},
		{"not-taken-back", read(because(queued(), "not-reinjected", ""), 0)},
		{"bad-checksum", because(queued(), "wrong-data", "received {Type:8 Checksum:false}")},
		// Other cells move the host's counters: no checksum keeps a packet from user space.
		{"claim-broken", change(because(read(queued(), 0), "not-delivered", "remote packet: nothing arrived"),
			func(c *Case) {
				c.Claim, c.Remote.Moved = true, []evidence.Moved{{Name: "Udp: InCsumErrors", By: 1}}
			})},
		{"bad-checksum", change(because(queued(), "not-reinjected", ""),
			func(c *Case) { c.Remote.Moved = []evidence.Moved{{Name: "Udp: InCsumErrors", By: 1}} })},
		{"checksum-offload", because(to(), "wrong-data", "received {Type:8 Checksum:false}")},
		{"mtu", change(to(), func(
			c *Case) {
			c.Local.Errors = []string{"from 10.188.1.2: ICMP type 3 code 4: fragmentation needed"}
		})},
		{"mtu", remote(because(queued(), "question-failed", "local client: send: no buffer space available"),
			"ip link show dev remote0", "remote0: UP mtu 1280 veth")},
		{"mtu", remote(change(because(queued(), "control-lost", ""), func(c *Case) { c.Long = true }),
			"ip link show dev remote0", "remote0: UP mtu 1280 veth")},
		{"not-tested", because(queued(), "question-failed", "local client: send: no buffer space available")},

		{"answered-by-icmp", change(to(),
			func(c *Case) { c.Local.Errors = []string{"from 10.188.1.2: ICMP type 3 code 13"} })},
		{"copied", because(to(), "duplicate", "remote server: 1 more than was sent")},
		{"address-changed", because(to(), "wrong-address", "")},
		{"data-changed", because(to(), "wrong-data", "received \"x\"")},
		{"counted-elsewhere", because(to(), "not-counted", "")},
		{"filtered", chain(because(queued(), "control-lost", ""), "input", "0", "drop")},
		{"filtered", local(because(queued(), "control-lost", ""), "nft list ruleset",
			"table ip f chain out type filter hook output priority 0: drop")},
		{"unexplained", chain(because(queued(), "control-lost", ""), "input", "0", "mark set")},
		{"joined-dropped", read(counted(because(queued(), "not-delivered",
			"remote packet: none of 8 datagrams came that local client had joined"), pfconf.Counters{Matched: 1}), 0)},
		{"joined-dropped", change(read(counted(because(queued(), "not-delivered",
			"remote packet: none of 8 datagrams came that local client had joined"), pfconf.Counters{Matched: 1}), 0),
			func(c *Case) { c.Remote.Moved = []evidence.Moved{{Name: "Udp: InCsumErrors", By: 1}} })}, // another cell's
		{"broken-between", change(because(to(), "not-delivered", "remote: the connection came to the server"),
			func(c *Case) { c.Between = true })},
		{"claim-broken", because(queued(), "not-lost", "")},
		{"rule-mismatch", counted(because(queued(), "not-lost", ""), none)},
		{"claim-broken", change(read(because(queued(), "wrong-data", "in place of message 2 of 64 came 64 bytes"), 0),
			func(c *Case) { c.Claim = true })},
		{"lost-after-rule", change(to(),
			func(c *Case) { c.Local.Errors = []string{"control: ICMPv6 type 1 code 0 from fd00:188:1::2"} })},
		{"lost-after-rule", change(raw(), func(c *Case) {
			c.Local.Errors = []string{"control: code 0",
				"client: code 0"}
		})},
		{"answered-by-icmp", change(raw(), func(c *Case) {
			c.Local.Errors = []string{"control: code 0",
				"client: code 0", "client: code 0"}
		})},
		{"lost-after-rule", chain(raw(), "prerouting", "-100", "redirect")},
		{"not-taken-back", read(because(queued(), "not-delivered", "local client: the connection was not answered"),
			0)},
		{"listener-elsewhere", change(read(queued(), 0),
			func(c *Case) { c.Remote.Rules[0].Text = "inet pfdivert in: udp dport 20003 counter jump queue-26601" })},
		{"rule-mismatch", chain(counted(to(), none), "prerouting", "-100", "redirect")},
		{"answer-lost", chain(because(reply(), "control-lost", ""), "prerouting", "-300", "ct zone set")},
		{"diverted-by-another", change(counted(because(queued(), "not-delivered", ""), none), func(c *Case) {
			c.Remote.Rules = append(c.Remote.Rules, evidence.FilterRule{After: &pfconf.Counters{Matched: 1}})
		})},
		{"claim-broken", on(because(queued(), "wrong-address",
			"remote packet: the packet came with the interface name \"\", and it came in by em0"), ipfw)},
		{"state-gone", because(to(), "state-missing", "")},
		{"state-kept", because(to(), "state-left", "")},
		{"known-failure-gone", because(to(), "known-failure-passed", "")},
		{"not-taken-back", because(queued(), "not-reinjected", "")},
		{"filter-off", switchedOff(pf, "pfctl -s rules -s info", "pass all\nStatus: Disabled for 0 days")},
		{"filter-off", switchedOff(ipfw, "sysctl net.inet.ip.fw.enable", "net.inet.ip.fw.enable: 0")},
		{"rule-mismatch", switchedOff(ipfw, "sysctl net.inet.ip.fw.enable", "net.inet.ip.fw.enable: 1")},
		{"rule-mismatch", switchedOff(ipfw, "pfctl -s rules -s info", "Status: Disabled")},
		{"pf-spoils-divert", beside(because(on(queued(), ipfw), "not-reinjected", ""), 2, "Enabled")},
		{"not-taken-back", change(beside(because(on(queued(), ipfw), "not-reinjected", ""), 2, "Enabled"),
			func(c *Case) { c.ByPF = true })},
		{"pf-spoils-divert", beside(because(on(queued(), ipfw), "looped", ""), 0, "Enabled")},
		// A host that was not seen in full; and one rule of two.
		{"pf-spoils-divert", change(beside(because(on(queued(), ipfw), "not-reinjected", ""), 2, "Enabled"),
			func(c *Case) { c.Remote.Cut = true })},
		{"pf-spoils-divert", change(beside(because(on(queued(), ipfw), "not-reinjected", ""), 0, "Enabled"),
			func(c *Case) { c.Remote.Rules = []evidence.FilterRule{{}, {After: &pfconf.Counters{Matched: 2}}} })},
		// One that was not seen at all, of which the run knows that its pf is on.
		{"pf-spoils-divert", change(counted(because(on(queued(), ipfw), "not-reinjected", ""),
			pfconf.Counters{Matched: 2}), func(c *Case) { c.PFOn, c.Remote.Cut = true, true })},
		{"pf-spoils-divert", change(because(on(queued(), ipfw), "looped", ""),
			func(c *Case) { c.PFOn, c.Remote.Cut = true, true })},
		{"not-looked-at", change(because(on(queued(), ipfw), "looped", ""), func(c *Case) { c.Remote.Cut = true })},
		{"pf-reassembles", change(because(on(queued(), ipfw), "wrong-data", "packet: the copy came in one piece"),
			func(c *Case) { c.Claim, c.PFOn = true, true })},
		{"claim-broken", change(because(on(queued(), ipfw), "wrong-data", "packet: the copy came in one piece"),
			func(c *Case) { c.Claim = true })},
		{"not-taken-back", beside(because(on(queued(), ipfw), "not-reinjected", ""), 1, "Enabled")},
		{"not-taken-back", beside(because(on(queued(), ipfw), "not-reinjected", ""), 2, "Disabled")},
		{"source-translated", change(because(switchedOff(pf, "pfctl -vv -s rules",
			"@0 pass all flags S/SA\n@1 match out on vio0 inet all nat-to (vio0)"), "no-reply", ""),
			func(c *Case) { c.Mechanism = DivertReply })},
		{"rule-mismatch", change(because(switchedOff(pf, "pfctl -vv -s rules",
			"@0 pass all flags S/SA\n@1 match in on vio0 inet all rdr-to 127.0.0.1"), "no-reply", ""),
			func(c *Case) { c.Mechanism = DivertReply })},
		{"lost-after-rule", to()},
		{"lost-after-rule", remote(to(), "nft list ruleset",
			"table ip6 f chain in type filter hook input priority 0: drop")},
		{"answer-lost", reply()},
		{"unexplained", because(Case{}, "something-new", "")},
	} {
		got := Explain(x.c)
		reached[got.Cause] = true
		if got.Cause != x.want {
			t.Errorf("%s %s: explained by %s, not %s", x.c.Reason, x.c.Detail, got.Cause, x.want)
		}
		for _, text := range []string{got.Expected, got.LastSeen, got.Likely, got.Check, got.Mend} {
			if strings.ContainsAny(text, "{}") && !strings.Contains(text, x.c.Detail) {
				t.Errorf("%s: not filled in: %s", got.Cause, text)
			}
		}
		if got.Expected == "" || got.Likely == "" {
			t.Errorf("%s says nothing: %+v", got.Cause, got)
		}
	}
	for _, code := range codes() {
		// TestDivertedBSD
		if !reached[code] && code != "not-evaluated" && code != "overruled" && code != "lost-by-divert" {
			t.Errorf("cause %s is not tested", code)
		}
	}
}

// codes are the codes of all causes, sorted.
func codes() (all []string) {
	for _, c := range causes {
		all = append(all, c.Code)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// docs/reasons.md has a section for each cause and for nothing else.
func TestCausesDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/reasons.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for _, m := range regexp.MustCompile(`(?m)^#### (.*)$`).FindAllStringSubmatch(string(page), -1) {
		documented = append(documented, m[1])
	}
	slices.Sort(documented)
	if all := codes(); !slices.Equal(all, documented) {
		t.Errorf("causes are\n%q, docs/reasons.md has\n%q", all, documented)
	}
}

// beside is a case on a FreeBSD whose pf is Enabled or Disabled, with so many packets counted.
func beside(c Case, matched uint64, status string) Case {
	c.Remote.Answers = []evidence.Answer{{Command: "pfctl -s info", Text: "Status: " + status + " for 0 days 00:00:50"}}
	return counted(c, pfconf.Counters{Matched: matched})
}

// switchedOff is a case whose rule matched nothing on a host that answers so.
func switchedOff(firewall, command, text string) Case {
	c := to()
	c.Firewall, c.CountersKnown, c.Counters = firewall, true, pfconf.Counters{}
	c.Local.Answers, c.Remote.Answers = nil, nil
	asked(&c.Remote, command, text)
	return c
}

// Each cause has advice for all firewalls that it is for, with known names.
func TestAdvice(t *testing.T) {
	known := map[string]bool{"": true, nftables: true, xtables: true, pf: true, ipfw: true, bpf: true, lookup: true}
	for _, c := range causes {
		firewalls := c.Firewalls
		if firewalls == nil {
			firewalls = []string{nftables, xtables, bpf, lookup, pf, ipfw, "another"}
		}
		for _, f := range firewalls {
			if c.advice(f).Likely == "" {
				t.Errorf("%s has no advice for %s", c.Code, f)
			}
		}
		for f, a := range c.Advice {
			if !known[f] || a.Likely == "" {
				t.Errorf("%s: advice for %q: %+v", c.Code, f, a)
			}
		}
	}
}

// What is wrong with a host is found without a cell, and nothing with one where all is well.
func TestProblems(t *testing.T) {
	local, remote := healthy()
	for _, h := range []HostFacts{local, remote} {
		if all := Problems(h, nftables); len(all) > 0 {
			t.Errorf("nothing is wrong, and found is %+v", all)
		}
	}
	asked(&remote, "ip rule", "0:\tfrom all lookup local\n32766:\tfrom all lookup main")
	asked(&remote, "nft list ruleset", "table ip nat chain post type nat hook postrouting priority 100: masquerade")
	var codes []string
	for _, p := range Problems(remote, nftables) {
		codes = append(codes, p.Cause)
		if p.Check == "" || strings.ContainsAny(p.Likely+p.Check+p.Mend, "{}") {
			t.Errorf("%+v", p)
		}
	}
	if want := []string{"no-policy-rule", "source-translated"}; !slices.Equal(codes,
		slices.Sorted(slices.Values(want))) {
		t.Errorf("found are %q, not %q", codes, want)
	}
}

// What another host sent is read without harm.
func FuzzExplain(f *testing.F) {
	local, remote := healthy()
	for _, h := range []HostFacts{local, remote} {
		for _, a := range h.Answers {
			f.Add(a.Command, a.Text, []byte{0x45})
		}
	}
	f.Fuzz(func(t *testing.T, command, text string, packet []byte) {
		for _, c := range []Case{to(), reply(), queued()} {
			asked(&c.Local, command, text)
			asked(&c.Remote, command, text)
			for _, l := range []evidence.LinkType{evidence.LinkEthernet, evidence.LinkRaw, evidence.LinkPflog} {
				c.Local.Packets = append(c.Local.Packets, evidence.Packet{Link: l, Data: packet})
			}
			Problems(c.Remote, nftables)
			if Explain(c) == nil {
				t.Error("no explanation")
			}
		}
	})
}

// Of all that a host's firewall has, the chains are named that can be the cause.
func TestNamesChains(t *testing.T) {
	const ruleset = "table ip nat chain post type nat hook postrouting priority 100: masquerade\n" +
		"table inet filter chain input type filter hook input priority 0: drop\n" +
		"table ip6 filter6 chain input type filter hook input priority 0: drop\n" +
		"table inet filter chain forward type filter hook forward priority 0: drop"
	got := Explain(remote(to(), "nft list ruleset", ruleset))
	if got.Cause != "dropped-after" || !strings.HasSuffix(got.Likely,
		" (table inet filter chain input type filter hook input priority 0)") {
		t.Errorf("%s: %s", got.Cause, got.Likely)
	}
	got = Explain(local(because(reply(), "not-delivered", ""), "nft list ruleset", ruleset))
	if got.Cause != "dropped-on-local" || !strings.HasSuffix(got.Likely,
		" (table inet filter chain input type filter hook input priority 0)") {
		t.Errorf("%s: %s", got.Cause, got.Likely)
	}
}

// TestAdviceOnLocal: what is to be done on LOCAL is said as LOCAL's system has it.
func TestAdviceOnLocal(t *testing.T) {
	c := because(on(to(), pf), "local-route", "")
	if got := Explain(c); got.Check != "route -n get -inet 10.208.0.3, on LOCAL" {
		t.Errorf("check: %s", got.Check)
	}
	c.Local.Answers = answers("ip link show dev local0", "local0: UP mtu 1500 veth")
	if got := Explain(c); got.Check != "ip route get 10.208.0.3, on LOCAL" {
		t.Errorf("on Linux, check: %s", got.Check)
	}
}
