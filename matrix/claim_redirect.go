package matrix

import (
	"context"
	"net/netip"
	"time"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// redirectedStream: a listener that connections are redirected to learns from its accepted socket
// whom each was meant for: SO_ORIGINAL_DST, on IPv6 IP6T_SO_ORIGINAL_DST
// (net/netfilter/nf_conntrack_proto.c, getorigdst and ipv6_getorigdst). Redirecting proxies ask so.
//
//  1. A server of REMOTE has an address and port of REMOTE's own. Control: before the rule is
//     there, a client like the cell's, which talks to FAKE, does not reach it.
//  2. The rule redirects what the client sends to FAKE, at another port, to the server. The
//     client connects, and the server reads its line.
//  3. The accepted socket's own name is the server's, and its original destination FAKE and the
//     port there.
//  4. The server's answer comes back to the client from FAKE.
//  5. Another client connects to the server itself: the original destination of that connection is
//     the server's own name, so it was not the rule that the kernel told of in step 3.
//  6. The rule counted one connection.
func (x *claimRun) redirectedStream(ctx context.Context) error {
	return x.redirectedTo(ctx, x.serverSpec())
}

// redirectedByInterface: REDIRECT sends a connection to the address of the interface by which it
// came (net/netfilter/nf_nat_redirect.c).
//
// The steps are those of redirectedStream, with a server that is bound to no address.
func (x *claimRun) redirectedByInterface(ctx context.Context) error {
	x.change = func(r *pfconf.Rule) { r.Divert = netip.AddrPortFrom(x.Family.Unspecified(), x.server) }
	server := x.serverSpec().(script.Stream)
	server.Local = netip.AddrPortFrom(x.Family.Unspecified(), x.server)
	return x.redirectedTo(ctx, server)
}

// redirectedToLoopback: DNAT sends a connection to 127.0.0.1 where the interface by which it came
// takes packets for that: net.ipv4.conf.NIC.route_localnet (ip_route_input_slow, net/ipv4/route.c).
//
// The steps are those of redirectedStream, with a server on the loopback address, to which no other
// client can be connected.
func (x *claimRun) redirectedToLoopback(ctx context.Context) error {
	own := netip.AddrPortFrom(x.Family.Loopback(), x.server)
	x.change = func(r *pfconf.Rule) { r.Divert = own }
	server := x.serverSpec().(script.Stream)
	server.Local = own
	if err := x.redirectedFrom(ctx, x.clientSpec(), server, own); err != nil {
		return err
	}
	return x.judgeMatched(ctx, 1, 1)
}

// redirectedFrom opens the server, whose own name is own, and has the client's connection
// redirected to it.
func (x *claimRun) redirectedFrom(ctx context.Context, client, server script.Socket, own netip.AddrPort) error {
	_, to := x.flowEnds()
	if err := x.beginRedirect(ctx, server); err != nil {
		return err
	}
	from, err := x.connects(ctx, "client", client)
	if err != nil {
		return err
	}
	heard, err := x.acceptsMeantFor(ctx, "client", from, own, to)
	if err != nil {
		return err
	}
	return x.judge(heard, want{line: script.ServerLine, from: to, missing: NoReply})
}

func (x *claimRun) redirectedTo(ctx context.Context, server script.Socket) error {
	own := x.redirected()
	if err := x.redirectedFrom(ctx, x.redirectedClient(), server, own); err != nil {
		return err
	}
	direct, err := x.connects(ctx, "direct", x.directClient())
	if err != nil {
		return err
	}
	x.used = append(x.used, usedFlow{pfconf.Flow{Family: x.Family, Proto: x.Proto, Near: own, Far: direct}, true,
		time.Now()})
	heard, err := x.acceptsMeantFor(ctx, "direct", direct, own, own)
	if err != nil {
		return err
	}
	if err := x.judge(heard, want{line: script.ServerLine, from: own, missing: NoReply}); err != nil {
		return err
	}
	return x.judgeMatched(ctx, 1, 1)
}

// acceptsMeantFor has the server, whose own name is own, accept a client's connection, ask whom it
// was meant for, read the client's line and answer. It judges all but the answer, which is returned
// as the client heard it.
func (x *claimRun) acceptsMeantFor(ctx context.Context, end string, from, own, meant netip.AddrPort) (
	heard *stepResult, err error) {
	at := x.remote.request()
	accepted := at.accept("server")
	asked := at.originalDst("server")
	read := at.receive("server")
	at.send("server", script.ServerLine, 0)
	at.fence()
	if err := at.run(ctx); err != nil {
		return nil, err
	}
	there := x.local.request()
	heard = there.receive(end)
	there.closeConn(end) // first, so that no socket of REMOTE's is in TIME_WAIT
	there.fence()
	if err := there.run(ctx); err != nil {
		return nil, err
	}
	at = x.remote.request()
	at.closeConn("server")
	if err := at.run(ctx); err != nil {
		return nil, err
	}
	switch {
	case accepted.Err != nil:
		return nil, failed(NotDelivered, "%s: the connection from %v did not come to %v (%s)", accepted.where, from,
			own, accepted.Err.Text)
	case accepted.Local != own || accepted.Peer != from:
		return nil, failed(WrongAddress, "%s: a connection from %v to %v came, not from %v to %v", accepted.where,
			accepted.Peer, accepted.Local, from, own)
	case asked.Err != nil:
		return nil, failed(StateMissing, "%s: the kernel does not know whom the connection was meant for: %s",
			asked.where, asked.Err.Text)
	case asked.Peer != meant:
		return nil, failed(WrongAddress, "%s: the connection is said to have been meant for %v, not %v", asked.where,
			asked.Peer, meant)
	}
	return heard, x.judge(read, want{line: script.ClientLine, from: from, missing: NotDelivered})
}

// redirectedDatagram: a redirected datagram shows its listener the address that it was translated
// to, by IP_RECVORIGDSTADDR as well (net/ipv4/ip_sockglue.c, ip_cmsg_recv_dstaddr reads the
// packet's header), and SO_ORIGINAL_DST is no option of a UDP socket: ENOPROTOOPT
// (net/netfilter/nf_conntrack_proto.c, getorigdst). A proxy for UDP has to ask conntrack.
//
//  1. A server of REMOTE has an address and port of REMOTE's own. Control: before the rule is
//     there, what a client like the cell's sends to FAKE does not reach it.
//  2. The rule redirects what the client sends to FAKE, at another port, to the server. The line
//     comes to the server, with the server's own name as its destination.
//  3. The server's answer comes back to the client from FAKE.
//  4. The socket refuses the question for the original destination, and the rule counted one
//     connection.
func (x *claimRun) redirectedDatagram(ctx context.Context) error {
	from, to := x.flowEnds()
	server := script.Datagram{Ends: script.Ends{Role: script.Server, Local: x.redirected(), Diverted: true,
		Omit: x.omitted()}}
	if err := x.beginRedirect(ctx, server); err != nil {
		return err
	}
	if _, err := x.connects(ctx, "client", x.redirectedClient()); err != nil {
		return err
	}
	at := x.remote.request()
	read := at.receive("server")
	answered := at.send("server", script.ServerLine, 0)
	at.fence()
	asked := at.originalDst("server") // last, for it must fail
	if err := at.run(ctx); err != nil {
		return err
	}
	there := x.local.request()
	heard := there.rest("client")
	if err := there.run(ctx); err != nil {
		return err
	}
	if err := x.judge(read, want{line: script.ClientLine, from: from, to: x.redirected(),
		missing: NotDelivered}); err != nil {
		return err
	}
	if err := unanswered(answered); err != nil {
		return err
	}
	if err := x.judge(heard, want{line: script.ServerLine, from: to, missing: NoReply}); err != nil {
		return err
	}
	switch {
	case asked.Err == nil:
		return failed(NotRefused, "%s: the kernel says that the datagrams of a socket were meant for %v, and must say ENOPROTOOPT", asked.where, asked.Peer)
	case asked.Err.Code != "ENOPROTOOPT":
		return failed(RefusedOtherwise, "%s: the kernel must refuse the question with ENOPROTOOPT, and says %s",
			asked.where, asked.Err.Text)
	}
	return x.judgeMatched(ctx, 1, 1)
}

// redirectedClient specifies the cell's client, which talks to FAKE unless that is left out.
func (x *claimRun) redirectedClient() script.Socket {
	from, to := x.flowEnds()
	if x.omit[Redirected] {
		to = x.redirected()
	}
	return script.SocketOf(x.Proto, script.Ends{Role: script.Client, Local: from, Remote: to, Omit: x.omitted()})
}

// directClient specifies a client that talks to the server itself.
func (x *claimRun) directClient() script.Socket {
	return script.SocketOf(x.Proto, script.Ends{Role: script.Client, Local: netip.AddrPortFrom(x.Local, 0),
		Remote: x.redirected(), Omit: x.omitted()})
}

// originalDst asks whom a server's redirected connection was meant for; that the kernel does not
// know or refuses to say is an answer.
func (s *request) originalDst(end string) *stepResult {
	return s.add(script.OriginalDst{Socket: end}, lostOr("ENOENT", "EBADF"))
}
