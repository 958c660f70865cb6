package roles

import (
	"context"
	"fmt"

	"pfdivert/roles/lab"
	"pfdivert/roles/terminal"
)

var labRole = Role{
	Name: "lab", Usage: "[FLAGS] [-- COMMAND...]",
	Summary: "make the two hosts of a lab and run a shell or COMMAND in one",
	Help: `LOCAL and REMOTE are network namespaces, joined by a cable; LOCAL routes the FAKE
addresses via REMOTE. In a shell in one host, 'pfdivert lab' makes another lab; to
work on both hosts use 'nsenter' as the lab's greeting says. The lab is gone when
the command ends.

Exit status: the command's, 128 and more when a signal ended it, 2 when the lab could
not be made.`,
	run: runLab,
}

func runLab(ctx context.Context, c *call) (int, error) {
	std := lab.Stdio{In: c.In, Out: c.Out, Err: c.Err}
	// A terminal's interrupts are for the command in the lab.
	ctx = context.WithoutCancel(ctx)
	if len(c.args) > 0 && c.args[0] == lab.InnerArgument {
		return lab.Inner(ctx, c.args[1:], std)
	}
	f := c.flags()
	where := f.String("host", string(lab.Local), "`HOST` is local or remote")
	single := f.Bool("single", false, "one LOCAL and one FAKE address per family")
	quiet := f.Bool("q", false, "no greeting")
	if err := c.parse(f); err != nil {
		return exitError, err
	}
	if h := lab.HostName(*where); h != lab.Local && h != lab.Remote {
		return exitError, terminal.WithHint(fmt.Errorf("the lab has no host %q", *where), "-host local or -host remote")
	}
	return lab.Run(ctx, []string{"lab"}, lab.RunOptions{
		Config: lab.Config{Single: *single}, Host: lab.HostName(*where), Command: f.Args(), Quiet: *quiet,
	}, std)
}
