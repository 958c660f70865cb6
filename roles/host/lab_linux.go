package host

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"

	"pfdivert/roles/lab/namespace"
)

// Lab starts the two agents of a lab: LOCAL's as a child in new namespaces,
// which builds the lab there and starts REMOTE's (StartRemoteAgent). A system
// that forbids that gives a *namespace.ForbiddenError. When one agent ends the
// other is told to. The end of ctx kills both.
//
// LOCAL's agent is pinned to one CPU and REMOTE's to another, where this
// process has two: packets wait in a queue for each CPU, so what one host
// sends arrives in the order in which it was sent, and a fence holds.
func Lab(ctx context.Context, o LabOptions) (local, remote *Link, err error) {
	var p pipes
	defer p.closeTheirs()
	defer func() {
		if err != nil {
			p.closeOurs()
			err = fmt.Errorf("start the lab's agents: %w", err)
		}
	}()
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	localCPU, remoteCPU, pin := chooseCPUs()
	settings, err := json.Marshal(labSettings{Config: o.Config, CPU: remoteCPU, Pin: pin})
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.Command("/proc/self/exe", append(o.Args[:len(o.Args):len(o.Args)], string(settings))...)
	cmd.Args[0] = os.Args[0]
	cmd.SysProcAttr = dieWithParent()
	// A terminal's signals are the orchestrator's to act on.
	cmd.SysProcAttr.Setpgid = true
	if local, err = p.link(&cmd.Stdin, &cmd.Stdout, &cmd.Stderr); err != nil {
		return nil, nil, err
	}
	var stdin io.Reader
	var stdout, stderr io.Writer
	if remote, err = p.link(&stdin, &stdout, &stderr); err != nil {
		return nil, nil, err
	}
	cmd.ExtraFiles = []*os.File{stdin.(*os.File), stdout.(*os.File), stderr.(*os.File)}

	err = start(ctx, cmd, func() error {
		if pin {
			// Of this thread, which is the child's alone.
			if err := pinThread(localCPU); err != nil {
				return err
			}
		}
		return namespace.Start(cmd)
	}, local)
	if err != nil {
		return nil, nil, err
	}
	remote.kill = local.kill // its Pdeathsig does the rest
	remote.ended = make(chan struct{})
	go func() {
		<-remote.stderr.over // the last to hold it open was the process
		local.Write.Close()
		close(remote.ended)
	}()
	return local, remote, nil
}
