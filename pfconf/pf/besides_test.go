package pf

import (
	"testing"

	"pfdivert/pfconf"
)

func besides(f pfconf.Family, d pfconf.Direction, port, divert uint16, label string) pfconf.Rule {
	r := packet(f, d, port, divert)
	r.Action, r.Label = pfconf.PFDivertTo, label
	return r
}

// What FreeBSD's pf diverts itself: its rules are taken as they are meant, states that would hide packets
// from them go before, and the anchor is empty after.
func TestPacketDivertOfFreeBSD(t *testing.T) {
	f, undos := open(t, "freebsd-divert")
	ctx := t.Context()
	if translates, err := f.Translates(ctx, "regress"); err != nil || translates {
		t.Errorf("the anchor translates: %v, %v", translates, err)
	}
	if translates, err := f.Translates(ctx, "other"); err != nil || !translates {
		t.Errorf("the other anchor translates: %v, %v", translates, err)
	}
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
	if len(*undos) != 1 {
		t.Errorf("%d undos are recorded", len(*undos))
	}
	if err := f.Close(ctx); err != nil {
		t.Error(err)
	}
}

// A pf that keeps states for such a rule, or takes it for a divert-to of a socket, has not understood it.
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
		if err := understood(rules, begin+c.end+"\n"); (err == nil) != c.good {
			t.Errorf("%s: %v", c.end, err)
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
