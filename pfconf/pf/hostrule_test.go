package pf

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pfdivert/pfconf"
	"pfdivert/pfconf/program"
)

// TestHostRulesRead: every rule that a pfctl was seen to print is understood, and none any more
// when a word is added to it. The files are output of FreeBSD 15.1 and of OpenBSD 7.7-current.
func TestHostRulesRead(t *testing.T) {
	files, err := filepath.Glob("testdata/hostrules/*.txt")
	if err != nil || len(files) < 4 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		each(ParseHostRules(string(text)), func(r HostRule) {
			n++
			if r.Err != nil {
				t.Errorf("%s: %s: %v", file, r.Text, r.Err)
			}
			if r := parseHostRule(r.Text + " bogus"); r.Err == nil {
				t.Errorf("%s: understood: %s", file, r.Text)
			}
		})
		lines := 0
		for _, line := range program.Lines(string(text)) {
			if strings.TrimSpace(line) != "}" {
				lines++
			}
		}
		if n != lines {
			t.Errorf("%s: %d rules in %d lines", file, n, lines)
		}
	}
}

// each calls f for all rules, those in braces too.
func each(rules []HostRule, f func(HostRule)) {
	for _, r := range rules {
		f(r)
		each(r.Inner, f)
	}
}

// tell says what was read of a rule.
func tell(r HostRule) string {
	var b strings.Builder
	put := func(name string, value any) {
		if text := fmt.Sprint(value); text != "" && text != "0" && text != "[]" && text != "false" && text != "<nil>" {
			fmt.Fprintf(&b, " %s=%s", name, text)
		}
	}
	b.WriteString(r.Action)
	put("no", r.No)
	put("pass", r.Pass)
	put("anchor", r.Anchor)
	if r.Direction != 0 {
		put("dir", r.Direction)
	}
	put("quick", r.Quick)
	put("on", r.Interface)
	put("domain", r.Domain)
	put("route", r.Route)
	put("af", r.Families)
	put("proto", r.Proto)
	side := func(name string, s pfconf.Side) {
		if s.Not {
			name += "!"
		}
		put(name, s.Text)
	}
	side("from", r.From)
	side("to", r.To)
	put("sport", r.From.Ports)
	put("dport", r.To.Ports)
	put("if", r.Conditions)
	put("state", r.State)
	put("tag", r.Tag)
	put("rtable", r.Table)
	for _, x := range []*Destination{r.Divert, r.Translate} {
		if x != nil {
			put("target", *x)
		}
	}
	put("error", r.Err)
	return b.String()
}

