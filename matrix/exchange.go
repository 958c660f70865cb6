package matrix

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"pfdivert/matrix/evidence"
	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// testCase is one cell under way.
type testCase struct {
	Cell
	kernel Kernel
	nics   map[pfconf.Family]string // REMOTE's interfaces towards LOCAL
	second Network                  // of REMOTE
	beyond script.Beyond            // how REMOTE reaches that
	// viaGateway is what LOCAL says of a datagram that came by its interface in that network.
	viaGateway netip.Addr
	// localSystem is LOCAL's operating system, as in runtime.GOOS.
	localSystem string
	omit        map[string]bool
	batches     *ruleBatches
	local       side
	remote      side
	labels      []string // of the rules that are loaded
	used        []usedFlow
	began       time.Time // no packet of the cell is older

	// lookable: evidence is wanted when the cell does not pass; lookAlways: also when it does.
	lookable, lookAlways bool
	evidence             *Evidence // nil until the hosts were looked at
	current              *exchange // the last one that was begun
	// looped are the counters of the cell's rule where pf may have packets meet it again and again,
	// asked for alone: a host may be too slow to be looked at in full. nil when they are not known.
	looped *pfconf.Counters

	// trace, if not nil, gets what REMOTE's kernel tells of the cell's packets. onlyRule leaves out
	// the control, which would be traced as well.
	trace    *evidence.Record
	onlyRule bool
}

// usedFlow is a conversation that REMOTE's tables may still know at the end.
type usedFlow struct {
	flow pfconf.Flow
	// socket: REMOTE's TCP socket of the flow may be in TIME_WAIT.
	socket bool
	began  time.Time
}

// exchange is what one client and one server send each other, with the rule that diverts it: all of
// an args target, or one of the two parts of a reuse target.
type exchange struct {
	*testCase
	mode Mode
	// part is "" for the first exchange and "-2" for a reuse target's second; it is part of the
	// names of sockets and rule.
	part string
	// client and server are the ports of the two ends, or the ids of echoes.
	client, server uint16
	variant
	// counters of the rule when the exchange was over.
	counters     pfconf.Counters
	counterKnown bool
}

// variant is what a claim has different from the suite's exchanges.
type variant struct {
	// change, if not nil, makes the rule what it must be.
	change func(*pfconf.Rule)
	// more are rules that are loaded besides.
	more []pfconf.Rule
	// big: the sockets take messages as long as an IP packet, and many.
	big bool
	// divertSocket is the divert socket, but for its port and the pieces that are left out.
	divertSocket script.Divert
	// fib, if not 0, is the routing table of the server's socket (FreeBSD).
	fib int
	// arrival: the client asks by which interface its answers come (BSDs).
	arrival bool
}

// toServer reports whether the cell's server is on REMOTE and its client on LOCAL.
func (x *exchange) toServer() bool { return x.mode.client == atLocal }

// sides returns the hosts of client and server.
func (x *exchange) sides() (client, server side) {
	switch {
	case x.mode.server == atMirror:
		return x.local, x.local
	case x.toServer():
		return x.local, x.remote
	}
	return x.remote, x.local
}

// flowEnds returns the flow's two ends as LOCAL and the wire see them: the client's name and the
// one that it talks to.
func (x *exchange) flowEnds() (client, server netip.AddrPort) {
	c, s := x.client, x.server
	if x.mode.sharedPort {
		s = c
	}
	if !x.Proto.HasPorts() {
		c, s = 0, 0
	}
	return netip.AddrPortFrom(x.addressOf(x.mode.client), c), netip.AddrPortFrom(x.addressOf(x.mode.server), s)
}

// mirrored is what the server sees of a connection that a client with this name begins with the
// mirror: the name that the server has itself, and the client's.
func (x *exchange) mirrored(client netip.AddrPort) (own, peer netip.AddrPort) {
	_, to := x.flowEnds()
	if x.second.Domain != 0 {
		return to, client
	}
	return netip.AddrPortFrom(x.Local, to.Port()), netip.AddrPortFrom(to.Addr(), client.Port())
}

// addressOf returns the address that an end of the flow has.
func (x *exchange) addressOf(e end) netip.Addr {
	switch e {
	case atLocal:
		return x.Local
	case atRemote:
		return x.Remote
	case atMirror:
		return x.second.Mirror
	}
	return x.Fake
}

// flow returns the conversation as REMOTE's state table has it.
func (x *exchange) flow() pfconf.Flow {
	client, server := x.flowEnds()
	f := pfconf.Flow{Family: x.Family, Proto: x.Proto, Near: client, Far: server}
	if x.toServer() {
		f.Near, f.Far = server, client
	}
	if x.Proto == pfconf.ICMP {
		f.Echo = x.client
	}
	return f
}

// label is the rule's label.
func (x *exchange) label() string { return x.Cell.label(x.part) }

