package host

import (
	"context"
	"io"
	"net"
	"os/exec"
	"syscall"
)

// Guest starts cmd, a virtual machine with both agents of a lab in it, and returns the links to
// them on this side's ends of the machine's channels. errs is what the agents write to their
// standard errors. Both links end with the machine; the end of ctx kills it.
func Guest(ctx context.Context, cmd *exec.Cmd, local, remote *net.UnixConn, errs io.ReadCloser) (l, r *Process,
	err error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	cmd.SysProcAttr = dieWithParent(syscall.SIGKILL)
	// A terminal's signals are the orchestrator's to act on.
	cmd.SysProcAttr = inOwnGroup(cmd.SysProcAttr)
	l = &Process{Read: local, Write: writeHalf{local}, stderr: readTail(errs)}
	if err := start(ctx, cmd, cmd.Start, l); err != nil {
		return nil, nil, err
	}
	r = &Process{Read: remote, Write: writeHalf{remote}, stderr: readTail(io.NopCloser(noText{})), kill: l.kill,
		ended: l.ended}
	return l, r, nil
}

// Ended is closed when the agent's process is over.
func (l *Process) Ended() <-chan struct{} { return l.ended }

// writeHalf is the half of a connection that is written to.
type writeHalf struct{ *net.UnixConn }

func (w writeHalf) Close() error { return w.CloseWrite() }

// noText is at its end.
type noText struct{}

func (noText) Read([]byte) (int, error) { return 0, io.EOF }

// inOwnGroup has a process not get the signals of a terminal.
func inOwnGroup(a *syscall.SysProcAttr) *syscall.SysProcAttr {
	if a == nil {
		a = &syscall.SysProcAttr{}
	}
	a.Setpgid = true
	return a
}
