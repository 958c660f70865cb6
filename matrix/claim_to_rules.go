package matrix

import (
	"context"
	"net/netip"
	"time"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// noTrack: a connection that conntrack does not see is diverted like another one, and its answers
// keep FAKE as their source (Documentation/networking/tproxy.rst needs no conntrack).
//
//  1. Control: before the rule is there, a client like the cell's does not reach the server.
//  2. The rule keeps the flow from conntrack, both ways, and diverts only what conntrack does not
//     see. The client connects, and the server reads its line, with FAKE as its own name.
//  3. The server's answer comes back to the client from FAKE.
//  4. The rule counted at least three packets, and conntrack has no entry of the flow.
func (x *claimRun) noTrack(ctx context.Context) error {
	x.change = func(r *pfconf.Rule) { r.Untracked = true }
	return x.servedUnseen(ctx)
}

// conntrackZone: a connection that conntrack keeps in a zone of its own is diverted like another
// one, and its answers keep FAKE as their source.
//
// The steps are those of noTrack. The rule diverts only what is in the zone. Conntrack has an
// entry of the flow there, and none where other flows are.
func (x *claimRun) conntrackZone(ctx context.Context) error {
	x.change = func(r *pfconf.Rule) { r.Zone = testZone }
	zoned := x.flow()
	zoned.Zone = testZone
	x.used = append(x.used, usedFlow{zoned, false, time.Now()})
	if err := x.servedUnseen(ctx); err != nil {
		return err
	}
	at := x.remote.request()
	known := at.lookup(zoned)
	if err := at.run(ctx); err != nil {
		return err
	}
	if len(known.States) != 1 {
		return failed(StateMissing, "remote: conntrack has %d entries of the flow in zone %d, not one",
			len(known.States), testZone)
	}
	return nil
}

// testZone is the zone of conntrackZone: the number of this program's routing table on Linux,
// which no other program has.
const testZone = 28774

// servedUnseen runs a connection of which conntrack must not know in its usual zone.
func (x *claimRun) servedUnseen(ctx context.Context) error {
	if err := x.beginServed(ctx, x.serverSpec()); err != nil {
		return err
	}
	from, to := x.flowEnds()
	if err := x.connectsAndServes(ctx, from, to); err != nil {
		return err
	}
	at := x.remote.request()
	known := at.lookup(x.flow())
	if err := at.run(ctx); err != nil {
		return err
	}
	if len(known.States) > 0 {
		return failed(StateLeft, "remote: conntrack has an entry of a flow that it must not see: %v", known.States[0])
	}
	return x.judgeServed(ctx, 3)
}

// beginServed opens the server, runs the control of a connection and loads the rule.
func (x *claimRun) beginServed(ctx context.Context, server script.Socket) error {
	at := x.remote.request()
	opened := at.open("server", server)
	if err := at.run(ctx); err != nil {
		return err
	}
	if err := x.opened(opened); err != nil {
		return err
	}
	return x.loadBehindStream(ctx)
}

// connectsAndServes has the cell's client connect and send its line, and the server answer.
func (x *claimRun) connectsAndServes(ctx context.Context, from, to netip.AddrPort) error {
	if _, err := x.connects(ctx, "client", x.clientSpec()); err != nil {
		return err
	}
	return x.serves(ctx, "client", from, to)
}

// socketTransparent: "socket transparent" finds the packets of a connection that a transparent
// socket has, and not its SYN, so a rule with tproxy need look at SYNs alone (nft(8), socket
// expression; nft_socket.c).
//
//  1. Control: before the rule is there, a client like the cell's does not reach the server.
//  2. REMOTE's first rule marks what "socket transparent 1" matches, and the one behind it gives
//     what is left to the server by tproxy. The client connects, and the server reads its line,
//     with FAKE as its own name.
//  3. The server's answer comes back to the client from FAKE.
//  4. The rule with tproxy counted one packet, the SYN, and the first rule at least two.
func (x *claimRun) socketTransparent(ctx context.Context) error {
	x.change = func(r *pfconf.Rule) { r.Established = true }
	if err := x.beginServed(ctx, x.serverSpec()); err != nil {
		return err
	}
	from, to := x.flowEnds()
	if err := x.connectsAndServes(ctx, from, to); err != nil {
		return err
	}
	at := x.remote.request()
	counters := at.counters(x.label())
	if err := at.run(ctx); err != nil {
		return err
	}
	c := counters.Counters
	// A slow machine sends the SYN again.
	if c.Replies < 2 || c.Matched != 1 && x.stateAge() < tcpAgain || c.Matched < 1 {
		return failed(NotCounted, "remote: rule %s: tproxy had %d packets, and the socket match %d", x.label(), c.Matched,
			c.Replies)
	}
	return nil
}

// socketSNAT: "socket transparent" finds what answers a connection of a transparent socket whose
// source a rule has translated: it looks for the names that the connection had before
// (nf_sk_lookup_slow_v4 and v6, net/ipv4/netfilter/nf_socket_ipv4.c; IPv6's did not:
// CVE-2025-22021).
//
//  1. Control: before the rule is there, a client of REMOTE's that is bound to FAKE gets no answer
//     of LOCAL's server.
//  2. The rule translates FAKE to REMOTE's own address. The client connects: LOCAL's server accepts
//     a connection from REMOTE, reads the client's line and answers.
//  3. The answer comes to REMOTE's own address, and "socket transparent 1" matches it. It is
//     marked, translated back to FAKE, and comes to the client, from LOCAL.
//  4. The rule counted packets on both ways.
func (x *claimRun) socketSNAT(ctx context.Context) error {
	x.change = func(r *pfconf.Rule) { r.Translated = x.Remote }
	there := x.local.request()
	opened := there.open("server", x.serverSpec())
	if err := there.run(ctx); err != nil {
		return err
	}
	if err := x.opened(opened); err != nil {
		return err
	}
	if err := x.loadBehindStream(ctx); err != nil {
		return err
	}
	from, to := x.flowEnds()
	spec := x.clientSpec()
	at := x.remote.request()
	ready := []*stepResult{at.open("client", spec), at.connect("client", spec)}
	at.fence()
	connected := at.connected("client")
	at.send("client", script.ClientLine, 0)
	at.fence()
	if err := at.run(ctx); err != nil {
		return err
	}
	if err := x.opened(ready...); err != nil {
		return err
	}
	if connected.Err != nil {
		return failed(NotDelivered, "%s: the connection to %v was not answered (%s)", connected.where, to,
			connected.Err.Text)
	}
	there = x.local.request()
	accepted := there.accept("server")
	read := there.receive("server")
	there.send("server", script.ServerLine, 0)
	there.fence()
	if err := there.run(ctx); err != nil {
		return err
	}
	at = x.remote.request()
	heard := at.receive("client")
	counters := at.counters(x.label())
	if err := at.run(ctx); err != nil {
		return err
	}
	there = x.local.request()
	there.closeConn("server")
	there.fence()
	if err := there.run(ctx); err != nil {
		return err
	}
	// The kernel keeps the port unless a flow of the same names is there.
	x.used = append(x.used, usedFlow{pfconf.Flow{Family: x.Family, Proto: x.Proto,
		Near: netip.AddrPortFrom(x.Remote, accepted.Peer.Port()), Far: to}, false, time.Now()})
	if accepted.Err == nil && accepted.Peer.Addr() != x.Remote {
		return failed(WrongAddress, "%s: the connection is from %v, and its source must be translated to %v",
			accepted.where, accepted.Peer, x.Remote)
	}
	if err := x.judge(read, want{line: script.ClientLine, from: accepted.Peer, missing: NotDelivered}); err != nil {
		return err
	}
	if err := x.judge(heard, want{line: script.ServerLine, from: to, missing: NoReply}); err != nil {
		return err
	}
	if c := counters.Counters; c.Matched < 2 || c.Replies < 2 {
		return failed(NotCounted, "remote: rule %s matched %d packets from %v, and %d that answer", x.label(), c.Matched,
			from, c.Replies)
	}
	return nil
}

// anyAddress: the rule's address may be another one of REMOTE's than the loopback address: a
// listener bound to it gets the connection (nft(8), tproxy statement).
//
//  1. A listener of REMOTE is bound to REMOTE's own address. Control: before the rule is there, a
//     client like the cell's, which talks to FAKE, does not reach it.
//  2. The rule names that address. The client connects, and the server reads its line, with FAKE as
//     its own name.
//  3. The server's answer comes back to the client from FAKE, and the rule counted at least three
//     packets.
func (x *claimRun) anyAddress(ctx context.Context) error {
	own := x.redirected()
	if !x.omit[OwnAddress] {
		x.change = func(r *pfconf.Rule) { r.Divert = own }
	}
	server := x.serverSpec().(script.Stream)
	server.Local = own
	if err := x.beginServed(ctx, server); err != nil {
		return err
	}
	from, to := x.flowEnds()
	if err := x.connectsAndServes(ctx, from, to); err != nil {
		return err
	}
	return x.judgeServed(ctx, 3)
}

// device: of two listeners for the rule's address and port, bound to different interfaces, the one
// bound to the interface by which a packet came gets it (socket(7), SO_BINDTODEVICE;
// nf_tproxy_get_sock_v4 and _v6 look for one with the packet's interface).
//
//  1. One listener of REMOTE is bound to the loopback interface, another to the one towards LOCAL.
//     Control: before the rule is there, a client like the cell's does not reach the second.
//  2. The client connects, and the second listener accepts. The server reads its line, with FAKE as
//     its own name, and its answer comes back to the client from FAKE.
//  3. Nothing came to the first listener, and the rule counted at least three packets.
func (x *claimRun) device(ctx context.Context) error {
	other, server := x.serverSpec().(script.Stream), x.serverSpec().(script.Stream)
	other.Device, server.Device = x.Family.Loopback(), x.Remote
	if x.omit[Device] {
		other.Device, server.Device = server.Device, other.Device
	}
	at := x.remote.request()
	opened := at.open("other", other)
	if err := at.run(ctx); err != nil {
		return err
	}
	if err := x.opened(opened); err != nil {
		return err
	}
	if err := x.beginServed(ctx, server); err != nil {
		return err
	}
	from, to := x.flowEnds()
	if err := x.connectsAndServes(ctx, from, to); err != nil {
		return err
	}
	at = x.remote.request()
	unheard := at.rest("other")
	if err := at.run(ctx); err != nil {
		return err
	}
	if err := x.judge(unheard); err != nil {
		return err
	}
	return x.judgeServed(ctx, 3)
}