// rule returns the cell's rule.
func (x *exchange) rule() pfconf.Rule {
	client, server := x.flowEnds()
	r := pfconf.Rule{
		Label: x.label(), Direction: x.mode.direction, Family: x.Family, Proto: x.Proto,
		From: client.Addr(), To: server.Addr(), Port: server.Port(), Action: x.mode.action,
	}
	if x.mode.divertsTo != nil {
		r.Divert = x.mode.divertsTo(x)
	}
	if x.Claim != nil && x.Claim.PF {
		r.Action = pfconf.DivertPacket // OpenBSD's pf
		if x.kernel.besides(x.Target) {
			r.Action = pfconf.PFDivertTo
		}
	}
	// OpenBSD's pf sees the packets of all the machine's routing domains, which in a lab LOCAL and
	// the third host are: what the third host gets is not what REMOTE's rule is about.
	if x.mode.server == atMirror && x.kernel.StatesFirst {
		r.On = x.nics[x.Family]
	}
	if x.change != nil {
		x.change(&r)
	}
	return r
}

// divertAddr is where a divert-to rule delivers. Protocols without ports have
// port 1 there: pf's grammar wants one and it means nothing.
func (x *exchange) divertAddr() netip.AddrPort {
	port := x.server
	if !x.Proto.HasPorts() {
		port = 1
	}
	return netip.AddrPortFrom(x.Family.Loopback(), port)
}

// loaded is the rule as it is loaded: the cell's, unless a test leaves a piece out.
func (x *exchange) loaded() pfconf.Rule {
	r := x.rule()
	switch {
	case x.omit[OwnRule]: // a rule of the same label for no one's packets
		r.From = x.Remote
		if r.Direction == pfconf.Out && x.mode.server != atMirror {
			r.From = x.Local
		}
		if r.Translated.IsValid() {
			r.Translated = r.From
		}
	case x.omit[Swap] && x.part != "" && r.Port != 0:
		r.Port = x.client
	case x.omit[Closed]:
		r.Bypass = r.Action == pfconf.DivertPacket
	case x.omit[RulesPort] && (r.Action == pfconf.DivertPacket || r.Action == pfconf.PFDivertTo):
		r.Divert = x.otherDivert()
	}
	return r
}

// serverSpec specifies the server's socket.
func (x *exchange) serverSpec() script.Socket {
	client, server := x.flowEnds()
	s := script.Ends{Role: script.Server, Local: server, Reuse: x.part != "", Big: x.big, FIB: x.fib}
	// Where its socket in TIME_WAIT can't be dropped the next cell binds its port beside it, which
	// takes both sides' SO_REUSEADDR (inet_csk_bind_conflict, net/ipv4/inet_connection_sock.c).
	if x.Target.reuse() && x.Proto == pfconf.TCP && !x.kernel.dropsTimeWait() {
		s.Reuse = true
	}
	if x.mode.IsDivertTo() {
		s.Diverted = true
		s.Local = x.divertAddr()
		if !x.Proto.HasPorts() {
			s.Local = netip.AddrPortFrom(s.Local.Addr(), 0)
			if x.kernel.RawOnFake {
				s.Local, s.Bindany = server, true
			}
		}
	}
	if x.mode.translates() {
		s.Local = x.redirected()
	}
	if x.mode.server == atMirror {
		s.Local, _ = x.mirrored(client)
		s.FIB = x.second.Domain
	}
	if x.mode.IsDivertTo() && x.Proto.HasPorts() {
		if x.omit[Port] {
			s.Local = netip.AddrPortFrom(s.Local.Addr(), 0) // one of the kernel's choice
		}
		if x.omit[Address] || x.fib != 0 && x.omit[OwnAddress] {
			s.Local = netip.AddrPortFrom(x.Remote, s.Local.Port())
		}
	}
	s.Omit = x.omitted()
	// The servers of claims on REMOTE have its own address, which all cells know.
	var only netip.Addr
	if x.shared || x.Claim != nil {
		only = client.Addr()
		if x.mode.IsDivertTo() {
			only = server.Addr()
		}
	}
	switch s := script.SocketOf(x.Proto, s).(type) {
	case script.RawIP:
		s.Only = only
		return s
	case script.Echo:
		s.Only = only
		return s
	default:
		return s
	}
}

// clientSpec specifies the client's socket.
func (x *exchange) clientSpec() script.Socket {
	client, _ := x.flowEnds()
	return x.clientOf(client.Port(), x.client)
}

