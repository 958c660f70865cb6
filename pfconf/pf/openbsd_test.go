package pf

import (
	"net/netip"
	"strings"
	"testing"

	"pfdivert/pfconf"
)

// openbsdRules are rules that only OpenBSD's pf has.
func openbsdRules() []pfconf.Rule {
	fake, own := netip.MustParseAddr("10.188.2.9"), netip.MustParseAddrPort("10.188.1.2:20000")
	in := packet(pfconf.Inet, pfconf.In, 8080, 701)
	in.To = fake
	gateway := netip.MustParseAddr("10.188.3.1")
	make := func(label string, change func(*pfconf.Rule)) pfconf.Rule {
		r := in
		r.Label = "regress-" + label
		change(&r)
		return r
	}
	out := func(r *pfconf.Rule) {
		r.Direction, r.From, r.To, r.Translated = pfconf.Out, own.Addr(), in.From, own.Addr()
	}
	return []pfconf.Rule{
		make("rdr", func(r *pfconf.Rule) { r.Redirected = own }),
		make("match-rdr", func(r *pfconf.Rule) { r.Redirected, r.Match = own, true }),
		make("nat", out),
		make("match-nat", func(r *pfconf.Rule) { out(r); r.Match = true }),
		make("tag", func(r *pfconf.Rule) { r.Tag, r.Match = r.Label, true }),
		make("received", func(r *pfconf.Rule) { r.Received = "pair2" }),
		make("once", func(r *pfconf.Rule) { r.Once = true }),
		make("most", func(r *pfconf.Rule) { r.Most = 1 }),
		make("other", func(r *pfconf.Rule) {
			r.OtherFrom, r.OtherTo = netip.MustParseAddr("fd00:188:1::2"), netip.MustParseAddr("fd00:188:1::1")
		}),
		make("route", func(r *pfconf.Rule) { r.On, r.Gateway, r.Routing = "vio0", gateway, pfconf.RouteTo }),
		make("reply", func(r *pfconf.Rule) { r.Gateway, r.Routing = gateway, pfconf.ReplyTo }),
		make("dup", func(r *pfconf.Rule) { r.On, r.Gateway, r.Routing = "vio0", r.Family.Loopback(), pfconf.DupTo }),
		make("alone", func(r *pfconf.Rule) { r.Gateway, r.Routing, r.Undiverted = gateway, pfconf.ReplyTo, true }),
		make("forwarded", func(r *pfconf.Rule) { r.Proto, r.On = pfconf.TCP, "vio0" }),
		make("to", func(r *pfconf.Rule) {
			r.Action, r.Divert = pfconf.DivertTo, netip.MustParseAddrPort("127.0.0.1:700")
			r.Tag, r.Match, r.Received, r.Once = r.Label, true, "pair2", true
		}),
	}
}

