package roles

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"pfdivert/matrix/script"
	"slices"

	"pfdivert/matrix"
	"pfdivert/roles/agent"
	"pfdivert/roles/testbed"
)

var checkSetupRole = Role{
	Name: "check-setup", Usage: "[FLAGS] [PATTERN...]",
	Summary: "look whether both hosts have what the targets need, and say what fixes it",
	Help: `Without REMOTE_SSH the hosts are a lab's, which is made for it and taken away
again. Nothing else is changed on either host. A run looks at the same things
before it begins.

Exit status: 0 when all is as it must be, 2 otherwise.`,
	run: func(ctx context.Context, c *call) (int, error) {
		f := c.flags()
		o := c.testbed()
		o.Beyond = true
		f.StringVar(&o.HostsFile, "hosts", "", "check the hosts in `FILE`, or those of them that REMOTE_SSH names")
		f.IntVar(&o.Domain, "rdomain", 0, "look at OpenBSD in the routing domain `N` of REMOTE, or of a lab's")
		kernelFlags(f, &o)
		filterFlag(f, &o)
		if err := c.parse(f); err != nil {
			return exitError, err
		}
		targets, err := matrix.Select(f.Args())
		if err != nil {
			return exitError, err
		}
		beds, err := testbed.Find(o, targets)
		if err != nil {
			return exitError, err
		}
		return c.checkAll(ctx, beds, targets)
	},
}

// checkAll checks all testbeds at once and prints what was found of one after the other.
func (c *call) checkAll(ctx context.Context, beds []*testbed.Testbed, targets []matrix.Target) (int, error) {
	defer testbed.Each(beds, (*testbed.Testbed).Close)
	found := make([]bytes.Buffer, len(beds))
	statuses := make([]int, len(beds))
	errs := testbed.Each(beds, func(b *testbed.Testbed) (err error) {
		if err := b.Reach(ctx); err != nil {
			return err
		}
		own := *c
		own.Out = &found[b.Index]
		statuses[b.Index], err = own.checkSetup(ctx, b.Pair, targets)
		return err
	})
	for i, b := range beds {
		if b.Name != "" {
			fmt.Fprintf(c.Out, "== %s\n", b.Name)
		}
		if _, err := found[i].WriteTo(c.Out); err != nil {
			return exitError, err
		}
		switch {
		case errs[i] != nil && b.Name == "":
			return exitError, errs[i]
		case errs[i] != nil:
			b.PrintError(c.Err, errs[i])
			statuses[i] = exitError
		}
	}
	return slices.Max(statuses), nil
}

// checkSetup asks both hosts about what the targets need and prints what they found.
func (c *call) checkSetup(ctx context.Context, p *testbed.Pair, targets []matrix.Target) (int, error) {
	local, remote, err := matrix.Setups(p.Options)
	if err != nil {
		return exitError, err
	}
	status := exitOK
	for _, side := range []struct {
		name  string
		conn  *agent.Conn
		setup script.Setup
	}{{"local", p.Hosts.Local, local}, {"remote", p.Hosts.Remote, remote}} {
		h := side.conn.Hello
		fmt.Fprintf(c.Out, "%s: %s, %s/%s, kernel %s\n", side.name, h.Host, h.GOOS, h.GOARCH, h.Kernel)
		items, err := side.conn.Check(ctx, side.setup)
		if err != nil {
			return exitError, p.Explain(fmt.Errorf("%s: %w", side.name, err))
		}
		if side.conn == p.Hosts.Remote {
			items = append(items, p.Unnamed(targets)...)
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
			fmt.Fprintf(w, "      fix: %s\n", i.Cure)
		}
	}
	return fine
}
