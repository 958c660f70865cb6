package matrix

import (
	"context"

	"pfdivert/matrix/script"
)

// noListener: "If there are no divert sockets listening, the packets are dropped."
// (OpenBSD divert(4))
//
//  1. Control: before the rule is there, what a client like the cell's sends arrives.
//  2. The rule is loaded and no one listens. The client sends: nothing arrives, and the
//     rule has counted the packet.
//  3. A divert socket is opened, and the client sends the same again. That one comes to
//     the socket, and through it to the server: it was the listener that was missing.
func (h *half) noListener(ctx context.Context) error {
	if err := h.begin(ctx, false); err != nil {
		return err
	}
	if err := h.sends(ctx); err != nil {
		return err
	}
	if err := h.nothingArrives(ctx, "no process listened on its divert port"); err != nil {
		return err
	}
	if err := h.judgeMatched(ctx, 1, 0); err != nil {
		return err
	}
	if err := h.openDivert(ctx, "packet"); err != nil {
		return err
	}
	if err := h.passes(ctx, "packet"); err != nil {
		return err
	}
	return h.judgeMatched(ctx, 2, 1)
}

// notGivenBack: "A diverted packet that is not reinjected into the kernel stack is
// lost." (OpenBSD divert(4))
//
//  1. Control: before the rule is there, what a client like the cell's sends arrives.
//  2. The client sends. The packet comes to the divert socket, which keeps it: nothing
//     arrives.
//  3. The socket is closed: still nothing arrives.
//  4. Another socket on the port does not get the packet either, but the next one, which
//     it reinjects and which arrives.
func (h *half) notGivenBack(ctx context.Context) error {
	if err := h.begin(ctx, true); err != nil {
		return err
	}
	if err := h.sends(ctx); err != nil {
		return err
	}
	from, to := h.ends()
	divert := h.remote.request()
	seen := divert.receive("packet")
	if h.omit[Keep] {
		divert.relay("packet", "", "")
	}
	divert.fence()
	if err := divert.run(ctx); err != nil {
		return err
	}
	if err := h.judge(seen, want{line: script.ClientLine, from: from, to: to, missing: NotDelivered}); err != nil {
		return err
	}
	if err := h.nothingArrives(ctx, "the divert socket holds it"); err != nil {
		return err
	}
	divert = h.remote.request()
	divert.close("packet")
	divert.fence()
	if err := divert.run(ctx); err != nil {
		return err
	}
	if err := h.nothingArrives(ctx, "the divert socket was closed and had not given it back"); err != nil {
		return err
	}
	if err := h.openDivert(ctx, "packet"); err != nil {
		return err
	}
	if err := h.passes(ctx, "packet"); err != nil {
		return err
	}
	return h.judgeMatched(ctx, 2, 1)
}
