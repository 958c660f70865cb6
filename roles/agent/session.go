package agent

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"strings"
	"sync"

	"pfdivert/matrix/evidence"
	"pfdivert/matrix/script"
	"pfdivert/pfconf"
	"pfdivert/roles/socket"
)

// A session is what an agent holds for one cell: its endpoints and their logs.
// The steps of one session are carried out one at a time.
type session struct {
	mu   sync.Mutex
	ends map[string]*end
	ended
}

// ended is what stays of a session when its endpoints are closed.
type ended struct {
	log    []script.Transcript    // of ends that were closed by name, in the order of opening
	errors []string               // ICMP errors of all its sockets
	closed []evidence.SocketEntry // the names that they had
	ports  []uint16               // only while it is looked at: of sockets that are open
}

// end is one endpoint of a cell.
type end struct {
	name   string
	ep     socket.Endpoint
	traced *traced // in place of ep, when endpoints run under $KTRACE
	log    bounded
	broken bool // a step failed; what would follow means nothing

	proto       string         // as evidence names it
	local, peer netip.AddrPort // as far as steps have shown them
}

func (e *end) opened() bool { return e.ep != nil || e.traced != nil }

// Bounds against an orchestrator gone mad.
const (
	maxEnds = 16
	maxLog  = 16 << 10 // bytes of log kept of each endpoint
	maxDone = 1024     // cells whose logs are kept after their end
)

// bounded is a buffer that keeps the first maxLog bytes.
type bounded struct{ bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	if room := maxLog - b.Len(); room > 0 {
		b.Buffer.Write(p[:min(len(p), room)])
	}
	return len(p), nil
}

// run carries the script out.
func (a *agent) run(ctx context.Context, sc *script.Script) []script.Outcome {
	s := a.session(sc.Cell)
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]script.Outcome, len(sc.Steps))
	wrong := false
	for i := range sc.Steps {
		st := sc.Steps[i]
		if sc.Hold && wrong && script.Clears(st) {
			for ; i < len(out); i++ {
				out[i].Err = &script.Error{Code: script.CodeHeld, Text: "held back: the cell is to be looked at"}
			}
			return out
		}
		out[i] = a.step(ctx, s, st)
		wrong = wrong || !script.Satisfied(st, &out[i])
	}
	if sc.End {
		s.close()
		a.retire(sc.Cell)
	}
	return out
}

// step carries one step out.
func (a *agent) step(ctx context.Context, s *session, st script.Step) (out script.Outcome) {
	var err error
	switch st := st.(type) {
	case script.SocketStep:
		return a.socketStep(ctx, s, st)
	case script.Open:
		err = a.open(ctx, s, st, &out)
	case script.Fence:
		var fence *socket.Fencer
		if fence, err = a.fence(fenceTo{st.Family, st.Beyond}); err == nil {
			_, err = fence.Pass(ctx)
		}
	case script.Counters:
		out.Counters, err = a.counters(ctx, st.Label)
	case script.Lookup:
		out.States, err = a.lookup(ctx, st.Flow)
	case script.Kill:
		out.Count, err = a.kill(ctx, st.Flow)
	case script.DropTCP:
		err = dropTCP(ctx, st)
	case script.TCPState:
		out.Text, err = tcpState(ctx, st)
	case script.BridgeGoes:
		out.Text, err = bridgeGoes(ctx, st)
	case script.Pipe:
		err = a.pipe(ctx, st)
	case script.Middlebox:
		out.Middle, err = a.middlebox(ctx, s, st)
	case script.Undelivered:
		var d script.Dropped
		d, err = socket.Drops(ctx, st.Family == pfconf.Inet6, st.Port)
		out.Drops = &d
	case script.Natlook:
		q := st.Query
		if q.Domain == 0 {
			q.Domain = a.opt.Domain
		}
		var answer pfconf.NATAnswer
		answer, err = Natlook(q)
		out.Peer, out.Local = answer.Src, answer.Dst
	default:
		err = fmt.Errorf("there is no step %T", st)
	}
	out.Err = ErrorOf(err)
	return out
}

// counters asks for those of the rule with the label.
func (a *agent) counters(ctx context.Context, label string) (*pfconf.Counters, error) {
	fw, err := a.filter()
	if err != nil {
		return nil, err
	}
	all, err := fw.Counters(ctx, []string{label})
	if err != nil {
		return nil, err
	}
	c := all[label]
	return &c, nil
}

// pipe has the packet filter make a pipe of dummynet(4), or change it.
func (a *agent) pipe(ctx context.Context, st script.Pipe) error {
	fw, err := a.filter()
	if err != nil {
		return err
	}
	shaper, ok := fw.(pfconf.Shaper)
	if !ok {
		return fmt.Errorf("a pipe of dummynet(4): %w (%s)", socket.ErrUnsupported, fw.Name())
	}
	return shaper.Pipe(ctx, st.Number, st.Lossy)
}

// lookup asks for the states of a flow.
func (a *agent) lookup(ctx context.Context, f pfconf.Flow) ([]pfconf.State, error) {
	table, err := a.states()
	if err != nil {
		return nil, err
	}
	states, err := table.Lookup(ctx, []pfconf.Flow{f})
	if err != nil {
		return nil, err
	}
	return states[0], nil
}

// kill removes the states of a flow and returns how many there were.
func (a *agent) kill(ctx context.Context, f pfconf.Flow) (int, error) {
	table, err := a.states()
	if err != nil {
		return 0, err
	}
	return table.KillFlows(ctx, []pfconf.Flow{f})
}

