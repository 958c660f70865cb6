package matrix

import (
	"context"

	"pfdivert/matrix/script"
)

// bridgeGoes: a frame that waits in a queue while its bridge goes is lost when it is released, and
// the kernel goes on (br_handle_frame_finish, net/bridge/br_input.c, looks for the port anew;
// ebt_redirect did not: CVE-2026-53220).
//
//  1. In a network namespace of its own REMOTE joins two cables by a bridge, whose frames a rule
//     hands to a queue. Control: a frame that is released comes out of the other cable.
//  2. The next one waits while the bridge is deleted, and is released then.
//  3. What is sent behind it by the port that was the bridge's arrives, and it does not.
func (x *claimRun) bridgeGoes(ctx context.Context) error {
	at := x.remote.request()
	went := at.add(script.BridgeGoes{Stays: x.omit[BridgeGone]}, map[string]bool{script.CodeMissing: true})
	if err := at.run(ctx); err != nil {
		return err
	}
	switch {
	case went.Err != nil:
		return skipped("REMOTE: %s", went.Err.Text)
	case went.Text != script.Lost:
		return failed(NotLost, "%s: the frame that waited %s, and its bridge was gone", went.where, went.Text)
	}
	return nil
}
