package roles

import (
	"bufio"
	"context"
	"fmt"

	"pfdivert/matrix"
)

var listRole = Role{
	Name: "list", Usage: "[PATTERN...]", Summary: "list the targets and what each proves",
	Help: `Without a pattern the targets of OpenBSD's suite are listed, which 'pfdivert run'
runs, followed by the claims, which it runs when a pattern matches them.
With -names and no pattern, those of the suite alone.

Exit status: 0, or 2 when a pattern matches no target.`,
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
		list := func(targets []matrix.Target) {
			for _, t := range targets {
				if *bare {
					fmt.Fprintln(w, t.Name)
				} else {
					fmt.Fprintf(w, "%s\t%s\n", t.Name, t.Proves())
				}
			}
		}
		list(targets)
		if f.NArg() == 0 && !*bare {
			fmt.Fprint(w, claimsHeading)
			list(matrix.Claims())
		}
		return exitOK, w.Flush()
	},
}

// claimsHeading is above the claims, which a run includes only by pattern.
const claimsHeading = `
What manuals say of packets that are handed to user space, and of translated connections;
'pfdivert run '*-divert-*' '*-natlook-*' '*-redirect-*' '*-queue-*' 'inet-to-*' 'inet6-to-*'' runs these:
`
