package roles

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"pfdivert/matrix"
	"pfdivert/matrix/script"
	"pfdivert/pfconf"
	"pfdivert/pfconf/nft"
	"pfdivert/pfconf/pf"
	"pfdivert/roles/agent"
	"pfdivert/roles/lab"
	"pfdivert/roles/terminal"
	"pfdivert/roles/testbed"
)

var pfSetupRole = Role{
	Name: "pf-setup", Usage: "[FLAGS] | WORD [FLAGS]", Link: true,
	Summary: "load one divert rule into this host's packet filter, until interrupted; or show what it holds",
	Help: `The rule is loaded into pf's anchor "regress", a table of its own in nftables, or a
set of its own in ipfw. It stays until the role is interrupted (Ctrl-C, SIGTERM);
then its counters are shown and what was there before is put back. What a killed
pf-setup left is undone by 'pfdivert cleanup', and by whoever is next to use the host.

With a WORD it shows or clears what the filter holds, in the same words for pf,
nf_tables and ipfw:

  status    which filter, whether it is switched on, how many states and own rules
  anchors   where rules are: anchors, tables or sets; 'own' are this program's
  rules     this program's rules, with their counters
  states    the state table, or what is picked of it
  kill      remove states: those of this program's rules, or those that are picked
  flush     remove this program's rules and their states; those of the host stay
  timeouts  how long states live, by pf.conf(5)'s names
  limits    how many there may be

Flags of a WORD, before it or behind it:
  -s HOST       states that this HOST or HOST:PORT began
  -d HOST       states that are for this HOST or HOST:PORT
  -id ID        the state with this ID
  -label LABEL  kill: states that rules of this program with the LABEL made (pf)
  -plain        no heading, and tabs between the columns

Exit status: 0 when all was put back, or shown or removed; 2 otherwise.`,
	run: runPFSetup,
}

func runPFSetup(ctx context.Context, c *call) (int, error) {
	if i := slices.IndexFunc(c.args, func(a string) bool { return verbs[a].rows != nil }); i >= 0 {
		return c.runVerb(ctx, i, agent.OpenInspector)
	}
	const example = "pfdivert pf-setup -proto tcp -from 10.188.1.1 -to 10.188.2.9 -port 4000"
	if len(c.args) == 0 {
		return exitError, terminal.WithHint(errors.New("pf-setup needs flags, which say what rule to load, or a word"),
			example+", or: pfdivert pf-setup status")
	}
	if word := c.args[0]; !strings.HasPrefix(word, "-") {
		words := slices.Sorted(maps.Keys(verbs))
		return exitError, terminal.WithHint(fmt.Errorf("pf-setup has no word %q", word),
			matrix.Suggest(word, words)+"the words are "+strings.Join(words, ", "))
	}
	f := c.flags()
	r := pfconf.Rule{Label: pfconf.LabelPrefix, Action: pfconf.DivertTo, Proto: pfconf.TCP}
	f.TextVar(&r.Action, "action", pfconf.DivertTo, "divert-to, divert-reply, divert-packet or rdr-to")
	f.TextVar(&r.Proto, "proto", pfconf.TCP, "tcp, udp, rip (raw IP, protocol 254) or icmp")
	f.TextVar(&r.From, "from", netip.Addr{}, "source `ADDRESS` of the flow: LOCAL, or FAKE with divert-reply")
	f.TextVar(&r.To, "to", netip.Addr{}, "destination `ADDRESS` of the flow: FAKE, or LOCAL with divert-reply")
	port := f.Uint("port", 0, "destination port of the flow (tcp, udp)")
	divert := f.Uint("divert-port", 0, "port of the socket on the loopback address, the flow's port if not given; with divert-packet the divert port")
	var target netip.Addr
	f.TextVar(&target, "target", netip.Addr{}, "with rdr-to, the `ADDRESS` of this host to which the flow is redirected, at -divert-port")
	out := f.Bool("out", false, "divert-packet on the way out; on the way in otherwise")
	dry := f.Bool("n", false, "print what would be loaded, for pf and for nftables, and load nothing")
	if err := c.parse(f); err != nil {
		return exitError, err
	}
	if err := c.noArgs(f); err != nil {
		return exitError, err
	}
	if r.Action == pfconf.PFDivertTo || r.Action == pfconf.PFPass {
		return exitError, terminal.WithHint(errors.New("pf-divert-to and pf-pass are for the filter beside ipfw that a run opens, and not for pf-setup"),
			"pfdivert run '*-divert-pf-*' loads it on a FreeBSD host")
	}
	if *port > 65535 || *divert > 65535 {
		return exitError, terminal.WithHint(fmt.Errorf("port %d does not exist", max(*port, *divert)),
			"ports go up to 65535")
	}
	if !r.From.IsValid() || !r.To.IsValid() {
		return exitError, terminal.WithHint(errors.New("pf-setup needs both addresses of the flow, -from and -to"),
			example)
	}
	complete(&r, uint16(*port), netip.AddrPortFrom(target, uint16(*divert)), *out)
	if err := r.Validate(); err != nil {
		return exitError, terminal.WithHint(err, example)
	}
	rules := []pfconf.Rule{r}
	fakes := []netip.Prefix{fakeOf(r)}
	fmt.Fprintf(c.Out, "# pf.conf, anchor \"regress\"\n%s\n", pf.Text(r))
	if *dry {
		fmt.Fprintf(c.Out, "\n# nftables, as 'nft list table inet %s' shows it\n%s", nft.TableName,
			nft.Render(rules, nft.Config{Fakes: fakes}))
		return exitOK, nil
	}
	if err := c.loadUntilEnd(ctx, r, fakes); err != nil {
		return exitError, err
	}
	return exitOK, nil
}

