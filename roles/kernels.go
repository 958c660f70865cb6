package roles

import (
	"context"
	"errors"

	"pfdivert/roles/report"
	"pfdivert/roles/terminal"
)

var kernelsRole = Role{
	Name: "kernels", Usage: "FILE.json...", Summary: "put runs on several kernels beside each other, as a page in Markdown",
	Help: `The files are what 'pfdivert run -json FILE' wrote; each makes a column, or several if
several hosts were tested. The page goes to standard output. docs/kernels.md is made
so of the files in docs/kernels.

Exit status: 0, or 2 when a file can't be read.`,
	run: func(_ context.Context, c *call) (int, error) {
		f := c.flags()
		if err := c.parse(f); err != nil {
			return exitError, err
		}
		if f.NArg() == 0 {
			return exitError, terminal.WithHint(errors.New("kernels needs the results of a run"),
				"pfdivert run -json linux.json, and then pfdivert kernels linux.json")
		}
		var runs []*report.Past
		for _, name := range f.Args() {
			run, err := c.readRun(name)
			if err != nil {
				return exitError, terminal.WithHint(err, "'pfdivert run -json FILE' writes what can be read")
			}
			runs = append(runs, run)
		}
		if err := report.WriteKernels(c.Out, runs); err != nil {
			return exitError, err
		}
		return exitOK, nil
	},
}
