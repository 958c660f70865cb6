package matrix

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// play is one cell under way.
type play struct {
	Cell
	kernel Kernel
	nics   map[pfconf.Family]string // REMOTE's interfaces towards LOCAL
	// localSystem is LOCAL's operating system, as in runtime.GOOS.
	localSystem string
	omit        map[string]bool
	gate        *gate
	local       side
	remote      side
	labels      []string // of the rules that are loaded
	handled     []handled
	began       time.Time // no packet of the cell is older

	// lookable: evidence is wanted when the cell does not pass; lookAlways: also when it does.
	lookable, lookAlways bool
	evidence             *Evidence // nil until the hosts were looked at
	playing              *half     // the last half that was begun
}

// handled is a conversation that REMOTE's tables may still know at the end.
type handled struct {
	flow pfconf.Flow
	// socket: REMOTE's TCP socket of the flow may be in TIME_WAIT.
	socket bool
	began  time.Time
}

// half is the play of one args cell: all of an args target, or one of the two
// cells of a reuse target.
type half struct {
	*play
	mode Mode
	// part is "" for the first cell and "-2" for a reuse target's second; it is part of the names
	// of endpoints and rule.
	part string
	// client and server are the ports of the two ends, or the ids of echoes.
	client, server uint16
	// change, if not nil, makes the rule of a claim what it must be.
	change func(*pfconf.Rule)
	// more are the rules that a claim has besides.
	more []pfconf.Rule
	// big: the sockets take messages as long as an IP packet, and many.
	big bool
	// queue, spoil, call, writeTo and asPieces are the divert socket's, see endpoint.Spec.
	queue    int
	spoil    script.Spoil
	call     script.Call
	writeTo  netip.Addr
	asPieces bool
	// arrival: the client asks by which interface its answers come (OpenBSD).
	arrival bool
	// keeps: someone has the divert port before the cell's divert socket; see Unheard.
	keeps bool
	// pieces: the kernel's rule meets the client's messages in pieces, see Kernel.MeetsFragments.
	pieces bool
	// counters of the rule when the exchange was over.
	counters     pfconf.Counters
	counterKnown bool
}

// toServer reports whether the cell's server is on REMOTE and its client on LOCAL.
func (h *half) toServer() bool { return h.mode == To || h.mode == PacketIn || h.mode == Redirect }

// sides returns the hosts of client and server.
func (h *half) sides() (client, server side) {
	if h.toServer() {
		return h.local, h.remote
	}
	return h.remote, h.local
}

// ends returns the conversation's two ends as LOCAL and the wire see them: the
// client's name and the one that it talks to.
func (h *half) ends() (client, server netip.AddrPort) {
	c, s := h.client, h.server
	if !h.Proto.HasPorts() {
		c, s = 0, 0
	}
	switch h.mode {
	case To:
		return netip.AddrPortFrom(h.Local, c), netip.AddrPortFrom(h.Fake, s)
	case Redirect: // at another port than the server's
		return netip.AddrPortFrom(h.Local, c), netip.AddrPortFrom(h.Fake, c)
	case PacketIn:
		return netip.AddrPortFrom(h.Local, c), netip.AddrPortFrom(h.Remote, s)
	case PacketOut:
		return netip.AddrPortFrom(h.Remote, c), netip.AddrPortFrom(h.Local, s)
	}
	return netip.AddrPortFrom(h.Fake, c), netip.AddrPortFrom(h.Local, s)
}

// flow returns the conversation as REMOTE's state table has it.
func (h *half) flow() pfconf.Flow {
	client, server := h.ends()
	f := pfconf.Flow{Family: h.Family, Proto: h.Proto, Near: client, Far: server}
	if h.toServer() {
		f.Near, f.Far = server, client
	}
	if h.Proto == pfconf.ICMP {
		f.Echo = h.client
	}
	return f
}

// label is the rule's label.
func (h *half) label() string { return h.Cell.label(h.part) }

