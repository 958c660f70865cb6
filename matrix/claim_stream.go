package matrix

import (
	"context"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// answerLine is what the packet role makes of the server's line.
const answerLine = "Answer\n"

// onwardLine and returnLine are what it makes of script.PacketLine and answerLine, which come to it
// when it gets a packet twice.
const (
	onwardLine = "Onward\n"
	returnLine = "Return\n"
)

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
func (x *claimRun) streamThrough(ctx context.Context) error {
	x.change = func(r *pfconf.Rule) { r.Both = true }
	if err := x.openStream(ctx); err != nil {
		return err
	}
	c, err := x.streamPacketControl(ctx)
	if err != nil {
		return err
	}
	if err := x.loadBehind(ctx, c); err != nil {
		return err
	}
	return x.streamRewritten(ctx, x.label())
}

// openStream opens the server and the divert socket.
func (x *claimRun) openStream(ctx context.Context) error {
	_, serverSide := x.sides()
	at, divert := serverSide.request(), x.remote.request()
	opened := []*stepResult{at.open("server", x.serverSpec()), divert.open("packet", x.divertSpec())}
	if err := both(ctx, at.run, divert.run); err != nil {
		return err
	}
	return x.opened(opened...)
}

// loadBehindStream runs the control of a connection and loads the rule.
func (x *claimRun) loadBehindStream(ctx context.Context) error {
	c, err := stream{x.exchange}.control(ctx, "server")
	if err != nil {
		return err
	}
	return x.loadBehind(ctx, c)
}

// streamPacketControl connects before the rule is there, which must succeed. The divert socket sees
// nothing of it.
func (x *claimRun) streamPacketControl(ctx context.Context) (control, error) {
	return x.connectedControl(ctx, "packet", "the divert socket saw it before the rule was there")
}

// connectedControl is that with another socket of REMOTE's that must have nothing of it.
func (x *claimRun) connectedControl(ctx context.Context, silent, what string) (c control, err error) {
	clientSide, serverSide := x.sides()
	spec := x.controlSpec()
	there := clientSide.request()
	opened := []*stepResult{there.open("control", spec), there.connect("control", spec)}
	there.fence()
	connected := there.connected("control")
	there.close("control")
	there.fence()
	if err := there.run(ctx); err != nil {
		return c, err
	}
	if err := x.opened(opened...); err != nil {
		return c, err
	}
	if connected.Err != nil {
		return c, broken(ControlLost, "%s: the connection was not answered before the rule was there: %s",
			connected.where, connected.Err.Text)
	}
	c.kill = []pfconf.Flow{x.controlFlow(connected.Local)}
	// The rule would take the last packets of this connection too: it must be over before.
	at := serverSide.request()
	heard := at.rest("server") // accepts and closes
	at.fence()
	if err := at.run(ctx); err != nil {
		return c, err
	}
	peer := connected.Local
	if x.mode.server == atMirror {
		_, peer = x.mirrored(peer)
	}
	if err := x.judge(heard, want{from: peer, missing: ControlLost}); err != nil {
		return c, err
	}
	return c, x.silentAt(x.remote, silent, what)(ctx)
}

// streamRewritten runs the connection of a rule that is loaded.
func (x *claimRun) streamRewritten(ctx context.Context, label string) error {
	clientSide, serverSide := x.sides()
	from, to := x.flowEnds()
	own, peer := to, from // the server's names for itself and the client
	line, reply := script.PacketLine, answerLine
	switch {
	case x.mode.translates():
		own = x.redirected()
	case x.mode.server == atMirror:
		own, peer = x.mirrored(from)
	}
	if x.twice {
		line, reply = onwardLine, returnLine
	}
	spec := x.clientSpec()
	there := clientSide.request()
	ready := []*stepResult{there.open("client", spec), there.connect("client", spec)}
	there.fence()
	if err := there.run(ctx); err != nil {
		return err
	}
	if err := x.opened(ready...); err != nil {
		return err
	}
	given, err := x.giveBack(ctx)
	if err != nil {
		return err
	}
	there = clientSide.request()
	connected := there.connected("client")
	there.send("client", script.ClientLine, 0)
	there.fence()
	if err := there.run(ctx); err != nil {
		return err
	}
	x.answered = connected.Err == nil
	if _, err := x.giveBack(ctx); err != nil {
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
	if _, err := x.giveBack(ctx); err != nil {
		return err
	}
	there = clientSide.request()
	answer, end := there.receive("client"), there.receive("client")
	there.closeConn("client")
	there.fence()
	if err := there.run(ctx); err != nil {
		return err
	}
	if _, err := x.giveBack(ctx); err != nil {
		return err
	}
	at = serverSide.request()
	rest := at.rest("server")
	remote := x.remote.request()
	counters := remote.counters(label)
	if err := both(ctx, at.run, remote.run); err != nil {
		return err
	}

	switch {
	case connected.Err != nil && x.kernel.besides(x.Target) && given > 0:
		return failed(NotReinjected, "%s: the connection to %v was not answered (%s), and %d packets of it came to the "+
			"divert socket and were written back", connected.where, to, connected.Err.Text, given)
	case connected.Err != nil:
		return failed(NotDelivered, "%s: the connection to %v was not answered (%s)", connected.where, to,
			connected.Err.Text)
	case accepted.Err != nil:
		return failed(NotDelivered, "%s: the client is connected to %v, and not with the server (%s)", accepted.where,
			to, accepted.Err.Text)
	case accepted.Local != own || accepted.Peer != peer:
		return failed(WrongAddress, "%s: accepted on %v from %v, not on %v from %v", accepted.where, accepted.Local,
			accepted.Peer, own, peer)
	}
	if err := x.judge(read, want{line: line, from: peer, missing: NotReinjected}); err != nil {
		return err
	}
	if err := x.judge(answer, want{line: reply, from: to, missing: NotReinjected}); err != nil {
		return err
	}
	if end.Err == nil || end.Err.Code != script.CodeEOF {
		return failed(NoReply, "%s: the end of the stream did not come: %s", end.where, end.found())
	}
	if err := x.judge(rest); err != nil {
		return err
	}
	return x.judgeStreamCounters(label, *counters.Counters)
}

// giveBack returns what waits at the divert socket, rewritten, and what that brings forth. It
// returns how many packets these were.
func (x *claimRun) giveBack(ctx context.Context) (packets int, err error) {
	rewrites := []script.Rewrite{{Old: script.ClientLine, New: script.PacketLine},
		{Old: script.ServerLine, New: answerLine}, {Old: script.PacketLine, New: onwardLine},
		{Old: answerLine, New: returnLine}}
	if x.omit[Rewriting] {
		rewrites = nil
	}
	var given []*stepResult
	if x.mode.server == atMirror {
		given, err = x.giveOn(ctx, rewrites)
	} else {
		divert := x.remote.request()
		for range rounds {
			given = append(given, divert.relayAll("packet", rewrites))
			divert.fence()
		}
		err = divert.run(ctx)
	}
	if err != nil {
		return 0, err
	}
	for _, g := range given {
		if g.Err != nil {
			return 0, failed(NotReinjected, "%s: the kernel does not take a packet back: %s", g.where, g.Err.Text)
		}
		packets += len(g.Messages)
	}
	return packets, nil
}

func (x *claimRun) judgeStreamCounters(label string, c pfconf.Counters) error {
	switch {
	case x.kernel.besides(x.Target), x.twice:
		// pf counts all packets of a state alike, and a rule for one way has none that answer.
		return nil
	case x.kernel.StatesFirst && c.States != 1:
		return failed(NotCounted, "remote: rule %s created %s, not one", label, pfconf.Count(c.States, "state"))
	case x.kernel.StatesFirst:
		return nil
	case c.Matched < 3 || c.Replies < 2:
		return failed(NotCounted, "remote: rule %s matched %s, and %d that answer", label, pfconf.Count(c.Matched,
			"packet"), c.Replies)
	case c.Done != c.Matched && x.stateAge() < tcpAgain, c.Done < 3: // what was sent again may still be in the queue
		return failed(NotCounted, "remote: rule %s matched %s, and %d went on behind it", label,
			pfconf.Count(c.Matched, "packet"),
			c.Done)
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
func (x *claimRun) bothDiverts(ctx context.Context) error {
	packets := x.rule()
	packets.Label, packets.Action = x.Cell.label("-packet"), pfconf.DivertPacket
	packets.Divert = x.divertPort()
	packets.Both = x.Proto == pfconf.TCP
	x.more = []pfconf.Rule{packets}
	if x.Proto == pfconf.TCP {
		if err := x.openStream(ctx); err != nil {
			return err
		}
		if err := x.loadBehindStream(ctx); err != nil {
			return err
		}
		return x.streamRewritten(ctx, packets.Label)
	}

	if err := x.openEnds(ctx, func(remote *request) *stepResult {
		return remote.open("packet",
			x.divertSpec())
	}); err != nil {
		return err
	}
	local, err := x.sendControl(ctx, false)
	if err != nil {
		return err
	}
	unseen := x.silentAt(x.remote, "packet", "the divert socket saw it before the rule was there")
	undiverted := x.silentAt(x.remote, "server", "it was sent before the rule was there")
	c := control{kill: []pfconf.Flow{x.controlFlow(local)},
		judge: func(ctx context.Context) error { return both(ctx, unseen, undiverted) }}
	if err := x.loadBehind(ctx, c); err != nil {
		return err
	}
	if err := x.passes(ctx, "packet"); err != nil {
		return err
	}
	at := x.remote.request()
	first, second := at.counters(x.label()), at.counters(packets.Label)
	if err := at.run(ctx); err != nil {
		return err
	}
	for _, a := range []*stepResult{first, second} {
		if c := a.Counters; c.Matched != 1 || c.Done != 1 {
			return failed(NotCounted, "remote: one of the rules matched %s, and its action served %d, not one",
				pfconf.Count(c.Matched, "packet"), c.Done)
		}
	}
	return nil
}
