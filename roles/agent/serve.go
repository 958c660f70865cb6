package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"time"

	"pfdivert/pfconf"
	"pfdivert/roles/endpoint"
)

// Options is what an agent is told by its own command line.
type Options struct {
	Hello Hello // the parts that the caller knows: SHA256, NoFamily, Failed
	// Heartbeat is how long the agent works on without a sign of life from the
	// orchestrator before it undoes all.
	Heartbeat time.Duration
	// Journal records changes of the packet filter before they are made; Serve has its own.
	Journal pfconf.Journal
	// Ephemeral: the host is a lab's and ends with the agent; nothing on it
	// needs to be put back, and nobody else is there.
	Ephemeral bool
	// StateDir is where journals and locks are; empty means StateDir's value.
	StateDir string
	// Interface is the name of the interface towards the other host.
	Interface string
}

// agent is the state of Serve.
type agent struct {
	opt Options
	ctx context.Context

	out  *writer
	work chan *Request // to idle workers

	mu        sync.Mutex
	sessions  map[string]*session
	done      map[string][]Entry
	doneOrder []string

	setup  sync.Mutex // held while the fields below are written, by setUp and undo
	fences map[pfconf.Family]*endpoint.Fence
	hold   *Hold // of a real host
	fw     pfconf.Firewall
	table  pfconf.StateTable // of LOCAL
	trace  *tracer
}

// Serve says hello on w, then answers the requests that it reads from r until
// r ends, the heartbeat stops or ctx is done; then it undoes what it did.
// The error is why it ended, nil for the end of r.
func Serve(ctx context.Context, r io.Reader, w io.Writer, opt Options) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	a := &agent{opt: opt, ctx: ctx, work: make(chan *Request), sessions: map[string]*session{}, done: map[string][]Entry{}}
	a.out = newWriter(w)
	defer a.out.stop()

	if _, err := io.WriteString(w, Magic); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	if err := a.out.send(a.hello()); err != nil {
		return err
	}
	if opt.Hello.Failed != nil {
		return nil
	}

	alive := make(chan struct{}, 1)
	var ended sync.WaitGroup
	ended.Go(func() { watch(ctx, cancel, alive, opt.Heartbeat) })

	// The reader is not waited for: it may hang in a read that nothing ends.
	requests := make(chan *Request)
	go func() {
		cancel(a.read(ctx, r, requests, alive))
	}()
	for ctx.Err() == nil {
		select {
		case req := <-requests:
			// A worker that is idle takes it; one more is started when none is.
			select {
			case a.work <- req:
			default:
				ended.Go(func() { a.workOn(ctx, req) })
			}
		case <-ctx.Done():
		}
	}
	ended.Wait()
	undone := a.undo()
	if err := context.Cause(ctx); err != io.EOF && !errors.Is(err, context.Canceled) {
		return errors.Join(err, undone)
	}
	return undone
}

// hello completes the hello.
func (a *agent) hello() Hello {
	h := a.opt.Hello
	h.Protocol, h.GOOS, h.GOARCH = Protocol, runtime.GOOS, runtime.GOARCH
	h.Kernel, h.System = kernel()
	h.PID, h.Euid = os.Getpid(), os.Geteuid()
	h.Host, _ = os.Hostname() // only shown
	return h
}

