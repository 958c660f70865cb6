package gather

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"pfdivert/matrix/evidence"
	"pfdivert/pfconf/ipfw"
	"pfdivert/pfconf/pf"
	"pfdivert/pfconf/program"
	"pfdivert/pfconf/program/replaytest"
)

func loopback(a netip.Addr) bool { return a.IsLoopback() }

// tell says what a survey found, a line for each.
func tell(s *Survey) []string {
	var all []string
	for _, d := range s.Diversions {
		line := fmt.Sprintf("%s: %v %s %s %v %d %d %s",
			d.Rule, d.Families, d.Proto, d.Kind, d.Address, d.Port, d.Queue, d.Unreached)
		if d.Unseen != "" {
			line += " unseen: " + d.Unseen
		}
		for _, o := range d.Overruled {
			line += fmt.Sprintf(" (%v by %s, %s, before %t, all %t)", o.Family, o.Rule, o.Does, o.Before, o.All)
		}
		all = append(all, line)
	}
	for _, l := range s.Listeners {
		all = append(all, fmt.Sprintf("listens %s %v %t", l.Proto, l.At, l.Only6))
	}
	for _, q := range s.Queues {
		all = append(all, fmt.Sprintf("divert socket %v", q.Local))
	}
	for _, c := range s.Cells {
		all = append(all, fmt.Sprintf("%v %v", c.Family, c.Cell.Answers))
	}
	for _, m := range s.Missing {
		all = append(all, "missing "+m)
	}
	return all
}

func same(t *testing.T, got []string, want string) {
	t.Helper()
	if text := strings.Join(got, "\n"); strings.TrimSpace(text) != strings.TrimSpace(want) {
		t.Errorf("got\n%s\n\nwant\n%s", text, want)
	}
}

func TestSurveyPF(t *testing.T) {
	s := surveyPF(t.Context(), replaytest.Play(t, "testdata/openbsd/survey.txt"), loopback)
	if !s.RulesKnown || s.Firewall != "pf" {
		t.Errorf("%+v", s)
	}
	same(t, tell(s), `
rule 1 of anchor regress: [inet] udp divert invalid IP 0 700  unseen: there are divert sockets, and the system does not show of which port
rule 2 of anchor regress: [inet inet6] udp divert-reply invalid IP 0 0 
a rule within rule 3 of anchor regress: [inet] tcp rdr-to 127.0.0.1 3128 0 
rule 4 of anchor regress: [inet6] tcp divert-to ::1 3128 0 pf looks at nothing on lo0 (set skip on)
rule 5 of anchor regress: [inet] tcp divert-to 127.0.0.1 3128 0  (inet by rule 0 of anchor regress: block drop in quick proto tcp from any to any port = 8080, drops, before true, all true)
rule 0 of anchor other: [inet] tcp divert-to 127.0.0.1 3128 0 no rule that is evaluated calls the anchor other
listens tcp 127.0.0.1:3128 false
listens udp 127.0.0.1:25603 false
listens tcp [::]:22 true
divert socket 0.0.0.0:0
inet [{pfctl -s info Status: Enabled}]
inet6 [{pfctl -s info Status: Enabled}]
missing rule 6 of anchor regress: which addresses <proxies> has is not looked at
missing rule 7 of anchor regress: "bogus rule": "bogus" is no rule's beginning`)
}

func TestSurveyIPFW(t *testing.T) {
	s := surveyFreeBSD(t.Context(), replaytest.Play(t, "testdata/freebsd/survey.txt"), loopback)
	if !s.RulesKnown || s.Firewall != "ipfw" {
		t.Errorf("%+v", s)
	}
	same(t, tell(s), `
rule 00110: [inet6] tcp fwd ::1 3128 0 its set 5 is disabled
rule 00100: [inet] tcp fwd 127.0.0.1 3128 0 
rule 00120: [inet inet6] udp divert invalid IP 0 700 
rule 00130: [inet inet6] udp divert invalid IP 0 701 
listens tcp [::]:3128 false
listens tcp [::]:22 true
divert socket 0.0.0.0:700
inet [{sysctl net.inet.ip.fw.enable net.inet.ip.fw.enable: 1}]
inet6 [{sysctl net.inet6.ip6.fw.enable net.inet6.ip6.fw.enable: 0}]
missing rule 00150: "fwd tablearg ip from any to table(1)": where it leads is not understood: ParseAddr("tablearg"): unable to parse IP
missing rule 00160: "bogus ip from any to any": "bogus" is no known action
missing rule 00000: "bogus": not understood: "bogus"`)
}

