package matrix

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// side is one of the two hosts, in the play of one cell.
type side struct {
	name    string // "local" or "remote"
	host    script.Host
	session string
	family  pfconf.Family
	beyond  bool  // its fences go to the third host
	closed  *bool // the host has closed the cell's endpoints
	// unanswered has the clients of the cell that asked for a connection and were not answered,
	// with the code of that.
	unanswered map[string]string
}

// request collects the steps for one host. The pointer that a method gives is filled
// in by run.
type request struct {
	side  side
	steps []script.Step
	out   []*stepResult
	last  bool
	// hold: the host is to stop before it clears anything when something is not as wanted.
	// later is then what it did not do.
	hold  bool
	later *request
}

// stepResult is a step's outcome together with what was asked.
type stepResult struct {
	script.Outcome
	where string // "local client"
	host  string
	step  script.Step
	bound bool // of connect: the socket is bound to a foreign address
	// may lists the codes of faults that are an answer to be judged; any other fault is
	// an ERROR. nil: no fault is an answer.
	may map[string]bool
}

func (s side) request() *request {
	return &request{side: s, steps: make([]script.Step, 0, usualSteps), out: make([]*stepResult, 0, usualSteps)}
}

// usualSteps is how many steps nearly all scripts have at most.
const usualSteps = 8

func (s *request) add(st script.Step, may map[string]bool) *stepResult {
	a := &stepResult{where: s.side.name, host: s.side.name, step: st, may: may}
	switch st := st.(type) {
	case script.Open:
		a.where += " " + st.Socket
	case script.SocketStep:
		a.where += " " + st.On()
	}
	s.steps = append(s.steps, st)
	s.out = append(s.out, a)
	return a
}

// open opens an endpoint; a bindany client may be refused by the kernel.
func (s *request) open(end string, spec script.Socket) *stepResult {
	return s.add(script.Open{Socket: end, Spec: spec}, portTrouble)
}

// openOther opens an endpoint in a process of its own; that the kernel refuses it is an answer.
func (s *request) openOther(end string, spec script.Socket, process script.Process) *stepResult {
	return s.add(script.Open{Socket: end, Spec: spec, Process: process}, refusals)
}

var refusals = map[string]bool{"EADDRINUSE": true, "EPERM": true, "EACCES": true}

var portTrouble = map[string]bool{"EADDRINUSE": true, "EADDRNOTAVAIL": true}

// connect connects the endpoint that spec opened.
func (s *request) connect(end string, spec script.Socket) *stepResult {
	a := s.add(script.Connect{Socket: end}, map[string]bool{
		"EADDRINUSE": true, "EADDRNOTAVAIL": true, "ENETUNREACH": true, "EHOSTUNREACH": true, "ECONNREFUSED": true,
		script.CodeSkipped: true,
	})
	a.bound = bindany(spec)
	return a
}

func (s *request) connected(end string) *stepResult {
	return s.add(script.Connected{Socket: end}, lost)
}

func (s *request) accept(end string) *stepResult {
	return s.add(script.Accept{Socket: end}, lost)
}

func (s *request) send(end, line string, seq uint16) *stepResult {
	return s.add(script.Send{Socket: end, Data: line, Seq: seq}, lost)
}

func (s *request) receive(end string) *stepResult {
	return s.add(script.Receive{Socket: end}, lost)
}

func (s *request) relay(end, old, new string) *stepResult {
	return s.add(script.Relay{Socket: end, Old: old, New: new}, refusedWrites)
}

// refusedWrites are the codes with which a kernel refuses a packet that is reinjected to it
// (FreeBSD's divert(4)), and those that say that it got lost.
var refusedWrites = lostOr("EINVAL", "EADDRNOTAVAIL", "EAFNOSUPPORT", "EACCES")

// lostOr are the codes that say that something got lost, and others.
func lostOr(codes ...string) map[string]bool {
	all := maps.Clone(lost)
	for _, c := range codes {
		all[c] = true
	}
	return all
}

