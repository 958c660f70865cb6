package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"pfdivert/matrix/evidence"
	"pfdivert/matrix/script"
	"pfdivert/pfconf"
	"pfdivert/roles/endpoint"
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
	log    []script.Entry    // of ends that were closed by name, in the order of opening
	errors []string          // ICMP errors of all its sockets
	closed []evidence.Socket // the names that they had
	ports  []uint16          // only while it is looked at: of sockets that are open
}

// end is one endpoint of a cell.
type end struct {
	name   string
	ep     endpoint.Endpoint
	traced *traced // in place of ep, when endpoints run under $KTRACE
	log    bounded
	broken bool // a step failed; what would follow means nothing

	kind        script.Kind
	local, peer netip.AddrPort // as far as steps have shown them
}

func (e *end) opened() bool { return e.ep != nil || e.traced != nil }

// Bounds against an orchestrator gone mad.
const (
	maxEnds     = 16
	maxLog      = 16 << 10 // bytes of log kept of each endpoint
	maxRewrites = 8
	maxDone     = 1024 // cells whose logs are kept after their end
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
		st := &sc.Steps[i]
		if sc.Hold && wrong && st.Do.Clears() {
			for ; i < len(out); i++ {
				out[i].Fault = &script.Fault{Code: script.CodeHeld, Text: "held back: the cell is to be looked at"}
			}
			return out
		}
		out[i] = a.step(ctx, s, st)
		wrong = wrong || !st.As(&out[i])
	}
	if sc.End {
		s.close()
		a.retire(sc.Cell)
	}
	return out
}

// step carries one step out.
func (a *agent) step(ctx context.Context, s *session, st *script.Step) (out script.Outcome) {
	fail := func(err error) script.Outcome {
		out.Fault = FaultOf(err)
		return out
	}
	switch st.Do {
	case script.Fence:
		fence, err := a.fence(st.Family)
		if err == nil {
			_, err = fence.Pass(ctx)
		}
		return fail(err)
	case script.Counters:
		fw, err := a.filter()
		if err != nil {
			return fail(err)
		}
		m, err := fw.Counters(ctx, []string{st.Label})
		if err != nil {
			return fail(err)
		}
		c := m[st.Label]
		out.Counters = &c
		return out
	case script.Lookup, script.Kill:
		table, err := a.states()
		if err == nil && st.Flow == nil {
			err = fmt.Errorf("%s without a flow", st.Do)
		}
		if err != nil {
			return fail(err)
		}
		flows := []pfconf.Flow{*st.Flow}
		if st.Do == script.Kill {
			out.Count, err = table.KillFlows(ctx, flows)
			return fail(err)
		}
		states, err := table.Lookup(ctx, flows)
		if err != nil {
			return fail(err)
		}
		out.States = states[0]
		return out
	case script.AskNAT:
		if st.NAT == nil {
			return fail(fmt.Errorf("%s without a connection", st.Do))
		}
		q := *st.NAT
		if q.Domain == 0 {
			q.Domain = a.opt.Domain
		}
		answer, err := Natlook(q)
		out.Peer, out.Local = answer.Src, answer.Dst
		return fail(err)
	case script.Drop, script.TCPState:
		return fail(tcpSocket(ctx, st, &out))
	case script.Open:
		return fail(a.open(ctx, s, st, &out))
	case script.Drops:
		d, err := endpoint.Drops(ctx, st.Family == pfconf.Inet6, st.Near.Port())
		out.Drops = &d
		return fail(err)
	}
	e := s.ends[st.End]
	switch {
	case e == nil:
		return fail(fmt.Errorf("%s: the cell has no endpoint %q", st.Do, st.End))
	case e.broken && (!e.opened() || st.Do != script.Close && st.Do != script.Rest):
		return fail(&script.Fault{Code: script.CodeSkipped, Text: fmt.Sprintf("%s %s: skipped, an earlier step failed", st.End, st.Do)})
	}
	var err error
	if e.traced != nil {
		out, err = e.traced.step(ctx, st)
	} else {
		err = endpointStep(e.ep, st, &out)
	}
	e.named(&out)
	s.heard(e, out.Text)
	if st.Do == script.Close {
		s.closeEnd(e)
		delete(s.ends, st.End)
	}
	if err != nil {
		// That a stream has ended is an answer: its client closes after it.
		f := FaultOf(fmt.Errorf("%s: %s: %w", st.End, st.Do, err))
		e.broken = f.Code != script.CodeEOF
		return fail(f)
	}
	return out
}

