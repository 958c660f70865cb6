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
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
	"pfdivert/roles/gather"
	"pfdivert/roles/kernel/splat"
	"pfdivert/roles/lab/bsd"
	"pfdivert/roles/socket"
)

// Options are what the agent's command line says.
type Options struct {
	Hello Hello // the parts that the caller knows: SHA256, NoFamily, Failed
	// Heartbeat is how long the agent works on without a sign of life from the
	// orchestrator before it undoes all.
	Heartbeat time.Duration
	// Journal records changes of the packet filter before they are made; Serve has its own.
	Journal pfconf.Journal
	// Ephemeral: the host is a lab's and ends with the agent; nothing on it
	// needs to be put back, and no one else is there.
	Ephemeral bool
	// Lab: the host is one of a lab that another agent takes away, and may be broken on purpose.
	Lab bool
	// StateDir is where journals and locks are; empty means StateDir's value.
	StateDir string
	// Alone: the process is there for one endpoint, and may be changed for it.
	Alone bool
	// Interface is the name of the interface towards the other host.
	Interface string
	// Domain is the routing domain that the agent works in, see EnterDomain.
	Domain int
}

// agent is the state of Serve.
type agent struct {
	opt  Options
	ctx  context.Context
	fail context.CancelCauseFunc // ends the agent

	out     *writer
	work    chan *Request // to idle workers
	workers sync.WaitGroup
	began   time.Time
	heard   atomic.Uint64 // requests

	mu        sync.Mutex
	ending    bool // no more workers
	sessions  map[string]*session
	done      map[string]ended
	doneOrder []string

	setup   sync.Mutex // held while the fields below are written, by setUp and undo
	fences  map[fenceTo]*socket.Fencer
	hold    *Hold // of a real host
	fw      pfconf.Firewall
	filters script.Setup      // of REMOTE: with which engine and without which pieces fw was opened
	table   pfconf.StateTable // of LOCAL
	fakes   []netip.Prefix    // of LOCAL's states
	lab     *bsd.Lab          // that this agent built
	broken  []pfconf.Undo     // how what was broken on purpose is fixed
	trace   *tracer
	watched watch
	seen    *gather.Host
	log     atomic.Pointer[splat.KernelLog] // of REMOTE's kernel; nil when it may not be read
}

// Serve writes a hello to w and then answers the requests that it reads from r, until r ends, the
// heartbeat stops or ctx is done. Then it undoes its changes. It returns why it ended, nil if r
// ended.
func Serve(ctx context.Context, r io.Reader, w io.Writer, opt Options) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	a := newAgent(ctx, w, opt, cancel)
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

	a.workers.Go(func() { a.watch(ctx) })
	// The reader is not waited for: it may hang in a read that nothing ends.
	go func() { cancel(a.read(r)) }()
	<-ctx.Done()
	a.mu.Lock()
	a.ending = true
	a.mu.Unlock()
	a.workers.Wait()
	undone := a.undo()
	if err := context.Cause(ctx); err != io.EOF && !errors.Is(err, context.Canceled) {
		return errors.Join(err, undone)
	}
	return undone
}

func newAgent(ctx context.Context, w io.Writer, opt Options, fail context.CancelCauseFunc) *agent {
	return &agent{opt: opt, ctx: ctx, fail: fail, out: newWriter(w), work: make(chan *Request), began: time.Now(),
		sessions: map[string]*session{}, done: map[string]ended{}}
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
func (a *agent) read(r io.Reader) error {
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
		a.heard.Add(1)
		a.handOn(req)
	}
}

// handOn returns the request to a worker that is idle, or to a new one when none is. When the agent
// ends it is dropped.
func (a *agent) handOn(req *Request) {
	select {
	case a.work <- req:
		return
	default:
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.ending {
		a.workers.Go(func() { a.workOn(req) })
	}
}

// watchParts is in how many parts the time of a heartbeat is watched.
const watchParts = 4

// watch cancels when no request has come for the time of a heartbeat. A part of it counts when its
// tick came and nothing was heard since the last one: while this process could not run, the ticker
// drops ticks.
func (a *agent) watch(ctx context.Context) {
	t := time.NewTicker(max(a.opt.Heartbeat/watchParts, 1))
	defer t.Stop()
	var heard uint64
	for silent := 0; silent <= watchParts; silent++ {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		if n := a.heard.Load(); n != heard {
			heard, silent = n, 0
		}
	}
	a.fail(fmt.Errorf("agent: no sign of life from the orchestrator for %v", a.opt.Heartbeat))
}

// workOn answers a request and then those that it finds waiting. Workers are
// kept because requests need deep stacks, which a new goroutine has to grow.
func (a *agent) workOn(req *Request) {
	for {
		a.answer(a.ctx, req)
		select {
		case req = <-a.work:
		case <-a.ctx.Done():
			return
		}
	}
}

// answer does what one request asks for.
func (a *agent) answer(ctx context.Context, req *Request) {
	ans := Response{ID: req.ID}
	switch {
	case req.Setup != nil:
		facts, err := a.setUp(ctx, req.Setup)
		ans.Facts, ans.Err = facts, ErrorOf(err)
	case req.Script != nil:
		ans.Outcomes = a.run(ctx, req.Script)
		a.tellSplats()
	case req.Rules != nil:
		ans.Errs = a.change(ctx, req.Rules.Changes)
	case req.Log != nil:
		ans.Log = a.transcripts(req.Log.Cell)
	case req.Look != nil:
		ans.Evidence = a.looked(ctx, req.Look)
	case req.Check != nil:
		ans.Checks = a.check(ctx, req.Check, false)
	case req.Cleanup != nil:
		left, err := Cleanup(ctx, a.stateDir(), req.Cleanup.Look)
		ans.Left, ans.Err = left, ErrorOf(err)
	case req.Lab != nil:
		made, err := a.buildLab(ctx, req.Lab)
		ans.Lab, ans.Err = made, ErrorOf(err)
	case req.Bye != nil:
		ans.Err = ErrorOf(a.undo())
	}
	a.reply(&ans)
}

// reply sends an answer, or why there is none that can be sent. When not even that can be, the
// agent ends: who asked would wait for as long as the connection stands. A failed write is the end
// of the connection; the reader sees it as well.
func (a *agent) reply(ans *Response) {
	var unsent frameError
	if err := a.out.send(ans); errors.As(err, &unsent) {
		err = a.out.send(&Response{ID: ans.ID, Err: ErrorOf(fmt.Errorf("the answer can't be sent: %w", err))})
		if errors.As(err, &unsent) {
			a.fail(err)
		}
	}
}

// kernel returns uname's name with its release, and its version.
func kernel() (release, system string) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown (" + err.Error() + ")", "unknown"
	}
	text := func(b []byte) string { return unix.ByteSliceToString(b) }
	return text(u.Sysname[:]) + " " + text(u.Release[:]), text(u.Version[:])
}