// TestSurveyFreeBSDPF: FreeBSD's pf beside ipfw.
func TestSurveyFreeBSDPF(t *testing.T) {
	s := surveyFreeBSD(t.Context(), replaytest.Play(t, "testdata/freebsd/survey-pf.txt"), loopback)
	if !s.RulesKnown {
		t.Errorf("%+v", s)
	}
	for _, d := range s.Diversions {
		if pf := d.Kind == evidence.RdrTo || d.Queue == 700; pf != (d.Firewall == "pf") {
			t.Errorf("%+v", d)
		}
	}
	same(t, tell(s), `
rule 00100: [inet] tcp fwd 127.0.0.1 3128 0 
rule 00110: [inet inet6] udp divert invalid IP 0 701 
rdr rule 1 of the main ruleset: [inet] tcp rdr-to 127.0.0.1 3128 0 
rdr rule 2 of the main ruleset: [inet] tcp rdr-to 127.0.0.1 3128 0 
rdr rule 3 of the main ruleset: [inet6] tcp rdr-to ::1 3128 0 
rdr rule 4 of the main ruleset: [inet] udp rdr-to 127.0.0.1 53 0  (inet by rule 0 of the main ruleset: block drop in on vtnet1 all, drops what was translated, before false, all true)
rdr rule 5 of the main ruleset: [inet] tcp rdr-to 127.0.0.1 0 0  unseen: whether a program listens on each of the ports 3000:3010 is not looked at
rdr rule 0 of anchor regress: [inet] tcp rdr-to 127.0.0.1 3128 0 
rdr rule 8 of the main ruleset: [inet] tcp rdr-to 127.0.0.1 3128 0 
rdr rule 9 of the main ruleset: [inet] tcp rdr-to 127.0.0.1 3129 0  (inet by rdr rule 8 of the main ruleset: rdr on vtnet1 inet proto tcp from any to any port = 81 -> 127.0.0.1 port 3128, passes, before true, all true) (inet by rule 0 of the main ruleset: block drop in on vtnet1 all, drops what was translated, before false, all true)
rdr rule 0 of anchor lost: [inet] tcp rdr-to 127.0.0.1 3191 0 no rule that is evaluated calls the anchor lost
rule 4 of the main ruleset: [inet] udp divert invalid IP 0 700 
listens tcp 127.0.0.1:3128 false
listens tcp 0.0.0.0:22 false
listens udp 0.0.0.0:514 false
listens tcp [::]:22 true
listens udp [::]:514 true
inet [{sysctl net.inet.ip.fw.enable net.inet.ip.fw.enable: 1}]
inet6 [{sysctl net.inet6.ip6.fw.enable net.inet6.ip6.fw.enable: 1}]
inet [{pfctl -s info Status: Enabled}]
inet6 [{pfctl -s info Status: Enabled}]`)
}