// rule returns the cell's rule.
func (h *half) rule() pfconf.Rule {
	client, server := h.ends()
	r := pfconf.Rule{
		Label: h.label(), Direction: pfconf.Out, Family: h.Family, Proto: h.Proto,
		From: client.Addr(), To: server.Addr(), Port: server.Port(), Action: pfconf.DivertReply,
	}
	switch h.mode {
	case To:
		r.Direction, r.Action = pfconf.In, pfconf.DivertTo
		r.Divert = h.divertAddr()
	case Redirect:
		r.Direction, r.Action = pfconf.In, pfconf.RdrTo
		r.Divert = h.redirected()
	case PacketIn:
		r.Direction, r.Action = pfconf.In, pfconf.DivertPacket
		r.Divert = netip.AddrPortFrom(h.Family.Unspecified(), h.Divert)
	case PacketOut:
		r.Action = pfconf.DivertPacket
		r.Divert = netip.AddrPortFrom(h.Family.Unspecified(), h.Divert)
	}
	if h.Claim != nil && h.Claim.PF {
		r.Action = pfconf.PFDivertTo
	}
	if h.change != nil {
		h.change(&r)
	}
	return r
}

// divertAddr is where a divert-to rule delivers. Protocols without ports have
// port 1 there: pf's grammar wants one and it means nothing.
func (h *half) divertAddr() netip.AddrPort {
	port := h.server
	if !h.Proto.HasPorts() {
		port = 1
	}
	return netip.AddrPortFrom(h.Family.Loopback(), port)
}

// kinds says which kind of socket plays a protocol.
var kinds = map[pfconf.Proto]script.Kind{
	pfconf.TCP: script.Stream, pfconf.UDP: script.Datagram, pfconf.Raw: script.RawIP, pfconf.ICMP: script.Echo,
}

// loaded is the rule as it is loaded: the cell's, unless a test leaves a piece out.
func (h *half) loaded() pfconf.Rule {
	r := h.rule()
	switch {
	case h.omit[OwnRule]: // a rule of the same label for no one's packets
		r.From = h.Remote
		if r.Direction == pfconf.Out {
			r.From = h.Local
		}
	case h.omit[Swap] && h.part != "" && r.Port != 0:
		r.Port = h.client
	case h.omit[Closed]:
		r.Bypass = r.Action == pfconf.DivertPacket
	case h.omit[RulesPort] && (r.Action == pfconf.DivertPacket || r.Action == pfconf.PFDivertTo):
		r.Divert = h.otherDivert()
	}
	return r
}

// serverSpec specifies the server's socket.
func (h *half) serverSpec() script.Spec {
	client, server := h.ends()
	s := script.Spec{Kind: kinds[h.Proto], Role: script.Server, Local: server, Reuse: h.part != "", Big: h.big}
	// Where its socket in TIME_WAIT can't be dropped the next cell binds its port beside it, which
	// takes both sides' SO_REUSEADDR (inet_csk_bind_conflict, net/ipv4/inet_connection_sock.c).
	if h.Target.reuse() && h.Proto == pfconf.TCP && h.kernel.Firewall == "nftables" {
		s.Reuse = true
	}
	if h.mode == To {
		s.Diverted = true
		s.Local = h.divertAddr()
		if !h.Proto.HasPorts() {
			s.Local = netip.AddrPortFrom(s.Local.Addr(), 0)
			if h.kernel.RawOnFake {
				s.Local, s.Bindany = server, true
			}
		}
	}
	if h.mode == Redirect {
		s.Local = h.redirected()
	}
	if h.mode == To && h.Proto.HasPorts() {
		if h.omit[Port] {
			s.Local = netip.AddrPortFrom(s.Local.Addr(), 0) // one of the kernel's choice
		}
		if h.omit[Address] {
			s.Local = netip.AddrPortFrom(h.Remote, s.Local.Port())
		}
	}
	s.Omit = h.omitted()
	// The servers of claims on REMOTE have its own address, which all cells know.
	if (h.shared || h.Claim != nil) && !h.Proto.HasPorts() {
		s.Only = client.Addr()
		if h.mode == To {
			s.Only = server.Addr()
		}
	}
	return s
}