func (s *request) sendBurst(end string, b script.Burst) *stepResult {
	return s.add(script.SendBurst{Socket: end, Burst: b}, lostOr(script.CodeUnsupported))
}

func (s *request) receiveBurst(end string, b script.Burst) *stepResult {
	return s.add(script.ReceiveBurst{Socket: end, Burst: b}, lost)
}

// relayBurst has the packet role send a burst on, with line in place of its own.
func (s *request) relayBurst(end string, b script.Burst, line string) *stepResult {
	return s.add(script.RelayBurst{Socket: end, Burst: b, Line: line}, notTaken)
}

// notTaken are the answers to packets that are written back: besides those of lost ones, that one
// is longer than the socket may write.
var notTaken = lostOr("EMSGSIZE")

// relayAll has the packet role send all on that waits.
func (s *request) relayAll(end string, rewrites []script.Rewrite) *stepResult {
	return s.add(script.RelayAll{Socket: end, Rewrites: rewrites}, lost)
}

// turn has the packet role send the packet that it holds back, as an answer to itself.
func (s *request) turn(end, old, new string, in netip.Addr) *stepResult {
	return s.add(script.Turn{Socket: end, Old: old, New: new, In: in}, lost)
}

// undelivered asks what was dropped for a divert port.
func (s *request) undelivered(port uint16) *stepResult {
	return s.add(script.Undelivered{Family: s.side.family, Port: port}, nil)
}

// pipe has a pipe of dummynet(4) let packets through, or lose them all.
func (s *request) pipe(number uint16, lossy bool) *stepResult {
	return s.add(script.Pipe{Number: number, Lossy: lossy}, nil)
}

func (s *request) rest(end string) *stepResult {
	return s.add(script.Rest{Socket: end}, lost)
}

func (s *request) closeConn(end string) *stepResult {
	return s.add(script.CloseConn{Socket: end}, lost)
}

func (s *request) close(end string) *stepResult {
	return s.add(script.Close{Socket: end}, nil)
}

// fence makes sure that the other host has processed all that this one sent.
func (s *request) fence() *stepResult {
	return s.add(script.Fence{Family: s.side.family, Beyond: s.side.beyond}, nil)
}

func (s *request) counters(label string) *stepResult {
	return s.add(script.Counters{Label: label}, nil)
}

func (s *request) lookup(f pfconf.Flow) *stepResult {
	return s.add(script.Lookup{Flow: f}, nil)
}

func (s *request) kill(f pfconf.Flow) *stepResult {
	return s.add(script.Kill{Flow: f}, nil)
}

// drop drops a TCP socket that must be there; that there is none is an answer.
func (s *request) drop(near, far netip.AddrPort) *stepResult {
	return s.add(script.DropTCP{Near: near, Far: far, Expected: true}, noDrop)
}

// sweep drops a TCP socket if there is one.
func (s *request) sweep(near, far netip.AddrPort) *stepResult {
	return s.add(script.DropTCP{Near: near, Far: far}, noDrop)
}

// tcpState asks for the state of a TCP socket, which must be the one given or script.Gone;
// that there is no socket is an answer.
func (s *request) tcpState(near, far netip.AddrPort, state string) *stepResult {
	return s.add(script.TCPState{Near: near, Far: far, State: state}, noSocket)
}

// timeWait is the state of the socket that closed first.
const timeWait = "TIME_WAIT"

// waiting is what was found of a socket that must be in TIME_WAIT, which inTimeWait judges.
type waiting struct{ socket *stepResult }

// waiting asks for the state of a TCP socket that must be in TIME_WAIT.
func (s *request) waiting(near, far netip.AddrPort) waiting {
	return waiting{s.tcpState(near, far, timeWait)}
}

// cantDrop is how Linux before 6.0 refuses to drop a socket in TIME_WAIT (tcp_abort,
// net/ipv4/tcp.c), and one without CONFIG_INET_DIAG_DESTROY any. Such a socket ends by itself,
// after a minute. The error has two names on Linux, and unix.ErrnoName returns this one.
const cantDrop = "ENOTSUP"

