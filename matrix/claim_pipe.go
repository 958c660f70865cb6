package matrix

import (
	"context"
	"net/netip"
	"time"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// pipeWait is how long to wait for a packet that is in a pipe, which keeps it 10 ms.
const pipeWait = 5 * time.Second

// piped: what a divert socket reinjects goes through a pipe of FreeBSD's dummynet(4) and on: that
// of a rule behind the one that diverts ("divert … packets are matched against the rules following
// the one that diverted", ipfw(8)), or of pf's rule itself (dnpipe: "any packets matching this rule
// will be passed to the specified dummynet(4) pipe", FreeBSD's pf.conf(5)).
//
//  1. Control: before the rules are there, what a client like the cell's sends arrives, and the
//     divert socket does not see it.
//  2. The pipe lets packets through, later. The client sends. The packet comes to the divert
//     socket, once, is reinjected rewritten, and arrives.
//  3. The pipe loses all packets. The client sends. The packet comes to the divert socket, is
//     reinjected, and does not arrive.
func (x *claimRun) piped(ctx context.Context) error {
	pipe := x.server
	if x.Claim.PF {
		x.change = func(r *pfconf.Rule) {
			if r.Keep = true; !x.omit[InPipe] {
				r.Pipe = pipe
			}
		}
	} else {
		shapes := x.rule()
		shapes.Label, shapes.Action, shapes.Divert, shapes.Pipe, shapes.Number = x.Cell.label("-pipe"),
			pfconf.ThroughPipe, netip.AddrPort{}, pipe, 2
		if x.omit[InPipe] {
			shapes.From = shapes.To
		}
		x.more = []pfconf.Rule{shapes}
	}
	at := x.remote.request()
	at.pipe(pipe, false)
	if err := at.run(ctx); err != nil {
		return err
	}
	if err := x.begin(ctx, true); err != nil {
		return err
	}
	x.delayed = true
	if err := x.passes(ctx, "packet"); err != nil {
		return err
	}
	x.delayed = false
	// The packet has been through the pipe only now.
	at = x.remote.request()
	again := at.rest("packet")
	if err := at.run(ctx); err != nil {
		return err
	}
	if err := x.judge(again); err != nil {
		return err
	}
	at = x.remote.request()
	at.pipe(pipe, true)
	if err := at.run(ctx); err != nil {
		return err
	}
	if err := x.sends(ctx); err != nil {
		return err
	}
	// Of a packet that is written out, the writer may hear that it is lost.
	_, _, err := x.comesAndGoes(ctx, "packet", script.ClientLine, x.rewritten(script.PacketLine))
	if err != nil {
		return err
	}
	return x.nothingArrives(ctx, "its rule sends it through a pipe that loses all packets")
}
