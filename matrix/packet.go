package matrix

import (
	"context"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// packet runs udp-packet-in and udp-packet-out. What it proves, step by step:
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
func (h *half) packet(ctx context.Context, withControl bool) error {
	clientSide, serverSide := h.sides()
	from, to := h.ends()
	if err := h.openEnds(ctx, func(remote *request) *asked { return remote.open("packet", h.divertSpec()) }); err != nil {
		return err
	}
	var c control
	if withControl {
		var err error
		if c, err = h.packetControl(ctx, true); err != nil {
			return err
		}
	}
	if err := h.loadBehind(ctx, c); err != nil {
		return err
	}

	there := clientSide.request()
	there.send("client", script.ClientLine, 0)
	there.fence()
	if err := there.run(ctx); err != nil {
		return err
	}

	divert := h.remote.request()
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
	ending := h.ending(at, there, "client", "server")
	at.wantMessages(received, 1)
	h.wantCounters(ending, at, there, 1, 0)
	if err := h.finish(ctx, at, there, seen.Fault != nil || sent.Fault != nil || len(again.Messages) > 0); err != nil {
		return err
	}
	h.note(ending)
	arrived := want{line: script.PacketLine, from: from, missing: NotReinjected}
	if seen.Fault != nil && len(received.Messages) > 0 {
		return failed(NotRewritten, "%s: the packet passed the divert socket by and arrived as %q%s", received.where, received.Messages[0].Data, h.counted())
	}
	if err := h.judge(seen, want{line: script.ClientLine, from: from, to: to, missing: NotDelivered}); err != nil {
		return err
	}
	if sent.Fault != nil {
		return failed(NotReinjected, "%s: the kernel does not take the packet back: %s", sent.where, sent.Fault.Text)
	}
	if err := h.judge(received, arrived); err != nil {
		return err
	}
	if err := h.judge(again); err != nil {
		return err
	}
	return h.judgeCounters(1, 0)
}

// packetControl sends the control of a divert-packet rule: it must arrive as it was sent, and
// the divert socket, if there is one, must not see it.
func (h *half) packetControl(ctx context.Context, listens bool) (control, error) {
	_, serverSide := h.sides()
	local, err := h.sendControl(ctx, false)
	if err != nil {
		return control{}, err
	}
	arrived := func(ctx context.Context) error {
		at := serverSide.request()
		heard := at.rest("server")
		if err := at.run(ctx); err != nil {
			return err
		}
		return h.judge(heard, want{line: script.ClientLine, from: local, missing: ControlLost})
	}
	c := control{kill: []pfconf.Flow{h.controlFlow(local)}, judge: arrived}
	if listens {
		unseen := h.silentAt(h.remote, "packet", "the divert socket saw it before the rule was there")
		c.judge = func(ctx context.Context) error { return both(ctx, unseen, arrived) }
	}
	return c, nil
}
