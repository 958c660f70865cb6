package ipfw

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"pfdivert/pfconf"
	"pfdivert/pfconf/program"
)

// hostRule reads a rule without its number.
func hostRule(text string) HostRule { return ParseHostRules("00100 set 0 " + text)[0] }

// TestHostRulesRead: every rule that FreeBSD 15.1 was seen to print is understood, and none any
// more when a word is added to it.
func TestHostRulesRead(t *testing.T) {
	text, err := os.ReadFile("testdata/hostrules/freebsd-15.1.txt")
	if err != nil {
		t.Fatal(err)
	}
	rules := ParseHostRules(string(text))
	if len(rules) != len(program.Lines(string(text))) || len(rules) < 60 {
		t.Errorf("%d rules", len(rules))
	}
	for _, r := range rules {
		if r.Err != nil {
			t.Errorf("%s: %v", r.Text, r.Err)
		}
		if r := hostRule(r.Text + " bogus"); r.Err == nil && r.Action != "check-state" {
			t.Errorf("understood: %s", r.Text)
		}
	}
}

func tell(r HostRule) string {
	var b strings.Builder
	put := func(name string, value any) {
		if text := fmt.Sprint(value); text != "" && text != "0" && text != "[]" {
			fmt.Fprintf(&b, " %s=%s", name, text)
		}
	}
	b.WriteString(r.Action)
	put("arg", r.Argument)
	put("af", r.Families)
	put("proto", r.Proto)
	if r.Direction != 0 {
		put("dir", r.Direction)
	}
	put("nic", r.Interface)
	for _, s := range []struct {
		name string
		pfconf.Side
	}{{"from", r.From}, {"to", r.To}} {
		if s.Not {
			s.name += "!"
		}
		put(s.name, s.Text)
		put(s.name[:1]+"ports", s.Ports)
	}
	put("state", r.State)
	put("if", r.Conditions)
	return b.String()
}

