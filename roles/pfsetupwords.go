package roles

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"

	"pfdivert/pfconf"
	"pfdivert/roles/agent"
	"pfdivert/roles/lab"
	"pfdivert/roles/terminal"
	"pfdivert/roles/testbed"
)

// desk is one of pf-setup's words: it shows or clears what the packet filter holds.
type desk struct {
	pfconf.Inspector
	call  *call
	plain bool
	pick  picked
}

// verbs are pf-setup's words, with what each does and shows.
var verbs = map[string]struct {
	heading []string // of the columns
	rows    func(*desk, context.Context) ([][]string, error)
}{
	"status":   {[]string{"NAME", "VALUE"}, (*desk).status},
	"anchors":  {[]string{"NAME", "OWNER"}, (*desk).anchors},
	"rules":    {[]string{"LABEL", "PACKETS", "PLACE", "RULE"}, (*desk).rules},
	"states":   {[]string{"PROTO", "DIR", "NEAR", "FAR", "PHASE", "EXPIRES", "ID"}, (*desk).states},
	"kill":     {nil, (*desk).kill},
	"flush":    {nil, (*desk).flush},
	"timeouts": {[]string{"NAME", "VALUE", "SYSTEM"}, (*desk).timeouts},
	"limits":   {[]string{"NAME", "VALUE", "SYSTEM"}, (*desk).limits},
}

// runVerb runs the one that the role's argument with the index names.
func (c *call) runVerb(ctx context.Context, word int, open func() (pfconf.Inspector, error)) (int, error) {
	d := &desk{call: c}
	f := c.flags()
	name := c.args[word]
	v := verbs[name]
	if v.heading != nil {
		f.BoolVar(&d.plain, "plain", false, "no heading, and tabs between the columns")
	}
	if name == "states" || name == "kill" {
		d.pick.add(f, name == "kill")
	}
	own := *c
	own.args = slices.Delete(slices.Clone(c.args), word, word+1)
	if err := own.parse(f); err != nil {
		return exitError, err
	}
	if err := own.noArgs(f); err != nil {
		return exitError, err
	}
	if err := d.pick.check(); err != nil {
		return exitError, err
	}
	var err error
	if d.Inspector, err = open(); err != nil {
		return exitError, err
	}
	rows, err := v.rows(d, ctx)
	if err = errors.Join(err, d.Close()); err != nil {
		return exitError, err
	}
	return exitOK, d.print(v.heading, rows)
}

// print writes the rows: for people in columns, plain with tabs.
func (d *desk) print(heading []string, rows [][]string) error {
	for _, r := range rows {
		for i, s := range r {
			r[i] = strings.Map(func(c rune) rune {
				if unicode.IsPrint(c) {
					return c
				}
				return '?' // it comes from elsewhere
			}, s)
		}
	}
	if d.plain || heading == nil {
		for _, r := range rows {
			if _, err := fmt.Fprintln(d.call.Out, strings.Join(r, "\t")); err != nil {
				return err
			}
		}
		return nil
	}
	w := tabwriter.NewWriter(d.call.Out, 0, 0, 2, ' ', 0)
	for _, r := range append([][]string{heading}, rows...) {
		for i, s := range r {
			if i > 0 && s == "" {
				r[i] = "-"
			}
		}
		fmt.Fprintln(w, strings.Join(r, "\t"))
	}
	return w.Flush()
}

func (d *desk) status(ctx context.Context) ([][]string, error) {
	o, err := d.Overview(ctx)
	if err != nil {
		return nil, err
	}
	enabled := "no"
	if o.Enabled {
		enabled = "yes"
	}
	return [][]string{
		{"filter", o.Filter}, {"enabled", enabled}, {"states", strconv.Itoa(o.States)}, {"own-rules",
			strconv.Itoa(o.Own)},
	}, nil
}

func (d *desk) anchors(ctx context.Context) (rows [][]string, err error) {
	places, err := d.Places(ctx)
	for _, p := range places {
		owner := "host"
		if p.Own {
			owner = "own"
		}
		rows = append(rows, []string{p.Name, owner})
	}
	return rows, err
}

func (d *desk) rules(ctx context.Context) (rows [][]string, err error) {
	rules, err := d.OwnRules(ctx)
	for _, r := range rules {
		if r.Text == "" && err == nil {
			r.Text, err = ruleText(r)
		}
		rows = append(rows, []string{r.Label, strconv.FormatUint(r.Packets, 10), r.Place, r.Text})
	}
	return rows, err
}

func (d *desk) states(ctx context.Context) (rows [][]string, err error) {
	states, err := d.Inspector.States(ctx)
	for _, s := range states {
		if !d.pick.takes(s) {
			continue
		}
		rows = append(rows, []string{
			protoWord(s.Number), s.Direction.String(), stateEnd(s.Near, s.NearWas), stateEnd(s.Far, s.FarWas), s.Phase,
			fmt.Sprintf("%ds", int(s.Expires.Seconds())), s.ID,
		})
	}
	return rows, err
}

// protoWord is the protocol's name as it is everywhere, or its number.
func protoWord(number int) string {
	for _, f := range pfconf.Families {
		for _, p := range []pfconf.Proto{pfconf.TCP, pfconf.UDP, pfconf.ICMP} {
			if p.Number(f) == number {
				if f == pfconf.Inet6 && p == pfconf.ICMP {
					return "icmp6"
				}
				return p.String()
			}
		}
	}
	return strconv.Itoa(number)
}

