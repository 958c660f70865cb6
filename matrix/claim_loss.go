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
func (x *claimRun) noListener(ctx context.Context) error {
	if err := x.begin(ctx, false); err != nil {
		return err
	}
	if err := x.sends(ctx); err != nil {
		return err
	}
	if err := x.nothingArrives(ctx, "no process listened on its divert port"); err != nil {
		return err
	}
	if err := x.judgeMatched(ctx, 1, 0); err != nil {
		return err
	}
	if err := x.openDivert(ctx, "packet"); err != nil {
		return err
	}
	if err := x.passes(ctx, "packet"); err != nil {
		return err
	}
	return x.judgeMatched(ctx, 2, 1)
}

// keepsPacket: "A diverted packet that is not reinjected into the kernel stack is
// lost." (OpenBSD divert(4))
//
//  1. Control: before the rule is there, what a client like the cell's sends arrives.
//  2. The client sends. The packet comes to the divert socket, which keeps it: nothing
//     arrives.
//  3. The socket is closed: still nothing arrives.
//  4. Another socket on the port does not get the packet either, but the next one, which
//     it reinjects and which arrives.
func (x *claimRun) keepsPacket(ctx context.Context) error {
	if err := x.begin(ctx, true); err != nil {
		return err
	}
	if err := x.sends(ctx); err != nil {
		return err
	}
	from, to := x.flowEnds()
	divert := x.remote.request()
	seen := divert.receive("packet")
	if x.omit[Keep] {
		divert.relay("packet", "", "")
	}
	divert.fence()
	if err := divert.run(ctx); err != nil {
		return err
	}
	if err := x.judge(seen, want{line: script.ClientLine, from: from, to: to, missing: NotDelivered}); err != nil {
		return err
	}
	if err := x.nothingArrives(ctx, "the divert socket holds it"); err != nil {
		return err
	}
	divert = x.remote.request()
	divert.close("packet")
	divert.fence()
	if err := divert.run(ctx); err != nil {
		return err
	}
	if err := x.nothingArrives(ctx, "the divert socket was closed and had not given it back"); err != nil {
		return err
	}
	if err := x.openDivert(ctx, "packet"); err != nil {
		return err
	}
	if err := x.passes(ctx, "packet"); err != nil {
		return err
	}
	return x.judgeMatched(ctx, 2, 1)
}
