package roles

import (
	"context"
	"errors"
	"os"
	"syscall"

	"pfdivert/roles/agent"
	"pfdivert/roles/host"
	"pfdivert/roles/lab"
	"pfdivert/roles/terminal"
	"pfdivert/roles/testbed"
)

var agentRole = Role{
	Name: "agent", Hidden: true, Summary: "work on a host for an orchestrator that holds the other end of standard input and output",
	Help: "Exit status: 0 when all was undone, 2 otherwise.",
	run:  runAgent,
}

func runAgent(ctx context.Context, c *call) (int, error) {
	f := c.flags()
	var opt agent.Options
	labSettings := f.String("lab", "", "be LOCAL of a lab with these settings, and start REMOTE's agent")
	labRemote := f.Bool("lab-remote", false, "be REMOTE of a lab")
	labHost := f.String("lab-host", "", "be a host of a lab that ends with it; `IF` is the interface towards the other one")
	labBuilder := f.Bool("lab-builder", false, "build a lab, and take it away at the end")
	f.BoolVar(&opt.Lab, "in-lab", false, "be a host of a lab that another agent takes away")
	domain := f.Int("rdomain", -1, "work in the routing domain `N`")
	traced := f.Bool("traced", false, "hold one endpoint, under a tracer, for an agent")
	unprivileged := f.Bool("unprivileged", false, "drop all privilege first")
	remove := f.String("remove", "", "at the end remove this program's file and its folder `DIR`")
	if err := c.parse(f); err != nil {
		return exitError, err
	}
	if err := c.noArgs(f); err != nil {
		return exitError, err
	}
	if *unprivileged {
		if err := agent.DropPrivilege(); err != nil {
			return exitError, err
		}
	}
	opt.Heartbeat = testbed.AgentPatience
	if *labSettings != "" || *labRemote || *labHost != "" || *labBuilder || opt.Lab {
		opt.Heartbeat = testbed.LabAgentPatience
	}
	switch {
	case *labSettings != "":
		remote, err := host.StartRemoteAgent(ctx, *labSettings, []string{"agent", "-lab-remote"})
		if err != nil {
			opt.Hello.Failed = agent.ErrorOf(err)
			break
		}
		opt.Hello.NoFamily = remote.Lab.Missing
		defer func() {
			// Who is told to end by a signal does not wait for REMOTE's input to end.
			end, cancel := context.WithTimeout(ctx, testbed.AgentPatience)
			defer cancel()
			_ = remote.Close(end) // what went wrong there is on its standard error
		}()
		opt.Interface = lab.LocalInterface
	case *labRemote:
		agent.WarmUp()
		opt.Interface = lab.RemoteInterface
	case *labHost != "":
		opt.Interface = *labHost
	case *traced: // its own file's sum is no one's question, and would fill the trace
		opt.Alone = true
	default:
		var err error
		if opt.Hello.SHA256, err = ownSum(); err != nil {
			return exitError, err
		}
	}
	opt.Ephemeral = opt.Interface != ""
	var err error
	if opt.Domain, err = agent.EnterDomain(*domain); err != nil {
		opt.Hello.Failed = agent.ErrorOf(err)
	}
	if *remove != "" {
		defer func() {
			if err := host.RemoveOwn(*remove); err != nil {
				terminal.PrintError(c.Err, err)
			}
		}()
	}
	if err := agent.Serve(ctx, c.In, c.Out, opt); err != nil && !errors.Is(err, syscall.EPIPE) &&
		!errors.Is(err, os.ErrClosed) {
		return exitError, err
	}
	return exitOK, nil
}