// TestHostRule has each part that print_rule can print, of both systems.
func TestHostRule(t *testing.T) {
	for line, want := range map[string]string{
		"pass all no state": "pass state=no",
		"block return-icmp(port-unr, port-unr) in log (all, to pflog1) quick on ! lo0 inet6 from fd00::/8 to any": "block dir=in quick=true on=!lo0 af=[inet6] from=fd00::/8",
		"block return-rst(ttl 5) out on egress proto tcp from any to ! <t> port 1 >< 9":                           "block dir=out on=egress proto=6 to!=<t> dport=[{2 8}]",
		"pass on rdomain 1 all flags any":                         "pass domain=1",
		"pass on ! rdomain 1 proto 253 all":                       "pass domain=! 1 proto=253",
		"pass proto udp from any port != 53 to any port 60 <> 70": "pass proto=17 sport=[{0 52} {54 65535}] dport=[{0 59} {71 65535}]",
		"pass proto udp from any port <= 53 to any port >= 60000": "pass proto=17 sport=[{0 53}] dport=[{60000 65535}]",
		"pass proto udp from any port < 0 to any port > 65534":    "pass proto=17 dport=[{65535 65535}] if=[port < 0]",
		"pass proto udp from any port = 0 to any port 20:30":      "pass proto=17 sport=[{0 0}] dport=[{20 30}]",
		"pass proto tcp from any to any port = http":              "pass proto=6 if=[port = http]",
		"pass from 10.0.0.1 - 10.0.0.9 to (em0:network)/24":       "pass from=10.0.0.1 - 10.0.0.9 to=(em0:network)/24",
		"pass from route \"x\" to no-route":                       "",
		"pass inet proto icmp all icmp-type echoreq code 0 tos 0x10 prio 3 max-pkt-rate 10/1 max-pkt-size 100 probability 50% user != unknown group 5 >< 9 fragment allow-opts": "pass af=[inet] proto=1 if=[icmp-type echoreq code 0 tos 0x10 prio 3 max-pkt-rate 10/1 max-pkt-size 100 probability 50% user != unknown group 5 >< 9 fragment]",
		"pass proto tcp from any os \"OpenBSD 3.3\" to any flags /FSRPAU": "pass proto=6 if=[os \"OpenBSD 3.3\" flags /FSRPAU]",
		"pass all received-on em0 keep state (max 1, source-track rule, overload <bad> flush global, tcp.established 60) label \"a b\" label \"c\" ridentifier 7 dnqueue(5, 6) queue(q, p) tag X ! tagged Y rtable 2": "pass if=[received-on em0 ! tagged Y] state=keep tag=X rtable=2",
		"pass all !received-on em0 set (prio(3, 5), queue(a, b), tos 0x10, delay 5) modulate state":                                                                                                                   "pass if=[!received-on em0] state=modulate",
		"match in all scrub (no-df random-id min-ttl 5 reassemble tcp max-mss 1400)":                                                                                                                                  "match dir=in",
		"match in all scrub( no-df min-ttl 5 set-tos 0x10)":                                                                                                                                                           "match dir=in",
		"scrub in on em0 all no-df min-ttl 5 max-mss 9 set-tos 0x10 reassemble tcp fragment no reassemble":                                                                                                            "scrub dir=in on=em0",
		"no scrub in on lo0 all": "scrub no=true dir=in on=lo0",
		"pass in quick on em0 reply-to { (em0 10.0.0.1), (em1 fd00::1) } round-robin sticky-address inet all flags S/SA keep state once": "pass dir=in quick=true on=em0 route=reply-to af=[inet] if=[once] state=keep",
		"pass in on em0 route-to em1 inet all":                                                               "pass dir=in on=em0 route=route-to af=[inet]",
		"pass in inet all dup-to 10.0.0.1@em1 least-states":                                                  "pass dir=in route=dup-to af=[inet]",
		"pass in inet all divert-to 127.0.0.1 port 80":                                                       "pass dir=in af=[inet] target={divert-to [127.0.0.1] 80 80}",
		"pass in inet all divert-to 8000":                                                                    "pass dir=in af=[inet] target={divert-to [] 8000 8000}",
		"pass out inet all divert-reply":                                                                     "pass dir=out af=[inet] target={divert-reply [] 0 0}",
		"pass inet all divert-packet port 7":                                                                 "pass af=[inet] target={divert-packet [] 7 7}",
		"pass in inet all divert-to 8000 rdr-to { 10.0.0.1, (em0:0) } port 80:89 source-hash 0x1234":         "pass dir=in af=[inet] target={divert-to [] 8000 8000} target={rdr-to [10.0.0.1 (em0:0)] 80 89}",
		"pass in inet6 all af-to inet from 10.0.0.1 to 10.0.0.2 port 9":                                      "pass dir=in af=[inet6] target={af-to [10.0.0.2] 9 9}",
		"match out inet all nat-to 10.0.0.1 - 10.0.0.9 port 1024:2048 random sticky-address static-port":     "match dir=out af=[inet] target={nat-to [10.0.0.1 - 10.0.0.9] 1024 2048}",
		"nat pass log on em0 inet from any to any tag T -> <pool> map-e-portset 6/8/52 endpoint-independent": "nat pass=true on=em0 af=[inet] tag=T target={-> [<pool>] 0 0}",
		"no rdr on em0 all":                       "rdr no=true on=em0",
		"rdr pass inet all -> 127.0.0.1 port 80":  "rdr pass=true af=[inet] target={-> [127.0.0.1] 80 80}",
		"anchor in on em0 all":                    "anchor dir=in on=em0",
		"rdr-anchor \"a/*\" on em0 proto tcp all": "rdr-anchor anchor=a/* on=em0 proto=6",
		// Not understood.
		"":                         "x",
		"ether pass in all":        "x",
		"pass in":                  "x",
		"pass on":                  "x",
		"pass proto nosuch all":    "x",
		"pass from any":            "x",
		"pass all flags S/SA new":  "x",
		"pass all label":           "x",
		"pass all divert ???":      "x",
		"pass all divert-packet 7": "x",
		"pass all divert-to 127.0.0.1 port 70000": "x",
		"pass all rdr-to { 127.0.0.1":             "x",
		"pass all rdr-to":                         "x",
		"pass proto tcp from any port to any":     "x",
		"pass all label \"a":                      "x",
		"pass all (":                              "x",
		"pass all (max 1)":                        "x",
		"pass all ! tag X":                        "x",
	} {
		r := parseHostRule(line)
		switch {
		case want == "x":
			if r.Err == nil {
				t.Errorf("%q was understood: %s", line, tell(r))
			}
		case want == "":
			if r.Err != nil {
				t.Errorf("%q: %v", line, r.Err)
			}
		case tell(r) != want:
			t.Errorf("%s\n\tgot  %s\n\twant %s", line, tell(r), want)
		}
	}
}

// TestBraces: rules in braces belong to the rule before them; braces that are not paired are told.
func TestBraces(t *testing.T) {
	rules := ParseHostRules("anchor \"a\" all {\n  pass all\n  anchor all {\n    block all\n  }\n}\npass all\n")
	if len(rules) != 2 || len(rules[0].Inner) != 2 || len(rules[0].Inner[1].Inner) != 1 || rules[0].Err != nil {
		t.Errorf("%+v", rules)
	}
	for _, bad := range []string{"anchor all {\n  pass all\n", "}\n", "pass all {\n  pass all\n}\n",
		strings.Repeat("anchor all {\n", 40)} {
		found := false
		each(ParseHostRules(bad), func(r HostRule) { found = found || r.Err != nil })
		if !found {
			t.Errorf("%q was understood", bad)
		}
	}
}

// FuzzHostRules: whatever is printed is read without harm, and no line is passed over in silence.
func FuzzHostRules(f *testing.F) {
	files, _ := filepath.Glob("testdata/hostrules/*.txt")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for _, line := range program.Lines(string(text)) {
			f.Add(line)
		}
	}
	f.Add("anchor all {\n}\n}\npass (\n")
	flow := pfconf.PacketsOf(to(pfconf.Inet, pfconf.TCP, 4000, 5000), "vio0")
	f.Fuzz(func(t *testing.T, text string) {
		rules := ParseHostRules(text)
		n := 0
		each(rules, func(r HostRule) {
			n++
			if r.Err == nil && r.Covers(flow) && r.Apart(flow) {
				t.Errorf("%q has all of the flow and nothing of it", r.Text)
			}
		})
		lines := 0
		for _, line := range program.Lines(text) {
			if strings.TrimSpace(line) != "}" {
				lines++
			}
		}
		if n < lines {
			t.Errorf("%q: %d rules of %d lines", text, n, lines)
		}
		(&MainRuleset{rules: rules}).Reach("regress", to(pfconf.Inet, pfconf.TCP, 4000, 5000), "vio0")
	})
}
