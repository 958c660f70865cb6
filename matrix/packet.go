package matrix

import (
	"context"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// packet is an exchange of UDP datagrams through a divert socket.
type packet struct{ *exchange }

// run runs udp-packet-in and udp-packet-out. What it proves, step by step:
//
//  1. The server's socket is open, the client's, and on REMOTE the divert socket.
//  2. Control: before the rule is there, a client like the cell's sends the same.
//     It must arrive at the server as it was sent, and the divert socket must not see it.
//  3. The rule is loaded.
//  4. The client sends one datagram. Exactly that one is waiting at the divert
//     socket, with the addresses of the flow; the packet role rewrites its payload and
//     sends it on.
//  5. Exactly the rewritten one is then waiting at the server, from the client.
//     The rule did not see it a second time: nothing else is waiting at the divert socket.
//  6. The rule counted one packet (or one state, where it counts no packets).
func (x packet) run(ctx context.Context, withControl bool) error {
	clientSide, serverSide := x.sides()
	from, to := x.flowEnds()
	if err := x.openEnds(ctx, func(remote *request) *stepResult {
		return remote.open("packet",
			x.divertSpec())
	}); err != nil {
		return err
	}
	var c control
	if withControl {
		var err error
		if c, err = x.control(ctx, true); err != nil {
			return err
		}
	}
	if err := x.loadBehind(ctx, c); err != nil {
		return err
	}

	there := clientSide.request()
	there.send("client", script.ClientLine, 0)
	there.fence()
	if err := there.run(ctx); err != nil {
		return err
	}

	divert := x.remote.request()
	seen := divert.receive("packet")
	sent := divert.relay("packet", script.ClientLine, script.PacketLine)
	divert.fence()
	again := divert.rest("packet")
	if err := divert.run(ctx); err != nil {
		return err
	}

	at := serverSide.request()
	there = clientSide.request()
	received := at.rest("server")
	ending := x.tearDown(at, there, "client", "server")
	at.wantMessages(received, 1)
	x.wantCounters(ending, at, there, 1, 0)
	if err := x.finish(ctx, at, there, seen.Err != nil || sent.Err != nil || len(again.Messages) > 0); err != nil {
		return err
	}
	x.note(ending)
	arrived := want{line: script.PacketLine, from: from, missing: NotReinjected}
	if seen.Err != nil && len(received.Messages) > 0 {
		return failed(NotRewritten, "%s: the packet passed the divert socket by and arrived as %q%s", received.where,
			received.Messages[0].Data, x.counted())
	}
	if err := x.judge(seen, want{line: script.ClientLine, from: from, to: to, missing: NotDelivered}); err != nil {
		return err
	}
	if err := takenBack(sent); err != nil {
		return err
	}
	if err := x.judge(received, arrived); err != nil {
		return err
	}
	if err := x.judge(again); err != nil {
		return err
	}
	return x.judgeCounters(1, 0)
}

// control sends the control of a divert-packet rule: it must arrive as it was sent, and
// the divert socket, if there is one, must not see it.
func (x packet) control(ctx context.Context, listens bool) (control, error) {
	_, serverSide := x.sides()
	local, err := x.sendControl(ctx, false)
	if err != nil {
		return control{}, err
	}
	arrived := func(ctx context.Context) error {
		at := serverSide.request()
		heard := at.rest("server")
		if err := at.run(ctx); err != nil {
			return err
		}
		return x.judge(heard, want{line: script.ClientLine, from: local, missing: ControlLost})
	}
	c := control{kill: []pfconf.Flow{x.controlFlow(local)}, judge: arrived}
	if listens {
		unseen := x.silentAt(x.remote, "packet", "the divert socket saw it before the rule was there")
		c.judge = func(ctx context.Context) error { return both(ctx, unseen, arrived) }
	}
	return c, nil
}