// clientOf specifies a client's socket on a port, for echoes with an id.
func (x *exchange) clientOf(port, id uint16) script.Socket {
	client, server := x.flowEnds()
	s := script.SocketOf(x.Proto, script.Ends{
		Role: script.Client, Local: netip.AddrPortFrom(client.Addr(), port), Remote: server, Reuse: x.part != "",
		Bindany: client.Addr() == x.Fake, Big: x.big, Omit: x.omitted(),
	})
	switch s := s.(type) {
	case script.Datagram:
		s.Arrival = x.arrival
		return s
	case script.Echo:
		s.ID = id
		return s
	default:
		return s
	}
}

// controlSpec specifies a client like the cell's, of another port or id: what
// it sends before the rule is there must not be diverted.
func (x *exchange) controlSpec() script.Socket { return x.clientOf(0, x.controlID()) }

// controlID is the id of the control's echo. The ids of cells are ports below 32768.
func (x *exchange) controlID() uint16 { return x.client | 1<<15 }

// controlFlow is the control's conversation on REMOTE; local is the name that its
// socket got.
func (x *exchange) controlFlow(local netip.AddrPort) pfconf.Flow {
	f := x.flow()
	port := local.Port()
	if !x.Proto.HasPorts() {
		port = 0
	}
	if x.toServer() {
		f.Far = netip.AddrPortFrom(f.Far.Addr(), port)
	} else {
		f.Near = netip.AddrPortFrom(f.Near.Addr(), port)
	}
	if x.Proto == pfconf.ICMP {
		f.Echo = x.controlID()
	}
	return f
}

// load puts the rule in force, in place of the target's former one, and
// forgets states of the control before.
func (x *exchange) load(ctx context.Context, kill ...pfconf.Flow) error {
	c := script.RuleChange{Kill: x.inTheWay(kill), Add: append([]pfconf.Rule{x.loaded()}, x.more...), Remove: x.labels}
	countRoundTrips(ctx, 1)
	if err := x.batches.load(ctx, c); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var fault *script.Error
		if asFault(err, &fault) && fault.Code == script.CodeMissing {
			return skipped("REMOTE: %s", fault.Text)
		}
		if fault != nil && fault.Code == script.CodeUnsupported {
			return &finding{Skip, NotClaimed, fault.Text}
		}
		if fault != nil {
			return broken(RuleRefused, "remote: %s", fault.Text)
		}
		return connectionError("remote", err)
	}
	x.labels = []string{x.label()}
	for _, r := range x.more {
		x.labels = append(x.labels, r.Label)
	}
	x.used = append(x.used, usedFlow{x.flow(), x.Proto == pfconf.TCP, time.Now()})
	return nil
}

// inTheWay leaves out the flows whose states are no matter for the cell and go at the end
// of the run.
func (x *exchange) inTheWay(flows []pfconf.Flow) []pfconf.Flow {
	return slices.DeleteFunc(flows, func(f pfconf.Flow) bool { return x.swept(f) && f != x.flow() })
}

// swept reports whether REMOTE's agent removes the states of the flow at the end of the run.
func (p *testCase) swept(f pfconf.Flow) bool { return p.kernel.SweepsFake && f.Near.Addr() == p.Fake }

// last reports whether the cell is over with this exchange.
func (x *exchange) last() bool { return !x.Target.reuse() || x.part != "" }

// clear adds to the scripts that close the cell on both hosts what removes the
// rest of it from their tables: states, and sockets in TIME_WAIT.
func (p *testCase) clear(local, remote *request) {
	for _, x := range p.used {
		if x.socket {
			remote.sweep(x.flow.Near, x.flow.Far)
			local.sweep(x.flow.Far, x.flow.Near)
		}
		// The next cell of a shared conversation has the same flow.
		if p.lockKey != "" || !p.swept(x.flow) {
			remote.kill(x.flow)
		}
	}
	local.closeCell()
	remote.closeCell()
}

// close closes a cell that did not come to its end by itself.
func (p *testCase) close(ctx context.Context) error {
	if p.local.isClosed() && p.remote.isClosed() {
		return nil
	}
	local, remote := p.local.request(), p.remote.request()
	p.clear(local, remote)
	return both(ctx, remote.run, local.run)
}

// redirected is where a Redirect cell's rule sends the client's packets. REMOTE's own address, not
// the loopback one, for those who come from outside may be refused there.
func (x *exchange) redirected() netip.AddrPort { return netip.AddrPortFrom(x.Remote, x.server) }

// otherDivert is a divert port that no cell has.
func (x *exchange) otherDivert() netip.AddrPort {
	return netip.AddrPortFrom(x.Family.Unspecified(), x.Divert+divertPortsEach)
}

// divertSpec specifies the cell's divert socket.
func (x *exchange) divertSpec() script.Divert {
	s := x.divertSocket
	s.Local, s.Big, s.Omit = x.divertPort(), x.big, x.omitted()
	return s
}

// divertPort is the divert port as a rule names it.
func (x *exchange) divertPort() netip.AddrPort {
	return netip.AddrPortFrom(x.Family.Unspecified(), x.Divert)
}
