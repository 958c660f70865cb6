package pf

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"pfdivert/pfconf"
)

func open(t *testing.T, name string) (*Firewall, *[]pfconf.Undo) {
	t.Helper()
	return openWith(t, name, Config{})
}

// openWith opens an anchor with a transcript, and returns what is recorded.
func openWith(t *testing.T, name string, c Config) (*Firewall, *[]pfconf.Undo) {
	t.Helper()
	var undos []pfconf.Undo
	c.Run, c.Journal = play(t, name), func(u pfconf.Undo) error {
		undos = append(undos, u)
		return nil
	}
	f, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	f.backoff = time.Millisecond
	return f, &undos
}

// hintOf is how an agent finds what to tell the user.
func hintOf(err error) string {
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		return h.Hint()
	}
	return ""
}

func wantError(t *testing.T, err error, text, hint string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("got error %v, want one with %q", err, text)
	} else if !strings.Contains(hintOf(err), hint) || hint == "" && hintOf(err) != "" {
		t.Errorf("got hint %q with error %q, want one with %q", hintOf(err), err, hint)
	}
}

func flow(p pfconf.Proto, near, far string) pfconf.Flow {
	f := pfconf.Flow{Proto: p, Near: netip.MustParseAddrPort(near), Far: netip.MustParseAddrPort(far)}
	f.Family = pfconf.FamilyOf(f.Near.Addr())
	return f
}

// TestSession runs a cell from Open to Close.
func TestSession(t *testing.T) {
	ctx := t.Context()
	f, undos := open(t, "session")
	rule := to(pfconf.Inet, pfconf.TCP, 5000, 5000)
	if err := f.Change(ctx, []pfconf.Rule{rule}, nil); err != nil {
		t.Fatal(err)
	}
	if want := []pfconf.Undo{
		{Do: "pf/anchor", Args: []string{"regress", "0", ""}}, {Do: "pf/labels", Args: []string{"0", "regress"}},
	}; !reflect.DeepEqual(*undos, want) {
		t.Errorf("journal: got %q, want %q", *undos, want)
	}
	counters, err := f.Counters(ctx, []string{"regress"})
	want := map[string]pfconf.Counters{"regress": {Matched: 8, Done: 8, States: 1}}
	if err != nil || !reflect.DeepEqual(counters, want) {
		t.Errorf("counters: got %+v, %v, want %+v", counters, err, want)
	}
	_, err = f.Counters(ctx, []string{"regress", "regress-2"})
	wantError(t, err, "no rule with the label regress-2", "")

	tcp := flow(pfconf.TCP, "10.188.2.9:5000", "10.188.1.1:43876")
	echo := flow(pfconf.ICMP, "10.188.2.9:0", "10.188.1.1:0")
	echoIn, echoOut, echoNone := echo, echo, echo
	echoIn.Echo, echoOut.Echo, echoNone.Echo = 1532, 33232, 8
	found, err := f.Lookup(ctx, []pfconf.Flow{
		tcp, flow(pfconf.TCP, "10.188.2.9:5001", "10.188.1.1:43876"),
		flow(pfconf.UDP, "10.188.2.9:5000", "10.188.1.1:43876"),
		flow(pfconf.TCP, "10.188.1.1:43876", "10.188.2.9:5000"), flow(pfconf.Raw, "10.188.2.9:0", "10.188.1.1:0"),
		echo, echoIn, echoOut, echoNone,
	})
	if err != nil {
		t.Fatal(err)
	}
	var numbers []int
	for _, states := range found {
		numbers = append(numbers, len(states))
	}
	if want := []int{1, 0, 0, 0, 1, 2, 1, 1, 0}; !reflect.DeepEqual(numbers, want) {
		t.Errorf("states per flow: got %v, want %v", numbers, want)
	}
	if n, err := f.KillFlows(ctx, []pfconf.Flow{tcp, tcp}); n != 1 || err != nil {
		t.Errorf("killed %d, %v, want 1", n, err)
	}
	if n, err := f.KillFlows(ctx, nil); n != 0 || err != nil {
		t.Errorf("killed %d, %v, want 0", n, err)
	}
	for range 2 { // closing twice does nothing more
		if err := f.Close(ctx); err != nil {
			t.Error(err)
		}
	}
	wantError(t, f.Load(ctx, nil), "released", "")
}