// TestSurveyFreeBSD15: what FreeBSD 15 prints, and what its pf spoils.
func TestSurveyFreeBSD15(t *testing.T) {
	own := func(a netip.Addr) bool { return a.IsLoopback() || a == netip.MustParseAddr("10.188.1.2") }
	s := surveyFreeBSD(t.Context(), replaytest.Play(t, "testdata/freebsd/survey-15.txt"), own)
	same(t, tell(s), `
rule 00100: [inet inet6] udp divert invalid IP 0 701  (inet by , has pf forget that ipfw has diverted the packet, before false, all true) (inet6 by , has pf forget that ipfw has diverted the packet, before false, all true)
rule 00110: [inet inet6] udp divert invalid IP 0 702 
rule 00120: [inet] tcp fwd 127.0.0.1 3128 0 
rdr rule 1 of the main ruleset: [inet] udp rdr-to 10.188.1.2 9000 0 
rdr rule 2 of the main ruleset: [inet] tcp rdr-to invalid IP 8080 0 
rdr rule 0 of anchor proxy/one: [inet] tcp rdr-to 127.0.0.1 8000 0 no rule that is evaluated calls the anchor proxy/one
rule 1 of the main ruleset: [inet inet6] udp divert invalid IP 0 7000  (inet by what rdr rule 1 of the main ruleset has translated and this one keeps state for is not delivered when it is reinjected (state-insert counts it), is lost when the packet was diverted, before false, all false)
rule 2 of the main ruleset: [inet inet6] udp divert invalid IP 0 7001  (inet by rule 1 of the main ruleset: pass in quick on vtnet0 proto udp from any to any port = 9000 keep state label "t" ridentifier 1234 divert-to 7000, passes, before true, all true) (inet6 by rule 1 of the main ruleset: pass in quick on vtnet0 proto udp from any to any port = 9000 keep state label "t" ridentifier 1234 divert-to 7000, passes, before true, all true)
rule 3 of the main ruleset: [inet] udp divert invalid IP 0 7000  (inet by its route-to has no effect on what is reinjected, which leaves by the routing table and without the tag, is lost when the packet was diverted, before false, all true)
rule 4 of the main ruleset: [inet] udp divert invalid IP 0 7000  (inet by its tag T has no effect on what is reinjected, which leaves by the routing table and without the tag, is lost when the packet was diverted, before false, all true)
rule 5 of the main ruleset: [inet] udp divert invalid IP 0 7000 there is no interface or group vtnet9
listens tcp 127.0.0.1:3128 false
divert socket 0.0.0.0:0
divert socket 0.0.0.0:701
divert socket 0.0.0.0:7000
inet [{sysctl net.inet.ip.fw.enable net.inet.ip.fw.enable: 1}]
inet6 [{sysctl net.inet6.ip6.fw.enable net.inet6.ip6.fw.enable: 1}]
inet [{pfctl -s info Status: Enabled}]
inet6 [{pfctl -s info Status: Enabled}]`)
}

