package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"pfdivert/pfconf"
	"pfdivert/pfconf/program"
)

// mainFilter stands for ipfw: it notes what it is asked for.
type mainFilter struct {
	pfconf.Stateless
	mu   sync.Mutex
	said []string
}

func (f *mainFilter) note(format string, a ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.said = append(f.said, fmt.Sprintf(format, a...))
}

func (*mainFilter) Name() string        { return "ipfw" }
func (*mainFilter) KeepsCounters() bool { return false }
func (f *mainFilter) Change(_ context.Context, add []pfconf.Rule, remove []string) error {
	var labels []string
	for _, r := range add {
		labels = append(labels, r.Label)
	}
	f.note("change %v %v", labels, remove)
	return nil
}
func (*mainFilter) Load(context.Context, []pfconf.Rule) error { return nil }
func (f *mainFilter) Counters(_ context.Context, labels []string) (map[string]pfconf.Counters, error) {
	f.note("counters %v", labels)
	return map[string]pfconf.Counters{labels[0]: {Matched: 7}}, nil
}
func (f *mainFilter) Close(context.Context) error { f.note("close"); return nil }

// fakePF is the pf of a FreeBSD: an anchor that refuses the rules with the label refuse.
type fakePF struct {
	status, main, nat string
	refuse            string
	loads             []string
}

func (p *fakePF) run(_ context.Context, c program.Command) (program.Result, error) {
	switch args := strings.Join(c.Argv, " "); args {
	case "pfctl -s info":
		return program.Result{Stdout: "Status: " + p.status + " for 0 days 00:03:30           Debug: Urgent\n  current entries   0\n"}, nil
	case "pfctl -s Interfaces -v":
		return program.Result{Stdout: "all\nvtnet1\n"}, nil
	case "pfctl -s rules":
		return program.Result{Stdout: p.main}, nil
	case "pfctl -a regress -s nat":
		return program.Result{Stdout: p.nat}, nil
	case "pfctl -a regress -s rules", "pfctl -ss", "pfctl -ss -vv":
		return program.Result{}, nil
	case "pfctl -a regress -s labels":
		return program.Result{Stdout: "regress-pf 1 2 3 0 0 0 0 0\n"}, nil
	case "pfctl -v -a regress -f -", "pfctl -o none -a regress -f -":
		p.loads = append(p.loads, c.Stdin)
		var out strings.Builder
		for _, line := range program.Lines(c.Stdin) {
			rule, rest, ok := strings.Cut(line, " divert-to 127.0.0.1 port ")
			if !ok {
				continue
			}
			port, label, _ := strings.Cut(rest, " no state label ")
			if label == p.refuse {
				return program.Result{Stderr: "stdin:1: syntax error\n", Status: 1}, nil
			}
			fmt.Fprintf(&out, "%s no state label %q divert-to %s\n", rule, label, port)
		}
		return program.Result{Stdout: out.String()}, nil
	default:
		return program.Result{}, errors.New("unexpected " + args)
	}
}

func goodPF() *fakePF {
	return &fakePF{status: "Enabled", main: "scrub in all fragment reassemble\npass all flags S/SA keep state\nanchor \"regress\" all\n"}
}

func besideSetup() *Setup {
	return &Setup{
		Remote: true,
		Paths:  []Path{{Here: netip.MustParseAddr("10.188.1.2"), There: netip.MustParseAddr("10.188.1.1")}},
		Fakes:  []netip.Prefix{netip.MustParsePrefix("10.188.2.9/32")},
	}
}

func besideRule(label string, a pfconf.Action) pfconf.Rule {
	return pfconf.Rule{
		Label: label, Direction: pfconf.In, Family: pfconf.Inet, Proto: pfconf.UDP, Port: 20000, Action: a,
		From: netip.MustParseAddr("10.188.1.1"), To: netip.MustParseAddr("10.188.1.2"),
		Divert: netip.AddrPortFrom(pfconf.Inet.Unspecified(), 701),
	}
}

