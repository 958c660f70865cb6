package roles

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"regexp"
	"strings"
	"time"

	"pfdivert/matrix"
	"pfdivert/roles/terminal"
)

// flags makes the role's flag set.
func (c *call) flags() *flag.FlagSet {
	f := flag.NewFlagSet(c.role.Name, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	c.set = f
	return f
}

// parse parses the arguments. -h prints the role's help and returns flag.ErrHelp. An unknown flag
// is an error that names the nearest, a wrong value one that says what the flag takes.
func (c *call) parse(f *flag.FlagSet) error {
	err := f.Parse(c.args)
	switch {
	case err == nil:
		f.Visit(func(g *flag.Flag) {
			if d, ok := valueOf(g).(time.Duration); ok && d < 0 {
				err = wrongValue(g, g.Value.String(), "a time can't be less than 0s")
			}
		})
		return err
	case errors.Is(err, flag.ErrHelp):
		c.role.help(c.Out, f)
		return err
	}
	text := err.Error()
	if m := invalidValue.FindStringSubmatch(text); m != nil {
		g := f.Lookup(m[2])
		why := m[3]
		switch valueOf(g).(type) {
		case time.Duration:
			why = "this is no time, such as 30s, 5m or 1h"
		case int, uint:
			why = "this is no number, or too large a one"
		case bool:
			why = "this is neither true nor false"
		case *netip.Addr:
			why = "this is no address"
		}
		return wrongValue(g, m[1], why)
	}
	hint := fmt.Sprintf("'pfdivert %s -h' shows what it takes", c.role.Name)
	if _, name, ok := strings.Cut(text, "flag needs an argument: -"); ok {
		return wrongValue(f.Lookup(name), "", "a value must follow")
	}
	if _, name, ok := strings.Cut(text, "flag provided but not defined: -"); ok {
		var known []string
		f.VisitAll(func(g *flag.Flag) { known = append(known, "-"+g.Name) })
		if len(known) > 0 {
			hint = matrix.Suggest("-"+strings.TrimLeft(name, "-"), known) + hint
		}
		err = fmt.Errorf("%s has no flag -%s", c.role.Name, strings.TrimLeft(name, "-"))
	}
	return terminal.WithHint(err, hint)
}

// invalidValue is what package flag says of a value that its flag does not take.
var invalidValue = regexp.MustCompile(`(?s)^invalid (?:boolean )?value (".*") for (?:flag )?-([^ :]+): (.*)$`)

// valueOf returns a flag's value, nil for one that is a function.
func valueOf(g *flag.Flag) any {
	if v, ok := g.Value.(flag.Getter); ok {
		return v.Get()
	}
	return nil
}

// wrongValue returns an error for a flag's value, whose hint is what the flag takes.
func wrongValue(g *flag.Flag, value, why string) error {
	takes, usage := flag.UnquoteUsage(g)
	return terminal.WithHint(fmt.Errorf("-%s: %s", strings.TrimSpace(g.Name+" "+value), why),
		fmt.Sprintf("-%s: %s", strings.TrimSpace(g.Name+" "+takes), strings.ReplaceAll(usage, "\n", " ")))
}

// noArgs refuses arguments that are left after the flags.
func (c *call) noArgs(f *flag.FlagSet) error {
	if f.NArg() == 0 {
		return nil
	}
	return terminal.WithHint(fmt.Errorf("%s takes no argument %q", c.role.Name, f.Arg(0)),
		fmt.Sprintf("'pfdivert %s -h' shows what it takes", c.role.Name))
}