// What only OpenBSD's pf has is written as pf.conf(5) says, a match rule before the rule that it is
// for.
func TestOpenBSDRules(t *testing.T) {
	const want = `pass in log inet proto udp from 10.188.1.1 to 10.188.2.9 port 8080 divert-packet port 701 label regress-rdr rdr-to 10.188.1.2 port 20000
match in inet proto udp from 10.188.1.1 to 10.188.2.9 port 8080 rdr-to 10.188.1.2 port 20000
pass in log inet proto udp from 10.188.1.1 to 10.188.1.2 port 20000 divert-packet port 701 label regress-match-rdr
pass out log inet proto udp from 10.188.1.2 to 10.188.1.1 port 8080 divert-packet port 701 label regress-nat nat-to 10.188.1.2
match out inet proto udp from 10.188.1.2 to 10.188.1.1 port 8080 nat-to 10.188.1.2
pass out log inet proto udp from 10.188.1.2 to 10.188.1.1 port 8080 divert-packet port 701 label regress-match-nat
match in inet proto udp from 10.188.1.1 to 10.188.2.9 port 8080 tag regress-tag
pass in log inet proto udp from 10.188.1.1 to 10.188.2.9 port 8080 divert-packet port 701 label regress-tag tagged regress-tag
pass in log inet proto udp from 10.188.1.1 to 10.188.2.9 port 8080 received-on pair2 divert-packet port 701 label regress-received
pass in log inet proto udp from 10.188.1.1 to 10.188.2.9 port 8080 divert-packet port 701 label regress-once once
pass in log inet proto udp from 10.188.1.1 to 10.188.2.9 port 8080 divert-packet port 701 keep state (max 1) label regress-most
pass in log inet proto udp from 10.188.1.1 to 10.188.2.9 port 8080 divert-packet port 701 label regress-other af-to inet6 from fd00:188:1::2 to fd00:188:1::1
pass in log on vio0 inet proto udp from 10.188.1.1 to 10.188.2.9 port 8080 divert-packet port 701 keep state (if-bound) label regress-route route-to 10.188.3.1
pass in log inet proto udp from 10.188.1.1 to 10.188.2.9 port 8080 divert-packet port 701 label regress-reply reply-to 10.188.3.1
pass in log on vio0 inet proto udp from 10.188.1.1 to 10.188.2.9 port 8080 divert-packet port 701 keep state (if-bound) label regress-dup dup-to 127.0.0.1
pass in log inet proto udp from 10.188.1.1 to 10.188.2.9 port 8080 label regress-alone reply-to 10.188.3.1
pass in log on vio0 inet proto tcp from 10.188.1.1 to 10.188.2.9 port 8080 divert-packet port 701 keep state (if-bound) label regress-forwarded
match in inet proto udp from 10.188.1.1 to 10.188.2.9 port 8080 tag regress-to
pass in log inet proto udp from 10.188.1.1 to 10.188.2.9 port 8080 received-on pair2 divert-to 127.0.0.1 port 700 label regress-to once tagged regress-to
`
	rules := openbsdRules()
	for _, r := range rules {
		if err := r.Validate(); err != nil {
			t.Error(err)
		}
		if !r.OnlyOpenBSD() {
			t.Errorf("%s is taken for a rule of any pf", r.Label)
		}
	}
	if got := document(writings(rules, false)); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

// printedOpenBSD is what OpenBSD 7.7's pfctl -v prints of them.
const printedOpenBSD = `pass in log inet proto udp from 10.188.1.1 to 10.188.2.9 port = 8080 scrub (reassemble tcp) label "regress-rdr" divert-packet port 701 rdr-to 10.188.1.2 port 20000
match in inet proto udp from 10.188.1.1 to 10.188.2.9 port = 8080 rdr-to 10.188.1.2 port 20000
pass in log inet proto udp from 10.188.1.1 to 10.188.1.2 port = 20000 scrub (reassemble tcp) label "regress-match-rdr" divert-packet port 701
pass out log inet proto udp from 10.188.1.2 to 10.188.1.1 port = 8080 scrub (reassemble tcp) label "regress-nat" divert-packet port 701 nat-to 10.188.1.2
match out inet proto udp from 10.188.1.2 to 10.188.1.1 port = 8080 nat-to 10.188.1.2
pass out log inet proto udp from 10.188.1.2 to 10.188.1.1 port = 8080 scrub (reassemble tcp) label "regress-match-nat" divert-packet port 701
match in inet proto udp from 10.188.1.1 to 10.188.2.9 port = 8080 tag regress-tag
pass in log inet proto udp from 10.188.1.1 to 10.188.2.9 port = 8080 scrub (reassemble tcp) label "regress-tag" tagged regress-tag divert-packet port 701
pass in log inet proto udp from 10.188.1.1 to 10.188.2.9 port = 8080 received-on pair2 scrub (reassemble tcp) label "regress-received" divert-packet port 701
pass in log inet proto udp from 10.188.1.1 to 10.188.2.9 port = 8080 scrub (reassemble tcp) label "regress-once" once divert-packet port 701
pass in log inet proto udp from 10.188.1.1 to 10.188.2.9 port = 8080 keep state (max 1) scrub (reassemble tcp) label "regress-most" divert-packet port 701
pass in log inet proto udp from 10.188.1.1 to 10.188.2.9 port = 8080 scrub (reassemble tcp) label "regress-other" divert-packet port 701 af-to inet6 from fd00:188:1::2 to fd00:188:1::1
pass in log on vio0 inet proto udp from 10.188.1.1 to 10.188.2.9 port = 8080 keep state (if-bound) scrub (reassemble tcp) label "regress-route" divert-packet port 701 route-to 10.188.3.1
pass in log inet proto udp from 10.188.1.1 to 10.188.2.9 port = 8080 scrub (reassemble tcp) label "regress-reply" divert-packet port 701 reply-to 10.188.3.1
pass in log on vio0 inet proto udp from 10.188.1.1 to 10.188.2.9 port = 8080 keep state (if-bound) scrub (reassemble tcp) label "regress-dup" divert-packet port 701 dup-to 127.0.0.1
pass in log inet proto udp from 10.188.1.1 to 10.188.2.9 port = 8080 label "regress-alone" reply-to 10.188.3.1
pass in log on vio0 inet proto tcp from 10.188.1.1 to 10.188.2.9 port = 8080 flags S/SA keep state (if-bound) scrub (reassemble tcp) label "regress-forwarded" divert-packet port 701
match in inet proto udp from 10.188.1.1 to 10.188.2.9 port = 8080 tag regress-to
pass in log inet proto udp from 10.188.1.1 to 10.188.2.9 port = 8080 received-on pair2 label "regress-to" once tagged regress-to divert-to 127.0.0.1 port 700
`

// A pf that leaves out of such a rule what it asks for has not understood it.
func TestOpenBSDRulesUnderstood(t *testing.T) {
	given := writings(openbsdRules(), false)
	if err := understood(given, printedOpenBSD); err != nil {
		t.Error(err)
	}
	for _, part := range []string{
		" rdr-to 10.188.1.2 port 20000\nmatch", " rdr-to 10.188.1.2 port 20000\npass", " nat-to 10.188.1.2\nmatch",
		" nat-to 10.188.1.2\npass", " tag regress-tag", " tagged regress-tag", " received-on pair2 scrub",
		" once divert-packet", " keep state (max 1)", " tag regress-to",
		" af-to inet6 from fd00:188:1::2 to fd00:188:1::1", " received-on pair2 label", " once tagged",
		" on vio0", " keep state (if-bound)", " route-to 10.188.3.1", " reply-to 10.188.3.1", " dup-to 127.0.0.1",
		" tagged regress-to", " divert-to 127.0.0.1 port 700",
	} {
		keep := ""
		for _, next := range []string{"\nmatch", "\npass", " scrub", " divert-packet", " label", " tagged"} {
			if strings.HasSuffix(part, next) && part != " tagged"+next {
				keep = next
			}
		}
		if strings.Count(printedOpenBSD, part) == 0 {
			t.Errorf("%q is not printed", part)
		}
		if understood(given, strings.Replace(printedOpenBSD, part, keep, 1)) == nil {
			t.Errorf("without %q the rules are said to be understood", part)
		}
	}
}

// Rules that no pf takes, or that another system's pf would take otherwise.
func TestOpenBSDRulesRefused(t *testing.T) {
	good := openbsdRules()
	rdr, nat, tag, received, other := good[1], good[3], good[4], good[5], good[8]
	route := good[9]
	for name, r := range map[string]pfconf.Rule{
		"match without what it does":   with(received, func(r *pfconf.Rule) { r.Match = true }),
		"match that does two things":   with(rdr, func(r *pfconf.Rule) { r.Tag = "regress-x" }),
		"redirects what leaves":        with(rdr, func(r *pfconf.Rule) { r.Direction = pfconf.Out }),
		"translates what comes in":     with(nat, func(r *pfconf.Rule) { r.Direction = pfconf.In }),
		"a tag that is no label":       with(tag, func(r *pfconf.Rule) { r.Tag = "x y" }),
		"no interface's name":          with(received, func(r *pfconf.Rule) { r.Received = "pair2 quick" }),
		"fewer states than none":       with(received, func(r *pfconf.Rule) { r.Most = -1 }),
		"half an af-to":                with(other, func(r *pfconf.Rule) { r.OtherFrom = netip.Addr{} }),
		"af-to of the same family":     with(other, func(r *pfconf.Rule) { r.OtherTo = r.To }),
		"af-to and rdr-to":             with(other, func(r *pfconf.Rule) { r.Redirected = rdr.Redirected }),
		"a route of the other family":  with(route, func(r *pfconf.Rule) { r.Gateway = other.OtherTo }),
		"a gateway without a way":      with(route, func(r *pfconf.Rule) { r.Routing = 0 }),
		"a gateway's interface":        with(route, func(r *pfconf.Rule) { r.Interface = "pair2" }),
		"an interface that is no name": with(route, func(r *pfconf.Rule) { r.On = "vio0 quick" }),
		"a limit on one interface":     with(route, func(r *pfconf.Rule) { r.Most = 1 }),
		"divert-to without itself":     with(good[len(good)-1], func(r *pfconf.Rule) { r.Undiverted = true }),
		"af-to of what leaves":         with(other, func(r *pfconf.Rule) { r.Direction = pfconf.Out }),
		"divert-reply": with(received, func(r *pfconf.Rule) {
			r.Action, r.Divert = pfconf.DivertReply, netip.AddrPort{}
		}),
		"rdr-to and once": with(received, func(r *pfconf.Rule) {
			r.Action, r.Divert, r.Once = pfconf.RdrTo, rdr.Redirected, true
		}),
	} {
		if r.Validate() == nil {
			t.Errorf("%s: %+v is taken", name, r)
		}
	}
	freebsd := &Firewall{Control: &Control{rdrRules: true}}
	for _, r := range good {
		err := freebsd.Change(t.Context(), []pfconf.Rule{r}, nil)
		if err == nil || !strings.Contains(err.Error(), "OpenBSD") {
			t.Errorf("FreeBSD's pf and %s: %v", r.Label, err)
		}
	}
}

func with(r pfconf.Rule, change func(*pfconf.Rule)) pfconf.Rule {
	change(&r)
	return r
}
