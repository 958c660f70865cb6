package matrix

import (
	"context"

	"pfdivert/matrix/script"
)

// address: recvfrom(2) on a divert socket gives "the first address of the interface on which the
// packet was received …, or INADDR_ANY" if it leaves (FreeBSD divert(4), shortened). With ipfw the
// port is the number of the rule.
//
//  1. Control: before the rule is there, what a client like the cell's sends arrives.
//  2. The client sends. The packet comes to the divert socket: one that came in with an address,
//     one that leaves without.
//  3. Written back to the same address, the packet goes its way and arrives.
func (x *claimRun) address(ctx context.Context) error {
	if err := x.begin(ctx, true); err != nil {
		return err
	}
	seen, err := x.diverted(ctx)
	if err != nil {
		return err
	}
	via := seen.Messages[0].Via
	switch in := x.toServer(); {
	case !via.IsValid():
		return failed(WrongAddress, "%s: the packet came without an address", seen.where)
	case in == via.Addr().IsUnspecified():
		return failed(WrongAddress, "%s: the packet came with the address %v; one that comes in has an interface's, one that leaves none", seen.where, via)
	case x.kernel.Firewall == "ipfw" && via.Port() == 0:
		return failed(WrongAddress, "%s: the packet came without the number of the rule", seen.where)
	}
	return x.reinjected(ctx)
}

// noInterface: EADDRNOTAVAIL, "the destination address contained an IP address not equal to
// INADDR_ANY that was not associated with any interface" (FreeBSD divert(4)).
//
//  1. Control: before the rule is there, what a client like the cell's sends arrives.
//  2. The client sends. The divert socket writes the packet to the address of no interface, and the
//     kernel refuses it. Nothing arrives.
//  3. What the client sends next is written to the address that it came with, and arrives.
func (x *claimRun) noInterface(ctx context.Context) error {
	if err := x.begin(ctx, true); err != nil {
		return err
	}
	address := x.Fake
	if x.kernel.Firewall == "ipfw" { // interfaces have IPv4 addresses there, whatever the packet is
		address = nowhere
	}
	if err := x.refusedNowhere(ctx, address); err != nil {
		return err
	}
	if err := x.openDivert(ctx, "packet"); err != nil {
		return err
	}
	return x.passes(ctx, "packet")
}

// diverted has the client send, and judges that the divert socket has the packet, which it keeps.
func (x *claimRun) diverted(ctx context.Context) (*stepResult, error) {
	if err := x.sends(ctx); err != nil {
		return nil, err
	}
	from, to := x.flowEnds()
	divert := x.remote.request()
	seen := divert.receive("packet")
	if err := divert.run(ctx); err != nil {
		return nil, err
	}
	if err := x.passedBy(ctx, seen); err != nil {
		return nil, err
	}
	return seen, x.judge(seen, want{line: script.ClientLine, from: from, to: to, missing: NotDelivered})
}
