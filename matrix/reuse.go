package matrix

import "context"

// reuse runs a reuse target: two args cells over the same addresses, the
// second with the ports swapped. What it proves, step by step:
//
//  1. The first cell works.
//  2. tcp: what it left in the way can be cleared. divert-to: REMOTE's socket is in
//     TIME_WAIT and its state is there; tcpdrop removes the socket (and the state with it, where
//     the kernel ties them). divert-reply: tcpdrop removes LOCAL's socket. Where LOCAL
//     filters too, its own state is removed.
//  3. REMOTE's state of the first cell is what this kind of kernel must have
//     now: gone with its socket, or still there and in the way of the second.
//  4. The second cell works at once, with its rule in place of the first's and nothing
//     else flushed: no state of the first catches its packets or keeps its
//     replies, no socket its ports. to → reply and reply → to use the very
//     same four addresses and ports in the other direction.
//  5. and 6. as 2 and 3 for the second cell.
func (p *testCase) reuse(ctx context.Context) error {
	for _, x := range p.exchanges() {
		if err := x.run(ctx, false); err != nil {
			return err
		}
	}
	return nil
}
