package matrix

import (
	"context"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// stream is a TCP exchange.
type stream struct{ *exchange }

// run runs a TCP cell (tcp-to, tcp-reply). What it proves, step by step:
//
//  1. The server listens: with divert-to on REMOTE's loopback address, with
//     divert-reply on LOCAL.
//  2. Control: before the rule is there, a client like the cell's tries to connect. It
//     must not succeed, and nothing may wait at the listener (where the kernel
//     needs the rule for that).
//  3. The rule is loaded.
//  4. The client connects and writes its line.
//  5. The server accepts. The accepted socket's own name is what the client
//     connected to (FAKE, with divert-to) and its peer the client (FAKE, with
//     divert-reply). It writes its line, reads the client's and closes first.
//  6. The client reads the server's line and then the end, and closes.
//  7. No further connection waits at the server; the connection that closed first is in
//     TIME_WAIT there. The rule counted the client's packets, and those that
//     came back for divert-reply.
//  8. Where the kernel ties the state of a divert-reply rule to its socket, the
//     state is there before the socket is closed and gone when the server has
//     acknowledged that.
func (x stream) run(ctx context.Context, withControl bool) error {
	clientSide, serverSide := x.sides()
	from, to := x.flowEnds()
	client, server := "client"+x.part, "server"+x.part

	at := serverSide.request()
	opened := at.open(server, x.serverSpec())
	if err := at.run(ctx); err != nil {
		return err
	}
	if err := x.opened(opened); err != nil {
		return err
	}

	var c control
	if withControl && (x.mode.IsDivertTo() || x.kernel.controlReplies(x.Proto)) {
		var err error
		if c, err = x.control(ctx, server); err != nil {
			return err
		}
	}
	if err := x.loadBehind(ctx, c); err != nil {
		return err
	}

	spec := x.clientSpec()
	there := clientSide.request()
	ready := []*stepResult{there.open(client, spec), there.connect(client, spec)}
	there.fence()
	connected := there.connected(client)
	there.send(client, script.ClientLine, 0)
	there.fence()
	if err := there.run(ctx); err != nil {
		return err
	}
	if err := x.opened(ready...); err != nil {
		return err
	}

	at = serverSide.request()
	accepted := at.accept(server)
	at.send(server, script.ServerLine, 0)
	serverRead := at.receive(server)
	at.closeConn(server)
	at.fence()
	if err := at.run(ctx); err != nil {
		return err
	}

	there = clientSide.request()
	clientRead := there.receive(client)
	clientEnd := there.receive(client)
	var open *stepResult
	if x.tied() {
		open = there.lookup(x.flow())
	}
	there.closeConn(client)
	there.fence()
	if err := there.run(ctx); err != nil {
		return err
	}

	at, there = serverSide.request(), clientSide.request()
	rest := at.rest(server)
	closed := at.waiting(to, from)
	ending := x.tearDown(at, there, client, server)
	ending.open = open
	at.wantMessages(rest, 0)
	x.wantCounters(ending, at, there, 3, 2)
	doubt := connected.Err != nil || accepted.Err != nil || serverRead.Err != nil || clientRead.Err != nil
	if err := x.finish(ctx, at, there, doubt); err != nil {
		return err
	}
	x.note(ending)

	switch {
	case accepted.Err != nil && connected.Err != nil:
		return failed(NotDelivered, "%s: the connection to %v was not answered (%s)%s", connected.where, to,
			connected.Err.Text, x.counted())
	case connected.Err != nil:
		return failed(NoReply, "%s: the server accepted, and the client does not know (%s)%s", connected.where,
			connected.Err.Text, x.counted())
	case accepted.Err != nil:
		return failed(NotDelivered, "%s: the client is connected to %v, and not with the server (%s)%s",
			accepted.where, to, accepted.Err.Text, x.counted())
	case accepted.Local != to:
		return failed(WrongAddress, "%s: the accepted socket's own name is %v, not %v", accepted.where, accepted.Local,
			to)
	case accepted.Peer != from:
		return failed(WrongAddress, "%s: the accepted socket's peer is %v, not %v", accepted.where, accepted.Peer, from)
	}
	if err := x.judge(serverRead, want{line: script.ClientLine, missing: NotDelivered, from: from}); err != nil {
		return err
	}
	if err := x.judge(clientRead, want{line: script.ServerLine, missing: NoReply, from: to}); err != nil {
		return err
	}
	if clientEnd.Err == nil {
		return failed(Duplicate, "%s: read %q after the server's line", clientEnd.where, clientEnd.Messages[0].Data)
	}
	if clientEnd.Err.Code != script.CodeEOF {
		return failed(NoReply, "%s: the end of the stream did not come: %s", clientEnd.where, clientEnd.Err.Text)
	}
	if err := x.judge(rest); err != nil {
		return err
	}
	if err := x.inTimeWait(closed, "the server closed first"); err != nil {
		return err
	}
	// SYN, ACK and data, FIN or what carries it: an exchange needs three packets
	// of the client, and two that come back.
	if err := x.judgeCounters(3, 2); err != nil {
		return err
	}
	return x.judgeTeardown(ending)
}

// control tries to connect before the rule is there.
func (x stream) control(ctx context.Context, server string) (c control, err error) {
	clientSide, serverSide := x.sides()
	spec := x.controlSpec()
	there := clientSide.request()
	opened := []*stepResult{there.open("control", spec), there.connect("control", spec)}
	there.fence()
	connected := there.connected("control")
	there.close("control")
	if err := there.run(ctx); err != nil {
		return c, err
	}
	if err := x.opened(opened...); err != nil {
		return c, err
	}
	if connected.Err == nil {
		return c, failed(ControlDelivered, "%s: connected before the rule was there", connected.where)
	}
	if x.mode.IsDivertReply() && connected.Err.Code != script.CodeNothing {
		return c, failed(ControlDelivered, "%s: got an answer before the rule was there: %s", connected.where,
			connected.Err.Text)
	}
	c.kill = []pfconf.Flow{x.controlFlow(opened[1].Local)}
	c.judge = x.silentAt(serverSide, server, "it connected before the rule was there")
	return c, nil
}