// TestBetween proves that the states between the prefixes are removed at once, in the
// directions in which there are any, and those of labels only besides.
func TestBetween(t *testing.T) {
	prefix := netip.MustParsePrefix
	f, err := Open(t.Context(), Config{Run: play(t, "between"), Between: [][2]netip.Prefix{
		{prefix("10.188.1.1/32"), prefix("10.188.2.0/24")}, {prefix("fd00:188:1::1/128"), prefix("fd00:188:2::/64")},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Change(t.Context(), []pfconf.Rule{to(pfconf.Inet, pfconf.TCP, 5000, 5000)}, nil); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestAnchorsPutBack proves that what was in the anchor is there again, and that the
// journal has it.
func TestAnchorsPutBack(t *testing.T) {
	const old = `pass in log inet proto 254 from 10.188.1.1 to 10.188.2.9 label "regress" divert-to 127.0.0.1 port 1` + "\n"
	for name, former := range map[string]string{"former": old, "absent": ""} {
		f, undos := open(t, name)
		if len(*undos) != 0 {
			t.Errorf("%s: something was recorded before anything was changed", name)
		}
		if err := f.Load(t.Context(), []pfconf.Rule{to(pfconf.Inet, pfconf.TCP, 5000, 5000)}); err != nil {
			t.Error(err)
		}
		if len(*undos) != 2 || (*undos)[0].Args[2] != former {
			t.Errorf("%s: journal: %q", name, *undos)
		}
		if err := f.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, tt := range []struct{ script, text, hint string }{
		{"notroot", "/dev/pf: Permission denied", "SUDO"},
		{"disabled", "switched off", "pfctl -e"},
		{"status0", "DIOCGETRULES: Device not configured (exit status 0)", ""},
		{"table", "refers to a table", "-F rules"},
	} {
		_, err := Open(t.Context(), Config{Run: play(t, tt.script)})
		wantError(t, err, tt.text, tt.hint)
	}
	for _, name := range []string{"_1", "regress/*", "/regress", "re gress", "regress/", strings.Repeat("a", 64)} {
		_, err := Open(t.Context(), Config{Anchor: name, Run: play(t, "nothing")})
		if err == nil {
			t.Errorf("the anchor %q was opened", name)
		}
	}
}

// TestMisunderstood proves that a pf that takes a rule for something else is found out,
// and that its refusal of a rule reaches who wanted it.
func TestMisunderstood(t *testing.T) {
	f, _ := open(t, "freebsd")
	wantError(t, f.Change(t.Context(), []pfconf.Rule{to(pfconf.Inet, pfconf.TCP, 5000, 5000)}, nil), "understood", "")
	wantError(t, f.Change(t.Context(), []pfconf.Rule{reply(pfconf.Inet, pfconf.TCP, 5000)}, nil),
		"divert-reply has no meaning in FreeBSD pf(4)", "")
}

func TestBusy(t *testing.T) {
	f, _ := open(t, "busy")
	if err := f.Change(t.Context(), []pfconf.Rule{to(pfconf.Inet, pfconf.TCP, 5000, 5000)}, nil); err != nil {
		t.Error(err)
	}
	always := NewControl(func(context.Context, Command) (Result, error) {
		return Result{Stderr: "pfctl: DIOCADDRULE: Device busy\n", Status: 1}, nil
	}, 0)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	_, err := always.loadText(ctx, time.Millisecond, "pass\n", "-f", "-")
	wantError(t, err, "Device busy", "another pfctl")
}

func TestMend(t *testing.T) {
	const old = `pass in log inet proto 254 from 10.188.1.1 to 10.188.2.9 label "regress" divert-to 127.0.0.1 port 1` + "\n"
	u := NewControl(nil, 0).undo("regress", old)
	if err := Restore(t.Context(), play(t, "mend"), u); err != nil {
		t.Error(err)
	}
	run := play(t, "mended")
	if err := Restore(t.Context(), run, u); err != nil {
		t.Error(err)
	}
	wantError(t, Restore(t.Context(), run, u), "something else", "-F rules")
	wantError(t, Restore(t.Context(), run, pfconf.Undo{Do: "nft/table", Args: []string{"a", "0", ""}}), "not a step",
		"")
	wantError(t, Restore(t.Context(), run, pfconf.Undo{Do: "pf/anchor", Args: []string{"a b", "0", ""}}), "not a step",
		"")
}

// TestStatesOfADomain proves that a routing domain's states are told from another's, and
// that a question that failed is an error.
func TestStatesOfADomain(t *testing.T) {
	ctx := t.Context()
	c := NewControl(play(t, "domain"), 2)
	found, err := c.Lookup(ctx, []pfconf.Flow{flow(pfconf.TCP, "10.188.2.9:5000", "10.188.1.1:43876")})
	wantError(t, err, "Permission denied (exit status 1)", "root")
	if found != nil {
		t.Errorf("got %v with the error", found)
	}
	if n, err := c.KillLabels(ctx, []string{"regress-inet-udp-to"}); n != 1 || err != nil {
		t.Errorf("killed %d, %v, want 1", n, err)
	}
	_, err = c.KillLabels(ctx, []string{"regress"})
	wantError(t, err, "Permission denied", "root")
	_, err = c.KillLabels(ctx, []string{"regress-x"})
	wantError(t, err, "did not say", "")
	_, err = c.KillLabels(ctx, []string{"ssh"})
	wantError(t, err, "no label of this program", "")
	n, err := c.KillFlows(ctx, []pfconf.Flow{
		flow(pfconf.UDP, "10.188.12.9:7422", "10.188.11.1:9"), flow(pfconf.UDP, "10.188.11.1:4693", "10.188.12.9:5168"),
	})
	if n != 1 || err != nil {
		t.Errorf("killed %d, %v, want the 1 of domain 2", n, err)
	}
	// The other domain's are none of its business, and nothing is removed where nothing is.
	for _, network := range []string{"10.188.13.0/24", "10.188.11.0/24"} {
		if err := c.KillNetwork(ctx, netip.MustParsePrefix(network)); err != nil {
			t.Errorf("%s: %v", network, err)
		}
	}
}
