package host

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"

	"pfdivert/roles/lab/namespace"
)

// Lab starts the two agents of a lab: LOCAL's as a child in new namespaces,
// which builds the lab there and starts REMOTE's (StartRemoteAgent). A system
// that forbids that gives a *namespace.ForbiddenError. When one agent ends the
// other is told to. The end of ctx kills both.
//
// LOCAL's agent is pinned to one CPU and REMOTE's to another, where this
// process has two: packets wait in a queue for each CPU, so what one host
// sends arrives in the order in which it was sent, and a fence holds. This
// process keeps off REMOTE's until REMOTE's agent has ended.
func Lab(ctx context.Context, o LabOptions) (local, remote *Link, err error) {
	var p, q pipes // LOCAL's and REMOTE's
	defer func() {
		p.closeTheirs()
		if err != nil {
			p.closeOurs()
			q.closeTheirs()
			q.closeOurs()
			err = fmt.Errorf("start the lab's agents: %w", err)
		}
	}()
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	var stdin, remoteStdin io.Reader
	var stdout, stderr, remoteStdout, remoteStderr io.Writer
	if local, err = p.link(&stdin, &stdout, &stderr); err != nil {
		return nil, nil, err
	}
	if remote, err = q.link(&remoteStdin, &remoteStdout, &remoteStderr); err != nil {
		return nil, nil, err
	}
	settings := labSettings{Config: o.Config}
	settings.LocalCPU, settings.RemoteCPU, settings.Pin = chooseCPUs()

	var cmd *exec.Cmd
	var begin func() error
	extra := []*os.File{remoteStdin.(*os.File), remoteStdout.(*os.File), remoteStderr.(*os.File)}
	if len(o.Sudo) > 0 {
		settings.Enter = &enterSettings{PID: os.Getpid()}
		for i, f := range extra {
			settings.Enter.FDs[i] = int(f.Fd())
		}
		cmd, err = o.sudoCommand(settings)
		begin = func() error { return cmd.Start() }
	} else {
		settings.Pipes = [3]int{3, 4, 5} // where exec.Cmd puts ExtraFiles
		cmd, err = o.command(settings)
		begin = func() error {
			if err := settings.pin(settings.LocalCPU); err != nil {
				return err
			}
			return namespace.Start(cmd)
		}
	}
	if err != nil {
		return nil, nil, err
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stderr
	if len(o.Sudo) == 0 {
		cmd.ExtraFiles = extra
	}
	if err := start(ctx, cmd, begin, local); err != nil {
		return nil, nil, err
	}
	if len(o.Sudo) == 0 {
		q.closeTheirs()
	} else {
		// REMOTE's must stay until the agent has opened them, which it has when it
		// speaks, or will never.
		heard := &onRead{ReadCloser: local.Read, then: sync.OnceFunc(q.closeTheirs)}
		local.Read = heard
		go func() {
			<-local.ended
			heard.then()
		}()
	}
	back := func() {}
	if settings.Pin {
		back = keepOff(settings.RemoteCPU)
	}
	remote.kill = local.kill // its Pdeathsig does the rest
	remote.ended = make(chan struct{})
	go func() {
		<-remote.stderr.over // the last to hold it open was the process
		local.Write.Close()
		back()
		close(remote.ended)
	}()
	return local, remote, nil
}

// LabOn starts the agents of a lab as Lab does, on files that are there in place of pipes: standard
// input, output and error of each. It waits for their end.
func LabOn(o LabOptions, local, remote [3]*os.File) error {
	settings := labSettings{Config: o.Config, Pipes: [3]int{3, 4, 5}}
	settings.LocalCPU, settings.RemoteCPU, settings.Pin = chooseCPUs()
	cmd, err := o.command(settings)
	if err != nil {
		return err
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = local[0], local[1], local[2], remote[:]
	// The signal comes when the thread that started the child ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := namespace.Start(cmd); err != nil {
		return fmt.Errorf("start the lab's agents: %w", err)
	}
	return cmd.Wait()
}

// command is LOCAL's agent as a child that is started in its namespace.
func (o LabOptions) command(s labSettings) (*exec.Cmd, error) {
	b, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("/proc/self/exe", append(o.Args[:len(o.Args):len(o.Args)], string(b))...)
	cmd.Args[0] = os.Args[0]
	cmd.SysProcAttr = dieWithParent(syscall.SIGKILL)
	// A terminal's signals are the orchestrator's to act on.
	cmd.SysProcAttr.Setpgid = true
	return cmd, nil
}

// sudoCommand is LOCAL's agent as a child that becomes root and then enters its
// namespace. It stays in the orchestrator's process group, because sudo in the
// background may not use the terminal.
func (o LabOptions) sudoCommand(s labSettings) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	argv := append(o.Sudo[:len(o.Sudo):len(o.Sudo)], self)
	argv = append(append(argv, o.Args...), string(b))
	return exec.Command(argv[0], argv[1:]...), nil
}

// onRead calls a function at the first byte or error that is read.
type onRead struct {
	io.ReadCloser
	then func()
}

func (r *onRead) Read(b []byte) (int, error) {
	n, err := r.ReadCloser.Read(b)
	r.then()
	return n, err
}
