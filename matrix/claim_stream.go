package matrix

import (
	"context"
	"net/netip"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// answerLine is what the packet role makes of the server's line.
const answerLine = "Answer\n"

// rounds is how often what waits at the divert socket is reinjected before it is looked what
// has come of it: the packets of a handshake follow one another through it, and each
// brings the next one forth.
const rounds = 3

// streamThrough: a TCP connection is diverted packet by packet, in both directions. (pf.conf(5),
// divert-packet: a rule's state has the packets of both.)
//
//  1. Control: before the rule is there, a client like the cell's connects, and the divert socket
//     does not see it.
//  2. The client connects: SYN, SYN+ACK and ACK go through the divert socket.
//  3. The client sends its line, and the server reads it as it was rewritten on its way.
//  4. The server answers and closes, and the client reads the answer as that was rewritten, then
//     the end.
//  5. Nothing more waits at the server. The rule has counted at least three packets of the client
//     and two that answer, and each came out behind it.
func (h *half) streamThrough(ctx context.Context) error {
	h.change = func(r *pfconf.Rule) { r.Both = true }
	if err := h.openStream(ctx); err != nil {
		return err
	}
	c, err := h.streamPacketControl(ctx)
	if err != nil {
		return err
	}
	if err := h.loadBehind(ctx, c); err != nil {
		return err
	}
	return h.streamRewritten(ctx, h.label())
}

// openStream opens the server and the divert socket.
func (h *half) openStream(ctx context.Context) error {
	_, serverSide := h.sides()
	at, divert := serverSide.request(), h.remote.request()
	opened := []*asked{at.open("server", h.serverSpec()), divert.open("packet", h.divertSpec())}
	if err := both(ctx, at.run, divert.run); err != nil {
		return err
	}
	return h.opened(opened...)
}

// streamPacketControl connects before the rule is there, which must succeed.
func (h *half) streamPacketControl(ctx context.Context) (c control, err error) {
	clientSide, serverSide := h.sides()
	spec := h.controlSpec()
	there := clientSide.request()
	opened := []*asked{there.open("control", spec), there.connect("control", spec)}
	there.fence()
	connected := there.connected("control")
	there.close("control")
	there.fence()
	if err := there.run(ctx); err != nil {
		return c, err
	}
	if err := h.opened(opened...); err != nil {
		return c, err
	}
	if connected.Fault != nil {
		return c, broken(ControlLost, "%s: the connection was not answered before the rule was there: %s", connected.where, connected.Fault.Text)
	}
	c.kill = []pfconf.Flow{h.controlFlow(connected.Local)}
	// The rule would take the last packets of this connection too: it must be over before.
	at := serverSide.request()
	heard := at.rest("server") // accepts and closes
	at.fence()
	if err := at.run(ctx); err != nil {
		return c, err
	}
	if err := h.judge(heard, want{from: connected.Local, missing: ControlLost}); err != nil {
		return c, err
	}
	return c, h.silentAt(h.remote, "packet", "the divert socket saw it before the rule was there")(ctx)
}

// streamRewritten runs the connection of a rule that is loaded.
func (h *half) streamRewritten(ctx context.Context, label string) error {
	clientSide, serverSide := h.sides()
	from, to := h.ends()
	spec := h.clientSpec()
	there := clientSide.request()
	ready := []*asked{there.open("client", spec), there.connect("client", spec)}
	there.fence()
	if err := there.run(ctx); err != nil {
		return err
	}
	if err := h.opened(ready...); err != nil {
		return err
	}
	if err := h.giveBack(ctx); err != nil {
		return err
	}
	there = clientSide.request()
	connected := there.connected("client")
	there.send("client", script.ClientLine, 0)
	there.fence()
	if err := there.run(ctx); err != nil {
		return err
	}
	if err := h.giveBack(ctx); err != nil {
		return err
	}
	at := serverSide.request()
	accepted := at.accept("server")
	read := at.receive("server")
	at.send("server", script.ServerLine, 0)
	at.closeConn("server")
	at.fence()
	if err := at.run(ctx); err != nil {
		return err
	}
	if err := h.giveBack(ctx); err != nil {
		return err
	}
	there = clientSide.request()
	answer, end := there.receive("client"), there.receive("client")
	there.closeConn("client")
	there.fence()
	if err := there.run(ctx); err != nil {
		return err
	}
	if err := h.giveBack(ctx); err != nil {
		return err
	}
	at = serverSide.request()
	rest := at.rest("server")
	remote := h.remote.request()
	counters := remote.counters(label)
	if err := both(ctx, at.run, remote.run); err != nil {
		return err
	}

	switch {
	case connected.Fault != nil:
		return failed(NotDelivered, "%s: the connection to %v was not answered (%s)", connected.where, to, connected.Fault.Text)
	case accepted.Fault != nil:
		return failed(NotDelivered, "%s: the client is connected to %v, and not with the server (%s)", accepted.where, to, accepted.Fault.Text)
	case accepted.Local != to || accepted.Peer != from:
		return failed(WrongAddress, "%s: accepted on %v from %v, not on %v from %v", accepted.where, accepted.Local, accepted.Peer, to, from)
	}
	if err := h.judge(read, want{line: script.PacketLine, from: from, missing: NotReinjected}); err != nil {
		return err
	}
	if err := h.judge(answer, want{line: answerLine, from: to, missing: NotReinjected}); err != nil {
		return err
	}
	if end.Fault == nil || end.Fault.Code != script.CodeEOF {
		return failed(NoReply, "%s: the end of the stream did not come: %s", end.where, end.found())
	}
	if err := h.judge(rest); err != nil {
		return err
	}
	return h.judgeStreamCounters(label, *counters.Counters)
}

// giveBack returns what waits at the divert socket, rewritten, and what that brings forth.
func (h *half) giveBack(ctx context.Context) error {
	rewrites := []script.Rewrite{{Old: script.ClientLine, New: script.PacketLine}, {Old: script.ServerLine, New: answerLine}}
	if h.omit[Rewriting] {
		rewrites = nil
	}
	divert := h.remote.request()
	var given []*asked
	for range rounds {
		given = append(given, divert.relayAll("packet", rewrites))
		divert.fence()
	}
	if err := divert.run(ctx); err != nil {
		return err
	}
	for _, g := range given {
		if g.Fault != nil {
			return failed(NotReinjected, "%s: the kernel does not take a packet back: %s", g.where, g.Fault.Text)
		}
	}
	return nil
}

func (h *half) judgeStreamCounters(label string, c pfconf.Counters) error {
	switch {
	case h.kernel.StatesFirst && c.States != 1:
		return failed(NotCounted, "remote: rule %s created %d states, not one", label, c.States)
	case h.kernel.StatesFirst:
		return nil
	case c.Matched < 3 || c.Replies < 2:
		return failed(NotCounted, "remote: rule %s matched %d packets, and %d that answer", label, c.Matched, c.Replies)
	case c.Done != c.Matched:
		return failed(NotCounted, "remote: rule %s matched %d packets, and %d went on behind it", label, c.Matched, c.Done)
	}
	return nil
}

// bothDiverts: a packet is handed to the divert socket, reinjected, and then diverted to another
// socket: a packet filter in front of a transparent proxy. (On Linux the hooks come one after the
// other: tproxy at prerouting, the queue at input.)
//
//  1. REMOTE's proxy listens for what LOCAL sends to FAKE, and a divert socket is open.
//  2. Control: before the rules are there, a client like the cell's does not reach the proxy, and
//     the divert socket sees nothing.
//  3. Both rules are loaded, for the same flow: divert-to and divert-packet.
//  4. What the client sends goes through the divert socket, which rewrites it, and comes to the
//     proxy with FAKE as its destination. TCP: the answers too, and the client reads the proxy's as
//     they were rewritten.
//  5. Both rules have counted.
func (h *half) bothDiverts(ctx context.Context) error {
	packets := h.rule()
	packets.Label, packets.Action = h.Cell.label("-packet"), pfconf.DivertPacket
	packets.Divert = netip.AddrPortFrom(h.Family.Unspecified(), h.Divert)
	packets.Both = h.Proto == pfconf.TCP
	h.more = []pfconf.Rule{packets}
	if h.Proto == pfconf.TCP {
		if err := h.openStream(ctx); err != nil {
			return err
		}
		c, err := h.streamControl(ctx, "server")
		if err != nil {
			return err
		}
		if err := h.loadBehind(ctx, c); err != nil {
			return err
		}
		return h.streamRewritten(ctx, packets.Label)
	}

	if err := h.openEnds(ctx, func(remote *request) *asked { return remote.open("packet", h.divertSpec()) }); err != nil {
		return err
	}
	local, err := h.sendControl(ctx, false)
	if err != nil {
		return err
	}
	unseen := h.silentAt(h.remote, "packet", "the divert socket saw it before the rule was there")
	undiverted := h.silentAt(h.remote, "server", "it was sent before the rule was there")
	c := control{kill: []pfconf.Flow{h.controlFlow(local)}, judge: func(ctx context.Context) error { return both(ctx, unseen, undiverted) }}
	if err := h.loadBehind(ctx, c); err != nil {
		return err
	}
	if err := h.passes(ctx, "packet"); err != nil {
		return err
	}
	at := h.remote.request()
	first, second := at.counters(h.label()), at.counters(packets.Label)
	if err := at.run(ctx); err != nil {
		return err
	}
	for _, a := range []*asked{first, second} {
		if c := a.Counters; c.Matched != 1 || c.Done != 1 {
			return failed(NotCounted, "remote: one of the rules matched %d packets, and its action served %d, not one", c.Matched, c.Done)
		}
	}
	return nil
}
