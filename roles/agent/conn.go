package agent

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"pfdivert/matrix/evidence"
	"pfdivert/matrix/script"
	"pfdivert/roles/lab/bsd"
)

// Conn is the orchestrator's end of the connection to an agent. It is safe for concurrent use:
// requests travel together and answers come in any order.
type Conn struct {
	Hello Hello
	Since time.Time // when the hello came
	// Notices are what the agent says unasked, for a person to read. Those that
	// no one takes are dropped. It is closed when the connection ends.
	Notices chan string

	out    *writer
	closer io.Closer
	// noise is what came before the magic, for error messages.
	noise []byte

	mu      sync.Mutex
	waiting map[uint64]chan *Response
	lost    error // why no more answers come
	splats  []Splat
	gone    chan struct{}
	last    atomic.Uint64
	sent    atomic.Uint64
	heard   atomic.Uint64 // frames of the agent's
	came    atomic.Int64  // bytes of the agent's
	whole   atomic.Int64  // those of them that whole frames have
	stopped sync.Once
}

// countedReader is a reader that counts what comes.
type countedReader struct {
	r io.Reader
	n *atomic.Int64
}

func (c countedReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n.Add(int64(n))
	return n, err
}

// maxNoise bounds what is skipped before an agent's hello.
const maxNoise = 64 << 10

// Dial opens the connection to an agent that writes to r and reads from w. It waits for the hello
// until ctx is done. heartbeat is how often the agent learns that the orchestrator lives, and how
// often it must answer; an agent that says nothing while three stay unanswered is lost. Close the
// connection when done.
func Dial(ctx context.Context, r io.Reader, w io.WriteCloser, heartbeat time.Duration) (*Conn, error) {
	c := &Conn{closer: w, waiting: map[uint64]chan *Response{}, gone: make(chan struct{}),
		Notices: make(chan string, 16)}
	in := bufio.NewReaderSize(countedReader{r, &c.came}, 64<<10)
	hello := make(chan error, 1)
	go func() {
		defer close(c.Notices)
		err := c.greet(in)
		hello <- err
		if err != nil {
			c.lose(err)
			return
		}
		c.lose(c.read(in))
	}()
	select {
	case err := <-hello:
		if err != nil {
			return nil, &script.LostError{Err: err, Noise: string(c.noise)}
		}
	case <-ctx.Done():
		_ = w.Close()
		return nil, &script.LostError{Err: context.Cause(ctx), Noise: ""}
	}
	if c.Hello.Failed != nil {
		_ = w.Close()
		return nil, c.Hello.Failed
	}
	if c.Hello.Protocol != Protocol {
		_ = w.Close()
		return nil, fmt.Errorf("the agent speaks protocol %d, not %d: an old copy of this program answered", c.Hello.Protocol, Protocol)
	}
	c.out = newWriter(w)
	go c.beat(heartbeat)
	return c, nil
}

// greet skips noise up to the magic and reads the hello.
func (c *Conn) greet(in *bufio.Reader) error {
	magic := []byte(Magic)
	for !bytes.HasSuffix(c.noise, magic) {
		b, err := in.ReadByte()
		if err != nil {
			if err == io.EOF {
				err = errors.New("it ended before its hello")
			}
			return err
		}
		if len(c.noise) == maxNoise {
			return fmt.Errorf("%d bytes without a hello", maxNoise)
		}
		c.noise = append(c.noise, b)
	}
	c.noise = c.noise[:len(c.noise)-len(magic)]
	var buf []byte
	err := readFrame(in, &buf, &c.Hello)
	c.Since = time.Now()
	return err
}

// read hands out answers until the connection ends.
func (c *Conn) read(in *bufio.Reader) error {
	var buf []byte
	for {
		c.whole.Store(c.came.Load() - int64(in.Buffered()))
		ans := new(Response)
		if err := readFrame(in, &buf, ans); err != nil {
			return err
		}
		c.heard.Add(1)
		if len(ans.Splats) > 0 {
			c.splat(ans.Splats)
			continue
		}
		if ans.Notice != "" {
			select {
			case c.Notices <- printable(ans.Notice):
			default:
			}
			continue
		}
		c.mu.Lock()
		ch := c.waiting[ans.ID]
		delete(c.waiting, ans.ID)
		c.mu.Unlock()
		if ch != nil { // no one waits any more for an answer that comes late
			ch <- ans
		}
	}
}

