package matrix

import (
	"context"
	"net/netip"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// sharedMessages are those of each flow of sharedPort, whose groups are as reusePort's.
const sharedMessages = 3

// sharedPort: divert sockets with SO_REUSEPORT_LB share a divert port, and of a rule of pf's with
// divert-to each state's packets come to one of them (FreeBSD's 895a0ae67fe2, reviews.freebsd.org
// D56563). So an intrusion prevention system has a process for each processor. Which socket it is,
// the state's number decides.
//
//  1. Control: before the rule is there, what a client like the cell's sends arrives, and the first
//     divert socket does not see it.
//  2. A second socket has the port. A kernel that refuses it has no such sockets.
//  3. LOCAL begins 7 flows of 3 datagrams: all 3 of a flow come to the same socket. They are
//     reinjected rewritten, and come to the server.
//  4. That is done until both sockets have had a flow, 16 times at most.
func (x *claimRun) sharedPort(ctx context.Context) error {
	x.divertSocket.Shared = true
	x.change = func(r *pfconf.Rule) { r.Keep = r.Action == pfconf.PFDivertTo }
	if err := x.begin(ctx, true); err != nil {
		return err
	}
	at := x.remote.request()
	second := at.open("second", x.divertSpec())
	if err := at.run(ctx); err != nil {
		return err
	}
	if second.Err != nil && second.Err.Code == "EADDRINUSE" {
		return skipped("REMOTE: its kernel lets no two divert sockets share a port, though both have SO_REUSEPORT_LB: %s",
			second.Err.Text)
	}
	if err := x.opened(second); err != nil {
		return err
	}
	had := map[string]bool{}
	for range reusePortRounds {
		if err := x.sharedGroup(ctx, had); err != nil {
			return err
		}
		if len(had) == 2 {
			return nil
		}
	}
	return failed(NotDelivered, "remote: all of %d flows came to one of the two divert sockets",
		reusePortRounds*reusePortFlows)
}

// sharedGroup runs a group of flows, and notes in had which divert sockets got one.
func (x *claimRun) sharedGroup(ctx context.Context, had map[string]bool) error {
	flows, err := x.flowsOf(ctx, reusePortFlows, sharedMessages)
	if err != nil {
		return err
	}
	divert := x.remote.request()
	rewrites := []script.Rewrite{{Old: script.ClientLine, New: x.rewritten(script.PacketLine)}}
	seen := map[string]*stepResult{"packet": divert.relayAll("packet", rewrites),
		"second": divert.relayAll("second", rewrites)}
	divert.fence()
	if err := divert.run(ctx); err != nil {
		return err
	}
	came := map[string][]script.Message{}
	for end, s := range seen {
		if err := unanswered(s); err != nil {
			return err
		}
		came[end] = s.Messages
	}
	if err := judgeShared(came, flows, had); err != nil {
		return err
	}
	arrived, err := x.atServer(ctx)
	if err != nil {
		return err
	}
	whole := map[netip.AddrPort]int{}
	for _, m := range arrived.Messages {
		if err := judgeMessage(arrived.where, m, want{line: script.PacketLine, from: m.From}); err != nil {
			return err
		}
		whole[m.From]++
	}
	for _, f := range flows {
		if n := whole[f]; n != sharedMessages {
			return failed(NotReinjected, "%s: %d of the %d messages from %v arrived", arrived.where, n,
				sharedMessages, f)
		}
	}
	return unanswered(arrived)
}

// judgeShared judges that each flow has one socket of those to which its packets came, by name, and
// notes in had which sockets had one.
func judgeShared(came map[string][]script.Message, flows []netip.AddrPort, had map[string]bool) error {
	for _, f := range flows {
		in := map[string]int{}
		for end, messages := range came {
			for _, m := range messages {
				if m.From == f {
					in[end]++
				}
			}
		}
		for end, n := range in {
			if len(in) > 1 {
				return failed(WrongData, "remote: of the packets from %v, whose state is one, %d came to the first "+
					"divert socket and %d to the second", f, in["packet"], in["second"])
			}
			if n != sharedMessages {
				return failed(NotDelivered, "remote %s: %d of the %d packets from %v came", end, n, sharedMessages, f)
			}
			had[end] = true
		}
		if len(in) == 0 {
			return failed(NotDelivered, "remote: no packet from %v came to a divert socket", f)
		}
	}
	return nil
}
