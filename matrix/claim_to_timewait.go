package matrix

import (
	"context"
	"net/netip"

	"pfdivert/matrix/script"
)

// timeWaitReopen: a SYN for a diverted flow whose last connection left a socket in TIME_WAIT
// reaches the listener (nf_tproxy_handle_time_wait4 and 6, net/ipv4/netfilter/nf_tproxy_ipv4.c:
// the socket in TIME_WAIT gives way to the rule's listener).
//
//  1. Control: before the rule is there, a client like the cell's does not reach the server.
//  2. The client connects to FAKE, and the server reads its line and closes first: REMOTE's socket
//     of FAKE and the client is in TIME_WAIT.
//  3. A client of the same address and port connects. The server accepts the connection, from the
//     client and with FAKE as its own name, and reads the line of it. Its answer comes back.
func (x *claimRun) timeWaitReopen(ctx context.Context) error {
	from, to := x.flowEnds()
	if err := x.beginServed(ctx, x.serverSpec()); err != nil {
		return err
	}
	if _, err := x.connects(ctx, "client", x.clientSpec()); err != nil {
		return err
	}
	at := x.remote.request()
	accepted := at.accept("server")
	read := at.receive("server")
	if !x.omit[ServerCloses] {
		at.closeConn("server")
	}
	at.fence()
	if err := at.run(ctx); err != nil {
		return err
	}
	there := x.local.request()
	there.close("client")
	there.fence()
	if err := there.run(ctx); err != nil {
		return err
	}
	at = x.remote.request()
	at.closeConn("server")
	waits := at.waiting(to, from)
	if err := at.run(ctx); err != nil {
		return err
	}
	if err := x.judgeAccepted(accepted, from, to); err != nil {
		return err
	}
	if err := x.judge(read, want{line: script.ClientLine, from: from, missing: NotDelivered}); err != nil {
		return err
	}
	if err := x.inTimeWait(waits, "the server closed first"); err != nil {
		return err
	}
	if _, err := x.connects(ctx, "again", x.clientSpec()); err != nil {
		return err
	}
	return x.serves(ctx, "again", from, to)
}

// judgeAccepted judges that a server's connection is one from the client, and that the socket has
// the name that the client meant.
func (x *claimRun) judgeAccepted(accepted *stepResult, from, to netip.AddrPort) error {
	switch {
	case accepted.Err != nil:
		return failed(NotDelivered, "%s: the client is connected to %v, and not with the server (%s)", accepted.where,
			to, accepted.Err.Text)
	case accepted.Local != to || accepted.Peer != from:
		return failed(WrongAddress, "%s: a connection from %v to %v came, not from %v to %v", accepted.where,
			accepted.Peer, accepted.Local, from, to)
	}
	return nil
}

// serves has the server accept the connection of a client that has sent its line, read that and
// answer, and judges all of it. from and to are the connection's ends as the server's socket shows
// them. The client closes.
func (x *claimRun) serves(ctx context.Context, end string, from, to netip.AddrPort) error {
	_, meant := x.flowEnds()
	at := x.remote.request()
	accepted := at.accept("server")
	read := at.receive("server")
	at.send("server", script.ServerLine, 0)
	at.fence()
	if err := at.run(ctx); err != nil {
		return err
	}
	there := x.local.request()
	heard := there.receive(end)
	there.closeConn(end) // first, so that no socket of REMOTE's is in TIME_WAIT
	there.fence()
	if err := there.run(ctx); err != nil {
		return err
	}
	if err := x.judgeAccepted(accepted, from, to); err != nil {
		return err
	}
	if err := x.judge(read, want{line: script.ClientLine, from: from, missing: NotDelivered}); err != nil {
		return err
	}
	return x.judge(heard, want{line: script.ServerLine, from: meant, missing: NoReply})
}
