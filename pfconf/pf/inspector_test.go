package pf

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"pfdivert/pfconf"
	"pfdivert/pfconf/program/replaytest"
)

func inspector(t *testing.T, name string) *Inspector {
	return OpenInspector(replaytest.Play(t, "testdata/replay/"+name+".txt"), false)
}

// What a person sees and clears on OpenBSD.
func TestInspector(t *testing.T) {
	d := inspector(t, "desk")
	ctx := t.Context()
	same := func(what string, got any, err error, want any) {
		t.Helper()
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", what, err, diff)
		}
	}
	overview, err := d.Overview(ctx)
	same("overview", overview, err, pfconf.Overview{Filter: "pf", Enabled: true, States: 26, Own: 3})
	places, err := d.Places(ctx)
	same("places", places, err, []pfconf.Place{{Name: "regress", Own: true}, {Name: "regress/run1", Own: true},
		{Name: "other"}})
	rules, err := d.OwnRules(ctx)
	same("rules", rules, err, []pfconf.LoadedRule{
		{Label: "regress", Packets: 8, Place: "regress",
			Text: `pass in log inet proto tcp from 10.188.1.1 to 10.188.2.9 port = 5000 flags S/SA label "regress" divert-to 127.0.0.1 port 5000`},
		{Place: "regress", Text: `anchor "*" all`},
		{Label: "regress-run1", Place: "regress/run1",
			Text: `pass in inet proto tcp from 10.9.9.9 to any port = 7 flags S/SA label "regress-run1"`},
	})
	states, err := d.States(ctx)
	if err != nil || len(states) != 2 {
		t.Fatalf("%d states, %v", len(states), err)
	}
	killed, err := d.Kill(ctx, states[1:])
	same("kill", killed, err, 1)
	killed, err = d.KillLabel(ctx, "")
	same("kill all labels", killed, err, 4)
	killed, err = d.KillLabel(ctx, "regress")
	same("kill a label", killed, err, 1)
	if _, err := d.KillLabel(ctx, "ssh"); err == nil {
		t.Error("a stranger's label is killed")
	}
	done, err := d.Flush(ctx)
	same("flush", done, err, []string{"1 rule of anchor regress/run1", "2 rules of anchor regress", "2 states"})

	timeouts, err := d.Timeouts(ctx)
	if err != nil || len(timeouts) != 20 {
		t.Fatalf("%d timeouts, %v", len(timeouts), err)
	}
	same("timeouts", []pfconf.Setting{timeouts[2], timeouts[17]}, nil, []pfconf.Setting{
		{Name: "tcp.established", Value: 86400, System: "tcp.established"},
		{Name: "adaptive.start", Value: 60000, Unit: "states", System: "adaptive.start"},
	})
	limits, err := d.Limits(ctx)
	same("limits", fmt.Sprint(limits), err,
		"[{states 100000  states} {src-nodes 10000  src-nodes} {frags 65536  frags} {tables 1000  tables} {table-entries 200000  table-entries} {pktdelay-pkts 10000  pktdelay-pkts} {anchors 512  anchors}]")
}

func TestInspectorOfFreeBSD(t *testing.T) {
	d := inspector(t, "desk-freebsd")
	timeouts, err := d.Timeouts(t.Context())
	if err != nil || len(timeouts) != 20 || timeouts[16].Value != 2 {
		t.Errorf("%v, %v", timeouts, err)
	}
	want := []pfconf.Setting{{Name: "states", Value: 100000}, {Name: "src-nodes", Value: 10000},
		{Name: "frags", Value: 5000}, {Name: "table-entries", Value: 200000}}
	limits, err := d.Limits(t.Context())
	if diff := cmp.Diff(want, limits, cmpopts.IgnoreFields(pfconf.Setting{}, "System")); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}

// An anchor that someone else uses is not emptied, and what is not understood is no answer.
func TestInspectorRefuses(t *testing.T) {
	done, err := inspector(t, "desk-foreign").Flush(t.Context())
	if err == nil || len(done) > 0 || !strings.Contains(err.Error(), "holds a rule that is not this program's") {
		t.Errorf("%q, %v", done, err)
	}
	d := inspector(t, "desk-unknown")
	if s, err := d.Timeouts(t.Context()); err == nil {
		t.Errorf("%v", s)
	}
	if s, err := d.Limits(t.Context()); err == nil {
		t.Errorf("%v", s)
	}
}
