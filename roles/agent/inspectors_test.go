package agent

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pfdivert/pfconf"
	"pfdivert/pfconf/program"
)

// bothFilters answers as a FreeBSD 12.1 does whose ipfw has rules of a run, and whose pf a
// redirection.
type bothFilters struct {
	status  string
	failure string // of pfctl
	cleared []string
}

var fromBoth = map[string]string{
	"ipfw -S show": "00001     5      275 set 1 divert 700 udp from 10.188.1.1 to 10.188.1.2 4000 in // regress-a\n" +
		"65535 28124 17623355 set 31 allow ip from any to any\n",
	"sysctl -n net.inet.ip.fw.enable": "1\n", "sysctl -n net.inet.ip.fw.dyn_count": "3\n",
	"sysctl -n net.inet.ip.fw.dyn_max": "16384\n", "sysctl -n net.inet.ip.fw.dyn_parent_max": "4096\n",
	"pfctl -v -s Anchors":        "  regress\n",
	"pfctl -a regress -s nat":    "rdr inet proto tcp from 10.188.1.1 to 10.188.2.9 port = 4000 tag regress-b -> 10.188.1.2 port 5000\n",
	"pfctl -a regress -s rules":  "pass in log quick inet proto tcp from 10.188.1.1 to 10.188.1.2 port = commplex-main flags S/SA keep state label \"regress-b\" tagged regress-b\n",
	"pfctl -a regress -s labels": "regress-b 1 5 279 3 167 2 112 1\n",
	"pfctl -s memory":            "states        hard limit   100000\n",
	"pfctl -ss -vv": "all tcp 10.188.1.2:5000 (10.188.2.9:4000) <- 10.188.1.1:8000       ESTABLISHED:ESTABLISHED\n" +
		"   [801653201 + 64512] wscale 6  [1592439623 + 65728] wscale 10\n" +
		"   age 00:00:02, expires in 23:59:58, 3:2 pkts, 167:112 bytes, anchor 1, rule 0\n" +
		"   id: 000000006b029c94 creatorid: a9927ede\n",
}

func (f *bothFilters) run(_ context.Context, c program.Command) (program.Output, error) {
	command := strings.Join(c.Argv, " ")
	switch {
	case c.Argv[0] == "pfctl" && f.failure == "gone":
		return program.Output{}, exec.ErrNotFound
	case c.Argv[0] == "pfctl" && f.failure != "":
		return program.Output{Stderr: f.failure + "\n", Status: 1}, nil
	case command == "pfctl -s info":
		return program.Output{Stdout: "Status: " + f.status +
			" for 0 days 00:03:30           Debug: Urgent\n  current entries   1\n"}, nil
	case strings.Contains(command, " -k "):
		f.cleared = append(f.cleared, command)
		return program.Output{Stderr: "killed 1 states\n"}, nil
	case strings.Contains(command, " -F "):
		f.cleared = append(f.cleared, command)
		return program.Output{Stderr: c.Argv[len(c.Argv)-1] + " cleared\n"}, nil
	case c.Argv[0] == "ipfw" && c.Stdin != "":
		f.cleared = append(f.cleared, "ipfw "+strings.ReplaceAll(c.Stdin, "\n", "; "))
		return program.Output{}, nil
	}
	out, ok := fromBoth[command]
	if !ok {
		return program.Output{}, errors.New("unexpected " + command)
	}
	return program.Output{Stdout: out}, nil
}

// FreeBSD's two filters are shown, and cleared, as one.
func TestInspectors(t *testing.T) {
	ctx := t.Context()
	f := &bothFilters{status: "Enabled"}
	d, err := openInspectors(ctx, f.run)
	if err != nil {
		t.Fatal(err)
	}
	same := func(what string, got any, err error, want any) {
		t.Helper()
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", what, err, diff)
		}
	}
	overview, err := d.Overview(ctx)
	same("overview", overview, err, pfconf.Overview{Filter: "ipfw, pf", Enabled: true, States: 4, Own: 3})
	places, err := d.Places(ctx)
	same("places", places, err, []pfconf.Place{{Name: "set 1", Own: true}, {Name: "set 31"},
		{Name: "regress", Own: true}})
	rules, err := d.OwnRules(ctx)
	same("rules", rules, err, []pfconf.LoadedRule{
		{Label: "regress-a", Packets: 5, Place: "set 1",
			Text: "00001 divert 700 udp from 10.188.1.1 to 10.188.1.2 4000 in // regress-a"},
		{Label: "regress-b", Packets: 5, Place: "regress",
			Text: strings.TrimSpace(fromBoth["pfctl -a regress -s nat"])},
		{Label: "regress-b", Packets: 5, Place: "regress",
			Text: strings.TrimSpace(fromBoth["pfctl -a regress -s rules"])},
	})
	limits, err := d.Limits(ctx)
	same("limits", limits, err, []pfconf.Setting{
		{Name: "states", Value: 16384, System: "net.inet.ip.fw.dyn_max"},
		{Name: "src-nodes", Value: 4096, System: "net.inet.ip.fw.dyn_parent_max"},
		{Name: "states", Value: 100000, System: "states"},
	})
	states, err := d.States(ctx)
	if err != nil || len(states) != 1 {
		t.Fatalf("%d states, %v", len(states), err)
	}
	killed, err := d.Kill(ctx, states)
	same("kill", killed, err, 1)
	killed, err = d.KillLabel(ctx, "")
	same("kill all labels", killed, err, 1)
	f.cleared = nil
	done, err := d.Flush(ctx)
	same("flush", done, err, []string{"1 rule of set 1", "2 rules of anchor regress", "1 state"})
	same("commands", f.cleared, nil, []string{
		"ipfw delete set 1; set enable 1; ", "pfctl -a regress -F nat", "pfctl -a regress -F rules",
		"pfctl -k label -k regress-b",
	})
}

// pf is shown only where it is switched on; that it can't be asked is an error, unless there is
// none.
func TestInspectorsWithoutPF(t *testing.T) {
	for _, c := range []struct {
		f      bothFilters
		filter string
	}{
		{bothFilters{status: "Enabled"}, "ipfw, pf"},
		{bothFilters{status: "Disabled"}, "ipfw"},
		{bothFilters{failure: "gone"}, "ipfw"},
		{bothFilters{failure: "pfctl: /dev/pf: No such file or directory"}, "ipfw"},
		{bothFilters{failure: "pfctl: /dev/pf: Permission denied"}, ""},
		{bothFilters{status: "what"}, ""},
	} {
		d, err := openInspectors(t.Context(), c.f.run)
		if (err != nil) != (c.filter == "") {
			t.Errorf("%+v: %v", c.f, err)
		}
		if err != nil {
			continue
		}
		if o, err := d.Overview(t.Context()); err != nil || o.Filter != c.filter {
			t.Errorf("%+v: %+v, %v", c.f, o, err)
		}
	}
}
