package nft

import (
	"fmt"
	"net/netip"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pfdivert/pfconf"
	"pfdivert/roles/lab/labtest"
)

// everyRule has a rule of each kind for both families.
func everyRule() []pfconf.Rule {
	var rules []pfconf.Rule
	for _, f := range pfconf.Families {
		local, remote, fake := addr(f, 1, 2), addr(f, 1, 1), addr(f, 2, 9)
		label := func(s string) string { return "regress-" + f.String() + "-" + s }
		for _, p := range []pfconf.Proto{pfconf.TCP, pfconf.UDP, pfconf.Raw, pfconf.ICMP} {
			port := uint16(0)
			if p.HasPorts() {
				port = 7000 + uint16(p)
			}
			rules = append(rules, pfconf.Rule{
				Label: label(p.String() + "-to"), Direction: pfconf.In, Family: f, Proto: p, From: local, To: fake,
				Port:   port,
				Action: pfconf.DivertTo, Divert: netip.AddrPortFrom(f.Loopback(), max(port, 1)),
			}, pfconf.Rule{
				Label: label(p.String() + "-reply"), Direction: pfconf.Out, Family: f, Proto: p, From: fake, To: local,
				Port:   port,
				Action: pfconf.DivertReply,
			})
		}
		rules = append(rules, pfconf.Rule{
			Label: label("packet-in"), Direction: pfconf.In, Family: f, Proto: pfconf.UDP, From: local, To: remote,
			Port:   7100,
			Action: pfconf.DivertPacket, Divert: netip.AddrPortFrom(netip.Addr{}, 666),
		}, pfconf.Rule{
			Label: label("packet-out"), Direction: pfconf.Out, Family: f, Proto: pfconf.UDP, From: remote, To: local,
			Port:   7101,
			Action: pfconf.DivertPacket, Divert: netip.AddrPortFrom(netip.Addr{}, 667),
		}, pfconf.Rule{
			Label: label("tcp-rdr"), Direction: pfconf.In, Family: f, Proto: pfconf.TCP, From: local, To: fake,
			Port:   7200,
			Action: pfconf.RdrTo, Divert: netip.AddrPortFrom(remote, 7201),
		}, pfconf.Rule{
			Label: label("udp-rdr"), Direction: pfconf.In, Family: f, Proto: pfconf.UDP, From: local, To: fake,
			Port:   7202,
			Action: pfconf.RdrTo, Divert: netip.AddrPortFrom(remote, 7203),
		}, pfconf.Rule{
			Label: label("packet-both-ways"), Direction: pfconf.In, Family: f, Proto: pfconf.TCP, From: local,
			To: remote, Port: 7102,
			Action: pfconf.DivertPacket, Divert: netip.AddrPortFrom(netip.Addr{}, 668), Both: true,
		}, pfconf.Rule{
			Label: label("packet-out-both-ways"), Direction: pfconf.Out, Family: f, Proto: pfconf.ICMP, From: remote,
			To:     local,
			Action: pfconf.DivertPacket, Divert: netip.AddrPortFrom(netip.Addr{}, 668), Both: true,
		}, pfconf.Rule{
			Label: label("packet-bypassed"), Direction: pfconf.In, Family: f, Proto: pfconf.UDP, From: local,
			To: remote, Port: 7103,
			Action: pfconf.DivertPacket, Divert: netip.AddrPortFrom(netip.Addr{}, 666), Bypass: true,
		})
	}
	return rules
}

// nftRules has those that are made of nftables' statements alone.
func nftRules() []pfconf.Rule {
	var rules []pfconf.Rule
	for _, f := range pfconf.Families {
		local, remote, fake := addr(f, 1, 2), addr(f, 1, 1), addr(f, 2, 9)
		label := func(s string) string { return "regress-" + f.String() + "-" + s }
		rules = append(rules, pfconf.Rule{
			Label: label("tcp-translated"), Direction: pfconf.Out, Family: f, Proto: pfconf.TCP, From: fake, To: local,
			Port:   7204,
			Action: pfconf.DivertReply, Translated: remote,
		})
		rules = append(rules, pfconf.Rule{
			Label: label("redirect"), Direction: pfconf.In, Family: f, Proto: pfconf.TCP, From: local, To: fake,
			Port:   7208,
			Action: pfconf.RdrTo, Divert: netip.AddrPortFrom(f.Unspecified(), 7209),
		})
		for port, change := range map[uint16]func(*pfconf.Rule){
			7205: func(r *pfconf.Rule) { r.Untracked = true },
			7206: func(r *pfconf.Rule) { r.Zone = 7 },
			7207: func(r *pfconf.Rule) { r.Established = true },
			7210: func(r *pfconf.Rule) { r.Direction, r.From, r.To = pfconf.Out, remote, local },
		} {
			r := pfconf.Rule{
				Label: label(fmt.Sprintf("to-%d", port)), Direction: pfconf.In, Family: f, Proto: pfconf.TCP,
				From: local, To: fake, Port: port,
				Action: pfconf.DivertTo, Divert: netip.AddrPortFrom(f.Loopback(), port),
			}
			change(&r)
			rules = append(rules, r)
		}
	}
	return rules
}

// addr is an address of the tests' networks: 10.188.NET.HOST, fd00:188:NET::HOST.
func addr(f pfconf.Family, network, host byte) netip.Addr {
	if f == pfconf.Inet {
		return netip.AddrFrom4([4]byte{10, 188, network, host})
	}
	return netip.AddrFrom16([16]byte{0: 0xfd, 3: 0x88, 2: 0x01, 5: network, 15: host})
}

func testConfig() Config {
	return Config{Interface: "v0", Fakes: []netip.Prefix{
		netip.PrefixFrom(addr(pfconf.Inet, 2, 0), 24),
		netip.PrefixFrom(addr(pfconf.Inet6, 2, 0), 64),
	}}
}

// What Render says is what the kernel has been given, in nft(8)'s words.
func TestRenderIsWhatNftLists(t *testing.T) {
	for _, omit := range [][]Piece{nil, {AnyDirection}} {
		t.Run(fmt.Sprint(omit), func(t *testing.T) { renderAndList(t, omit) })
	}
}

func renderAndList(t *testing.T, omit []Piece) {
	remote := newNamespace(t)
	nft := labtest.Program(t, "nft")
	config := testConfig()
	config.Omit = omit
	f := remote.open(t, config)
	rules := append(everyRule(), nftRules()...)
	if err := f.Load(t.Context(), rules); err != nil {
		t.Fatal(err)
	}
	var listed []byte
	var err error
	remote.do(t, func() {
		listed, err = exec.Command(nft, "list", "table", "inet", TableName).Output()
	})
	if err != nil {
		t.Fatalf("nft list: %v\n%s", err, listed)
	}
	counted := regexp.MustCompile(`packets \d+ bytes \d+`)
	got := counted.ReplaceAllString(string(listed), "packets 0 bytes 0")
	check(t, queueWay().err())
	want := render(rules, config, queueWay().xt)
	// nft before 1.0.7 shows nothing for a target that it has no library for; where iptables is
	// installed it has one.
	target := regexp.MustCompile(`xt target "NFQUEUE"|queue num \d+( bypass)?`)
	got, want = target.ReplaceAllString(got, ""), target.ReplaceAllString(want, "")
	if diff := cmp.Diff(strings.Split(got, "\n"), strings.Split(want, "\n")); diff != "" {
		t.Errorf("nft list (-) and Render (+) differ:\n%s", diff)
	}
}