// loadUntilEnd has the rule in force until ctx ends. It takes the host as a run does, but for
// a lab, which no one else has and which leaves nothing.
func (c *call) loadUntilEnd(ctx context.Context, r pfconf.Rule, fakes []netip.Prefix) error {
	var opt agent.Options
	undone := func(context.Context, bool) error { return nil }
	if c.Getenv(lab.Marker) == "" {
		hold, err := agent.Take(ctx, agent.HoldOptions{
			Remote: true, By: "pf-setup of " + testbed.WhoRuns(c.Getenv),
			Tell: func(s string) { fmt.Fprintf(c.Err, "notice: %s\n", s) },
		})
		if err != nil {
			return err
		}
		opt.Journal, undone = hold.Journal, hold.End
	}
	fw, err := agent.OpenFilter(ctx, &script.Setup{Fakes: fakes}, opt)
	if err != nil {
		return errors.Join(err, undone(context.WithoutCancel(ctx), true))
	}
	err = fw.Load(ctx, []pfconf.Rule{r})
	if err == nil {
		fmt.Fprintf(c.Out, "loaded; interrupt to put back what was there before\n")
		<-ctx.Done()
		err = counted(fw, c, r)
	}
	closed := fw.Close(context.WithoutCancel(ctx))
	ended := undone(context.WithoutCancel(ctx), closed == nil)
	if err != nil {
		return err
	}
	return errors.Join(closed, ended)
}

// complete fills in what follows from the action.
func complete(r *pfconf.Rule, port uint16, target netip.AddrPort, out bool) {
	divert := target.Port()
	r.Port, r.Direction = port, pfconf.In
	if r.From.IsValid() {
		r.Family = pfconf.FamilyOf(r.From)
	}
	switch r.Action {
	case pfconf.DivertTo:
		if divert == 0 {
			divert = max(port, 1) // pf's grammar wants a port for every protocol
		}
		r.Divert = netip.AddrPortFrom(r.Family.Loopback(), divert)
	case pfconf.DivertReply:
		r.Direction = pfconf.Out
	case pfconf.DivertPacket:
		r.Divert = netip.AddrPortFrom(netip.Addr{}, divert)
		if out {
			r.Direction = pfconf.Out
		}
	case pfconf.RdrTo:
		if divert == 0 {
			divert = port
		}
		r.Divert = netip.AddrPortFrom(target.Addr(), divert)
	}
}

// fakeOf returns the rule's foreign address as a prefix.
func fakeOf(r pfconf.Rule) netip.Prefix {
	a := r.To
	if r.Action == pfconf.DivertReply {
		a = r.From
	}
	return netip.PrefixFrom(a, a.BitLen())
}

// counted prints what the rule counted.
func counted(fw pfconf.Firewall, c *call, r pfconf.Rule) error {
	m, err := fw.Counters(context.Background(), []string{r.Label})
	if err != nil {
		return err
	}
	n := m[r.Label]
	parts := []string{fmt.Sprintf("matched %s, its action served %d", pfconf.Count(n.Matched, "packet"), n.Done)}
	if n.Replies > 0 {
		parts = append(parts, fmt.Sprintf("%d came back", n.Replies))
	}
	if n.States > 0 {
		parts = append(parts, pfconf.Count(n.States, "state"))
	}
	name := fw.Name()
	if name == "ipfw" && r.Action == pfconf.RdrTo {
		name = "pf" // which stands beside it
	}
	fmt.Fprintf(c.Out, "%s: the rule %s\n", name, strings.Join(parts, ", "))
	return nil
}
