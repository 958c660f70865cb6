package inject

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pfdivert/matrix/injection"
	"pfdivert/pfconf"
	"pfdivert/pfconf/program"
)

// TestPrograms: what a step sets on a host that stays is recorded before, and Undo sets it back; a
// host that ends with the lab is not asked.
func TestPrograms(t *testing.T) {
	var ran []string
	run := func(_ context.Context, c program.Command) (program.Output, error) {
		ran = append(ran, strings.Join(c.Argv, " "))
		return program.Output{Stdout: "65636\n"}, nil
	}
	var undos []pfconf.Undo
	journal := func(u pfconf.Undo) error {
		undos = append(undos, u)
		ran = append(ran, "journal")
		return nil
	}
	for _, c := range []struct {
		step    injection.Action
		system  string
		journal pfconf.Journal
		want    []string
	}{
		{injection.LittleRoom, "openbsd", journal, []string{
			"sysctl -n net.inet.divert.recvspace", "journal", "sysctl net.inet.divert.recvspace=4000",
			"sysctl -n net.inet6.divert.recvspace", "journal", "sysctl net.inet6.divert.recvspace=4000",
		}},
		{injection.NoFilter, "freebsd", nil, []string{"sysctl net.inet.ip.fw.enable=0",
			"sysctl net.inet6.ip6.fw.enable=0"}},
		{injection.DropDiverted, "freebsd", nil, []string{"ipfw -q add 2 deny ip from any to any diverted"}},
		{injection.DropEarly, "freebsd", nil, []string{"ipfw -q add 1 deny ip4 from any to 10.188.2.0/24 in",
			"ipfw -q add 1 deny ip6 from any to fd00:188:2::/64 in"}},
		{injection.OwnFake, "openbsd", journal, []string{"ifconfig pair2 inet 10.188.2.1/32 alias",
			"ifconfig pair2 inet6 fd00:188:2::1/128 alias"}},
		{injection.NoFakeRoute, "freebsd", nil, []string{"route -n delete -inet -net 10.188.2.0/24 10.188.1.1",
			"route -n delete -inet6 -net fd00:188:2::/64 fd00:188:1::1"}},
	} {
		ran = nil
		h := BrokenHost{
			Remote: true, Interface: "pair2", Run: run, Journal: c.journal,
			Paths: []AddressPair{
				{Here: netip.MustParseAddr("10.188.1.2"), There: netip.MustParseAddr("10.188.1.1")},
				{Here: netip.MustParseAddr("fd00:188:1::2"), There: netip.MustParseAddr("fd00:188:1::1")},
			},
			Fakes: []netip.Prefix{netip.MustParsePrefix("10.188.2.0/24"), netip.MustParsePrefix("fd00:188:2::/64")},
		}
		if err := h.byPrograms(t.Context(), c.system, c.step); err != nil || !slices.Equal(ran, c.want) {
			t.Errorf("%s on %s: %v, %q, want %q", c.step, c.system, err, ran, c.want)
		}
	}
	ran = nil
	for _, u := range undos {
		if err := Undo(t.Context(), run, u); err != nil {
			t.Error(err)
		}
	}
	if want := []string{"sysctl net.inet.divert.recvspace=65636",
		"sysctl net.inet6.divert.recvspace=65636"}; !slices.Equal(ran, want) {
		t.Errorf("undone by %q, want %q", ran, want)
	}
	ran = nil
	full := errors.New("disk full")
	h := BrokenHost{Run: run, Journal: func(pfconf.Undo) error { return full }}
	if err := h.byPrograms(t.Context(), "openbsd", injection.LittleRoom); !errors.Is(err, full) || len(ran) != 1 {
		t.Errorf("without a journal: %v after %q", err, ran)
	}
	for _, bad := range []struct {
		system string
		step   injection.Action
	}{{"freebsd", injection.LittleRoom}, {"openbsd", injection.AllowFirst}, {"openbsd", injection.DropEarly},
		{"openbsd", ""}} {
		if err := h.byPrograms(t.Context(), bad.system, bad.step); err == nil {
			t.Errorf("%s has the step %q", bad.system, bad.step)
		}
	}
}

// TestUndoOnly: the journal sets nothing but what a step sets.
func TestUndoOnly(t *testing.T) {
	for _, u := range []pfconf.Undo{
		{}, {Do: UndoSetting}, {Do: "lab/jail", Args: []string{"net.inet.divert.recvspace", "1"}},
		{Do: UndoSetting, Args: []string{"kern.securelevel", "1"}},
		{Do: UndoSetting, Args: []string{"net.inet.divert.recvspace", "1 x"}},
	} {
		if err := Undo(t.Context(), nil, u); err == nil || !strings.Contains(err.Error(), "not a step") {
			t.Errorf("%+v: %v", u, err)
		}
	}
}

// A host that forwards packets of one of the families is left as it is.
func TestNotForwarding(t *testing.T) {
	for _, c := range []struct{ four, six, lacks string }{
		{"0", "0", ""}, {"1", "0", "net.inet.ip.forwarding is 1"}, {"0", "2", "net.inet6.ip6.forwarding is 2"},
	} {
		h := BrokenHost{Run: func(_ context.Context, p program.Command) (program.Output, error) {
			switch w := strings.Join(p.Argv, " "); w {
			case "sysctl -n net.inet.ip.forwarding":
				return program.Output{Stdout: c.four + "\n"}, nil
			case "sysctl -n net.inet6.ip6.forwarding":
				return program.Output{Stdout: c.six + "\n"}, nil
			default:
				t.Errorf("ran %q", w)
				return program.Output{Status: 1}, nil
			}
		}}
		err := h.byPrograms(t.Context(), "openbsd", injection.NotForwarding)
		if errors.Is(err, ErrLacks) != (c.lacks != "") || err != nil && !strings.Contains(err.Error(), c.lacks) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// pf sees lo0 no longer, and again when that is undone, unless it did not see it before.
func TestSkipLoopback(t *testing.T) {
	var did []string
	was := pfSkip
	t.Cleanup(func() { pfSkip = was })
	pfSkip = func(name string, on bool) error {
		did = append(did, fmt.Sprintf("skip %s %v", name, on))
		return nil
	}
	printed := "all\nlo\nlo0\nvio0\n"
	h := BrokenHost{
		Run: func(_ context.Context, c program.Command) (program.Output, error) {
			if got := strings.Join(c.Argv, " "); got != "pfctl -s Interfaces -v" {
				t.Errorf("ran %q", got)
			}
			return program.Output{Stdout: printed}, nil
		},
		Journal: func(u pfconf.Undo) error {
			did = append(did, fmt.Sprint(u))
			return nil
		},
	}
	for _, state := range []string{printed, strings.Replace(printed, "lo0", "lo0 (skip)", 1)} {
		printed = state
		if err := h.byPrograms(t.Context(), "openbsd", injection.SkipLoopback); err != nil {
			t.Error(err)
		}
	}
	if err := Undo(t.Context(), nil, pfconf.Undo{Do: UndoSkip, Args: []string{"lo0"}}); err != nil {
		t.Error(err)
	}
	if err := Undo(t.Context(), nil, pfconf.Undo{Do: UndoSkip, Args: []string{"vio0"}}); err == nil {
		t.Error("an interface that no step skips is undone")
	}
	if want := []string{"{spoil/skip [lo0]}", "skip lo0 true", "skip lo0 false"}; !slices.Equal(did, want) {
		t.Errorf("did %q, want %q", did, want)
	}
}
