package roles

import (
	"context"
	"errors"
	"fmt"
	"os"

	"pfdivert/roles/report"
	"pfdivert/roles/terminal"
)

var compareRole = Role{
	Name: "compare", Usage: "[-json FILE] A.json B.json",
	Summary: "say what changed between two runs, of which -json wrote the results",
	Help: `Targets are compared by name; of runs with several hosts, hosts by name. A run of
one host is compared with each host of the other.

A regression is a target that passed in A and does not in B, for whatever reason,
also because B was interrupted before it; or one that was XFAIL or SKIP and is FAIL or
ERROR. Targets that B was not to run are only counted. Of runs with -count or -for a
target's worst verdict counts. '-' is standard input.

Exit status: 0 when nothing regressed, 1 when something did, 2 when a file can't
be read.`,
	run: func(_ context.Context, c *call) (int, error) {
		f := c.flags()
		file := f.String("json", "", "write the changes as JSON to `FILE`, '-' for standard output")
		if err := c.parse(f); err != nil {
			return exitError, err
		}
		if f.NArg() != 2 {
			return exitError, terminal.WithHint(fmt.Errorf("compare needs two files and was given %d", f.NArg()),
				"pfdivert run -json A.json, and later pfdivert compare A.json B.json")
		}
		var runs [2]*report.Past
		for i := range runs {
			var err error
			if runs[i], err = c.readRun(f.Arg(i)); err != nil {
				return exitError, terminal.WithHint(err, "'pfdivert run -json FILE' writes what can be compared")
			}
		}
		found := report.Compare(runs[0], runs[1])
		if err := c.writeCompared(found, *file); err != nil {
			return exitError, err
		}
		if found.Regressions() > 0 {
			return exitFail, nil
		}
		return exitOK, nil
	},
}

// readRun reads the results of a run from a file, or from standard input.
func (c *call) readRun(name string) (*report.Past, error) {
	from := c.In
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		from = f
	}
	run, err := report.ReadJSON(from)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return run, nil
}

// writeCompared writes the changes for people, and as JSON where that is wanted.
func (c *call) writeCompared(found *report.Comparison, file string) error {
	text := c.Out
	switch file {
	case "":
	case "-":
		text = c.Err
		if err := found.WriteJSON(c.Out); err != nil {
			return err
		}
	default:
		f, err := os.Create(file)
		if err != nil {
			return terminal.WithHint(err, "choose another file with -json")
		}
		if err := errors.Join(found.WriteJSON(f), f.Close()); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	return found.WriteText(text, report.StyleOf(text, c.Getenv))
}
