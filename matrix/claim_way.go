package matrix

import (
	"context"

	"pfdivert/roles/endpoint"
)

// noLoop: "Writing to a divert socket … will skip pf(4) filters to avoid loops."
// (OpenBSD divert(4)) On Linux a packet with the verdict NF_ACCEPT goes on behind the
// chain that queued it, in ipfw(8) with the rule behind.
//
//  1. Control: before the rule is there, what a client like the cell's sends arrives,
//     and the divert socket does not see it.
//  2. The client sends; the packet comes to the divert socket, which gives it back as it is.
//  3. It does not come to the socket again, and arrives at the server, once.
//  4. The rule has counted it once, and once behind.
func (h *half) noLoop(ctx context.Context) error {
	if err := h.begin(ctx, true); err != nil {
		return err
	}
	if err := h.sends(ctx); err != nil {
		return err
	}
	from, to := h.ends()
	divert := h.remote.script()
	seen := divert.receive("packet")
	sent := divert.relay("packet", "", "")
	divert.fence()
	again := divert.rest("packet")
	if err := divert.run(ctx); err != nil {
		return err
	}
	if err := h.judge(seen, want{line: endpoint.ClientLine, from: from, to: to, missing: NotDelivered}); err != nil {
		return err
	}
	if sent.Fault != nil {
		return failed(NotReinjected, "%s: the kernel does not take the packet back: %s", sent.where, sent.Fault.Text)
	}
	if len(again.Messages) > 0 {
		return failed(Looped, "%s: the packet that was given back came again", again.where)
	}
	if err := h.judge(again); err != nil {
		return err
	}
	if err := h.arrives(ctx, endpoint.ClientLine, NotReinjected); err != nil {
		return err
	}
	return h.judgeMatched(ctx, 1, 1)
}