// TestHostRule has each part that show_static_rule can print.
func TestHostRule(t *testing.T) {
	for text, want := range map[string]string{
		"allow ip from any to any":                                                    "allow",
		"deny log logamount 5 ip4 from not me to any via em0 // a // b":               "deny af=[inet] nic=em0 from!=me",
		"prob 0.250000 unreach port udp from any to any 9":                            "unreach arg=port proto=17 tports=[{9 9}] if=[prob 0.250000]",
		"fwd 127.0.0.1,3128 tcp from 10.0.0.1,10.0.0.2 to any 80,443-444 in recv em0": "fwd arg=127.0.0.1,3128 proto=6 dir=in nic=em0 from=10.0.0.1,10.0.0.2 tports=[{80 80} {443 444}]",
		"fwd tablearg tcp from any to table(fw) in":                                   "fwd arg=tablearg proto=6 dir=in to=table(fw)",
		"divert 700 udp from any to { 10.0.0.1 or 10.0.0.2 } out xmit em0":            "divert arg=700 proto=17 dir=out nic=em0 to=10.0.0.1,10.0.0.2",
		"divert 700 udp from any to { 10.0.0.1 or table(a) } in":                      "divert arg=700 proto=17 dir=in to={ 10.0.0.1 or table(a) }",
		"tee 701 { udp or tcp } from any to 10.0.0.0/24{1,3-5}":                       "tee arg=701 to=10.0.0.0/24{1,3-5} if=[{ udp or tcp }]",
		"allow not icmp from any not 25 to any not 80-90":                             "allow if=[not icmp not 25 not 80-90]",
		"allow tcp from any src-port 25 to any dst-port 80":                           "allow proto=6 fports=[{25 25}] tports=[{80 80}]",
		"allow tcp from any to me6 setup keep-state :flow":                            "allow af=[inet6] proto=6 to=me6 state=keep-state if=[setup]",
		"allow udp from any to any set-limit src-addr 3 :default":                     "allow proto=17 state=set-limit",
		"allow tcp from any to any limit src-addr dst-port 2 :default out":            "allow proto=6 dir=out state=limit",
		"allow tcp from any to any established":                                       "allow proto=6 if=[established]",
		"check-state :default":                                                        "check-state arg=:default",
		"check-state":                                                                 "check-state",
		"return next-rulenum proto ip":                                                "return arg=next-rulenum",
		"allow ip from any to any frag !mf,offset":                                    "allow if=[frag !mf,offset]",
		"allow ip from any to any frag in":                                            "allow dir=in if=[frag]",
		"allow ip from any to any out recv em1 xmit em0":                              "allow dir=out nic=em0 if=[recv em1]",
		"allow ip from any to any not recv em0":                                       "allow if=[not recv em0]",
		"allow ip from any to any recv vt*":                                           "allow dir=in if=[interface vt*]",
		"allow ip from any to any via any":                                            "allow",
		"allow ip from any to any MAC any 00:11:22:33:44:55 layer2":                   "allow if=[MAC any 00:11:22:33:44:55 layer2]",
		"allow ip from any to any { src-ip 10.0.0.1 or dst-ip 10.0.0.2 } in":          "allow dir=in if=[{ src-ip 10.0.0.1 or dst-ip 10.0.0.2 }]",
		"setmark 0x10:0xff ip from any to any mark 0x10:0xff proto tcp":               "setmark arg=0x10:0xff proto=6 if=[mark 0x10:0xff]",
		"allow ip from any to any src-ip 10.0.0.1 dst-port 80 lookup uid t":           "allow from=10.0.0.1 tports=[{80 80}] if=[lookup uid t]",
		"count tag 7 altq q ip6 from any to any tagged 6 uid root icmptypes 0,8":      "count af=[inet6] if=[tagged 6 uid root icmptypes 0,8]",
		// Not understood.
		"":                                    "x",
		"bogus ip from any to any":            "x",
		"allow nosuch from any to any":        "x",
		"allow ip from any":                   "x",
		"allow ip from":                       "x",
		"allow ip from any to any bogus":      "x",
		"allow ip from any to any 80-x":       "x",
		"allow ip from any to { 10.0.0.1 or":  "x",
		"allow ip from any to any not bogus":  "x",
		"allow ip from any to any dst-port x": "x",
	} {
		r := hostRule(text)
		switch {
		case want == "x":
			if r.Err == nil {
				t.Errorf("%q was understood: %s", text, tell(r))
			}
		case r.Err != nil:
			t.Errorf("%q: %v", text, r.Err)
		case tell(r) != want:
			t.Errorf("%s\n\tgot  %s\n\twant %s", text, tell(r), want)
		}
	}
	r := ParseHostRules("# DISABLED 00600 set 9 count ip from any to any // x\n")[0]
	if r.Number != 600 || r.Set != 9 || !r.Disabled || r.Text != "count ip from any to any" {
		t.Errorf("%+v", r)
	}
}

// TestDefaultRules: FreeBSD 15 has two, and neither is one of the host's own.
func TestDefaultRules(t *testing.T) {
	const two = "65535 0 0 set 31 count ip from any to any not // orphaned dynamic states counter\n65535 404791 82371040 set 31 deny ip from any to any\n"
	for listing, want := range map[string]Status{
		two:                                      {Rules: 0, DeniesAll: true},
		strings.Replace(two, "deny", "allow", 1): {Rules: 0},
		"00100 1 1 set 0 allow ip from any to any\n" + two: {Rules: 1},
		"65535 1 1 set 31 deny ip from any to any\n":       {Rules: 0, DeniesAll: true},
		"65535 1 1 set 0 allow ip from any to any\n" + two: {Rules: 1},
	} {
		run := func(_ context.Context, c program.Command) (program.Output, error) {
			if c.Argv[1] == "set" {
				return program.Output{Stdout: "enable 0 1 2 3\n"}, nil
			}
			return program.Output{Stdout: listing}, nil
		}
		h, err := NewControl(run).Look(t.Context(), nil)
		if err != nil || h.Rules != want.Rules || h.DeniesAll != want.DeniesAll {
			t.Errorf("%s: %+v, %v", listing, h, err)
		}
	}
}

// FuzzHostRules: whatever is printed is read without harm, and no line is passed over.
func FuzzHostRules(f *testing.F) {
	text, err := os.ReadFile("testdata/hostrules/freebsd-15.1.txt")
	if err != nil {
		f.Fatal(err)
	}
	for _, line := range program.Lines(string(text)) {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, out string) {
		if rules := ParseHostRules(out); len(rules) != len(program.Lines(out)) {
			t.Errorf("%q: %d rules", out, len(rules))
		}
	})
}