// clientSpec specifies the client's socket.
func (h *half) clientSpec() script.Spec {
	client, server := h.ends()
	s := script.Spec{
		Kind: kinds[h.Proto], Role: script.Client, Local: client, Remote: server, Reuse: h.part != "",
		Bindany: client.Addr() == h.Fake, Big: h.big, Arrival: h.arrival, Omit: h.omitted(),
	}
	if h.Proto == pfconf.ICMP {
		s.EchoID = h.client
	}
	return s
}

// controlSpec specifies a client like the cell's, of another port or id: what
// it sends before the rule is there must not be diverted.
func (h *half) controlSpec() script.Spec {
	s := h.clientSpec()
	s.Local = netip.AddrPortFrom(s.Local.Addr(), 0)
	if h.Proto == pfconf.ICMP {
		s.EchoID = h.controlID()
	}
	return s
}

// controlID is the id of the control's echo. The ids of cells are ports below 32768.
func (h *half) controlID() uint16 { return h.client | 1<<15 }

// controlFlow is the control's conversation on REMOTE; local is the name that its
// socket got.
func (h *half) controlFlow(local netip.AddrPort) pfconf.Flow {
	f := h.flow()
	port := local.Port()
	if !h.Proto.HasPorts() {
		port = 0
	}
	if h.toServer() {
		f.Far = netip.AddrPortFrom(f.Far.Addr(), port)
	} else {
		f.Near = netip.AddrPortFrom(f.Near.Addr(), port)
	}
	if h.Proto == pfconf.ICMP {
		f.Echo = h.controlID()
	}
	return f
}

// load puts the rule in force, in place of the target's former one, and
// forgets states of the control before.
func (h *half) load(ctx context.Context, kill ...pfconf.Flow) error {
	c := script.Change{Kill: h.inTheWay(kill), Add: append([]pfconf.Rule{h.loaded()}, h.more...), Remove: h.labels}
	trip(ctx, 1)
	if err := h.gate.load(ctx, c); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var fault *script.Fault
		if asFault(err, &fault) && fault.Code == script.CodeMissing {
			return skipped("REMOTE: %s", fault.Text)
		}
		if fault != nil {
			return broken(RuleRefused, "remote: %s", fault.Text)
		}
		return connectionError("remote", err)
	}
	h.labels = []string{h.label()}
	for _, r := range h.more {
		h.labels = append(h.labels, r.Label)
	}
	h.handled = append(h.handled, handled{h.flow(), h.Proto == pfconf.TCP, time.Now()})
	return nil
}

// inTheWay leaves out the flows whose states are no matter for the cell and go at the end
// of the run.
func (h *half) inTheWay(flows []pfconf.Flow) []pfconf.Flow {
	return slices.DeleteFunc(flows, func(f pfconf.Flow) bool { return h.swept(f) && f != h.flow() })
}

// swept reports whether REMOTE's agent removes the states of the flow at the end of the run.
func (p *play) swept(f pfconf.Flow) bool { return p.kernel.SweepsFake && f.Near.Addr() == p.Fake }

// last reports whether the cell is over with this half.
func (h *half) last() bool { return !h.Target.reuse() || h.part != "" }

// clear adds to the scripts that close the cell on both hosts what removes the
// rest of it from their tables: states, and sockets in TIME_WAIT.
func (p *play) clear(local, remote *request) {
	for _, h := range p.handled {
		if h.socket {
			remote.sweep(h.flow.Near, h.flow.Far)
			local.sweep(h.flow.Far, h.flow.Near)
		}
		// The next cell of a shared conversation has the same flow.
		if p.turn != "" || !p.swept(h.flow) {
			remote.kill(h.flow)
		}
	}
	local.end()
	remote.end()
}

// end closes a cell that did not come to its end by itself.
func (p *play) end(ctx context.Context) error {
	if p.local.ended() && p.remote.ended() {
		return nil
	}
	local, remote := p.local.request(), p.remote.request()
	p.clear(local, remote)
	return both(ctx, remote.run, local.run)
}
