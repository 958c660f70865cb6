package pf

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"pfdivert/pfconf"
	"pfdivert/pfconf/program"
)

var (
	local, remote, fake = netip.MustParseAddr("10.188.1.1"), netip.MustParseAddr("10.188.1.2"),
		netip.MustParseAddr("10.188.2.9")
	local6, remote6, fake6 = netip.MustParseAddr("fd00:188:1::1"), netip.MustParseAddr("fd00:188:1::2"),
		netip.MustParseAddr("fd00:188:2::9")
)

func to(f pfconf.Family, p pfconf.Proto, port, divert uint16) pfconf.Rule {
	r := pfconf.Rule{Label: "regress", Direction: pfconf.In, Family: f, Proto: p, From: local, To: fake, Port: port,
		Action: pfconf.DivertTo, Divert: netip.AddrPortFrom(f.Loopback(), divert)}
	if f == pfconf.Inet6 {
		r.From, r.To = local6, fake6
	}
	return r
}

func reply(f pfconf.Family, p pfconf.Proto, port uint16) pfconf.Rule {
	r := pfconf.Rule{Label: "regress", Direction: pfconf.Out, Family: f, Proto: p, From: fake, To: local, Port: port,
		Action: pfconf.DivertReply}
	if f == pfconf.Inet6 {
		r.From, r.To = fake6, local6
	}
	return r
}

func packet(f pfconf.Family, d pfconf.Direction, port, divert uint16) pfconf.Rule {
	r := pfconf.Rule{Label: "regress", Direction: d, Family: f, Proto: pfconf.UDP, From: local, To: remote, Port: port,
		Action: pfconf.DivertPacket, Divert: netip.AddrPortFrom(netip.Addr{}, divert)}
	if f == pfconf.Inet6 {
		r.From, r.To = local6, remote6
	}
	if d == pfconf.Out {
		r.From, r.To = r.To, r.From
	}
	return r
}

// TestRules proves that rules are written as those that OpenBSD's pfctl took, and
// that we know what it prints for them.
func TestRules(t *testing.T) {
	const v4, v6 = pfconf.Inet, pfconf.Inet6
	rules := []pfconf.Rule{
		to(v4, pfconf.TCP, 4000, 5000), to(v6, pfconf.TCP, 4000, 5000),
		to(v4, pfconf.UDP, 4000, 5000), to(v6, pfconf.UDP, 4000, 5000),
		to(v4, pfconf.Raw, 0, 1), to(v6, pfconf.Raw, 0, 1),
		to(v4, pfconf.ICMP, 0, 1), to(v6, pfconf.ICMP, 0, 77),
		reply(v4, pfconf.TCP, 4000), reply(v6, pfconf.UDP, 4000),
		reply(v4, pfconf.Raw, 0), reply(v4, pfconf.ICMP, 0),
		packet(v4, pfconf.In, 4000, 666), packet(v6, pfconf.Out, 4000, 666),
	}
	golden := goldenLines(t, "testdata/rules.txt")
	if len(golden) != 2*len(rules) {
		t.Fatalf("%d golden lines for %d rules", len(golden), len(rules))
	}
	var printed strings.Builder
	for i, r := range rules {
		if err := r.Validate(); err != nil {
			t.Error(err)
		}
		if got, want := Text(r), golden[2*i]; got != want {
			t.Errorf("written:\n%s\nwant\n%s", got, want)
		}
		printed.WriteString(golden[2*i+1] + "\n")
	}
	if err := understood(writings(rules, false), printed.String()); err != nil {
		t.Error(err)
	}
	if err := understood(writings(rules[:13], false), printed.String()); err == nil {
		t.Error("a rule too many was not noticed")
	}
	rules[3], rules[4] = rules[4], rules[3]
	if err := understood(writings(rules, false), printed.String()); err == nil {
		t.Error("rules in another order were not noticed")
	}
}

func TestDocument(t *testing.T) {
	if got := document(nil); got != "\n" {
		t.Errorf("no rules: %q", got)
	}
	got := document(writings([]pfconf.Rule{reply(pfconf.Inet6, pfconf.ICMP, 0), to(pfconf.Inet, pfconf.Raw, 0, 5000)},
		false))
	want := "pass out log inet6 proto icmp6 from fd00:188:2::9 to fd00:188:1::1 divert-reply label regress\n" +
		"pass in log inet proto 254 from 10.188.1.1 to 10.188.2.9 divert-to 127.0.0.1 port 1 label regress\n"
	if got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

// goldenLines returns the lines of a file without comments.
func goldenLines(t testing.TB, name string) []string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, l := range program.Lines(string(b)) {
		if !strings.HasPrefix(l, "#") {
			lines = append(lines, l)
		}
	}
	return lines
}
