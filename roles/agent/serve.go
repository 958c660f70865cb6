package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"time"

	"pfdivert/pfconf"
	"pfdivert/roles/endpoint"
	"pfdivert/roles/evidence"
	"pfdivert/roles/lab/bsd"
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
	// Domain is the routing domain that the agent works in, see EnterDomain.
	Domain int
}

// agent is the state of Serve.
type agent struct {
	opt Options
	ctx context.Context

	out  *writer
	work chan *Request // to idle workers

	mu        sync.Mutex
	sessions  map[string]*session
	done      map[string]ended
	doneOrder []string

	setup  sync.Mutex // held while the fields below are written, by setUp and undo
	fences map[pfconf.Family]*endpoint.Fence
	hold   *Hold // of a real host
	fw     pfconf.Firewall
	table  pfconf.StateTable // of LOCAL
	fakes  []netip.Prefix    // of LOCAL's states
	lab    *bsd.Lab          // that this agent built
	trace  *tracer
	seen   *evidence.Host
}

// Serve says hello on w, then answers the requests that it reads from r until
// r ends, the heartbeat stops or ctx is done; then it undoes what it did.
// The error is why it ended, nil for the end of r.
func Serve(ctx context.Context, r io.Reader, w io.Writer, opt Options) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	a := &agent{opt: opt, ctx: ctx, work: make(chan *Request), sessions: map[string]*session{}, done: map[string]ended{}}
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
	if a.opt.Domain != 0 {
		h.Kernel += fmt.Sprintf(" rdomain %d", a.opt.Domain)
	}
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
	case req.Look != nil:
		ans.Evidence = a.look(ctx, req.Look)
	case req.Check != nil:
		ans.Checks = a.check(ctx, req.Check, false)
	case req.Cleanup != nil:
		left, err := Cleanup(ctx, a.stateDir(), req.Cleanup.Look)
		ans.Left, ans.Fault = left, FaultOf(err)
	case req.Lab != nil:
		made, err := a.buildLab(ctx, req.Lab)
		ans.Lab, ans.Fault = made, FaultOf(err)
	case req.Bye != nil:
		ans.Fault = FaultOf(a.undo())
	}
	// A failed write is the end of the connection; the reader sees it as well.
	_ = a.out.send(&ans)
}