// Splat is a report of the host's kernel that something is wrong with it.
type Splat struct {
	Text string
	At   time.Time // when it came here
}

// maxSplats and maxSplat bound what is kept of them: in number, and each in bytes.
const (
	maxSplats = 64
	maxSplat  = 16 << 10
)

// splat keeps reports of the host's kernel.
func (c *Conn) splat(texts []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, text := range texts {
		if len(c.splats) < maxSplats {
			c.splats = append(c.splats, Splat{text[:min(len(text), maxSplat)], time.Now()})
		}
	}
}

// Splats returns the reports of the host's kernel since the connection began. One that was made
// while a script was carried out is there when its outcomes are.
func (c *Conn) Splats() []Splat {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.splats)
}

// lose ends the connection for all who wait. The first reason counts.
func (c *Conn) lose(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lost == nil {
		c.lost = err
		close(c.gone)
	}
}

// maxUnanswered is how many heartbeats are unanswered when an agent is lost.
const maxUnanswered = 3

// beat keeps the agent from believing that the orchestrator is gone, and finds out when the agent
// is. It counts requests and not seconds: when this process could not run, the ticker drops ticks.
// Whatever the agent says is a sign of life: a busy one may answer a ping late.
func (c *Conn) beat(every time.Duration) {
	t := time.NewTicker(every)
	defer t.Stop()
	var heard uint64
	for unanswered := 0; ; unanswered++ {
		select {
		case <-c.gone:
			return
		case <-t.C:
		}
		if n := c.heard.Load(); n != heard {
			heard, unanswered = n, 0
		}
		err := c.silent(unanswered, every)
		if unanswered < maxUnanswered {
			err = c.out.send(&Request{ID: c.last.Add(1), Ping: &Ping{}})
			c.sent.Add(1)
		}
		if err != nil {
			c.lose(err) // it may hold its output open for ever
			c.hangUp()
			return
		}
	}
}

// silent says how an agent is silent: one that is gone, or hangs, says nothing; what stops within
// an answer, something on the way does not let through.
func (c *Conn) silent(unanswered int, every time.Duration) error {
	err := fmt.Errorf("no answer to %d heartbeats, one every %v", unanswered, every)
	if part := c.came.Load() - c.whole.Load(); part > 0 {
		err = fmt.Errorf("what it sends stalls at %d KB of an answer (does the way to it lose long packets? "+
			"look at its interface's MTU and offload settings): %w", (part+1023)/1024, err)
	}
	return err
}

// call sends a request and waits for its answer.
func (c *Conn) call(ctx context.Context, req *Request) (*Response, error) {
	req.ID = c.last.Add(1)
	ch := make(chan *Response, 1)
	c.mu.Lock()
	c.waiting[req.ID] = ch
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.waiting, req.ID)
		c.mu.Unlock()
	}()
	if err := c.out.send(req); err != nil {
		var unsent frameError
		if errors.As(err, &unsent) {
			return nil, fmt.Errorf("the question can't be sent: %w", err)
		}
		return nil, &script.LostError{Err: err, Noise: ""}
	}
	c.sent.Add(1)
	select {
	case ans := <-ch:
		if ans.Err != nil {
			return ans, ans.Err
		}
		return ans, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-c.gone:
		c.mu.Lock()
		defer c.mu.Unlock()
		return nil, &script.LostError{Err: c.lost, Noise: ""}
	}
}

