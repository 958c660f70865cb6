package pf

import (
	"context"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pfdivert/pfconf"
	"pfdivert/pfconf/program"
)

func besides(f pfconf.Family, d pfconf.Direction, port, divert uint16, label string) pfconf.Rule {
	r := packet(f, d, port, divert)
	r.Action, r.Label = pfconf.PFDivertTo, label
	return r
}

// openFreeBSD opens the anchor of FreeBSD's pf.
func openFreeBSD(t *testing.T, name string) (*Firewall, *[]pfconf.Undo) {
	t.Helper()
	return openWith(t, name, Config{RdrRules: true})
}

// What FreeBSD's pf diverts itself: its rules are taken as they are meant, states that would hide
// packets from them go before, and the anchor is empty after.
func TestPacketDivertOfFreeBSD(t *testing.T) {
	f, undos := openFreeBSD(t, "freebsd-divert")
	ctx := t.Context()
	rules := []pfconf.Rule{
		besides(pfconf.Inet, pfconf.In, 20000, 701, "regress-x"),
		besides(pfconf.Inet6, pfconf.Out, 20001, 702, "regress-y"),
	}
	if err := f.Forget(ctx, rules); err != nil {
		t.Error(err)
	}
	if err := f.Change(ctx, rules, nil); err != nil {
		t.Error(err)
	}
	if len(*undos) != 2 {
		t.Errorf("%d undos are recorded", len(*undos))
	}
	if err := f.Close(ctx); err != nil {
		t.Error(err)
	}
}

// A pf that keeps states for such a rule, or takes it for a divert-to of a socket, has not
// understood it.
func TestPacketDivertMisunderstood(t *testing.T) {
	rules := []pfconf.Rule{besides(pfconf.Inet, pfconf.In, 20000, 701, "regress-x")}
	const begin = `pass in log quick inet proto udp from 10.188.1.1 to 10.188.1.2 port = 20000 `
	for _, c := range []struct {
		end  string
		good bool
	}{
		{`no state label "regress-x" divert-to 701`, true},
		{`keep state label "regress-x" divert-to 701`, false},
		{`no state label "regress-x" divert-to 127.0.0.1 port 701`, false},
		{`no state label "regress-x" divert-to 1701`, false},
		{`no state label "regress-y" divert-to 701`, false},
	} {
		if err := understood(writings(rules, true), begin+c.end+"\n"); (err == nil) != c.good {
			t.Errorf("%s: %v", c.end, err)
		}
	}
}

