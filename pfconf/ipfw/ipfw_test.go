package ipfw

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pfdivert/pfconf"
	"pfdivert/pfconf/program"
	"pfdivert/pfconf/program/replaytest"
)

func play(t *testing.T, name string) program.Runner {
	t.Helper()
	return replaytest.Play(t, "testdata/replay/"+name+".txt")
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// The hosts of the transcripts.
var hosts = map[pfconf.Family]struct{ local, remote, fake netip.Addr }{
	pfconf.Inet:  {addr("10.189.11.1"), addr("10.189.11.2"), addr("10.189.12.9")},
	pfconf.Inet6: {addr("fd00:189:11::1"), addr("fd00:189:11::2"), addr("fd00:189:12::9")},
}

func divertTo(f pfconf.Family, p pfconf.Proto, port uint16) pfconf.Rule {
	h := hosts[f]
	r := pfconf.Rule{Label: "regress-to", Direction: pfconf.In, Family: f, Proto: p, From: h.local, To: h.fake,
		Port:   port,
		Action: pfconf.DivertTo, Divert: netip.AddrPortFrom(f.Loopback(), max(port, 1))}
	return r
}

func divertReply(f pfconf.Family, p pfconf.Proto, port uint16) pfconf.Rule {
	h := hosts[f]
	return pfconf.Rule{Label: "regress-reply", Direction: pfconf.Out, Family: f, Proto: p, From: h.fake, To: h.local,
		Port:   port,
		Action: pfconf.DivertReply}
}

func divertPacket(f pfconf.Family, d pfconf.Direction, port uint16) pfconf.Rule {
	h := hosts[f]
	r := pfconf.Rule{Label: "regress-packet", Direction: d, Family: f, Proto: pfconf.UDP, From: h.local, To: h.remote,
		Port:   port,
		Action: pfconf.DivertPacket, Divert: netip.AddrPortFrom(f.Unspecified(), 666)}
	if d == pfconf.Out {
		r.From, r.To = r.To, r.From
	}
	return r
}

// TestText compares the rules with those that did on FreeBSD what the suite asks: each kind of
// rule of the suite is there, and nothing else.
func TestText(t *testing.T) {
	var rules []pfconf.Rule
	port := uint16(5000)
	next := func() uint16 { port++; return port }
	for _, f := range pfconf.Families {
		rules = append(rules,
			divertTo(f, pfconf.TCP, next()), divertReply(f, pfconf.TCP, next()),
			divertTo(f, pfconf.UDP, next()), divertReply(f, pfconf.UDP, next()), divertReply(f, pfconf.UDP, next()),
			divertPacket(f, pfconf.In, next()), divertPacket(f, pfconf.Out, next()),
			divertTo(f, pfconf.Raw, 0), divertReply(f, pfconf.Raw, 0), divertTo(f, pfconf.ICMP, 0),
			divertReply(f, pfconf.ICMP, 0))
	}
	text, err := os.ReadFile("testdata/rules.txt")
	if err != nil {
		t.Fatal(err)
	}
	seen := program.Lines(string(text))[1:]
	used := map[string]bool{}
	for _, r := range rules {
		if err := r.Validate(); err != nil {
			t.Fatal(err)
		}
		for _, text := range Text(r) {
			got, found := strings.CutSuffix(text, " // "+r.Label)
			if !found || !slices.Contains(seen, got) {
				t.Errorf("%q is not among the rules of the transcript", text)
			}
			used[got] = true
		}
	}
	for _, s := range seen {
		if !used[s] {
			t.Errorf("no rule is written as %q", s)
		}
	}
}

// TestNumbers: a rule has the number that it wants, a copy is delivered by tee, and fwd names the
// address that is to have the packets.
func TestNumbers(t *testing.T) {
	first, behind, tee := divertPacket(pfconf.Inet, pfconf.In, 5006), divertPacket(pfconf.Inet, pfconf.In, 5006),
		divertPacket(pfconf.Inet, pfconf.In, 0)
	own := divertTo(pfconf.Inet6, pfconf.TCP, 5001)
	own.Divert = netip.AddrPortFrom(own.From.Next(), 5001)
	behind.Label, behind.Number = "regress-next", 2
	tee.Label, tee.Proto, tee.Tee = "regress-tee", pfconf.Raw, true
	rules := []pfconf.Rule{first, behind, tee, own}
	for _, r := range rules {
		if err := r.Validate(); err != nil {
			t.Error(err)
		}
	}
	const want = "add 1 set 3 divert 666 udp from 10.189.11.1 to 10.189.11.2 5006 in // regress-packet\n" +
		"add 2 set 3 divert 666 udp from 10.189.11.1 to 10.189.11.2 5006 in // regress-next\n" +
		"add 1 set 3 tee 666 254 from 10.189.11.1 to 10.189.11.2 in // regress-tee\n" +
		"add 1 set 3 fwd fd00:189:11::2,5001 tcp from fd00:189:11::1 to fd00:189:12::9 5001 in // regress-to\n"
	if got := adding(rules, 3); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	// As FreeBSD 12.1 prints them.
	const printed = "00001 divert 666 udp from 10.189.11.1 to 10.189.11.2 5006 in // regress-packet\n" +
		"00002 divert 666 udp from 10.189.11.1 to 10.189.11.2 5006 in // regress-next\n" +
		"00001 tee 666 254 from 10.189.11.1 to 10.189.11.2 in // regress-tee\n" +
		// As 15.0 does.
		"00001 fwd fd00:189:11::2,5001 tcp from fd00:189:11::1 to fd00:189:12::9 5001 in // regress-to\n"
	if err := understood(rules, printed); err != nil {
		t.Error(err)
	}
	for _, wrong := range []string{strings.Replace(printed, "00002", "00001", 1),
		strings.Replace(printed, "tee", "divert", 1), strings.Replace(printed, "11::2,5001", "11::3,5001", 1)} {
		if err := understood(rules, wrong); err == nil {
			t.Errorf("understood:\n%s", wrong)
		}
	}
}

func open(t *testing.T, run program.Runner, families ...pfconf.Family) (*Firewall, *[]pfconf.Undo) {
	t.Helper()
	var undos []pfconf.Undo
	f, err := Open(t.Context(), Config{Families: families, Run: run, Journal: func(u pfconf.Undo) error {
		undos = append(undos, u)
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	return f, &undos
}

// TestSession runs two cells from Open to Close: what is loaded, counted, journaled and put back.
func TestSession(t *testing.T) {
	ctx := t.Context()
	f, undos := open(t, play(t, "session"), pfconf.Inet, pfconf.Inet6)
	if want := []pfconf.Undo{{Do: UndoExthdrs}}; !reflect.DeepEqual(*undos, want) {
		t.Errorf("before the first load the journal has %+v, want %+v", *undos, want)
	}
	if err := f.Change(ctx, []pfconf.Rule{divertTo(pfconf.Inet, pfconf.TCP, 5000)}, nil); err != nil {
		t.Fatal(err)
	}
	if want := []pfconf.Undo{{Do: UndoExthdrs}, {Do: UndoSets, Args: []string{"3", "4"}}}; !reflect.DeepEqual(*undos,
		want) {
		t.Errorf("the journal has %+v, want %+v", *undos, want)
	}
	counters := func(label string, want pfconf.Counters) {
		t.Helper()
		c, err := f.Counters(ctx, []string{label})
		if err != nil || c[label] != want {
			t.Errorf("counters of %s: %+v, %v, want %+v", label, c, err, want)
		}
	}
	counters("regress-to", pfconf.Counters{Matched: 5, Done: 5})
	redirect := divertTo(pfconf.Inet, pfconf.UDP, 5003)
	redirect.Action = pfconf.RdrTo
	bypassed := divertPacket(pfconf.Inet, pfconf.In, 5006)
	bypassed.Bypass = true
	late := divertPacket(pfconf.Inet, pfconf.In, 5006)
	late.Number = 150
	for _, bad := range []struct {
		add    []pfconf.Rule
		remove []string
		text   string
	}{
		{[]pfconf.Rule{divertTo(pfconf.Inet, pfconf.TCP, 5001)}, nil, "already"},
		{nil, []string{"regress-nosuch"}, "no rule with the label regress-nosuch"},
		{[]pfconf.Rule{{Label: "regress-bad"}}, nil, "no direction"},
		{[]pfconf.Rule{bypassed}, nil, "no bypass"},
		{[]pfconf.Rule{redirect}, nil, "ipfw has no rdr-to"},
		{[]pfconf.Rule{late}, nil, "rules of the host's own from number 150 on"},
	} {
		if err := f.Change(ctx, bad.add, bad.remove); err == nil || !strings.Contains(err.Error(), bad.text) {
			t.Errorf("%+v: %v, want %q", bad, err, bad.text)
		}
	}
	if err := f.Change(ctx, []pfconf.Rule{divertReply(pfconf.Inet6, pfconf.UDP, 5012)},
		[]string{"regress-to"}); err != nil {
		t.Fatal(err)
	}
	counters("regress-reply", pfconf.Counters{Matched: 2, Done: 2, Replies: 2})
	// The second answer has a disabled rule of the same label.
	if c, err := f.Counters(ctx, []string{"regress-to"}); err == nil {
		t.Errorf("counters of a rule that was removed: %+v", c)
	}
	flows := []pfconf.Flow{{Family: pfconf.Inet}, {Family: pfconf.Inet6}}
	if s, err := f.Lookup(ctx, flows); err != nil || len(s) != 2 || len(s[0])+len(s[1]) != 0 {
		t.Errorf("states: %v, %v", s, err)
	}
	for range 2 {
		if err := f.Close(ctx); err != nil {
			t.Error(err)
		}
	}
	if err := f.Load(ctx, nil); err == nil {
		t.Error("rules were loaded after Close")
	}
}

// TestRefused: what ipfw does not take, or takes for something else, does not come into force.
func TestRefused(t *testing.T) {
	ctx := t.Context()
	f, _ := open(t, play(t, "refused"), pfconf.Inet)
	to, packet := divertTo(pfconf.Inet, pfconf.TCP, 5000), divertPacket(pfconf.Inet, pfconf.In, 5006)
	wantError(t, f.Load(ctx, []pfconf.Rule{to, packet}), `"add 1 set 2 divert 666 udp`, "kldload ipdivert")
	redirect := to
	redirect.Action, redirect.Divert = pfconf.RdrTo, netip.AddrPortFrom(hosts[pfconf.Inet].remote, 5000)
	wantError(t, f.Load(ctx, []pfconf.Rule{redirect}), "ipfw has no rdr-to", "") // and no command is run
	wantError(t, f.Change(ctx, []pfconf.Rule{packet}, nil), "understood \"00001 divert 4464", "")
	if err := f.Change(ctx, []pfconf.Rule{to}, nil); err != nil {
		t.Error(err)
	}
	if err := f.Close(ctx); err != nil {
		t.Error(err)
	}
}

func wantError(t *testing.T, err error, text, hint string) {
	t.Helper()
	var h interface{ Hint() string }
	got := ""
	if errors.As(err, &h) {
		got = h.Hint()
	}
	if err == nil || !strings.Contains(err.Error(), text) || !strings.Contains(got, hint) || hint == "" && got != "" {
		t.Errorf("got error %v, hint %q, want %q and %q", err, got, text, hint)
	}
}

// TestOpenFails: each host that cannot be used is told of with what fixes it, and left alone.
func TestOpenFails(t *testing.T) {
	for name, want := range map[string][2]string{
		"notroot": {"Operation not permitted", "SUDO"},
		"off":     {"switched off for inet", "sysctl net.inet.ip.fw.enable=1"},
		"full":    {"none left before it", "higher number"},
		"nosets":  {"only 1 are enabled", "ipfw set show"},
	} {
		_, err := Open(t.Context(), Config{Families: pfconf.Families, Run: play(t, name)})
		wantError(t, err, want[0], want[1])
	}
	missing := func(context.Context, program.Command) (program.Output, error) {
		return program.Output{}, exec.ErrNotFound
	}
	_, err := Open(t.Context(), Config{Run: missing})
	wantError(t, err, "ipfw -S show", "FreeBSD")
}

// TestJournalFirst: without a journal entry nothing is changed.
func TestJournalFirst(t *testing.T) {
	full := errors.New("disk full")
	var ran []string
	answer := map[string]string{
		"ipfw -S show": "65535 1 1 set 31 allow ip from any to any\n", "ipfw set show": "enable 0 1 2 3\n",
		"sysctl -n net.inet6.ip6.fw.enable": "1\n", "sysctl -n net.inet6.ip6.fw.deny_unknown_exthdrs": "1\n",
		"sysctl -n net.inet.ip.fw.enable": "1\n",
	}
	run := func(_ context.Context, c program.Command) (program.Output, error) {
		command := strings.Join(c.Argv, " ")
		if _, ok := answer[command]; !ok {
			ran = append(ran, command)
		}
		return program.Output{Stdout: answer[command]}, nil
	}
	journal := func(pfconf.Undo) error { return full }
	if _, err := Open(t.Context(), Config{Families: pfconf.Families, Run: run, Journal: journal}); !errors.Is(err,
		full) {
		t.Errorf("opened: %v", err)
	}
	f, err := Open(t.Context(), Config{Families: []pfconf.Family{pfconf.Inet}, Run: run, Journal: journal})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Load(t.Context(), []pfconf.Rule{divertTo(pfconf.Inet, pfconf.Raw, 0)}); !errors.Is(err, full) {
		t.Errorf("loaded: %v", err)
	}
	if len(ran) > 0 {
		t.Errorf("the host was changed by %q", ran)
	}
}

// TestMend: what a killed run left is removed, by its journal's steps; what is someone else's
// stays.
func TestMend(t *testing.T) {
	ctx := t.Context()
	sets := undoSets(1, 2)
	run := play(t, "mend")
	for _, u := range []pfconf.Undo{sets, {Do: UndoExthdrs}} {
		if err := Restore(ctx, run, u); err != nil {
			t.Errorf("%+v: %v", u, err)
		}
	}
	wantError(t, Restore(ctx, play(t, "used"), sets), "used since by something else: 00130 count ip", "ipfw -S list")
	wantError(t, NewControl(play(t, "kept")).free(ctx, 1, 2), "set 2 still has the rule 00001 fwd", "")
	run = play(t, "unloaded")
	for _, u := range []pfconf.Undo{sets, {Do: UndoExthdrs}} {
		if err := Restore(ctx, run, u); err != nil {
			t.Errorf("%+v without ipfw: %v", u, err)
		}
	}
	_, err := NewControl(run).Look(ctx, nil)
	wantError(t, err, "Protocol not available", "kldload ipfw")
	for _, u := range []pfconf.Undo{{Do: UndoSets}, {Do: UndoSets, Args: []string{"0", "1"}},
		{Do: UndoSets, Args: []string{"1", "31"}},
		{Do: UndoSets, Args: []string{"1", "x"}}, {Do: "pf/anchor", Args: []string{"1", "2"}},
		{Do: UndoExthdrs, Args: []string{"x"}}} {
		if err := Restore(ctx, nil, u); err == nil || !strings.Contains(err.Error(), "not a step") {
			t.Errorf("%+v: %v", u, err)
		}
	}
}

func TestParse(t *testing.T) {
	list := "# DISABLED 00130 0 0 set 5 count ip from any to any // regress x\n" +
		"00150   12    900 set 30 check-state :default\n" +
		"65535 28124 17623355 set 31 deny ip from any to any\n"
	got, err := parseListing(list)
	want := []entry{
		{130, 0, 5, true, "count ip from any to any // regress x"},
		{150, 12, 30, false, "check-state :default"},
		{65535, 28124, 31, false, "deny ip from any to any"},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	if l := got[0].label(); l != "" {
		t.Errorf("the label %q was taken for one of this program's", l)
	}
	for _, bad := range []string{"", "ipfw: what\n", "00100 set 1 allow ip from any to any\n",
		"65535 set 0 allow ip from any to any\n", "00100 1 1 set 1 allow ip from any to any\n",
		"00100 99999999999999999999 1 set 1 allow\n65535 1 1 set 31 allow ip from any to any\n"} {
		if e, err := parseListing(bad); err == nil {
			t.Errorf("%q was read as %+v", bad, e)
		}
	}
	for out, want := range map[string]string{
		"enable 0 1 2\n": "[0 1 2]", "disable 0 1 enable 2\n": "[2]", "disable 0 1 2\n": "[]",
		"": "", "0 1 2\n": "", "enable 31\n": "", "enable x\n": "", "enable 1 2\n": "",
	} {
		enabled, err := parseSets(out)
		if (err == nil) != (want != "") || err == nil && fmt.Sprint(enabled) != want {
			t.Errorf("%q: %v, %v, want %s", out, enabled, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("# DISABLED 00130 0 0 set 5 count ip from any to any // regress-x\n65535 1 1 set 31 deny ip from any to any\n")
	f.Add("disable 7 enable 0 1 2\n")
	f.Fuzz(func(t *testing.T, out string) {
		if enabled, err := parseSets(out); err == nil {
			for _, n := range enabled {
				if n < 0 || n > lastSet {
					t.Errorf("set %d", n)
				}
			}
		}
		rules, err := parseListing(out)
		if err != nil {
			return
		}
		for _, e := range rules {
			if l := e.label(); l != "" && !pfconf.ValidLabel(l) {
				t.Errorf("label %q", l)
			}
		}
	})
}

// TestBoth: what answers is diverted by a second rule, and counted by itself.
func TestBoth(t *testing.T) {
	ctx := t.Context()
	f, _ := open(t, play(t, "both"))
	r := divertPacket(pfconf.Inet, pfconf.In, 5006)
	r.Proto, r.Both = pfconf.TCP, true
	if err := f.Load(ctx, []pfconf.Rule{r}); err != nil {
		t.Fatal(err)
	}
	want := pfconf.Counters{Matched: 5, Done: 5, Replies: 3}
	if c, err := f.Counters(ctx, []string{r.Label}); err != nil || c[r.Label] != want {
		t.Errorf("%+v, %v, want %+v", c, err, want)
	}
	if c, err := f.Counters(ctx, []string{r.Label}); err == nil {
		t.Errorf("with one of its two rules gone: %+v", c)
	}
}

// TestShow: a label's rules in force are shown, all of them.
func TestShow(t *testing.T) {
	rules := []entry{
		{number: 100, packets: 3, text: "fwd ::1,5000 udp from any to any in // regress-1"},
		{number: 101, packets: 2, text: "allow udp from any to any out // regress-1"},
		{number: 102, text: "count ip from any to any // regress-2", disabled: true},
	}
	got, err := show(rules, []string{"regress-1"})
	want := map[string]string{"regress-1": "00100 3 packets: fwd ::1,5000 udp from any to any in // regress-1\n00101 2 packets: allow udp from any to any out // regress-1"}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
	for _, label := range []string{"regress-2", "regress-3"} {
		if got, err := show(rules, []string{label}); err == nil {
			t.Errorf("%s, which is not in force: %q", label, got)
		}
	}
}
