package matrix

import (
	"context"

	"pfdivert/pfconf"
	"pfdivert/roles/endpoint"
)

// datagram plays a UDP or raw IP cell (udp-to, udp-reply, udp-reply-to,
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
func (h *half) datagram(ctx context.Context, control bool) error {
	clientSide, serverSide := h.sides()
	from, to := h.ends()
	client, server := "client"+h.part, "server"+h.part

	at, there := serverSide.script(), clientSide.script()
	opened := []*asked{at.open(server, h.serverSpec())}
	opened = append(opened, there.open(client, h.clientSpec()), there.connect(client, h.clientSpec()))
	if err := both(ctx, at.run, there.run); err != nil {
		return err
	}
	if err := h.opened(opened...); err != nil {
		return err
	}

	var kill []pfconf.Flow
	controlled := func(context.Context) error { return nil }
	if control && (h.mode == To || h.kernel.controlReplies(h.Proto)) {
		var err error
		if kill, controlled, err = h.datagramControl(ctx, server); err != nil {
			return err
		}
	}
	load := func(ctx context.Context) error { return h.load(ctx, kill...) }
	if err := both(ctx, controlled, load); err != nil {
		return err
	}

	there = clientSide.script()
	there.send(client, endpoint.ClientLine, 0)
	there.fence()
	if err := there.run(ctx); err != nil {
		return err
	}

	sent := want{line: endpoint.ClientLine, from: from, missing: NotDelivered}
	if h.mode == To {
		sent.to = to
	}
	var received, rest, returned *asked
	var answered uint64
	if h.mode == ReplyTo {
		at = serverSide.script()
		received = at.receive(server)
		at.send(server, endpoint.ServerLine, 0)
		rest = at.rest(server)
		at.fence()
		if err := at.run(ctx); err != nil {
			return err
		}
		answered = 1
	}

	// The last look at both hosts; the rule's counters are read on REMOTE whatever
	// its part.
	at, there = serverSide.script(), clientSide.script()
	if h.mode == ReplyTo {
		returned = there.rest(client)
	} else {
		received = at.rest(server)
	}
	ending := h.ending(at, there, client, server)
	if err := both(ctx, at.run, there.run); err != nil {
		return err
	}
	h.note(ending)
	if err := h.judge(received, sent); err != nil {
		return err
	}
	if h.mode == ReplyTo {
		if err := h.judge(rest); err != nil {
			return err
		}
		if err := h.judge(returned, want{line: endpoint.ServerLine, from: to, missing: NoReply}); err != nil {
			return err
		}
	}
	if err := h.judgeCounters(1, answered); err != nil {
		return err
	}
	return h.judgeEnding(ending)
}

// datagramControl sends the control. It gives the flow whose states must be
// forgotten before the rule is loaded, and what is left to do to see that the control
// was not diverted: that may run while the rule is loaded, for it looks at
// what has arrived before.
func (h *half) datagramControl(ctx context.Context, server string) ([]pfconf.Flow, func(context.Context) error, error) {
	clientSide, serverSide := h.sides()
	_, to := h.ends()
	spec := h.controlSpec()
	there := clientSide.script()
	opened := []*asked{there.open("control", spec), there.connect("control", spec)}
	there.send("control", endpoint.ClientLine, 0)
	there.fence()
	if err := there.run(ctx); err != nil {
		return nil, nil, err
	}
	if err := h.opened(opened...); err != nil {
		return nil, nil, err
	}
	local := opened[1].Local
	kill := []pfconf.Flow{h.controlFlow(local)}

	if h.mode == To {
		return kill, func(ctx context.Context) error {
			at, there := serverSide.script(), clientSide.script()
			heard := at.rest(server)
			there.close("control")
			if err := both(ctx, at.run, there.run); err != nil {
				return err
			}
			return h.silent(heard, "it was sent before the rule was there")
		}, nil
	}

	at := serverSide.script()
	arrived := at.receive(server)
	at.send(server, endpoint.ServerLine, 0)
	at.fence()
	if err := at.run(ctx); err != nil {
		return nil, nil, err
	}
	if arrived.Fault != nil {
		return nil, nil, failed(ControlLost, "%s: what REMOTE sends from FAKE to %v does not arrive: %s", arrived.where, to, arrived.Fault.Text)
	}
	return kill, func(ctx context.Context) error {
		there := clientSide.script()
		heard := there.rest("control")
		there.close("control")
		if err := there.run(ctx); err != nil {
			return err
		}
		return h.silent(heard, "the answer came back before the rule was there")
	}, nil
}
