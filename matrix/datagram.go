package matrix

import (
	"context"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// datagram is a UDP or raw IP exchange.
type datagram struct{ *exchange }

// run runs a UDP or raw IP cell (udp-to, udp-reply, udp-reply-to,
// rip-to, rip-reply, rip-reply-to). What it proves, step by step:
//
//  1. The server's socket is open, and the client's: with divert-reply that is on
//     REMOTE and bound to FAKE.
//  2. Control: before the rule is there, a client like the cell's sends the
//     same. With divert-to it must not reach the server. With divert-reply it reaches
//     the server, which answers, and the answer must not come back (where the
//     kernel needs the rule for that).
//  3. The rule is loaded.
//  4. The client sends one message. Exactly that one is then waiting at the server,
//     and shows the client's address and, with divert-to, FAKE as its
//     destination. The control, sent earlier on the same way, would be there as well.
//  5. reply-to: the server answers to the address that it received from. Exactly
//     that one answer is then waiting at the client, from LOCAL.
//  6. The rule counted one packet, and one that came back for reply-to.
//  7. Where the kernel ties the state of a divert-reply rule to its socket, the
//     state is there before the socket is closed and gone after.
func (x datagram) run(ctx context.Context, withControl bool) error {
	clientSide, serverSide := x.sides()
	from, to := x.flowEnds()
	client, server := "client"+x.part, "server"+x.part

	if err := x.openEnds(ctx); err != nil {
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

	there := clientSide.request()
	left := there.send(client, script.ClientLine, 0)
	there.fence()
	if err := there.run(ctx); err != nil {
		return err
	}
	if err := left.unsent(); err != nil {
		return err
	}

	sent := want{line: script.ClientLine, from: from, missing: NotDelivered}
	if x.mode.IsDivertTo() {
		sent.to = to
	}
	var received, replied, rest, returned *stepResult
	var answered uint64
	if x.mode.Answers() {
		at := serverSide.request()
		received = at.receive(server)
		replied = at.send(server, script.ServerLine, 0)
		rest = at.rest(server)
		at.fence()
		if err := at.run(ctx); err != nil {
			return err
		}
		answered = 1
	}

	// The last look at both hosts; the rule's counters are read on REMOTE whatever
	// its part.
	at := serverSide.request()
	there = clientSide.request()
	if x.mode.Answers() {
		returned = there.rest(client)
	} else {
		received = at.rest(server)
	}
	ending := x.tearDown(at, there, client, server)
	at.wantMessages(received, 1)
	doubt := x.mode.Answers() && received.Err != nil
	if returned != nil {
		there.wantMessages(returned, 1)
		doubt = doubt || len(rest.Messages) > 0
	}
	x.wantCounters(ending, at, there, 1, answered)
	if err := x.finish(ctx, at, there, doubt); err != nil {
		return err
	}
	x.note(ending)
	if err := x.judge(received, sent); err != nil {
		return err
	}
	if x.mode.Answers() {
		if err := replied.unrouted(); err != nil {
			return err
		}
		if err := x.judge(rest); err != nil {
			return err
		}
		if err := x.judge(returned, want{line: script.ServerLine, from: to, missing: NoReply}); err != nil {
			return err
		}
	}
	if err := x.judgeCounters(1, answered); err != nil {
		return err
	}
	return x.judgeTeardown(ending)
}

// control sends the control. With divert-reply it reaches the server, as
// nothing keeps it from it, and the server answers.
func (x datagram) control(ctx context.Context, server string) (control, error) {
	clientSide, serverSide := x.sides()
	local, err := x.sendControl(ctx, !x.mode.IsDivertTo())
	if err != nil {
		return control{}, err
	}
	c := control{kill: []pfconf.Flow{x.controlFlow(local)}}
	if x.mode.IsDivertTo() {
		c.judge = x.silentAt(serverSide, server, "it was sent before the rule was there")
		return c, nil
	}

	at := serverSide.request()
	arrived := at.receive(server)
	answered := at.send(server, script.ServerLine, 0)
	at.fence()
	if err := at.run(ctx); err != nil {
		return c, err
	}
	if arrived.Err != nil {
		_, to := x.flowEnds()
		return c, broken(ControlLost, "%s: what REMOTE sends from FAKE to %v does not arrive: %s", arrived.where, to,
			arrived.Err.Text)
	}
	if err := unanswered(answered); err != nil {
		return c, err
	}
	c.judge = x.silentAt(clientSide, "control", "the answer came back before the rule was there")
	return c, nil
}
