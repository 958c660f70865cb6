package roles

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"

	"pfdivert/matrix"
	"pfdivert/roles/agent"
)

var checkSetupRole = Role{
	Name: "check-setup", Usage: "[-hosts FILE] [PATTERN...]", Summary: "look whether both hosts have what the targets need, and say what mends it",
	Help: `Without REMOTE_SSH the hosts are a lab's, which is made for it and taken away
again. Nothing else is changed on either host. A run looks at the same things
before it begins.

Exit status: 0 when all is as it must be, 2 otherwise.`,
	run: func(ctx context.Context, c *call) (int, error) {
		f := c.flags()
		o := runFlags{sudo: c.Getenv("SUDO")}
		f.StringVar(&o.hosts, "hosts", "", "check the hosts in `FILE`, or those of them that REMOTE_SSH names")
		f.IntVar(&o.domain, "rdomain", 0, "look at OpenBSD in the routing domain `N` of REMOTE, or of a lab's")
		if err := c.parse(f); err != nil {
			return exitError, err
		}
		targets, err := matrix.Select(f.Args())
		if err != nil {
			return exitError, err
		}
		hosts, err := c.hostsToTest(o, targets)
		if err != nil {
			return exitError, err
		}
		return c.checkHosts(ctx, hosts)
	},
}

// checkHosts checks all hosts at once and prints what was found of one after the other.
func (c *call) checkHosts(ctx context.Context, hosts []*tested) (int, error) {
	defer each(hosts, (*tested).close)
	found := make([]bytes.Buffer, len(hosts))
	statuses := make([]int, len(hosts))
	errs := each(hosts, func(h *tested) (err error) {
		if h.pair, err = h.reach(ctx); err != nil {
			return err
		}
		own := *c
		own.Out = &found[h.index]
		statuses[h.index], err = own.checkSetup(ctx, h.pair)
		return err
	})
	for i, h := range hosts {
		if h.name != "" {
			fmt.Fprintf(c.Out, "== %s\n", h.name)
		}
		if _, err := found[i].WriteTo(c.Out); err != nil {
			return exitError, err
		}
		switch {
		case errs[i] != nil && h.name == "":
			return exitError, errs[i]
		case errs[i] != nil:
			h.tell(c.Err, errs[i])
			statuses[i] = exitError
		}
	}
	return slices.Max(statuses), nil
}

// checkSetup asks both hosts and prints what they found.
func (c *call) checkSetup(ctx context.Context, p *pair) (int, error) {
	local, remote, err := matrix.Setups(p.options)
	if err != nil {
		return exitError, err
	}
	status := exitOK
	for _, side := range []struct {
		name  string
		conn  *agent.Conn
		setup agent.Setup
	}{{"local", p.hosts.Local, local}, {"remote", p.hosts.Remote, remote}} {
		h := side.conn.Hello
		fmt.Fprintf(c.Out, "%s: %s, %s/%s, kernel %s\n", side.name, h.Host, h.GOOS, h.GOARCH, h.Kernel)
		items, err := side.conn.Check(ctx, side.setup)
		if err != nil {
			return exitError, p.explain(fmt.Errorf("%s: %w", side.name, err))
		}
		if !writeChecks(c.Out, items) {
			status = exitError
		}
	}
	return status, nil
}

// writeChecks prints what was found of a host and reports whether all is as it must be.
func writeChecks(w io.Writer, items []agent.CheckItem) (fine bool) {
	fine = true
	for _, i := range items {
		mark := "ok"
		switch {
		case !i.OK:
			mark, fine = "NO", false
		case i.Warn:
			mark = "warn"
		}
		fmt.Fprintf(w, "  %s  %s: %s\n", mark, i.Name, i.Detail)
		if (!i.OK || i.Warn) && i.Cure != "" {
			fmt.Fprintf(w, "      mend: %s\n", i.Cure)
		}
	}
	return fine
}
