package pf

import (
	"reflect"
	"strings"
	"testing"

	"pfdivert/pfconf"
)

// TestStatus asks as a check of the host's setup does; the answers are in
// testdata/replay/setup.txt.
func TestStatus(t *testing.T) {
	ctx := t.Context()
	c := NewControl(play(t, "setup"), 0)
	for _, want := range []Status{{Enabled: true, States: 27}, {Enabled: false, States: 27},
		{Enabled: true, States: 10}} {
		if got, err := c.Status(ctx); err != nil || got != want {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	}
	m, err := c.MainRuleset(ctx)
	if err != nil {
		t.Fatal(err)
	}
	want := Reach{Calls: []string{`anchor "regress" all`}}
	if got := m.Reach("regress", to(pfconf.Inet, pfconf.TCP, 1, 1), ""); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	skipped, err := c.Skipped(ctx)
	if want := []string{"lo", "lo0"}; err != nil || !reflect.DeepEqual(skipped, want) {
		t.Errorf("skipped: got %q, %v, want %q", skipped, err, want)
	}
	if _, err := c.Status(ctx); err == nil {
		t.Error("an answer without a status was understood")
	}
}

// TestReach proves which rules of a main ruleset lead to the anchor's rules, and
// which may decide instead of them.
func TestReach(t *testing.T) {
	tcp, tcp6 := to(pfconf.Inet, pfconf.TCP, 4000, 5000), to(pfconf.Inet6, pfconf.TCP, 4000, 5000)
	out := reply(pfconf.Inet, pfconf.Raw, 0)
	echo6 := reply(pfconf.Inet6, pfconf.ICMP, 0)
	for _, tt := range []struct {
		main   string
		anchor string
		rule   pfconf.Rule
		want   string // "calls|children|decides|may", each separated by ;
	}{
		{"pass all flags S/SA", "regress", tcp, "|||"},
		{"pass all flags S/SA\nanchor \"regress\" all\nanchor \"regress/*\" all", "regress", tcp,
			`anchor "regress" all|anchor "regress/*" all||`},
		{"anchor \"regress/*\" all", "regress", tcp, `|anchor "regress/*" all||`},
		{"anchor \"regress/*\" all", "regress/a", tcp, `anchor "regress/*" all|||`},
		{"anchor \"*\" all", "regress", tcp, `anchor "*" all|||`},
		{"anchor \"*\" all", "regress/a", tcp, `|||`},
		{"anchor \"/regress\" all", "regress", tcp, `anchor "/regress" all|||`},
		{"anchor \"regress\" out inet proto tcp all", "regress", tcp, `|||`},
		{"anchor \"regress\" in on vio0 inet proto tcp from any to any", "regress", tcp,
			`anchor "regress" in on vio0 inet proto tcp from any to any|||`},
		{"anchor \"regress\" in on vio1 inet proto tcp from any to any", "regress", tcp, `|||`},
		// The last rule that matches decides.
		{"anchor \"regress\" all\npass all flags S/SA", "regress", tcp, `anchor "regress" all||pass all flags S/SA|`},
		{"anchor \"regress\" quick all\npass all flags S/SA", "regress", tcp, `anchor "regress" quick all|||`},
		{"anchor \"regress\" all\nmatch in all scrub (no-df)", "regress", tcp, `anchor "regress" all|||`},
		{"scrub in all fragment reassemble\npass all flags S/SA keep state\nanchor \"regress\" all", "regress", tcp, `anchor "regress" all|||`},
		{"anchor \"regress\" all\nblock return in on ! lo0 proto tcp from any to any port 6000:6010", "regress", tcp, `anchor "regress" all|||`},
		{"anchor \"regress\" all\nblock return in on ! lo0 proto tcp from any to any port 3000:6010", "regress", tcp,
			`anchor "regress" all||block return in on ! lo0 proto tcp from any to any port 3000:6010|`},
		{"anchor \"regress\" all\nblock return-icmp(port-unr, port-unr) in log (all, to pflog1) quick inet proto udp all", "regress", tcp, `anchor "regress" all|||`},
		// Before it, quick rules do.
		{"block drop in quick all\nanchor \"regress\" all", "regress", tcp,
			`anchor "regress" all||block drop in quick all|`},
		{"block drop in quick all\nanchor \"regress\" all", "regress", out, `anchor "regress" all|||`},
		{"pass quick inet6 proto ipv6-icmp all\npass quick inet proto 254 all no state\nanchor \"regress\" all", "regress", out,
			`anchor "regress" all||pass quick inet proto 254 all no state|`},
		{"pass quick inet6 proto ipv6-icmp all\nanchor \"regress\" all", "regress", echo6,
			`anchor "regress" all||pass quick inet6 proto ipv6-icmp all|`},
		{"pass in quick inet from 10.188.0.0/16 to any flags S/SA\nanchor \"regress\" all", "regress", tcp,
			`anchor "regress" all||pass in quick inet from 10.188.0.0/16 to any flags S/SA|`},
		{"pass in quick inet from 10.189.0.0/16 to any flags S/SA\nanchor \"regress\" all", "regress", tcp, `anchor "regress" all|||`},
		{"pass in quick inet from ! 10.188.1.1 to any flags S/SA\nanchor \"regress\" all", "regress", tcp, `anchor "regress" all|||`},
		{"pass in quick from <friends> to (vio0) port = 22 flags S/SA\nanchor \"regress\" all", "regress", tcp, `anchor "regress" all|||`},
		// What packets the rule matches is not known.
		{"pass in quick from <friends> to (vio0) flags S/SA\nanchor \"regress\" all", "regress", tcp6,
			`anchor "regress" all|||pass in quick from <friends> to (vio0) flags S/SA`},
		{"anchor in on rdomain 1 all {\n  pass in quick all flags S/SA\n}\nanchor \"regress\" all", "regress", tcp,
			`anchor "regress" all|||pass in quick all flags S/SA`},
		{"anchor in all {\n  pass in quick all flags S/SA\n}\nanchor \"regress\" all", "regress", tcp,
			`anchor "regress" all||pass in quick all flags S/SA|`},
		{"anchor in quick all {\n  pass in all flags S/SA\n}\nanchor \"regress\" all", "regress", tcp,
			`anchor "regress" all||pass in all flags S/SA|`},
		{"anchor \"ftp-proxy/*\" quick all\nanchor \"regress\" all", "regress", tcp,
			`anchor "regress" all|||anchor "ftp-proxy/*" quick all`},
		{"pass something new all\nanchor \"regress\" all", "regress", tcp,
			`anchor "regress" all|||pass something new all`},
		{"pass quick all user = 0 flags S/SA\nanchor \"regress\" all", "regress", tcp,
			`anchor "regress" all|||pass quick all user = 0 flags S/SA`},
		{"pass quick on ! rdomain 1 all flags S/SA\nanchor \"regress\" all", "regress", tcp,
			`anchor "regress" all|||pass quick on ! rdomain 1 all flags S/SA`},
		// antispoof, and packets that routing would not send back (issue 14).
		{"block drop in quick on ! vio0 inet from 10.188.1.0/24 to any\nblock drop in quick inet from 10.188.1.2 to any\nanchor \"regress\" all", "regress", tcp, `anchor "regress" all|||`},
		{"block drop in quick from urpf-failed to any\nanchor \"regress\" all", "regress", tcp,
			`anchor "regress" all|||block drop in quick from urpf-failed to any`},
	} {
		m := &MainRuleset{rules: ParseHostRules(tt.main)}
		r := m.Reach(tt.anchor, tt.rule, "vio0")
		got := strings.Join([]string{strings.Join(r.Calls, ";"), strings.Join(r.Children, ";"),
			strings.Join(r.Decides, ";"), strings.Join(r.May, ";")}, "|")
		if got != tt.want {
			t.Errorf("%s\n\tto %s in %s\n\tgot  %s\n\twant %s", tt.main, Text(tt.rule), tt.anchor, got, tt.want)
		}
	}
}

// TestTranslates: rules that certainly change the source of what leaves are named, others are not.
func TestTranslates(t *testing.T) {
	out := reply(pfconf.Inet, pfconf.TCP, 4000)
	for _, c := range []struct {
		main string
		want int
	}{
		{`match out on vio0 inet all nat-to (vio0)`, 1},
		{`match out on vio0 inet from ! 10.188.2.0/24 to any nat-to (vio0)`, 0},
		{`match out on vio1 inet all nat-to (vio1)`, 0},
		{`match out on vio0 inet proto udp all nat-to (vio0)`, 0},
		{`match out on vio0 inet from <inside> to any nat-to (vio0)`, 0},
		{`match in on vio0 inet all rdr-to 127.0.0.1`, 0},
	} {
		m := &MainRuleset{rules: ParseHostRules(c.main + "\nanchor \"regress\" all")}
		if got := m.Reach("regress", out, "vio0").Translates; len(got) != c.want {
			t.Errorf("%s: %q", c.main, got)
		}
	}
}

// TestParseLabels has lines of OpenBSD 7.7-current, of divert-packet among them, and
// of FreeBSD 12.1-STABLE.
func TestParseLabels(t *testing.T) {
	got, err := parseLabels("regress 16 8 450 5 275 3 175 1\nregress-x 13 0 0 0 0 0 0 1\n" +
		"a b:c/d-any-0 0 0 0 0 0 0 0 0\nregress-tcp4 79 9 543 4 269 5 274 1\nregress-tcp4 1 2 0 0 0 0 0 3\n")
	want := map[string]pfconf.Counters{
		"regress": {Matched: 8, Done: 8, States: 1}, "regress-x": {States: 1}, "a b:c/d-any-0": {},
		"regress-tcp4": {Matched: 11, Done: 11, States: 4},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for _, bad := range []string{"regress 1 2 3", "1 2 3 4 5 6 7 8", "regress 1 2 3 4 5 6 7 x",
		"anchor \"run1\" all {"} {
		if got, err := parseLabels(bad); err == nil {
			t.Errorf("%q was understood: %v", bad, got)
		}
	}
}
