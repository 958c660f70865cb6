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

	"pfdivert/matrix/script"
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
func (f *mainFilter) Load(_ context.Context, rules []pfconf.Rule) error {
	var labels []string
	for _, r := range rules {
		labels = append(labels, r.Label)
	}
	f.note("load %v", labels)
	return nil
}
func (f *mainFilter) Counters(_ context.Context, labels []string) (map[string]pfconf.Counters, error) {
	f.note("counters %v", labels)
	return map[string]pfconf.Counters{labels[0]: {Matched: 7}}, nil
}
func (f *mainFilter) Close(context.Context) error { f.note("close"); return nil }

// fakePF is the pf of a FreeBSD: an anchor that refuses the rules with the label refuse.
type fakePF struct {
	status, main, rdr string
	former            string // what the anchor's list of rules that translate has
	refuse            string
	loads             []string
	killed            []string // labels
}

func (p *fakePF) run(_ context.Context, c program.Command) (program.Output, error) {
	switch args := strings.Join(c.Argv, " "); args {
	case "pfctl -s info":
		return program.Output{Stdout: "Status: " + p.status +
			" for 0 days 00:03:30           Debug: Urgent\n  current entries   0\n"}, nil
	case "pfctl -s Interfaces -v":
		return program.Output{Stdout: "all\nvtnet1\n"}, nil
	case "pfctl -s rules", "pfctl -P -s rules":
		return program.Output{Stdout: p.main}, nil
	case "pfctl -P -s nat":
		return program.Output{Stdout: p.rdr}, nil
	case "pfctl -a regress -s nat":
		return program.Output{Stdout: p.former}, nil
	case "pfctl -n -v -o none -a regress -f -":
		return program.Output{Stdout: c.Stdin}, nil
	case "pfctl -a regress -s rules", "pfctl -ss", "pfctl -ss -vv":
		return program.Output{}, nil
	case "pfctl -a regress -s labels":
		return program.Output{Stdout: "regress-pf 1 2 3 0 0 0 0 0\n"}, nil
	case "pfctl -k label -k regress-rdr":
		p.killed = append(p.killed, c.Argv[4])
		return program.Output{Stderr: "killed 1 states\n"}, nil
	case "pfctl -v -a regress -f -", "pfctl -o none -a regress -f -":
		p.loads = append(p.loads, c.Stdin)
		var out strings.Builder
		for _, line := range program.Lines(c.Stdin) {
			rule, rest, ok := strings.Cut(line, " divert-to 127.0.0.1 port ")
			if !ok { // of a redirection
				if pass, label, ok := strings.Cut(line, " tagged "); ok {
					label, _, _ = strings.Cut(label, " ")
					line = fmt.Sprintf("%s keep state label %q tagged %s", pass, label, label)
				}
				if line != "" {
					fmt.Fprintln(&out, line)
				}
				continue
			}
			port, label, _ := strings.Cut(rest, " no state label ")
			if label == p.refuse {
				return program.Output{Stderr: "stdin:1: syntax error\n", Status: 1}, nil
			}
			fmt.Fprintf(&out, "%s no state label %q divert-to %s\n", rule, label, port)
		}
		return program.Output{Stdout: out.String()}, nil
	default:
		return program.Output{}, errors.New("unexpected " + args)
	}
}

func goodPF() *fakePF {
	return &fakePF{
		status: "Enabled", rdr: "nat-anchor \"regress\" all\nrdr-anchor \"regress\" all\n",
		main: "scrub in all fragment reassemble\npass all flags S/SA keep state\nanchor \"regress\" all\n",
	}
}

