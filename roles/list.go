package roles

import (
	"bufio"
	"context"
	"fmt"

	"pfdivert/matrix"
)

var listRole = Role{
	Name: "list", Usage: "[PATTERN...]", Summary: "list the targets and what each proves",
	Help: "Exit status: 0, or 2 when a pattern matches no target.",
	run: func(_ context.Context, c *call) (int, error) {
		f := c.flags()
		bare := f.Bool("names", false, "print names only")
		if err := c.parse(f); err != nil {
			return exitError, err
		}
		targets, err := matrix.Select(f.Args())
		if err != nil {
			return exitError, err
		}
		w := bufio.NewWriter(c.Out)
		for _, t := range targets {
			if *bare {
				fmt.Fprintln(w, t.Name)
			} else {
				fmt.Fprintf(w, "%s\t%s\n", t.Name, t.Proves())
			}
		}
		return exitOK, w.Flush()
	},
}
