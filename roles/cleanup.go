package roles

import (
	"context"
	"fmt"
	"io"

	"pfdivert/roles/agent"
	"pfdivert/roles/testbed"
)

var cleanupRole = Role{
	Name: "cleanup", Usage: "[-n]", Summary: "undo what killed runs left on this host, and on REMOTE_SSH's",
	Help: `An agent records in /var/run/pfdivert how each of its changes of a host is undone,
before it makes it. Usually it undoes all itself, whatever ends the run, and the
next run undoes what a killed agent left; this does it at once. What agents
that are at work changed is left alone.

Environment: REMOTE_SSH, SSH_OPTIONS and SUDO as for a run.

Exit status: 0 when nothing is left, 2 otherwise.`,
	run: runCleanup,
}

func runCleanup(ctx context.Context, c *call) (int, error) {
	f := c.flags()
	look := f.Bool("n", false, "show what killed runs left, and change nothing")
	if err := c.parse(f); err != nil {
		return exitError, err
	}
	if err := c.noArgs(f); err != nil {
		return exitError, err
	}
	p, err := testbed.ReachForCleanup(ctx, c.testbed())
	if err != nil {
		return exitError, err
	}
	defer p.Close()
	status := exitOK
	for _, side := range []struct {
		name string
		conn *agent.Conn
	}{{"local", p.Hosts.Local}, {"remote", p.Hosts.Remote}} {
		if side.conn == nil {
			continue
		}
		left, err := side.conn.Cleanup(ctx, *look)
		if err != nil {
			return exitError, p.Explain(fmt.Errorf("%s: %w", side.name, err))
		}
		fmt.Fprintf(c.Out, "%s: %s\n", side.name, side.conn.Hello.Host)
		if !writeLeft(c.Out, left, *look) {
			status = exitError
		}
	}
	return status, nil
}

// writeLeft prints what journals say and what was done, and reports whether nothing is left.
func writeLeft(w io.Writer, left []*agent.Left, look bool) (fine bool) {
	fine = true
	if len(left) == 0 {
		fmt.Fprintln(w, "  nothing is left of any run")
	}
	for _, l := range left {
		switch {
		case l.Alive:
			fmt.Fprintf(w, "  %s is at work: left alone\n", l)
			continue
		case l.Elsewhere:
			fmt.Fprintf(w, "  %s, was killed in the network namespace %s: clean up there, or remove %s if that is gone\n", l, l.Net, l.File)
			continue
		case l.Rebooted:
			fmt.Fprintf(w, "  %s, was killed; the host has been booted since: no change is left\n", l)
		default:
			fmt.Fprintf(w, "  %s, was killed\n", l)
		}
		if look {
			fine = false
			for i := len(l.Steps) - 1; i >= 0 && !l.Rebooted; i-- {
				fmt.Fprintf(w, "    to do: %s\n", agent.Describe(l.Steps[i]))
			}
			continue
		}
		for _, what := range l.Undone {
			fmt.Fprintf(w, "    done: %s\n", what)
		}
		if l.Err != "" {
			fine = false
			fmt.Fprintf(w, "    error: %s\n", l.Err)
		}
	}
	return fine
}
