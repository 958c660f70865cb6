package matrix

import (
	"context"
	"maps"
	"net/netip"
	"slices"

	"pfdivert/pfconf"
	"pfdivert/roles/agent"
	"pfdivert/roles/endpoint"
)

// side is one of the two hosts, in the play of one cell.
type side struct {
	name    string // "local" or "remote"
	host    *agent.Conn
	session string
	family  pfconf.Family
	closed  *bool // the host has closed the cell's endpoints
}

// script collects the steps for one host. The pointer that a method gives is filled
// in by run.
type script struct {
	side  side
	steps []agent.Step
	out   []*asked
	last  bool
	// hold: the host is to stop before it clears anything when something is not as wanted.
	// later is then what it did not do.
	hold  bool
	later *script
}

// asked is a step's outcome together with what was asked.
type asked struct {
	agent.Outcome
	where string // "local client"
	host  string
	do    agent.Do
	spec  *endpoint.Spec // of open
	bound bool           // of connect: the socket is bound to a foreign address
	// may lists the codes of faults that are an answer to be judged; any other fault is
	// an ERROR. nil: no fault is an answer.
	may map[string]bool
}

func (s side) script() *script {
	return &script{side: s, steps: make([]agent.Step, 0, usualSteps), out: make([]*asked, 0, usualSteps)}
}

// usualSteps is how many steps nearly all scripts have at most.
const usualSteps = 8

func (s *script) add(st agent.Step, may map[string]bool) *asked {
	a := &asked{where: s.side.name, host: s.side.name, do: st.Do, spec: st.Spec, may: may}
	if st.End != "" {
		a.where += " " + st.End
	}
	s.steps = append(s.steps, st)
	s.out = append(s.out, a)
	return a
}

// open opens an endpoint; a bindany client may be refused by the kernel.
func (s *script) open(end string, spec endpoint.Spec) *asked {
	return s.add(agent.Step{Do: agent.Open, End: end, Spec: &spec}, portTrouble)
}

// openApart opens an endpoint in a process of its own; that the kernel refuses it is an answer.
func (s *script) openApart(end string, spec endpoint.Spec, apart agent.Apart) *asked {
	return s.add(agent.Step{Do: agent.Open, End: end, Spec: &spec, Apart: apart}, refusals)
}

var refusals = map[string]bool{"EADDRINUSE": true, "EPERM": true, "EACCES": true}

var portTrouble = map[string]bool{"EADDRINUSE": true, "EADDRNOTAVAIL": true}

// connect connects the endpoint that spec opened.
func (s *script) connect(end string, spec endpoint.Spec) *asked {
	a := s.add(agent.Step{Do: agent.Connect, End: end}, map[string]bool{
		"EADDRINUSE": true, "EADDRNOTAVAIL": true, "ENETUNREACH": true, "EHOSTUNREACH": true, "ECONNREFUSED": true, agent.CodeSkipped: true,
	})
	a.bound = spec.Bindany
	return a
}

func (s *script) connected(end string) *asked {
	return s.add(agent.Step{Do: agent.Connected, End: end}, lost)
}

func (s *script) accept(end string) *asked {
	return s.add(agent.Step{Do: agent.Accept, End: end}, lost)
}

func (s *script) send(end, line string, seq uint16) *asked {
	return s.add(agent.Step{Do: agent.Send, End: end, Data: line, Seq: seq}, lost)
}

func (s *script) receive(end string) *asked {
	return s.add(agent.Step{Do: agent.Receive, End: end}, lost)
}

func (s *script) relay(end, old, new string) *asked {
	return s.add(agent.Step{Do: agent.Relay, End: end, Data: old, New: new}, refusedWrites)
}

// refusedWrites are the codes with which a kernel refuses a packet that is reinjected to it
// (FreeBSD's divert(4)), and those that say that it got lost.
var refusedWrites = lostOr("EINVAL", "EADDRNOTAVAIL")

// lostOr are the codes that say that something got lost, and others.
func lostOr(codes ...string) map[string]bool {
	all := maps.Clone(lost)
	for _, c := range codes {
		all[c] = true
	}
	return all
}

func (s *script) sendBurst(end string, b endpoint.Burst) *asked {
	return s.add(agent.Step{Do: agent.SendBurst, End: end, Burst: &b}, lost)
}

func (s *script) receiveBurst(end string, b endpoint.Burst) *asked {
	return s.add(agent.Step{Do: agent.ReceiveBurst, End: end, Burst: &b}, lost)
}

// relayBurst has the packet role send a burst on, with line in place of its own.
func (s *script) relayBurst(end string, b endpoint.Burst, line string) *asked {
	return s.add(agent.Step{Do: agent.RelayBurst, End: end, Burst: &b, New: line}, notTaken)
}

// notTaken are the answers to packets that are written back: besides those of lost ones, that one
// is longer than the socket may write.
var notTaken = lostOr("EMSGSIZE")

// relayAll has the packet role send all on that waits.
func (s *script) relayAll(end string, rewrites []endpoint.Rewrite) *asked {
	return s.add(agent.Step{Do: agent.RelayAll, End: end, Rewrites: rewrites}, lost)
}