// socketStep carries out a step on one of the cell's sockets.
func (a *agent) socketStep(ctx context.Context, s *session, st script.SocketStep) (out script.Outcome) {
	fail := func(err error) script.Outcome {
		out.Err = ErrorOf(err)
		return out
	}
	name := st.On()
	e := s.ends[name]
	_, closes := st.(script.Close)
	_, rests := st.(script.Rest)
	asks, asked := st.(script.Connected)
	again := asked && asks.Wait > 0
	switch {
	case e == nil:
		return fail(fmt.Errorf("%s: the cell has no endpoint %q", st.Name(), name))
	case e.broken && (!e.opened() || !closes && !rests && !again):
		return fail(&script.Error{Code: script.CodeSkipped, Text: fmt.Sprintf("%s %s: skipped, an earlier step failed",
			name, st.Name())})
	}
	var err error
	if e.traced != nil {
		out, err = e.traced.step(ctx, st)
	} else {
		out, err = socket.Do(e.ep, st)
	}
	e.named(&out)
	s.heard(e, out.Text)
	if closes {
		s.closeEnd(e)
		delete(s.ends, name)
	}
	if err != nil {
		// That a stream has ended is an answer: its client closes after it.
		f := ErrorOf(fmt.Errorf("%s: %s: %w", name, st.Name(), err))
		e.broken = f.Code != script.CodeEOF
		return fail(f)
	}
	return out
}

// open opens an endpoint of the session.
func (a *agent) open(ctx context.Context, s *session, st script.Open, out *script.Outcome) error {
	divert, _ := st.Spec.(script.Divert)
	switch {
	case s.ends[st.Socket] != nil:
		return fmt.Errorf("open %q: the cell has such an endpoint", st.Socket)
	case divert.Unprivileged && st.Process == "" && !a.opt.Alone:
		return fmt.Errorf("open %q: this process keeps its privilege", st.Socket)
	case len(s.ends) >= maxEnds:
		return fmt.Errorf("open %q: the cell has %d endpoints already", st.Socket, maxEnds)
	}
	e := &end{name: st.Socket, proto: protoOf(st.Spec)}
	var err error
	if st.Process != "" {
		e.traced, *out, err = openApart(ctx, st)
	} else if a.trace != nil {
		e.traced, *out, err = a.trace.open(ctx, st)
	} else if e.ep, err = socket.Open(st.Spec, &e.log); err == nil {
		out.Local, out.Peer = e.ep.Names()
	}
	s.ends[st.Socket] = e
	e.named(out)
	if err != nil {
		// It stays, unopened, for what it logged; its further steps are skipped.
		e.broken = true
		return fmt.Errorf("%s: open: %w", st.Socket, err)
	}
	return nil
}

// close closes all endpoints of the session and keeps their logs.
func (s *session) close() {
	for _, e := range s.ends {
		if e.ep != nil {
			s.heard(e, strings.Join(e.ep.Errors(), "; "))
			_ = e.ep.Close()
		}
		s.closeEnd(e)
	}
	s.ends = nil
	sort.SliceStable(s.log, func(i, j int) bool { return s.log[i].End < s.log[j].End })
}

// closeEnd keeps what is to be known of an endpoint whose socket is closed.
func (s *session) closeEnd(e *end) {
	if e.traced != nil {
		s.log = append(s.log, e.traced.close()...)
	} else {
		s.log = append(s.log, script.Transcript{End: e.name, Text: e.log.String()})
	}
	if e.local.IsValid() {
		s.closed = append(s.closed, evidence.SocketEntry{
			Proto: e.proto, Local: e.local, Remote: e.peer, State: closedState, Text: "the cell's " + e.name,
		})
	}
}

// closedState is the state of a socket that the cell had and has no more.
const closedState = "closed"

// protoOf returns evidence's name of what a socket speaks.
func protoOf(s script.Socket) string {
	switch s.(type) {
	case script.Stream:
		return "tcp"
	case script.Datagram:
		return "udp"
	case script.RawIP:
		return "raw 254"
	case script.Echo:
		return "icmp"
	}
	return evidence.ProtoDivert
}

// heard keeps the ICMP errors of an endpoint.
func (s *session) heard(e *end, text string) {
	if text != "" && len(s.errors) < maxEnds {
		s.errors = append(s.errors, e.name+": "+text)
	}
}

// named keeps the names that a step has shown.
func (e *end) named(out *script.Outcome) {
	if out.Local.IsValid() {
		e.local, e.peer = out.Local, out.Peer
	}
}

// session finds or makes the cell's session.
func (a *agent) session(cell string) *session {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.sessions[cell]
	if s == nil {
		s = &session{ends: map[string]*end{}}
		a.sessions[cell] = s
	}
	return s
}

// retire moves an ended session to those of which only the logs are kept.
func (a *agent) retire(cell string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.sessions[cell]
	if s == nil {
		return // a script that ends the cell came while another one did
	}
	delete(a.sessions, cell)
	if len(a.doneOrder) >= maxDone {
		delete(a.done, a.doneOrder[0])
		a.doneOrder = a.doneOrder[1:]
	}
	a.doneOrder = append(a.doneOrder, cell)
	a.done[cell] = s.ended
}

// transcripts returns the logs of a cell that runs or has ended.
func (a *agent) transcripts(cell string) []script.Transcript {
	a.mu.Lock()
	s, log := a.sessions[cell], a.done[cell].log
	a.mu.Unlock()
	if s == nil {
		return log
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	log = slices.Clone(s.log)
	for _, e := range s.ends {
		log = append(log, script.Transcript{End: e.name, Text: e.log.String()})
	}
	return log
}
