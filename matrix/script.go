package matrix

import (
	"context"
	"net/netip"

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

func (s side) script() *script { return &script{side: s} }

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

var portTrouble = map[string]bool{"EADDRINUSE": true, "EADDRNOTAVAIL": true}

// connect connects the endpoint that spec opened.
func (s *script) connect(end string, spec endpoint.Spec) *asked {
	a := s.add(agent.Step{Do: agent.Connect, End: end}, map[string]bool{
		"EADDRINUSE": true, "EADDRNOTAVAIL": true, "ENETUNREACH": true, "EHOSTUNREACH": true, agent.CodeSkipped: true,
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
	return s.add(agent.Step{Do: agent.Relay, End: end, Data: old, New: new}, lost)
}

func (s *script) sendBurst(end string, b endpoint.Burst) *asked {
	return s.add(agent.Step{Do: agent.SendBurst, End: end, Burst: &b}, lost)
}

func (s *script) receiveBurst(end string, b endpoint.Burst) *asked {
	return s.add(agent.Step{Do: agent.ReceiveBurst, End: end, Burst: &b}, lost)
}

// relayBurst has the packet role send a burst on, with line in place of its own.
func (s *script) relayBurst(end string, b endpoint.Burst, line string) *asked {
	return s.add(agent.Step{Do: agent.RelayBurst, End: end, Burst: &b, New: line}, lost)
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

// ended tells whether the host has done so.
func (s side) ended() bool { return *s.closed }

// run has the host carry the steps out. Its error is an ERROR: the
// connection failed, or a step did in a way that says nothing about the
// kernel's diverting.
func (s *script) run(ctx context.Context) error {
	if len(s.steps) == 0 && !s.last {
		return nil
	}
	trip(ctx, 1)
	outcomes, err := s.side.host.Script(ctx, agent.Script{Cell: s.side.session, Steps: s.steps, End: s.last})
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return connectionError(s.side.name, err)
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

// found says what a question was answered.
func (a *asked) found() string {
	if a.Fault != nil {
		return a.Fault.Text
	}
	return a.Text
}
