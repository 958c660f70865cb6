// Package host has the ways to reach an agent, the program on LOCAL or REMOTE
// that opens sockets and sets rules there. Whichever the way, what the
// orchestrator holds is a Link: a pair of pipes to a process.
package host

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"

	"pfdivert/roles/lab/namespace"
)

// Link is a reached agent. It ends when its input does: to let it undo what it
// did, close Write and Wait; Kill is for an agent that does not listen.
type Link struct {
	// Read returns what the agent writes to its standard output, Write goes to
	// its standard input. What was written to Read can be read when the agent
	// has ended, too; close it then.
	Read  io.ReadCloser
	Write io.WriteCloser

	stderr *tail
	kill   func()
	ended  chan struct{} // closed when the process is over and stderr complete
	err    error         // of the process; valid when ended
}

// Stderr is the end of what the agent wrote to its standard error, at most
// maxTail bytes, in lines without control characters.
func (l *Link) Stderr() string { return l.stderr.String() }

// Wait waits for the end of the process. The error is that of exec.Cmd.Wait
// or of ctx. REMOTE's agent in a lab is not this process's child: of its failure
// only LOCAL's agent tells, on its standard error.
func (l *Link) Wait(ctx context.Context) error {
	select {
	case <-l.ended:
		return l.err
	case <-ctx.Done():
		return fmt.Errorf("wait for the agent to end: %w", ctx.Err())
	}
}

// Kill ends the process at once. It undoes nothing on its host. In a lab both
// agents end.
func (l *Link) Kill() {
	l.kill()
	l.Write.Close()
}

// Child starts an agent as a child process, argv[0] being a program to look up
// (sudo, or this program's own file). The end of ctx kills it; but a child
// that became root by sudo can only be told to end, by the end of its input.
func Child(ctx context.Context, argv []string) (*Link, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	// Not SIGKILL: it may have changes of this host to undo.
	cmd.SysProcAttr = dieWithParent(syscall.SIGTERM)
	var p pipes
	defer p.closeTheirs()
	l, err := p.link(&cmd.Stdin, &cmd.Stdout, &cmd.Stderr)
	if err == nil {
		err = start(ctx, cmd, cmd.Start, l)
	}
	if err != nil {
		p.closeOurs()
		return nil, fmt.Errorf("start the agent: %w", err)
	}
	return l, nil
}

// start starts the process by begin and sets l up to follow it. It does so on a
// thread that lives as long as the process, because that is how long its
// Pdeathsig leaves it alone (prctl(2)).
func start(ctx context.Context, cmd *exec.Cmd, begin func() error, l *Link) error {
	l.ended = make(chan struct{})
	begun := make(chan error)
	namespace.OwnThread(func() {
		err := begin()
		begun <- err
		if err != nil {
			return
		}
		err = cmd.Wait()
		l.stderr.finish()
		l.err = err
		close(l.ended)
	})
	if err := <-begun; err != nil {
		return err
	}
	l.kill = func() { _ = cmd.Process.Kill() } // an error says that it is over
	stop := context.AfterFunc(ctx, l.Kill)
	go func() {
		<-l.ended
		stop()
	}()
	return nil
}

// pipes are the pipes to a process.
type pipes struct{ ours, theirs []*os.File }

// link makes the three pipes of an agent and gives it its ends.
func (p *pipes) link(stdin *io.Reader, stdout, stderr *io.Writer) (*Link, error) {
	var r, w [3]*os.File
	for i := range r {
		var err error
		if r[i], w[i], err = os.Pipe(); err != nil {
			return nil, err
		}
		if i == 0 {
			p.ours, p.theirs = append(p.ours, w[i]), append(p.theirs, r[i])
		} else {
			p.ours, p.theirs = append(p.ours, r[i]), append(p.theirs, w[i])
		}
	}
	*stdin, *stdout, *stderr = r[0], w[1], w[2]
	return &Link{Write: w[0], Read: r[1], stderr: readTail(r[2])}, nil
}

func (p *pipes) closeOurs() {
	for _, f := range p.ours {
		f.Close()
	}
}

func (p *pipes) closeTheirs() {
	for _, f := range p.theirs {
		f.Close()
	}
}