// noDrop are the answers of a host without the socket, and of one that can't drop it.
var noDrop = map[string]bool{script.CodeNoSocket: true, cantDrop: true}

var noSocket = map[string]bool{script.CodeNoSocket: true}

// closeCell has the host close the cell's endpoints after the last step.
func (s *request) closeCell() { s.last = true }

// isClosed reports whether the host has done so.
func (s side) isClosed() bool { return *s.closed }

// run has the host carry the steps out. Its error is an ERROR: the
// connection failed, or a step did in a way that says nothing about the
// kernel's diverting.
func (s *request) run(ctx context.Context) error {
	if len(s.steps) == 0 && !s.last {
		return nil
	}
	countRoundTrips(ctx, 1)
	outcomes, err := s.side.host.Script(ctx, script.Script{Cell: s.side.session, Steps: s.steps, Hold: s.hold,
		End: s.last})
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return connectionError(s.side.name, err)
	}
	if at := s.heldFrom(outcomes); at < len(outcomes) {
		s.cut(at)
		outcomes = outcomes[:at]
	}
	if s.last { // the host's other scripts may run meanwhile, but none with the last one
		*s.side.closed = true
	}
	var first error
	for i, o := range outcomes {
		a := s.out[i]
		a.Outcome = o
		if c, ok := a.step.(script.Connected); ok {
			delete(s.side.unanswered, c.Socket)
			if o.Err != nil {
				s.side.unanswered[c.Socket] = o.Err.Code
			}
		}
		if o.Err == nil || a.may[o.Err.Code] || first != nil {
			continue
		}
		switch o.Err.Code {
		case script.CodeSkipped:
			continue
		case script.CodeMissing:
			first = skipped("%s: %s", strings.ToUpper(s.side.name), o.Err.Text)
			continue
		}
		reason := QuestionFailed
		switch a.step.(type) {
		case script.Fence:
			reason = FenceLost
		case script.Open, script.Connect, script.Send:
			reason = SocketFailed
		}
		first = broken(reason, "%s: %s", a.where, o.Err.Text)
	}
	return first
}

// heldFrom is the first step that the host did not do.
func (s *request) heldFrom(outcomes []script.Outcome) int {
	at := slices.IndexFunc(outcomes, func(o script.Outcome) bool {
		return o.Err != nil &&
			o.Err.Code == script.CodeHeld
	})
	if !s.hold || at < 0 {
		return len(outcomes)
	}
	return at
}

// cut leaves the steps from at on to a script of their own.
func (s *request) cut(at int) {
	s.later = &request{side: s.side, steps: s.steps[at:], out: s.out[at:], last: s.last}
	s.steps, s.out, s.last = s.steps[:at], s.out[:at], false
}

// cutClearing leaves what closes or removes something, and all behind it, to a script of
// its own.
func (s *request) cutClearing() {
	at := slices.IndexFunc(s.steps, func(st script.Step) bool { return script.Clears(st) })
	if at < 0 {
		at = len(s.steps)
	}
	s.cut(at)
}

// wantMessages has the host look how many messages a Rest finds before it clears anything.
func (s *request) wantMessages(a *stepResult, n int) {
	if i := slices.Index(s.out, a); i >= 0 {
		rest := s.steps[i].(script.Rest)
		rest.Want = &n
		s.steps[i] = rest
	}
}

// wantCounters has the host look whether the counters are at least these before it clears anything.
func (s *request) wantCounters(a *stepResult, least pfconf.Counters) {
	if i := slices.Index(s.out, a); i >= 0 {
		counters := s.steps[i].(script.Counters)
		counters.Want = &least
		s.steps[i] = counters
	}
}

// bindany reports whether the socket may be bound to a foreign address.
func bindany(s script.Socket) bool {
	switch s := s.(type) {
	case script.Stream:
		return s.Bindany
	case script.Datagram:
		return s.Bindany
	case script.RawIP:
		return s.Bindany
	case script.Echo:
		return s.Bindany
	}
	return false
}

// found says what a question was answered.
func (a *stepResult) found() string {
	if a.Err != nil {
		return a.Err.Text
	}
	return a.Text
}