func besideSetup() *script.Setup {
	return &script.Setup{
		Remote: true,
		Paths:  []script.Path{{Here: netip.MustParseAddr("10.188.1.2"), There: netip.MustParseAddr("10.188.1.1")}},
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
		noRdr  string
	}{
		{"as it must be", func(*fakePF) {}, "", ""},
		{"off", func(p *fakePF) { p.status = "Disabled" }, "it is switched off (pfctl -e)", ""},
		{"no anchor", func(p *fakePF) { p.main = "pass all flags S/SA keep state\n" }, "comes to it", ""},
		{"quick before", func(p *fakePF) { p.main = "pass quick all flags S/SA keep state\nanchor \"regress\" all\n" },
			"decides before it", ""},
		{"translates", func(p *fakePF) {
			p.former = "rdr on em0 inet proto tcp from any to any port = http -> 127.0.0.1\n"
		}, "", ""},
		{"translates what a table has",
			func(p *fakePF) { p.former = "rdr on em0 inet proto tcp from any to <web> -> 127.0.0.1\n" },
			"refers to a table", ""},
		{"no answer", func(p *fakePF) { p.main = "what\n" }, "this one is not: what", ""},
		{"no rdr-anchor", func(p *fakePF) { p.rdr = "nat-anchor \"regress\" all\n" }, "",
			`put the line   rdr-anchor "regress"`},
		{"rdr before", func(p *fakePF) { p.rdr = "rdr inet all -> 127.0.0.1\n" + p.rdr }, "", "rdr inet all"},
		{"what was redirected is let pass", func(p *fakePF) {
			p.main = "pass in quick inet proto tcp from any to 10.188.1.2 flags S/SA keep state\n" + p.main
		}, "", "(inet tcp rdr-to): pass in quick inet proto tcp"},
		{"no answer about rdr", func(p *fakePF) { p.rdr = "rdr what\n" }, "", "this one is not: rdr what"},
	} {
		p := goodPF()
		c.change(p)
		b := put(t.Context(), &mainFilter{}, besideSetup(), p.run, nil)
		if (b.pf != nil) != (c.why == "") || (b.noPF == "") != (c.why == "") || !strings.Contains(b.noPF, c.why) {
			t.Errorf("%s: %q", c.name, b.noPF)
		}
		if (b.noRdr == "") != (c.noRdr == "") || !strings.Contains(b.noRdr, c.noRdr) {
			t.Errorf("%s: redirects: %q", c.name, b.noRdr)
		}
		if b.on != (p.status == "Enabled") {
			t.Errorf("%s: on %t", c.name, b.on)
		}
		if b.unknown != strings.HasPrefix(c.name, "no answer") {
			t.Errorf("%s: unknown %t", c.name, b.unknown)
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
	faults := a.change(ctx, []script.RuleChange{
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
	faults = a.change(ctx, []script.RuleChange{{Remove: []string{"regress-pf", "regress-a"}}})
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

// redirection is a rule that only pf has.
func redirection(label string) pfconf.Rule {
	r := besideRule(label, pfconf.RdrTo)
	r.To, r.Divert = netip.MustParseAddr("10.188.2.9"), netip.AddrPortFrom(netip.MustParseAddr("10.188.1.2"), 20001)
	return r
}

// A redirection is pf's, alone and among others, unless pf can't redirect: then it is refused, and
// no other rule of pf's is.
func TestRedirectBeside(t *testing.T) {
	for _, can := range []bool{true, false} {
		p, fw := goodPF(), &mainFilter{}
		if !can {
			p.rdr = ""
		}
		a := &agent{fw: put(t.Context(), fw, besideSetup(), p.run, nil)}
		faults := a.change(t.Context(), []script.RuleChange{
			{Add: []pfconf.Rule{besideRule("regress-a", pfconf.DivertPacket)}},
			{Add: []pfconf.Rule{redirection("regress-rdr")}},
			{Add: []pfconf.Rule{besideRule("regress-pf", pfconf.PFDivertTo)}},
		})
		if faults[0] != nil || faults[2] != nil || (faults[1] == nil) != can {
			t.Errorf("%v: %v", can, faults)
		}
		if f := faults[1]; f != nil && !strings.Contains(f.Text, "rdr-anchor") {
			t.Error(f)
		}
		if !slices.ContainsFunc(p.loads, func(s string) bool {
			return strings.Contains(s,
				"tag regress-rdr -> 10.188.1.2 port 20001")
		}) == can {
			t.Errorf("%v: pf was given %q", can, p.loads)
		}
	}
	p, fw := goodPF(), &mainFilter{}
	b := put(t.Context(), fw, besideSetup(), p.run, nil)
	for _, rules := range [][]pfconf.Rule{
		{redirection("regress-rdr"), besideRule("regress-a", pfconf.DivertPacket)}, nil,
	} {
		if err := b.Load(t.Context(), rules); err != nil {
			t.Error(err)
		}
	}
	if len(p.loads) != 2 || !strings.HasPrefix(p.loads[0], "rdr ") || strings.TrimSpace(p.loads[1]) != "" {
		t.Errorf("pf was given %q", p.loads)
	}
	if want := []string{"load [regress-a]", "load []"}; !slices.Equal(fw.said, want) {
		t.Errorf("ipfw was given %q", fw.said)
	}
	if !slices.Equal(p.killed, []string{"regress-rdr"}) {
		t.Errorf("states of %q are removed with their rules", p.killed)
	}
}

// Without a pf that can be used nothing but its rules is refused.
func TestChangeWithoutPF(t *testing.T) {
	p := goodPF()
	p.status = "Disabled"
	a := &agent{fw: put(t.Context(), &mainFilter{}, besideSetup(), p.run, nil)}
	faults := a.change(t.Context(), []script.RuleChange{
		{Add: []pfconf.Rule{besideRule("regress-a", pfconf.DivertPacket)}},
		{Add: []pfconf.Rule{besideRule("regress-pf", pfconf.PFDivertTo)}},
	})
	if faults[0] != nil || faults[1] == nil || !strings.Contains(faults[1].Text, "switched off") {
		t.Errorf("%v", faults)
	}
}