// endpointStep carries out a step that is a method of the endpoint.
func endpointStep(ep endpoint.Endpoint, st *script.Step, out *script.Outcome) error {
	var m script.Message
	var err error
	switch st.Do {
	case script.Connect:
		err = ep.Connect()
	case script.Connected:
		err = ep.Connected(endpoint.Now)
	case script.Accept:
		err = ep.Accept(endpoint.Now)
	case script.Send:
		err = ep.Send([]byte(st.Data), st.Seq)
	case script.Receive, script.Relay:
		if st.Do == script.Receive {
			m, err = ep.Receive(endpoint.Now)
		} else {
			m, err = ep.Relay([]byte(st.Data), []byte(st.New))
		}
		if err == nil {
			out.Messages = []script.Message{m}
		}
	case script.Rest:
		out.Messages, err = ep.Rest()
		out.Text = joinErrors(ep.Errors())
	case script.RelayAll:
		if len(st.Rewrites) > maxRewrites {
			return fmt.Errorf("%d rewrites are over the limit of %d", len(st.Rewrites), maxRewrites)
		}
		out.Messages, err = endpoint.RelayAll(ep, st.Rewrites)
	case script.Turn:
		err = endpoint.Turn(ep, []byte(st.Data), []byte(st.New), st.Near.Addr())
	case script.SendBurst, script.ReceiveBurst, script.RelayBurst:
		err = burstStep(ep, st, out)
	case script.CloseConn:
		err = ep.CloseConn()
	case script.Close:
		out.Text = joinErrors(ep.Errors())
		err = ep.Close()
	default:
		err = fmt.Errorf("there is no step %q", st.Do)
	}
	switch st.Do {
	case script.Connect, script.Connected, script.Accept:
		out.Local, out.Peer = ep.Names()
	}
	return err
}

// burstStep carries out a step with many messages.
func burstStep(ep endpoint.Endpoint, st *script.Step, out *script.Outcome) error {
	if st.Burst == nil {
		return errors.New("no burst is given")
	}
	if st.Do == script.SendBurst {
		return endpoint.SendBurst(ep, *st.Burst)
	}
	var t script.Tally
	var err error
	if st.Do == script.RelayBurst {
		t, err = endpoint.RelayBurst(ep, *st.Burst, st.New)
	} else {
		t, err = endpoint.ReceiveBurst(ep, *st.Burst)
	}
	out.Tally = &t
	return err
}

func joinErrors(errs []string) string {
	var b bytes.Buffer
	for i, e := range errs {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(e)
	}
	return b.String()
}

// open opens an endpoint of the session.
func (a *agent) open(ctx context.Context, s *session, st *script.Step, out *script.Outcome) error {
	switch {
	case st.Spec == nil:
		return fmt.Errorf("open %q: no socket is specified", st.End)
	case s.ends[st.End] != nil:
		return fmt.Errorf("open %q: the cell has such an endpoint", st.End)
	case st.Spec.Drop && st.Apart == "" && !a.opt.Alone:
		return fmt.Errorf("open %q: this process keeps its privilege", st.End)
	case len(s.ends) >= maxEnds:
		return fmt.Errorf("open %q: the cell has %d endpoints already", st.End, maxEnds)
	}
	e := &end{name: st.End, kind: st.Spec.Kind}
	var err error
	if st.Apart != "" {
		e.traced, *out, err = openApart(ctx, st)
	} else if a.trace != nil {
		e.traced, *out, err = a.trace.open(ctx, st)
	} else if e.ep, err = endpoint.Open(*st.Spec, &e.log); err == nil {
		out.Local, out.Peer = e.ep.Names()
	}
	s.ends[st.End] = e
	e.named(out)
	if err != nil {
		// It stays, unopened, for what it logged; its further steps are skipped.
		e.broken = true
		return fmt.Errorf("%s: open: %w", st.End, err)
	}
	return nil
}

// close closes all endpoints of the session and keeps their logs.
func (s *session) close() {
	for _, e := range s.ends {
		if e.ep != nil {
			s.heard(e, joinErrors(e.ep.Errors()))
			_ = e.ep.Close()
		}
		s.closeEnd(e)
	}
	s.ends = nil
	slices.SortStableFunc(s.log, func(a, b script.Entry) int { return bytes.Compare([]byte(a.End), []byte(b.End)) })
}

// closeEnd keeps what is to be known of an endpoint whose socket is closed.
func (s *session) closeEnd(e *end) {
	if e.traced != nil {
		s.log = append(s.log, e.traced.close()...)
	} else {
		s.log = append(s.log, script.Entry{End: e.name, Text: e.log.String()})
	}
	if e.local.IsValid() {
		s.closed = append(s.closed, evidence.Socket{
			Proto: protoOf[e.kind], Local: e.local, Remote: e.peer, State: closedState, Text: "the cell's " + e.name,
		})
	}
}

// closedState is the state of a socket that the cell had and has no more.
const closedState = "closed"

// protoOf has the evidence's names of what endpoints speak.
var protoOf = map[script.Kind]string{
	script.Stream: "tcp", script.Datagram: "udp", script.RawIP: "raw 254", script.Echo: "icmp", script.Divert: "divert",
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
func (a *agent) transcripts(cell string) []script.Entry {
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
		log = append(log, script.Entry{End: e.name, Text: e.log.String()})
	}
	return log
}