// Without ipfw pf's rules are all.
func TestSurveyPFAlone(t *testing.T) {
	replay := replaytest.Play(t, "testdata/freebsd/survey-pf.txt")
	run := func(ctx context.Context, c program.Command) (program.Output, error) {
		r, err := replay(ctx, c)
		if c.Argv[0] == "ipfw" {
			r = program.Output{Stderr: "ipfw: retrieving config failed: Protocol not available\n", Status: 71}
		}
		return r, err
	}
	s := surveyFreeBSD(t.Context(), run, loopback)
	if _, err := run(t.Context(), program.Command{Argv: []string{"sysctl", "net.inet.ip.fw.enable"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := run(t.Context(), program.Command{Argv: []string{"sysctl", "net.inet6.ip6.fw.enable"}}); err != nil {
		t.Fatal(err)
	}
	if !s.RulesKnown || len(s.Diversions) == 0 ||
		slices.ContainsFunc(s.Missing, func(m string) bool { return strings.Contains(m, "ipfw") }) {
		t.Errorf("%+v", s)
	}
}

// Without the right to read rules nothing is known, and nothing is said to be fine.
func TestSurveyDenied(t *testing.T) {
	run := func(context.Context, program.Command) (program.Output, error) {
		return program.Output{Stderr: "pfctl: /dev/pf: Permission denied\n", Status: 1}, nil
	}
	for _, s := range []*Survey{surveyPF(t.Context(), run, loopback), surveyFreeBSD(t.Context(), run, loopback)} {
		if s.RulesKnown || s.Listeners != nil || !s.QueuesUnknown || len(s.Missing) < 2 ||
			!strings.Contains(s.Missing[0], "Permission denied") {
			t.Errorf("%+v", s)
		}
	}
}

// TestOverrule: which rules decide in place of one that diverts.
func TestOverrule(t *testing.T) {
	const divert = "pass in on vio1 inet proto tcp from any to any port = 80 flags S/SA divert-to 127.0.0.1 port 3128"
	const quick = "pass in quick on vio1 inet proto tcp from any to any port = 80 flags S/SA divert-to 127.0.0.1 port 3128"
	const wide = "pass in quick on vio1 inet proto tcp from any to any flags S/SA divert-to 127.0.0.1 port 3128"
	const match = "match in on vio1 inet proto tcp from any to any port = 80 rdr-to 127.0.0.1 port 3128"
	const fwd = "fwd 127.0.0.1,3128 tcp from any to any 80 in via em0"
	const socket = "divert 700 tcp from any to any in via em0"
	const all, some, none = "all", "some", ""
	for _, c := range []struct{ rules, want string }{
		{divert, none},
		{"pass all flags S/SA\n" + divert, none}, // the last decides
		{divert + "\npass all flags S/SA", all},
		{quick + "\npass all flags S/SA", none},
		{"block drop all\n" + quick, none},
		{"block drop quick all\n" + quick, all},
		{"block return in quick on vio1 all\n" + divert, all},
		{"block drop in quick on vio2 all\n" + divert, none},
		{"block drop in quick on egress all\n" + divert, none},
		{"block drop in quick on ! vio1 all\n" + divert, none},
		{"block drop in quick inet6 all\n" + divert, none},
		{"block drop out quick all\n" + divert, none},
		{"block drop in quick proto udp all\n" + divert, none},
		{"block drop in quick proto tcp from any to any port = 25\n" + divert, none},
		{"block drop in quick proto tcp from any to any port 1:1024\n" + divert, all},
		{"block drop in quick proto tcp from any to any port 81:1024\n" + divert, none},
		{"block drop in quick proto tcp from any to any port = 25\n" + wide, some},
		{"block drop in quick proto tcp from <bad> to any port = 25\n" + wide, none},
		{"pass in quick proto tcp from any to any port = 25\n" + wide, none},
		{wide + "\nblock drop in proto tcp from any to any port = 25", none},
		{"block drop in quick from <bad> to any\n" + divert, none},
		{"block drop in quick from ! 10.0.0.0/8 to any\n" + divert, none},
		{"block drop in quick all probability 50%\n" + divert, none},
		{"match in all scrub (no-df)\n" + divert, none},
		{"anchor in on vio1 all {\n  block drop quick all\n}\n" + divert, none},
		{"anchor all {\n  block drop quick all\n}\n" + divert, all},
		{match + "\nblock drop all", all},
		{match + "\nblock drop in proto tcp from any to any port = 80", none}, // it has another port then
		{match + "\nblock drop all\npass in proto tcp from any to 127.0.0.1 port = 3128", none},
		{match + "\npass all", none},
		{"anchor quick all {\n  block drop quick all\n}\n" + divert, none},
		{"block drop all\n" + match, all}, // nothing behind it decides about what it has translated
		{"block drop all\n" + match + "\npass in proto tcp from any to 127.0.0.1 port = 3128", none},
		{"block drop in from <bad> to any\n" + match, none},
		{"pass all\n" + match, none},
		{divert + "\npass in inet proto tcp from 10.0.0.0/8 to any port = 80", some}, // for part of the clients
		{divert + "\nblock drop in from <bad> to any", none},
		{divert + "\npass in inet proto tcp from 10.0.0.0/8 to any port = 81", none},
		{"block drop in log quick inet proto tcp from any port = 0 to any\n" + wide, none},
		{"block drop in log quick inet proto tcp from any to any port = 0\n" + wide, none},
		{strings.Replace(divert, " flags", " user = 0 flags", 1), some},
		{"pass in new option all\n" + divert, none},

		{fwd, none},
		{fwd + "\ndeny ip from any to any", none},
		{"deny ip from any to any\n" + fwd, all},
		{"unreach port tcp from any to any dst-port 80\n" + fwd, all},
		{"allow log logamount 5 tcp from any to any 80 in recv em0 setup keep-state :default\n" + fwd, all},
		{"prob 0.5 deny ip from any to any\n" + fwd, none},
		{"deny ip from any to any frag\n" + fwd, none},
		{"deny ip6 from any to any\n" + fwd, none},
		{"deny ip from any to me6\n" + fwd, none},
		{"deny ip from me to any\n" + fwd, none},
		{"deny ip from any to any not via em0\n" + fwd, none},
		{"deny { tcp or udp } from any to any\n" + fwd, none},
		{"deny 254 from any to any\n" + fwd, none},
		{"check-state :default\n" + fwd, none},
		{"count ip from any to any\n" + fwd, none},
		{"skipto 100 ip from any to any\n" + fwd, none},
		{"skipto 65000 ip from any to any\n" + fwd, all},
		{"allow tcp from any to any established\n" + fwd, all},
		{"allow tcp from any to any established\n" + socket, some},
		{"allow tcp from any to any setup\n" + fwd, all},
		{"allow tcp from any to any 22 established\n" + fwd, none},
		{"nat 1 ip from any to any via em0\n" + fwd, all}, // net.inet.ip.fw.one_pass is 1
		{"pipe 1 ip from any to any in\n" + socket, none},
		{"allow tcp from me to any out setup keep-state :default\ndivert 700 tcp from any to any in via em0", some},
		{"allow udp from me to any out keep-state :default\n" + socket, none},
		{"allow tcp from me to any out setup keep-state :default\n" + fwd, none},
		{"allow tcp from any to me 22 in setup keep-state :default\n" + socket, none},
	} {
		s := &Survey{}
		if strings.Contains(c.rules, fwd) || strings.Contains(c.rules, "divert 700") {
			var lines []string
			for line := range strings.Lines(c.rules) {
				lines = append(lines, "00100 set 0 "+line)
			}
			s.ipfwRules(ipfw.ParseHostRules(strings.Join(lines, "")), !strings.HasPrefix(c.rules, "pipe"), loopback)
		} else {
			o := s.newOrder(false, loopback)
			o.sets[""] = pf.ParseHostRules(c.rules)
			o.follow("")
			overrule(o.all)
			s.pfDiversions(o)
		}
		for _, m := range s.Missing {
			if !strings.Contains(m, "with quick") && !strings.Contains(c.rules, "new option") {
				t.Errorf("%s: %s", c.rules, m)
			}
		}
		got := none
		for _, d := range s.Diversions {
			for _, o := range d.Overruled {
				if got = some; o.All {
					got = all
					break
				}
			}
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.rules, got, c.want)
		}
	}
}

// TestTranslated: FreeBSD's translation rules, and which rules of the filter drop what they made.
func TestTranslated(t *testing.T) {
	const rdr = "rdr on vtnet1 inet proto tcp from any to any port = 80 -> 127.0.0.1 port 3128"
	const own = "pass in on vtnet1 inet proto tcp from any to 127.0.0.1 port = 3128 flags S/SA keep state"
	for _, c := range []struct {
		rdr, filter string
		want        string // "", "blocked", or what is wrong with the line
	}{
		{rdr, "", ""},
		{rdr, "pass all flags S/SA keep state", ""},
		{rdr, "block drop all", "blocked"},
		{rdr, "block drop in on vtnet0 all", ""},
		{rdr, "block drop in inet6 all", ""},
		{rdr, "block drop out all", ""},
		{rdr, "block drop in proto tcp from any to any port = 80", ""}, // it has another port then
		{rdr, "block drop in quick proto tcp from any to any port = 3128\n" + own, "blocked"},
		{rdr, "block drop all\n" + own, ""},
		{rdr, own + "\nblock drop all", "blocked"},
		{rdr, "block drop all\npass in proto tcp from <clients> to 127.0.0.1 port = 3128", ""},
		{rdr, "block drop all\npass in on vtnet1 inet proto tcp from any to any port 3000:4000", ""},
		{rdr, "block drop all\npass in on vtnet1 route-to (vtnet1 10.0.0.1) inet proto tcp from any to any port = 3128", ""},
		{strings.Replace(rdr, "rdr", "rdr pass", 1), "block drop all", ""},
		{strings.Replace(rdr, "rdr", "rdr pass log (all)", 1), "block drop all", ""},
		{strings.Replace(rdr, " port 3128", "", 1), "block drop in proto tcp from any to any port = 80", "blocked"},
		{"rdr on ! vtnet1 inet proto tcp from ! 10.0.0.0/8 to any port 80:90 tagged X -> 127.0.0.1 port 3128", "", ""},
		{"rdr on vtnet1 inet all -> 127.0.0.1", "", ""},
		{"rdr on vtnet1 inet proto tcp from any to any port = 80 -> <proxies> port 3128 round-robin", "", "which addresses"},
		{"rdr on vtnet1 inet proto tcp from any to any -> (vtnet0) port 3128", "", ""},
		{"rdr on vtnet1", "", "no addresses"},
		{"translate all", "", "no rule's beginning"},
	} {
		s := &Survey{}
		filter, first := s.newOrder(false, loopback), s.newOrder(true, loopback)
		filter.sets[""], first.sets[""] = pf.ParseHostRules(c.filter), pf.ParseHostRules(c.rdr)
		filter.follow("")
		first.follow("")
		missing := strings.Join(s.Missing, "\n")
		if c.want != "" && c.want != "blocked" {
			if !strings.Contains(missing, c.want) {
				t.Errorf("%s: %q", c.rdr, missing)
			}
			continue
		}
		if missing != "" || len(first.all) != 1 || len(first.all[0].diverts) != 1 {
			t.Errorf("%s: %s, %+v", c.rdr, missing, first.all)
			continue
		}
		r := first.all[0]
		d := r.diverts[0]
		if !r.through {
			blocked(d, r.Packets, nil, filter.all)
		}
		if got := len(d.Overruled) > 0; got != (c.want == "blocked") || got && d.Overruled[0].Does != evidence.Refuses {
			t.Errorf("%s\n%s: %+v", c.rdr, c.filter, d.Overruled)
		}
	}
}

// TestPFRules reads rules of all kinds as OpenBSD 7.7 prints them (pfctl -nvf).
func TestPFRules(t *testing.T) {
	for file, want := range map[string]string{"rules.txt": `
rule 13 of the main ruleset: [inet] tcp divert-to 127.0.0.1 8025 0 
rule 15 of the main ruleset: [inet] tcp divert-to 127.0.0.1 3128 0 
rule 16 of the main ruleset: [inet] tcp divert-to 127.0.0.1 3128 0 
rule 17 of the main ruleset: [inet] tcp divert-to 127.0.0.1 3128 0 
rule 18 of the main ruleset: [inet] tcp divert-to 127.0.0.1 3128 0 
rule 19 of the main ruleset: [inet6] tcp divert-to ::1 3128 0 
rule 20 of the main ruleset: [inet inet6] tcp divert-reply invalid IP 0 0 
rule 21 of the main ruleset: [inet] tcp rdr-to 127.0.0.1 8443 0 
rule 22 of the main ruleset: [inet] udp rdr-to 127.0.0.1 53 0 
rule 24 of the main ruleset: [inet] udp divert invalid IP 0 700 
rule 26 of the main ruleset: [inet] icmp divert invalid IP 0 701 
rule 30 of the main ruleset: [inet] tcp divert-to 10.188.1.2 3128 0 
rule 33 of the main ruleset: [inet] tcp divert-to 127.0.0.1 3128 0 
rule 34 of the main ruleset: [inet] tcp divert-to 127.0.0.1 3128 0 
a rule within rule 36 of the main ruleset: [inet] tcp divert-to 127.0.0.1 3128 0 
missing rule 31 of the main ruleset: which addresses <__automatic_0> has is not looked at
missing rule 32 of the main ruleset: which addresses <proxies> has is not looked at
missing a rule within rule 36 of the main ruleset: it calls an anchor with quick, whose rules are not compared with others`, "rules-match.txt": `
rule 0 of the main ruleset: [inet] tcp rdr-to 127.0.0.1 3128 0 
rule 1 of the main ruleset: [inet] tcp rdr-to 127.0.0.1 3129 0 
rule 4 of the main ruleset: [inet] tcp divert-to 127.0.0.1 3128 0 
rule 5 of the main ruleset: [inet] tcp divert-to 127.0.0.1 3128 0  unseen: who listens in routing domain 1 is not looked at
rule 6 of the main ruleset: [inet] tcp divert-to 127.0.0.1 3128 0  unseen: who listens in routing domain 1 is not looked at
rule 7 of the main ruleset: [inet] tcp divert-to 127.0.0.1 3128 0 
rule 8 of the main ruleset: [inet] tcp divert-to 127.0.0.1 3128 0 
rule 9 of the main ruleset: [inet] tcp divert-to 127.0.0.1 3128 0 
rule 10 of the main ruleset: [inet] tcp divert-to 127.0.0.1 3128 0 
rule 11 of the main ruleset: [inet] tcp divert-to 127.0.0.1 3128 0 
rule 12 of the main ruleset: [inet] tcp divert-to 127.0.0.1 3128 0 
rule 13 of the main ruleset: [inet] tcp divert-to 127.0.0.1 3128 0 
rule 14 of the main ruleset: [inet] tcp divert-to 127.0.0.1 3128 0 `} {
		text, err := os.ReadFile("testdata/openbsd/" + file)
		if err != nil {
			t.Fatal(err)
		}
		s := &Survey{}
		o := s.newOrder(false, loopback)
		o.sets[""] = pf.ParseHostRules(string(text))
		o.follow("")
		overrule(o.all)
		s.pfDiversions(o)
		s.unseenSockets()
		same(t, tell(s), want)
	}
}

// TestCalledAnchors: which anchors a rule calls (pf.conf(5)).
func TestCalledAnchors(t *testing.T) {
	sets := map[string][]pf.HostRule{"a": nil, "a/b": nil, "a/c": nil, "a/b/d": nil, "e": nil}
	o := &pfOrder{sets: sets, miss: func(string, error) {}}
	for _, c := range []struct{ at, name, want string }{
		{"", "a", "a"}, {"", "a/*", "a/b a/c"}, {"", "*", "a e"}, {"a", "*", "a/b a/c"}, {"a", "b", "a/b"}, {"a",
			"/e", "e"}, {"a", "../e", ""},
	} {
		if got := strings.Join(o.called(c.at, c.name), " "); got != c.want {
			t.Errorf("%q at %q: %q, want %q", c.name, c.at, got, c.want)
		}
	}
}

// FuzzSurvey: rules that no one could have loaded are read without harm, and none is passed
// over in silence.
func FuzzSurvey(f *testing.F) {
	f.Add("pass in on vio1 inet proto tcp from any to any port = 80 divert-to 127.0.0.1 port 3128\nanchor \"*\" all {\n  block all\n}\n")
	f.Add("00100 set 0 fwd 127.0.0.1,3128 tcp from any to any 80 in via em0\n")
	f.Add("anchor \"a\" all\n}\npass (\n")
	f.Fuzz(func(t *testing.T, text string) {
		s := &Survey{}
		rules := pf.ParseHostRules(text)
		for _, rdr := range []bool{false, true} {
			o := s.newOrder(rdr, loopback)
			o.sets["a"], o.sets["a/a"] = rules[:min(len(rules), 20)], rules
			o.follow("a")
			overrule(o.all)
			lostByDivert(o.all, o.all)
			s.pfDiversions(o)
		}
		s.ipfwRules(ipfw.ParseHostRules(text), true, loopback)
	})
}
