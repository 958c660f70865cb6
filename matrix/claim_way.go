package matrix

import (
	"context"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
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
func (x *claimRun) noLoop(ctx context.Context) error {
	if err := x.reinjects(ctx); err != nil {
		return err
	}
	return x.judgeMatched(ctx, 1, 1)
}

// reinjects is noLoop without what the rule has counted: FreeBSD's pf counts no packet that a rule
// of its own has diverted. A packet that such a rule lets pass instead is told apart from one that
// is lost.
func (x *claimRun) reinjects(ctx context.Context) error {
	if err := x.begin(ctx, true); err != nil {
		return err
	}
	if err := x.sends(ctx); err != nil {
		return err
	}
	if x.omit[Once] {
		if err := x.sends(ctx); err != nil {
			return err
		}
	}
	again, err := x.givesBack(ctx)
	if err != nil {
		return err
	}
	if len(again.Messages) > 0 {
		return failed(Looped, "%s: the packet that was reinjected came again", again.where)
	}
	if err := x.judge(again); err != nil {
		return err
	}
	return x.arrives(ctx, script.ClientLine, NotReinjected)
}

// givesBack has the client's packet come to the divert socket and be reinjected as it is, and
// returns what came there afterwards.
func (x *claimRun) givesBack(ctx context.Context) (again *stepResult, err error) {
	sent, again, err := x.comesAndGoes(ctx, "packet", "", "")
	if err != nil {
		return nil, err
	}
	return again, takenBack(sent)
}

// passedBy judges that what a rule of pf must divert did not pass the divert socket by.
func (x *claimRun) passedBy(ctx context.Context, seen *stepResult) error {
	if !x.Claim.PF || seen.Err == nil {
		return nil
	}
	received, err := x.atServer(ctx)
	if err != nil || len(received.Messages) == 0 {
		return err
	}
	return failed(NotRewritten, "%s: the packet passed the divert socket by and arrived as %q", received.where,
		received.Messages[0].Data)
}

// The numbers of directions in pf (PF_IN and PF_OUT in FreeBSD's sys/netpfil/pf/pf.h).
const (
	pfIn  = 1
	pfOut = 2
)

// cookie: the port that comes with a packet is for pf "a value that tells the original direction"
// (FreeBSD 15's divert(4), in other words).
//
//  1. Control: before the rule is there, what a client like the cell's sends arrives.
//  2. The client sends, and the packet comes to the divert socket with the number of its direction
//     in place of a rule's.
//  3. It is reinjected rewritten, and arrives.
func (x *claimRun) cookie(ctx context.Context) error {
	if err := x.begin(ctx, true); err != nil {
		return err
	}
	seen, err := x.diverted(ctx)
	if err != nil {
		return err
	}
	number, is := uint16(pfIn), "came in"
	if x.mode == PacketOut {
		number, is = pfOut, "is to leave"
	}
	if via := seen.Messages[0].Via; via.Port() != number {
		return failed(WrongAddress, "%s: the packet came with the address %v; it %s, which is %d", seen.where, via, is,
			number)
	}
	return x.reinjected(ctx)
}

// echoOut: ICMP is diverted like any protocol ("queues raw packets", OpenBSD divert(4)).
//
//  1. REMOTE has a socket that is bound to FAKE, so that no echo of the hosts' own is diverted.
//     LOCAL has one that hears echo requests.
//  2. Control: before the rule is there, a request like the cell's comes to LOCAL as it was sent,
//     and the divert socket does not see it.
//  3. The client sends an echo request to LOCAL. It comes to the divert socket, which gives it back
//     rewritten.
//  4. LOCAL hears it, once, rewritten, with its id and number and a right checksum.
//  5. The rule has counted it.
func (x *claimRun) echoOut(ctx context.Context) error {
	x.change = func(r *pfconf.Rule) {
		r.Action, r.Divert = pfconf.DivertPacket, x.divertPort()
	}
	if err := x.openEnds(ctx, func(remote *request) *stepResult {
		return remote.open("packet",
			x.divertSpec())
	}); err != nil {
		return err
	}
	from, to := x.flowEnds()
	if _, err := x.sendControl(ctx, false); err != nil {
		return err
	}
	unseen := x.silentAt(x.remote, "packet", "the divert socket saw it before the rule was there")
	arrived := func(ctx context.Context) error {
		heard, err := x.atServer(ctx)
		if err != nil {
			return err
		}
		if goos := x.localSystem; len(heard.Messages) == 0 && unanswered(heard) == nil && answersFirst(x.Family, goos) {
			return skipped("LOCAL's kernel (%s) answers an echo request itself and shows it to no raw socket, "+
				"so no one can see there what arrives", goos)
		}
		return x.judge(heard, want{line: script.ClientLine, from: from, missing: ControlLost})
	}
	c := control{kill: []pfconf.Flow{x.controlFlow(from)},
		judge: func(ctx context.Context) error { return both(ctx, unseen, arrived) }}
	if err := x.loadBehind(ctx, c); err != nil {
		return err
	}
	there := x.remote.request()
	there.send("client", script.ClientLine, 1)
	seen := there.receive("packet")
	sent := there.relay("packet", script.ClientLine, x.rewritten(script.PacketLine))
	there.fence()
	again := there.rest("packet")
	if err := there.run(ctx); err != nil {
		return err
	}
	received, err := x.atServer(ctx)
	if err != nil {
		return err
	}
	if err := x.judge(seen, want{line: script.ClientLine, from: from, to: to, missing: NotDelivered}); err != nil {
		return err
	}
	if err := takenBack(sent); err != nil {
		return err
	}
	if err := x.judge(received, want{line: script.PacketLine, from: from, missing: NotReinjected,
		echo: x.header(0, 1)}); err != nil {
		return err
	}
	// Where a rule's state has the packets of both directions, LOCAL's reply is diverted too.
	var reply []want
	if x.kernel.StatesFirst {
		reply = []want{{line: script.PacketLine, from: to, to: from, missing: NoReply}}
	}
	if err := x.judge(again, reply...); err != nil {
		return err
	}
	return x.judgeMatched(ctx, 1, 1)
}

// answersFirst reports whether a system's kernel makes an echo request the reply before raw sockets
// are looked for. Of IPv4 the BSDs do (icmp_input, netinet/ip_icmp.c); of IPv6 raw sockets get a
// copy.
func answersFirst(f pfconf.Family, goos string) bool {
	return f == pfconf.Inet && (goos == "freebsd" || goos == "openbsd")
}
