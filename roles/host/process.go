// Package host has the ways to reach an agent, the program on LOCAL or REMOTE
// that opens sockets and sets rules there. Whichever the way, what the
// orchestrator holds is a Process: a pair of pipes to a process.
package host

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode"

	"pfdivert/roles/lab/namespace"
)

// Process is the connection to an agent's process. The agent ends when its input does: to let it
// undo its changes, close Write and call Wait. Kill is for an agent that does not react.
type Process struct {
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

// Stderr returns the end of what the agent wrote to its standard error: at most maxTail bytes, in
// lines without control characters.
func (l *Process) Stderr() string { return l.stderr.String() }

// Wait waits for the process to end. The error is that of exec.Cmd.Wait, or ctx's. REMOTE's agent
// in a lab is a child of LOCAL's agent, which reports its failure on its own standard error.
func (l *Process) Wait(ctx context.Context) error {
	select {
	case <-l.ended:
		return l.err
	case <-ctx.Done():
		return fmt.Errorf("wait for the agent to end: %w", ctx.Err())
	}
}

// Kill ends the process at once; the agent undoes nothing. In a lab both agents end.
func (l *Process) Kill() {
	l.kill()
	l.Write.Close()
}

// Child starts an agent as a child process. argv[0] is looked up in PATH. When ctx ends, the child
// is killed; a child that became root by sudo cannot be killed and is told to end by closing its
// input.
func Child(ctx context.Context, argv []string) (*Process, error) {
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
func start(ctx context.Context, cmd *exec.Cmd, begin func() error, l *Process) error {
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
func (p *pipes) link(stdin *io.Reader, stdout, stderr *io.Writer) (*Process, error) {
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
	return &Process{Write: w[0], Read: r[1], stderr: readTail(r[2])}, nil
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

// maxTail bounds what is kept of an agent's standard error, in bytes.
const maxTail = 8 << 10

// lateOutput is how long to wait for the end of standard error after a process
// has ended: a process that it left behind may hold the pipe open.
const lateOutput = 200 * time.Millisecond

// tail keeps the end of a stream.
type tail struct {
	source io.ReadCloser
	over   chan struct{} // closed at the end of the stream
	more   chan struct{} // has a value when there is something new

	mu      sync.Mutex
	kept    []byte
	dropped bool
	starved bool     // see starving
	marks   [][]byte // see from
}

// starving is what Go's runtime and its C library say when the system gives a process no thread.
// The stacks that follow help no one.
var starving = []string{"failed to create new OS thread", "pthread_create failed"}

// starvedText stands for them.
const starvedText = "error: the system gives this user no more processes and threads\n" +
	"hint: in a new shell, or as root: ulimit -u 1024; in a container, pids.max of its cgroup counts too\n"

// readTail begins to read the stream.
func readTail(source io.ReadCloser) *tail {
	t := &tail{source: source, over: make(chan struct{}), more: make(chan struct{}, 1)}
	go func() {
		defer close(t.over)
		defer source.Close()
		b := make([]byte, 4<<10)
		for {
			n, err := source.Read(b)
			t.add(b[:n])
			if err != nil {
				return
			}
		}
	}()
	return t
}

func (t *tail) add(b []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, b...)
	for _, said := range starving {
		t.starved = t.starved || bytes.Contains(t.kept, []byte(said))
	}
	if n := len(t.kept) - maxTail; n > 0 {
		t.kept = append(t.kept[:0], t.kept[n:]...)
		t.dropped = true
	}
	select {
	case t.more <- struct{}{}:
	default:
	}
}

// from has the text begin behind the last of the marks, which no one else
// writes.
func (t *tail) from(mark string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.marks = append(t.marks, []byte(mark))
}

// finish waits a short time for the end of the stream and stops reading.
func (t *tail) finish() {
	select {
	case <-t.over:
	case <-time.After(lateOutput):
		t.source.Close()
		<-t.over
	}
}

// count tells how often the mark came.
func (t *tail) count(mark string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return bytes.Count(t.kept, []byte(mark))
}

// String returns what was kept as lines of text. A terminal takes it as text,
// whatever the other host sent: control characters are gone.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.starved {
		return starvedText
	}
	kept, dropped := t.kept, t.dropped
	for _, mark := range t.marks {
		if i := bytes.LastIndex(kept, mark); i >= 0 {
			kept, dropped = bytes.TrimLeft(kept[i+len(mark):], "\r\n"), false
		}
	}
	s := strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r)) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(string(kept), "?"))
	if dropped {
		return "..." + s
	}
	return s
}