// What is redirected and diverted is two rules too. The second has no tag: what is reinjected has
// none.
func TestRedirectedDivert(t *testing.T) {
	r := besides(pfconf.Inet, pfconf.In, 8080, 701, "regress-x")
	r.To, r.Keep, r.Redirected = netip.MustParseAddr("10.188.2.9"), true, netip.MustParseAddrPort("10.188.1.2:20000")
	if err := r.Validate(); err != nil {
		t.Fatal(err)
	}
	rules := writings([]pfconf.Rule{r}, true)
	const given = `rdr inet proto udp from 10.188.1.1 to 10.188.2.9 port 8080 tag regress-x -> 10.188.1.2 port 20000
pass in log quick inet proto udp from 10.188.1.1 to 10.188.1.2 port 20000 divert-to 127.0.0.1 port 701 keep state label regress-x
`
	if got := document(rules); got != given {
		t.Errorf("%s\nwant\n%s", got, given)
	}
	const (
		rdr  = "rdr inet proto udp from 10.188.1.1 to 10.188.2.9 port = http-alt tag regress-x -> 10.188.1.2 port 20000\n"
		pass = `pass in log quick inet proto udp from 10.188.1.1 to 10.188.1.2 port = 20000 `
	)
	for end, good := range map[string]bool{
		`keep state label "regress-x" divert-to 701`:                  true,
		`no state label "regress-x" divert-to 701`:                    false,
		`keep state label "regress-x"`:                                false,
		`keep state label "regress-x" divert-to 702`:                  false,
		`keep state label "regress-y" tagged regress-x divert-to 701`: false,
	} {
		if err := understood(rules, rdr+pass+end+"\n"); (err == nil) != good {
			t.Errorf("%s: %v", end, err)
		}
	}
	for _, wrong := range []func(*pfconf.Rule){
		func(r *pfconf.Rule) { r.Keep = false },
		func(r *pfconf.Rule) { r.Direction = pfconf.Out },
		func(r *pfconf.Rule) { r.Redirected = netip.MustParseAddrPort("[fd00::1]:20000") },
		func(r *pfconf.Rule) { r.Action = pfconf.DivertPacket },
		func(r *pfconf.Rule) { r.Action, r.Redirected = pfconf.DivertPacket, netip.AddrPort{} },
	} {
		bad := r
		if wrong(&bad); bad.Validate() == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}

// What is tagged, sent on by a gateway or translated, and the rules that count what leaves.
func TestTagsAndRoutes(t *testing.T) {
	tags := besides(pfconf.Inet, pfconf.In, 8080, 701, "regress-t")
	tags.Keep, tags.Tag = true, "regress-t"
	routes := besides(pfconf.Inet, pfconf.In, 8080, 702, "regress-r")
	routes.Keep, routes.Gateway, routes.Interface = true, netip.MustParseAddr("10.188.3.1"), "epair1b"
	routes.Routing = pfconf.RouteTo
	replies, copies := routes, routes
	replies.Label, replies.Routing = "regress-p", pfconf.ReplyTo
	copies.Label, copies.Routing, copies.Gateway, copies.Interface, copies.On = "regress-c", pfconf.DupTo,
		pfconf.Inet.Loopback(), "lo0", "epair0b"
	leaves := pfconf.Rule{Label: "regress-l", Direction: pfconf.Out, Family: pfconf.Inet, Proto: pfconf.UDP,
		From: tags.From, To: tags.To, Port: 8080, Action: pfconf.PFPass, Interface: "epair0b"}
	tagged := leaves
	tagged.Label, tagged.Tag = "regress-y", "regress-t"
	nat := besides(pfconf.Inet, pfconf.Out, 8080, 703, "regress-n")
	nat.From, nat.To, nat.Keep, nat.Translated = tags.To, tags.From, true, tags.To
	all := []pfconf.Rule{tags, routes, tagged, leaves, nat, replies, copies}
	for _, r := range all {
		if err := r.Validate(); err != nil {
			t.Error(err)
		}
	}
	const flow = "inet proto udp from 10.188.1.1 to 10.188.1.2 port 8080"
	const back = "inet proto udp from 10.188.1.2 to 10.188.1.1 port 8080"
	const want = "pass in log quick " + flow + " divert-to 127.0.0.1 port 701 keep state label regress-t tag regress-t\n" +
		"pass in log quick route-to (epair1b 10.188.3.1) " + flow +
		" divert-to 127.0.0.1 port 702 keep state label regress-r\n" +
		"pass out log quick on epair0b " + flow + " no state label regress-y tagged regress-t\n" +
		"pass out log quick on epair0b " + flow + " no state label regress-l\n" +
		"pass out log quick " + back + " divert-to 127.0.0.1 port 703 keep state label regress-n nat-to 10.188.1.2\n" +
		"pass in log quick reply-to (epair1b 10.188.3.1) " + flow +
		" divert-to 127.0.0.1 port 702 keep state label regress-p\n" +
		"pass in log quick on epair0b dup-to (lo0 127.0.0.1) " + flow +
		" divert-to 127.0.0.1 port 702 keep state (if-bound) label regress-c\n"
	given := writings(all, true)
	if got := document(given); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	// As pfctl of FreeBSD 15.0 prints them.
	const printed = "inet proto udp from 10.188.1.1 to 10.188.1.2 port = http-alt"
	lines := []string{
		"pass in log quick " + printed + ` keep state label "regress-t" tag regress-t divert-to 701`,
		"pass in log quick route-to (epair1b 10.188.3.1) " + printed + ` keep state label "regress-r" divert-to 702`,
		"pass out log quick on epair0b " + printed + ` no state label "regress-y" tagged regress-t`,
		"pass out log quick on epair0b " + printed + ` no state label "regress-l"`,
		"pass out log quick inet proto udp from 10.188.1.2 to 10.188.1.1 port = http-alt" +
			` keep state label "regress-n" divert-to 703 nat-to 10.188.1.2`,
		"pass in log quick reply-to (epair1b 10.188.3.1) " + printed + ` keep state label "regress-p" divert-to 702`,
		"pass in log quick on epair0b dup-to (lo0 127.0.0.1) " + printed +
			` keep state (if-bound) label "regress-c" divert-to 702`,
	}
	if err := understood(given, strings.Join(lines, "\n")+"\n"); err != nil {
		t.Error(err)
	}
	for i, wrong := range []struct{ was, is string }{
		{" tag regress-t", ""}, {"(epair1b 10.188.3.1)", "(epair1b 10.188.3.2)"}, {" tagged regress-t", ""},
		{"epair0b", "epair1b"}, {" nat-to 10.188.1.2", " nat-to 10.188.1.3"},
		{"reply-to", "route-to"}, {" (if-bound)", ""},
	} {
		misread := slices.Clone(lines)
		misread[i] = strings.Replace(lines[i], wrong.was, wrong.is, 1)
		if understood(given, strings.Join(misread, "\n")+"\n") == nil {
			t.Errorf("%q is taken", misread[i])
		}
	}
	for _, wrong := range []func(*pfconf.Rule){
		func(r *pfconf.Rule) { r.Interface = "epair0b quick" },
		func(r *pfconf.Rule) { r.Interface = "" },
		func(r *pfconf.Rule) { r.Tag = "x" },
		func(r *pfconf.Rule) { r.Direction = pfconf.In },
		func(r *pfconf.Rule) { r.Gateway = netip.MustParseAddr("10.188.3.1") },
		func(r *pfconf.Rule) { *r = routes; r.Interface = "" },
		func(r *pfconf.Rule) { *r = routes; r.Gateway = netip.MustParseAddr("fd00::1") },
		func(r *pfconf.Rule) { *r = routes; r.Routing = 0 },
		func(r *pfconf.Rule) { *r = tags; r.Routing = pfconf.DupTo },
		func(r *pfconf.Rule) { *r = copies; r.On = "epair0b quick" },
		func(r *pfconf.Rule) { *r = tags; r.On = "em0" },
		func(r *pfconf.Rule) { *r = tags; r.Keep = false },
		func(r *pfconf.Rule) { *r = tags; r.Interface = "em0" },
		func(r *pfconf.Rule) { *r = nat; r.Keep = false },
		func(r *pfconf.Rule) { *r = nat; r.Direction = pfconf.In },
		func(r *pfconf.Rule) { *r = nat; r.Translated = netip.MustParseAddr("fd00::1") },
	} {
		bad := tagged
		if wrong(&bad); bad.Validate() == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}

// An anchor that nothing calls any more is empty.
func TestAbsentOnFreeBSD(t *testing.T) {
	c := NewControl(play(t, "freebsd-absent"), 0)
	if text, err := c.content(t.Context(), "regress"); text != "" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
}

func redirects(f pfconf.Family, p pfconf.Proto, port, divert uint16, label string) pfconf.Rule {
	r := to(f, p, port, divert)
	r.Action, r.Label = pfconf.RdrTo, label
	r.Divert = netip.AddrPortFrom(packet(f, pfconf.In, port, divert).To, divert)
	return r
}

// What FreeBSD's pf redirects: each rule is two there, of which the second counts and shows with
// the first; a state that hides a flow goes before, not one that a rule of the host has translated;
// both lists are empty after.
func TestRedirectOfFreeBSD(t *testing.T) {
	f, undos := openFreeBSD(t, "freebsd-rdr")
	ctx := t.Context()
	rules := []pfconf.Rule{
		redirects(pfconf.Inet, pfconf.TCP, 8080, 20000, "regress-x"),
		redirects(pfconf.Inet6, pfconf.UDP, 8081, 20001, "regress-y"),
	}
	if err := f.Forget(ctx, rules); err != nil {
		t.Error(err)
	}
	if err := f.Change(ctx, rules, nil); err != nil {
		t.Fatal(err)
	}
	if want := []pfconf.Undo{
		{Do: "pf/anchor", Args: []string{"regress", "0", "", "rdr"}},
		{Do: "pf/labels", Args: []string{"0", "regress-x", "regress-y"}},
	}; !reflect.DeepEqual(*undos, want) {
		t.Errorf("journal: %q", *undos)
	}
	counted, err := f.Counters(ctx, []string{"regress-x", "regress-y"})
	want := map[string]pfconf.Counters{"regress-x": {Matched: 5, Done: 5, States: 1}, "regress-y": {}}
	if err != nil || !reflect.DeepEqual(counted, want) {
		t.Errorf("counters: %+v, %v", counted, err)
	}
	shown, err := f.Show(ctx, []string{"regress-x"})
	for _, part := range []string{"-> 10.188.1.2 port 20000\n", "Packets: 5 ", "tagged regress-x\n", "Packets: 9 "} {
		if err != nil || !strings.Contains(shown["regress-x"], part) {
			t.Errorf("%q, %v: there is no %q", shown, err, part)
		}
	}
	if err := f.Close(ctx); err != nil {
		t.Error(err)
	}
}

// Of a redirection both rules must be understood.
func TestRedirectMisunderstood(t *testing.T) {
	rules := writings([]pfconf.Rule{redirects(pfconf.Inet, pfconf.TCP, 8080, 20000, "regress-x")}, true)
	const (
		rdr  = `rdr inet proto tcp from 10.188.1.1 to 10.188.2.9 port = http-alt tag regress-x -> 10.188.1.2 port 20000`
		pass = `pass in log quick inet proto tcp from 10.188.1.1 to 10.188.1.2 port = 20000 flags S/SA keep state label "regress-x" tagged regress-x`
	)
	for _, c := range []struct {
		printed string
		good    bool
	}{
		{rdr + "\n" + pass + "\n", true},
		{rdr + "\n", false},
		{pass + "\n" + rdr + "\n", false},
		{strings.Replace(rdr, "port 20000", "port 20001", 1) + "\n" + pass + "\n", false},
		{rdr + "\n" + strings.Replace(pass, "keep", "no", 1) + "\n", false},
		{rdr + "\n" + strings.Replace(pass, "tagged regress-x", "tagged regress-y", 1) + "\n", false},
	} {
		if err := understood(rules, c.printed); (err == nil) != c.good {
			t.Errorf("%s: %v", c.printed, err)
		}
	}
}

// What a killed agent left of both lists is undone, and what was there before put back.
func TestMendRedirect(t *testing.T) {
	const former = "rdr on vtnet1 inet proto tcp from any to any port = http -> 127.0.0.1 port 8080\n" +
		"pass in quick on vtnet1 inet proto tcp from any to 127.0.0.1 port = http-alt flags S/SA keep state\n"
	u := pfconf.Undo{Do: UndoAnchor, Args: []string{"regress", "0", former, withRdr}}
	if err := Restore(t.Context(), play(t, "freebsd-rdr-mend"), u); err != nil {
		t.Error(err)
	}
}

// TestRestoreLabels: the states of labels that are in no anchor any more are removed, and only of
// this program's.
func TestRestoreLabels(t *testing.T) {
	var killed []string
	run := func(_ context.Context, c program.Command) (program.Output, error) {
		killed = append(killed, strings.Join(c.Argv, " "))
		return program.Output{Stderr: "killed 1 states\n"}, nil
	}
	if err := Restore(t.Context(), run, pfconf.Undo{Do: UndoLabels,
		Args: []string{"0", "regress-x", "regress-y"}}); err != nil {
		t.Error(err)
	}
	if want := []string{"pfctl -k label -k regress-x", "pfctl -k label -k regress-y"}; !slices.Equal(killed, want) {
		t.Errorf("%q", killed)
	}
	for _, bad := range [][]string{nil, {"0"}, {"x", "regress-x"}, {"0", "other"}} {
		if err := Restore(t.Context(), run, pfconf.Undo{Do: UndoLabels, Args: bad}); err == nil {
			t.Errorf("%q was undone", bad)
		}
	}
}

// Which rules of FreeBSD's main ruleset lead to the anchor's rdr rules, or decide before them.
func TestReachOfRedirects(t *testing.T) {
	flow := redirects(pfconf.Inet, pfconf.TCP, 8080, 20000, "regress-x")
	const anchor = `rdr-anchor "regress" all`
	for _, c := range []struct{ main, want string }{
		{"nat-anchor \"regress\" all\n" + anchor, anchor + "|"},
		{"nat on vtnet0 inet from 10.0.0.0/8 to any -> (vtnet0) round-robin\n" + anchor, anchor + "|"},
		{"nat-anchor \"regress\" all", "|"},
		{"rdr-anchor \"regression\" all", "|"},
		{"rdr-anchor \"regress\" inet6 all", "|"},
		{"rdr pass log on vtnet0 inet proto tcp from any to any port = 8080 -> 127.0.0.1\n" + anchor,
			anchor + "|rdr pass log on vtnet0 inet proto tcp from any to any port = 8080 -> 127.0.0.1"},
		{"no rdr inet proto tcp from 10.188.0.0/16 to any\n" + anchor,
			anchor + "|no rdr inet proto tcp from 10.188.0.0/16 to any"},
		{"rdr inet proto udp from any to any -> 127.0.0.1\nrdr inet proto tcp from any to 10.0.2.15 -> 127.0.0.1\n" + anchor, anchor + "|"},
		{anchor + "\nrdr inet proto tcp from any to any -> 127.0.0.1", anchor + "|"},
		{"rdr-anchor \"proxy/*\" all\n" + anchor, anchor + "|rdr-anchor \"proxy/*\" all"},
		{"rdr what\n" + anchor, anchor + "|rdr what"},
	} {
		m := &MainRuleset{ParseHostRules(c.main), true}
		r := m.Reach("regress", flow, "vtnet0")
		if got := strings.Join(r.Calls, ";") + "|" + strings.Join(append(r.Decides, r.May...), ";"); got != c.want {
			t.Errorf("%s\n\tgot  %s\n\twant %s", c.main, got, c.want)
		}
	}
}