// turn has the packet role send the packet that it holds back, as an answer to itself.
func (s *script) turn(end, old, new string, in netip.AddrPort) *asked {
	return s.add(agent.Step{Do: agent.Turn, End: end, Data: old, New: new, Near: in}, lost)
}

// drops asks what was dropped for a divert port.
func (s *script) drops(port netip.AddrPort) *asked {
	return s.add(agent.Step{Do: agent.Drops, Family: s.side.family, Near: port}, nil)
}

func (s *script) rest(end string) *asked {
	return s.add(agent.Step{Do: agent.Rest, End: end}, lost)
}

func (s *script) closeConn(end string) *asked {
	return s.add(agent.Step{Do: agent.CloseConn, End: end}, lost)
}

func (s *script) close(end string) *asked {
	return s.add(agent.Step{Do: agent.Close, End: end}, nil)
}

// fence makes sure that the other host has processed all that this one sent.
func (s *script) fence() *asked {
	return s.add(agent.Step{Do: agent.Fence, Family: s.side.family}, nil)
}

func (s *script) counters(label string) *asked {
	return s.add(agent.Step{Do: agent.Counters, Label: label}, nil)
}

func (s *script) lookup(f pfconf.Flow) *asked {
	return s.add(agent.Step{Do: agent.Lookup, Flow: &f}, nil)
}

func (s *script) kill(f pfconf.Flow) *asked {
	return s.add(agent.Step{Do: agent.Kill, Flow: &f}, nil)
}

// drop drops a TCP socket that must be there; that there is none is an answer.
func (s *script) drop(near, far netip.AddrPort) *asked {
	return s.add(agent.Step{Do: agent.Drop, Near: near, Far: far, Data: timeWait}, noSocket)
}

// sweep drops a TCP socket if there is one.
func (s *script) sweep(near, far netip.AddrPort) *asked {
	return s.add(agent.Step{Do: agent.Drop, Near: near, Far: far}, noSocket)
}

// tcpState asks for the state of a TCP socket, which must be the one given or agent.Gone;
// that there is no socket is an answer.
func (s *script) tcpState(near, far netip.AddrPort, state string) *asked {
	return s.add(agent.Step{Do: agent.TCPState, Near: near, Far: far, Data: state}, noSocket)
}

// timeWait is the state of the socket that closed first.
const timeWait = "TIME_WAIT"

var noSocket = map[string]bool{agent.CodeNoSocket: true}

// end has the host close the cell's endpoints after the last step.
func (s *script) end() { s.last = true }

// ended reports whether the host has done so.
func (s side) ended() bool { return *s.closed }

// run has the host carry the steps out. Its error is an ERROR: the
// connection failed, or a step did in a way that says nothing about the
// kernel's diverting.
func (s *script) run(ctx context.Context) error {
	if len(s.steps) == 0 && !s.last {
		return nil
	}
	trip(ctx, 1)
	outcomes, err := s.side.host.Script(ctx, agent.Script{Cell: s.side.session, Steps: s.steps, Hold: s.hold, End: s.last})
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
		if o.Fault == nil || a.may[o.Fault.Code] || first != nil {
			continue
		}
		switch {
		case o.Fault.Code == agent.CodeSkipped:
		case a.do == agent.Fence:
			first = broken(FenceLost, "%s: %s", a.where, o.Fault.Text)
		case a.do == agent.Open || a.do == agent.Connect || a.do == agent.Send:
			first = broken(SocketFailed, "%s: %s", a.where, o.Fault.Text)
		default:
			first = broken(QuestionFailed, "%s: %s", a.where, o.Fault.Text)
		}
	}
	return first
}

// heldFrom is the first step that the host did not do.
func (s *script) heldFrom(outcomes []agent.Outcome) int {
	at := slices.IndexFunc(outcomes, func(o agent.Outcome) bool { return o.Fault != nil && o.Fault.Code == agent.CodeHeld })
	if !s.hold || at < 0 {
		return len(outcomes)
	}
	return at
}

// cut leaves the steps from at on to a script of their own.
func (s *script) cut(at int) {
	s.later = &script{side: s.side, steps: s.steps[at:], out: s.out[at:], last: s.last}
	s.steps, s.out, s.last = s.steps[:at], s.out[:at], false
}

// cutClearing leaves what closes or removes something, and all behind it, to a script of
// its own.
func (s *script) cutClearing() {
	at := slices.IndexFunc(s.steps, func(st agent.Step) bool { return st.Do.Clears() })
	if at < 0 {
		at = len(s.steps)
	}
	s.cut(at)
}

// want has the step's outcome looked at before the host clears anything.
func (s *script) want(a *asked, w agent.Want) {
	if i := slices.Index(s.out, a); i >= 0 {
		s.steps[i].Want = &w
	}
}

// found says what a question was answered.
func (a *asked) found() string {
	if a.Fault != nil {
		return a.Fault.Text
	}
	return a.Text
}
