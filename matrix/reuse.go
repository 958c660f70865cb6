package matrix

import (
	"context"

	"pfdivert/pfconf"
	"pfdivert/roles/agent"
)

// reuse plays a reuse target: two args cells over the same addresses, the
// second with the ports swapped. What it proves, step by step:
//
//  1. The first cell works.
//  2. tcp: what it left in the way can be cleared. divert-to: REMOTE's socket is in
//     TIME_WAIT and its state is there; tcpdrop removes the socket (and the state with it, where
//     the kernel ties them). divert-reply: tcpdrop removes LOCAL's socket.
//  3. REMOTE's state of the first cell is what this kind of kernel must have
//     now: gone with its socket, or still there and in the way of the second.
//  4. The second cell works at once, with its rule in place of the first's and nothing
//     else flushed: no state of the first catches its packets or keeps its
//     replies, no socket its ports. to → reply and reply → to use the very
//     same four addresses and ports in the other direction.
//  5. and 6. as 2 and 3 for the second cell.
func (p *play) reuse(ctx context.Context) error {
	first := &half{play: p, mode: p.First, client: p.Client, server: p.Server}
	second := &half{play: p, mode: p.Second, part: "-2", client: p.Server, server: p.Client}
	for _, h := range []*half{first, second} {
		if err := h.run(ctx, false); err != nil {
			return err
		}
		if err := h.settle(ctx); err != nil {
			return err
		}
	}
	return nil
}

// settle clears a tcp cell's way and judges what is left of the cell in REMOTE's tables.
func (h *half) settle(ctx context.Context) error {
	client, server := h.ends() // the server closed first, its end is in TIME_WAIT
	at, remote := h.local.script(), h.remote.script()
	if h.mode == To {
		at = remote
	}
	var before, dropped, gone *asked
	if h.Proto == pfconf.TCP && !h.omit[Drop] {
		if h.mode == To {
			before = remote.lookup(h.flow())
		}
		dropped, gone = at.drop(server, client), at.tcpState(server, client, agent.Gone)
	}
	if at != remote {
		if err := at.run(ctx); err != nil {
			return err
		}
	}
	after := remote.lookup(h.flow())
	if err := remote.run(ctx); err != nil {
		return err
	}
	if before != nil && len(before.States) == 0 {
		return failed(StateMissing, "remote: there is no state of %s while its socket is in TIME_WAIT", h.label())
	}
	if dropped != nil && dropped.Fault != nil {
		return failed(StateMissing, "%s: there is no socket in TIME_WAIT to drop: %s", dropped.where, dropped.Fault.Text)
	}
	if gone != nil && (gone.Fault == nil || gone.Fault.Code != agent.CodeNoSocket) {
		return failed(StateLeft, "%s: the dropped socket is still there, in %s", gone.where, gone.Text)
	}
	left := len(after.States) > 0
	switch stays := h.kernel.stateStays(h.Proto, h.mode); {
	case stays && !left:
		return failed(StateMissing, "remote: the state of %s is gone; this kernel keeps it", h.label())
	case !stays && left:
		return failed(StateLeft, "remote: the state of %s is left (%s); it must go with its socket", h.label(), after.States[0].Phase)
	}
	return nil
}