// Setup makes the host LOCAL or REMOTE.
func (c *Conn) Setup(ctx context.Context, s script.Setup) (script.Facts, error) {
	ans, err := c.call(ctx, &Request{Setup: &s})
	switch {
	case err != nil:
		return script.Facts{}, err
	case ans.Facts == nil:
		return script.Facts{}, errors.New("the agent set up and found no facts")
	}
	ans.Facts.Kernel, ans.Facts.System = c.Hello.Kernel, c.Hello.GOOS
	return *ans.Facts, nil
}

// Script has the agent run steps and returns an outcome for each.
func (c *Conn) Script(ctx context.Context, s script.Script) ([]script.Outcome, error) {
	ans, err := c.call(ctx, &Request{Script: &s})
	switch {
	case err != nil:
		return nil, err
	case len(ans.Outcomes) != len(s.Steps):
		return nil, fmt.Errorf("the agent gave %d outcomes for %d steps", len(ans.Outcomes), len(s.Steps))
	}
	return ans.Outcomes, nil
}

// Change changes the rule set. faults has an element for each change, nil if it was made.
func (c *Conn) Change(ctx context.Context, changes []script.RuleChange) (faults []*script.Error, err error) {
	ans, err := c.call(ctx, &Request{Rules: &Rules{changes}})
	switch {
	case err != nil:
		return nil, err
	case len(ans.Errs) != len(changes):
		return nil, fmt.Errorf("the agent answered %d of %d changes of rules", len(ans.Errs), len(changes))
	}
	return ans.Errs, nil
}

// Log returns the transcripts of a cell.
func (c *Conn) Log(ctx context.Context, cell string) ([]script.Transcript, error) {
	ans, err := c.call(ctx, &Request{Log: &LogRequest{cell}})
	if err != nil {
		return nil, err
	}
	return ans.Log, nil
}

// Look returns the host's evidence of a cell.
func (c *Conn) Look(ctx context.Context, l script.Look) (evidence.Record, error) {
	ans, err := c.call(ctx, &Request{Look: &EvidenceRequest{Cell: l.Cell, Labels: l.Labels, Began: l.Began.Sub(c.Since),
		About: l.About, Trace: l.Trace}})
	switch {
	case err != nil:
		return evidence.Record{}, err
	case ans.Evidence == nil:
		return evidence.Record{}, errors.New("the agent looked and has no evidence")
	}
	ans.Evidence.Bound() // the host may be hostile
	return *ans.Evidence, nil
}

// Check reports whether the host has what s needs. It changes nothing.
func (c *Conn) Check(ctx context.Context, s script.Setup) ([]CheckItem, error) {
	ans, err := c.call(ctx, &Request{Check: &s})
	if err != nil {
		return nil, err
	}
	return ans.Checks, nil
}

// Cleanup calls the function Cleanup on the agent's host.
func (c *Conn) Cleanup(ctx context.Context, look bool) ([]*Left, error) {
	ans, err := c.call(ctx, &Request{Cleanup: &Tidy{look}})
	if err != nil {
		return nil, err
	}
	return ans.Left, nil
}

// Lab has the agent build a lab on its host.
func (c *Conn) Lab(ctx context.Context, l LabRequest) (*bsd.Lab, error) {
	ans, err := c.call(ctx, &Request{Lab: &l})
	switch {
	case err != nil:
		return nil, err
	case ans.Lab == nil:
		return nil, errors.New("the agent built a lab and told nothing of it")
	}
	return ans.Lab, nil
}

// Bye has the agent undo all its changes.
func (c *Conn) Bye(ctx context.Context) error {
	_, err := c.call(ctx, &Request{Bye: &Bye{}})
	return err
}

// Close ends the connection. The agent undoes its changes, unless Bye had it do so, and ends.
func (c *Conn) Close() error {
	c.hangUp()
	return nil
}

func (c *Conn) hangUp() {
	c.stopped.Do(func() {
		c.out.stop()
		_ = c.closer.Close()
	})
}

// Lost reports whether the connection has ended.
func (c *Conn) Lost() bool {
	select {
	case <-c.gone:
		return true
	default:
		return false
	}
}

// Requests returns the number of requests that were sent.
func (c *Conn) Requests() uint64 { return c.sent.Load() }