// pf is used beside ipfw only where its rules decide and nothing of the host's is lost.
func TestPutPF(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*fakePF)
		why    string
	}{
		{"as it must be", func(*fakePF) {}, ""},
		{"off", func(p *fakePF) { p.status = "Disabled" }, "it is switched off (pfctl -e)"},
		{"no anchor", func(p *fakePF) { p.main = "pass all flags S/SA keep state\n" }, "comes to it"},
		{"quick before", func(p *fakePF) { p.main = "pass quick all flags S/SA keep state\nanchor \"regress\" all\n" }, "decides before it"},
		{"translates", func(p *fakePF) { p.nat = "rdr on em0 inet proto tcp from any to any port = http -> 127.0.0.1\n" }, "rules that translate"},
		{"no answer", func(p *fakePF) { p.main = "what\n" }, "not a rule"},
	} {
		p := goodPF()
		c.change(p)
		b := put(t.Context(), &mainFilter{}, besideSetup(), p.run, nil)
		if (b.pf != nil) != (c.why == "") || (b.noPF == "") != (c.why == "") || !strings.Contains(b.noPF, c.why) {
			t.Errorf("%s: %q", c.name, b.noPF)
		}
		if err := b.Close(t.Context()); err != nil || len(p.loads) > 0 {
			t.Errorf("%s: %v, loaded %q", c.name, err, p.loads)
		}
	}
}

// Each filter has its own rules, and a rule that pf refuses is the fault of its own change only.
func TestChangeBeside(t *testing.T) {
	p, fw := goodPF(), &mainFilter{}
	p.refuse = "regress-bad"
	a := &agent{fw: put(t.Context(), fw, besideSetup(), p.run, nil)}
	ctx := t.Context()
	faults := a.change(ctx, []Change{
		{Add: []pfconf.Rule{besideRule("regress-a", pfconf.DivertPacket)}},
		{Add: []pfconf.Rule{besideRule("regress-bad", pfconf.PFDivertTo)}},
		{Add: []pfconf.Rule{besideRule("regress-pf", pfconf.PFDivertTo)}},
		{Add: []pfconf.Rule{besideRule("regress-b", pfconf.DivertPacket)}},
	})
	for i, f := range faults {
		if (f != nil) != (i == 1) {
			t.Errorf("change %d: %v", i, f)
		}
	}
	counted, err := a.fw.Counters(ctx, []string{"regress-a", "regress-pf"})
	if err != nil || counted["regress-a"].Matched != 7 || counted["regress-pf"].Matched != 2 {
		t.Errorf("%v, %v", counted, err)
	}
	faults = a.change(ctx, []Change{{Remove: []string{"regress-pf", "regress-a"}}})
	if faults[0] != nil {
		t.Error(faults[0])
	}
	if last := p.loads[len(p.loads)-1]; strings.TrimSpace(last) != "" {
		t.Errorf("pf has %q", last)
	}
	if err := a.fw.Close(ctx); err != nil {
		t.Error(err)
	}
	want := []string{"change [regress-a regress-b] []", "counters [regress-a]", "change [] [regress-a]", "close"}
	if !slices.Equal(fw.said, want) {
		t.Errorf("ipfw was asked for %q, not %q", fw.said, want)
	}
}

// Without a pf that can be used nothing but its rules is refused.
func TestChangeWithoutPF(t *testing.T) {
	p := goodPF()
	p.status = "Disabled"
	a := &agent{fw: put(t.Context(), &mainFilter{}, besideSetup(), p.run, nil)}
	faults := a.change(t.Context(), []Change{
		{Add: []pfconf.Rule{besideRule("regress-a", pfconf.DivertPacket)}},
		{Add: []pfconf.Rule{besideRule("regress-pf", pfconf.PFDivertTo)}},
	})
	if faults[0] != nil || faults[1] == nil || !strings.Contains(faults[1].Text, "switched off") {
		t.Errorf("%v", faults)
	}
}