// stateEnd is an end of a state, with what it was before translation in parentheses.
func stateEnd(is, was netip.AddrPort) string {
	text := func(a netip.AddrPort) string {
		if a.Port() == 0 {
			return a.Addr().String()
		}
		return a.String()
	}
	if !was.IsValid() {
		return text(is)
	}
	return text(is) + " (" + text(was) + ")"
}

func (d *desk) kill(ctx context.Context) ([][]string, error) {
	var n int
	var err error
	if !d.pick.any() {
		n, err = d.KillLabel(ctx, d.pick.label)
	} else {
		var states []pfconf.State
		if states, err = d.Inspector.States(ctx); err == nil {
			states = slices.DeleteFunc(states, func(s pfconf.State) bool { return !d.pick.takes(s) })
			if len(states) == 0 && d.pick.id != "" {
				return nil, terminal.WithHint(fmt.Errorf("no state that is meant has the id %q", d.pick.id),
					"'pfdivert pf-setup states' shows the ids")
			}
			n, err = d.Kill(ctx, states)
		}
	}
	return [][]string{{"killed " + pfconf.Count(n, "state")}}, err
}

// flush takes the host as a run does, so that it takes nothing from one that is at work. That
// undoes what killed runs left, too.
func (d *desk) flush(ctx context.Context) ([][]string, error) {
	ended := func(context.Context, bool) error { return nil }
	if d.call.Getenv(lab.Marker) == "" {
		hold, err := agent.Take(ctx, agent.HoldOptions{
			Remote: true, By: "pf-setup flush of " + testbed.WhoRuns(d.call.Getenv),
			Tell: func(s string) { fmt.Fprintf(d.call.Err, "notice: %s\n", s) },
		})
		if err != nil {
			return nil, err
		}
		ended = hold.End
	}
	done, err := d.Flush(ctx)
	err = errors.Join(err, ended(context.WithoutCancel(ctx), true))
	var rows [][]string
	for _, what := range done {
		rows = append(rows, []string{"removed " + what})
	}
	if len(done) == 0 && err == nil {
		rows = [][]string{{"nothing of this program is loaded"}}
	}
	return rows, err
}

func (d *desk) timeouts(ctx context.Context) ([][]string, error) {
	return settingRows("s")(d.Timeouts(ctx))
}

func (d *desk) limits(ctx context.Context) ([][]string, error) {
	return settingRows("")(d.Limits(ctx))
}

func settingRows(unit string) func([]pfconf.Setting, error) ([][]string, error) {
	return func(all []pfconf.Setting, err error) (rows [][]string, _ error) {
		for _, s := range all {
			value := strconv.FormatInt(s.Value, 10) + unit
			if s.Unit != "" {
				value = fmt.Sprintf("%d %s", s.Value, s.Unit)
			}
			rows = append(rows, []string{s.Name, value, s.System})
		}
		return rows, err
	}
}

// picked says which states are meant.
type picked struct {
	source, destination netip.AddrPort
	id, label           string
}

func (p *picked) add(f *flag.FlagSet, kill bool) {

	end := func(a *netip.AddrPort) func(string) error {
		return func(s string) (err error) {
			*a, err = address(s)
			return err
		}
	}
	f.Func("s", "those that this `HOST` or HOST:PORT began", end(&p.source))
	f.Func("d", "those that are for this `HOST` or HOST:PORT", end(&p.destination))
	f.StringVar(&p.id, "id", "", "the one with this `ID`, as states shows it")
	if kill {
		f.StringVar(&p.label, "label", "", "those that rules with this `LABEL` made (pf)")
	}
}

// any reports whether states are picked by what the listing shows.
func (p *picked) any() bool { return p.source.IsValid() || p.destination.IsValid() || p.id != "" }

func (p *picked) check() error {
	switch {
	case p.label != "" && p.any():
		return terminal.WithHint(errors.New("-label goes with no other choice"),
			"'pfdivert pf-setup kill -label LABEL', or -s, -d and -id")
	case p.label != "" && !pfconf.ValidLabel(p.label):
		return terminal.WithHint(fmt.Errorf("%q is no label of this program: the states of others are left alone", p.label),
			"its labels begin with "+pfconf.LabelPrefix+"; others' states are picked by -s, -d or -id")
	}
	return nil
}

// takes reports whether the state is meant: -s is about who began, -d about the other end, each
// before or after translation.
func (p *picked) takes(s pfconf.State) bool {
	began, beganWas, other, otherWas := s.Near, s.NearWas, s.Far, s.FarWas
	if s.Direction == pfconf.In {
		began, beganWas, other, otherWas = other, otherWas, began, beganWas
	}
	is := func(want netip.AddrPort, ends ...netip.AddrPort) bool {
		return !want.IsValid() || slices.ContainsFunc(ends, func(e netip.AddrPort) bool {
			return e.IsValid() && e.Addr() == want.Addr() && (want.Port() == 0 || e.Port() == want.Port())
		})
	}
	return is(p.source, began, beganWas) && is(p.destination, other, otherWas) && (p.id == "" || s.ID == p.id)
}