// read hands requests on until the input ends.
func (a *agent) read(ctx context.Context, r io.Reader, requests chan<- *Request, alive chan<- struct{}) error {
	in := bufio.NewReaderSize(r, 64<<10)
	var buf []byte
	for {
		req := new(Request)
		if err := readFrame(in, &buf, req); err != nil {
			return err
		}
		if err := req.check(); err != nil {
			return err
		}
		select {
		case alive <- struct{}{}:
		default:
		}
		select {
		case requests <- req:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// watch cancels when no request has come for the time of a heartbeat.
func watch(ctx context.Context, cancel context.CancelCauseFunc, alive <-chan struct{}, heartbeat time.Duration) {
	t := time.NewTimer(heartbeat)
	defer t.Stop()
	for {
		select {
		case <-alive:
			t.Reset(heartbeat)
		case <-t.C:
			cancel(fmt.Errorf("agent: no sign of life from the orchestrator for %v", heartbeat))
		case <-ctx.Done():
			return
		}
	}
}

// workOn answers a request and then those that it finds waiting. Workers are
// kept because requests need deep stacks, which a new goroutine has to grow.
func (a *agent) workOn(ctx context.Context, req *Request) {
	for {
		a.answer(ctx, req)
		select {
		case req = <-a.work:
		case <-ctx.Done():
			return
		}
	}
}

// answer does what one request asks for.
func (a *agent) answer(ctx context.Context, req *Request) {
	ans := Answer{ID: req.ID}
	switch {
	case req.Setup != nil:
		facts, err := a.setUp(ctx, req.Setup)
		ans.Facts, ans.Fault = facts, FaultOf(err)
	case req.Script != nil:
		ans.Outcomes = a.run(ctx, req.Script)
	case req.Rules != nil:
		ans.Faults = a.change(ctx, req.Rules.Changes)
	case req.Log != nil:
		ans.Log = a.transcripts(req.Log.Cell)
	case req.Check != nil:
		ans.Checks = a.check(ctx, req.Check, false)
	case req.Cleanup != nil:
		left, err := Cleanup(ctx, a.stateDir(), req.Cleanup.Look)
		ans.Left, ans.Fault = left, FaultOf(err)
	case req.Bye != nil:
		ans.Fault = FaultOf(a.undo())
	}
	// A failed write is the end of the connection; the reader sees it as well.
	_ = a.out.send(&ans)
}

// change makes the changes side by side, so that the filter can make them in
// one load, and gives each its own fault. On a filter whose rules begin to count again
// with every load there must be one only: all succeed or fail together.
func (a *agent) change(ctx context.Context, changes []Change) []*Fault {
	faults := make([]*Fault, len(changes))
	if fw, err := a.filter(); err == nil && !fw.KeepsCounters() {
		var all Change
		for _, c := range changes {
			all.Kill = append(all.Kill, c.Kill...)
			all.Add = append(all.Add, c.Add...)
			all.Remove = append(all.Remove, c.Remove...)
		}
		fault := FaultOf(a.changeOne(ctx, all))
		for i := range faults {
			faults[i] = fault
		}
		return faults
	}
	var all sync.WaitGroup
	for i, c := range changes {
		all.Go(func() {
			faults[i] = FaultOf(a.changeOne(ctx, c))
		})
	}
	all.Wait()
	return faults
}

func (a *agent) changeOne(ctx context.Context, c Change) error {
	fw, err := a.filter()
	if err != nil {
		return err
	}
	for _, r := range c.Add {
		if err := r.Validate(); err != nil {
			return err
		}
	}
	if len(c.Kill) > 0 {
		if _, err := fw.KillFlows(ctx, c.Kill); err != nil {
			return err
		}
	}
	if len(c.Add)+len(c.Remove) == 0 {
		return nil
	}
	return fw.Change(ctx, c.Add, c.Remove)
}

// filter gives the packet filter that Setup opened.
func (a *agent) filter() (pfconf.Firewall, error) {
	a.setup.Lock()
	defer a.setup.Unlock()
	if a.fw == nil {
		return nil, errors.New("this host is not set up as REMOTE: it has no packet filter open")
	}
	return a.fw, nil
}

// states gives the host's state table.
func (a *agent) states() (pfconf.StateTable, error) {
	a.setup.Lock()
	defer a.setup.Unlock()
	switch {
	case a.fw != nil:
		return a.fw, nil
	case a.table != nil:
		return a.table, nil
	}
	return nil, errors.New("this host is not set up: its states are not known")
}

// stateDir is where journals and locks are.
func (a *agent) stateDir() string {
	if a.opt.StateDir != "" {
		return a.opt.StateDir
	}
	return StateDir
}

// notice tells the orchestrator something that is no answer.
func (a *agent) notice(text string) { _ = a.out.send(&Answer{Notice: text}) }

// writer sends frames: those of concurrent senders leave in as few writes as possible.
type writer struct {
	w    io.Writer
	mu   sync.Mutex
	buf  []byte
	err  error
	more chan struct{}
	done chan struct{}
}

func newWriter(w io.Writer) *writer {
	wr := &writer{w: w, more: make(chan struct{}, 1), done: make(chan struct{})}
	go wr.loop()
	return wr
}

// send queues a frame. An error is that of an earlier write.
func (w *writer) send(v any) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	buf, err := appendFrame(w.buf, v)
	if err != nil {
		return err
	}
	w.buf = buf
	select {
	case w.more <- struct{}{}:
	default:
	}
	return nil
}

// errStopped is what those get who send on a connection that was closed.
var errStopped = errors.New("agent connection: closed")

// loop writes what is queued. What is queued while it writes goes with the next
// write.
func (w *writer) loop() {
	defer close(w.done)
	var spare []byte
	for range w.more {
		w.mu.Lock()
		out := w.buf
		w.buf = spare[:0]
		w.mu.Unlock()
		if _, err := w.w.Write(out); err != nil {
			w.mu.Lock()
			w.err = fmt.Errorf("agent connection: %w", err)
			w.mu.Unlock()
		}
		spare = out
	}
}

// stop writes what is queued and ends the loop; what is sent after it fails.
// A reader that has stopped reading holds it up for a second and no longer.
func (w *writer) stop() {
	w.mu.Lock()
	if w.err == nil {
		w.err = errStopped
	}
	close(w.more)
	w.mu.Unlock()
	select {
	case <-w.done:
	case <-time.After(time.Second):
	}
}
