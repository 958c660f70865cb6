package roles

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"

	"pfdivert/roles/terminal"
)

var helpRole = Role{
	Name: "help", Usage: "[ROLE]", Summary: "say what the program or a role does",
	Help: "Exit status: 0, or 2 when there is no such role.",
}

// The run functions of roles that look at the table of roles are set here, for
// the table refers to them.
func init() { helpRole.run = runHelp }

func runHelp(ctx context.Context, c *call) (int, error) {
	f := c.flags()
	if err := c.parse(f); err != nil {
		return exitError, err
	}
	if f.NArg() == 0 {
		overview(c.Out)
		return exitOK, nil
	}
	name := f.Arg(0)
	if name == "orchestrator" {
		name = orchestratorRole.Name
	}
	r := find(name)
	if r == nil {
		return exitError, terminal.WithHint(fmt.Errorf("there is no role %q", name),
			suggestRole(name)+"'pfdivert help' shows all")
	}
	// The role itself knows its flags.
	return r.run(ctx, &call{IO: c.IO, role: r, version: c.version, args: []string{"-h"}})
}

// overview prints what the program is and its roles.
func overview(w io.Writer) {
	fmt.Fprint(w, `pfdivert proves whether a kernel's packet filter diverts traffic as it should.

Without a remote host it makes two hosts out of network namespaces on this
Linux machine and tests this machine's kernel; root is not needed.

`)
	for _, r := range all() {
		if !r.Hidden {
			fmt.Fprintf(w, "  pfdivert %-24s %s\n", strings.TrimSpace(r.Name+" "+r.Usage), r.Summary)
		}
	}
	fmt.Fprint(w, `
Without a role, all targets are run. A role is also picked by the name that the
program is started under: 'pfdivert install DIR' makes the symlinks.
'pfdivert help ROLE' or 'pfdivert ROLE -h' explains one role.

Exit status: 0 when every target is PASS, XFAIL or SKIP; 1 when one is FAIL or
XPASS; 2 when one is ERROR, or the run could not start.
`)
}

// help prints the role's help with its flags.
func (r *Role) help(w io.Writer, f *flag.FlagSet) {
	fmt.Fprintf(w, "usage: pfdivert %s\n\n%s.\n", strings.TrimSpace(r.Name+" "+r.Usage),
		strings.ToUpper(r.Summary[:1])+r.Summary[1:])
	some := false
	f.VisitAll(func(*flag.Flag) { some = true })
	if some {
		fmt.Fprintln(w, "\nFlags:")
		f.SetOutput(w)
		f.PrintDefaults()
		f.SetOutput(io.Discard)
	}
	if r.Help != "" {
		fmt.Fprintf(w, "\n%s\n", r.Help)
	}
}
