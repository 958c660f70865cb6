package matrix

import (
	"context"
	"net/netip"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// natlook: "DIOCNATLOOK … Look up a state table entry by source and destination addresses
// and ports." (pf(4)) On Linux conntrack's entry is looked up by the tuple of its answers.
//
//  1. A server of REMOTE has an address and port of REMOTE's own. Control: before the rule is
//     there, a client like the cell's, which talks to FAKE, does not reach it.
//  2. The rule redirects what the client sends to FAKE, at another port, to the server. The
//     client's line comes to the server, which sees its own address as the destination.
//  3. Asked about the client and the server, the filter says whom the client
//     meant: FAKE and the port there.
//  4. Asked about another port of the client, and about the same from the other side of the
//     filter, it knows no state.
//  5. The server's answer comes back to the client from FAKE. The rule counted one connection.
func (x *claimRun) natlook(ctx context.Context) error {
	from, to := x.flowEnds()
	own := x.redirected()
	if err := x.beginRedirect(ctx, x.serverSpec()); err != nil {
		return err
	}
	if _, err := x.connects(ctx, "client", x.clientSpec()); err != nil {
		return err
	}

	at := x.remote.request()
	var accepted *stepResult
	if x.Proto == pfconf.TCP {
		accepted = at.accept("server")
	}
	read := at.receive("server")
	q := pfconf.NATQuery{Proto: x.Proto, Direction: pfconf.Out, Src: from, Dst: own}
	if x.omit[Tuple] {
		q.Src = otherPort(from)
	}
	found := at.natlook(q)
	other := q
	other.Src = otherPort(from)
	inside := q
	inside.Direction = pfconf.In
	unknown := []*stepResult{at.natlook(other), at.natlook(inside)}
	answered := at.send("server", script.ServerLine, 0)
	at.fence()
	if err := at.run(ctx); err != nil {
		return err
	}
	there := x.local.request()
	heard := there.receive("client")
	there.closeConn("client") // first, so that no socket of REMOTE's is in TIME_WAIT
	there.fence()
	if err := there.run(ctx); err != nil {
		return err
	}

	switch {
	case accepted == nil:
	case accepted.Err != nil:
		return failed(NotDelivered, "%s: the connection to %v did not come to %v (%s)", accepted.where, to, own,
			accepted.Err.Text)
	case accepted.Local != own || accepted.Peer != from:
		return failed(WrongAddress, "%s: a connection from %v to %v came, not from %v to %v", accepted.where,
			accepted.Peer, accepted.Local, from, own)
	}
	if err := x.judge(read, want{line: script.ClientLine, from: from, missing: NotDelivered}); err != nil {
		return err
	}
	switch {
	case found.Err != nil:
		return failed(StateMissing, "remote: %s", found.Err.Text)
	case found.Peer != from || found.Local != to:
		return failed(WrongAddress, "remote: %v is said to be from %v to %v, not from %v to %v", q, found.Peer,
			found.Local, from, to)
	}
	for i, u := range unknown {
		if u.Err == nil {
			asked := []pfconf.NATQuery{other, inside}[i]
			return failed(WrongAddress, "remote: %v (%v) is said to be from %v to %v, and there is no such connection",
				asked, asked.Direction, u.Peer, u.Local)
		}
	}
	if err := unanswered(answered); err != nil {
		return err
	}
	if err := x.judge(heard, want{line: script.ServerLine, from: to, missing: NoReply}); err != nil {
		return err
	}
	return x.judgeMatched(ctx, 1, 1)
}

// otherPort is a name that no cell's client has together with this server.
func otherPort(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr(), a.Port()^1) }

// beginRedirect opens the server, runs the control and loads the rule.
func (x *claimRun) beginRedirect(ctx context.Context, server script.Socket) error {
	at := x.remote.request()
	opened := at.open("server", server)
	if err := at.run(ctx); err != nil {
		return err
	}
	if err := x.opened(opened); err != nil {
		return err
	}
	c, err := x.redirectControl(ctx)
	if err != nil {
		return err
	}
	return x.loadBehind(ctx, c)
}

// redirectControl tries to reach the server through FAKE before the rule is there.
func (x *claimRun) redirectControl(ctx context.Context) (control, error) {
	if x.Proto == pfconf.TCP {
		return stream{x.exchange}.control(ctx, "server")
	}
	local, err := x.sendControl(ctx, false)
	return control{
		kill:  []pfconf.Flow{x.controlFlow(local)},
		judge: x.silentAt(x.remote, "server", "it was sent before the rule was there"),
	}, err
}

// connects opens a client's socket on LOCAL under a name, connects it and has it send the client's
// line. It returns the socket's own name.
func (x *claimRun) connects(ctx context.Context, end string, spec script.Socket) (netip.AddrPort, error) {
	there := x.local.request()
	opened, connecting := there.open(end, spec), there.connect(end, spec)
	var connected *stepResult
	if x.Proto == pfconf.TCP {
		there.fence()
		connected = there.connected(end)
	}
	sent := there.send(end, script.ClientLine, 0)
	there.fence()
	if err := there.run(ctx); err != nil {
		return netip.AddrPort{}, err
	}
	if err := x.opened(opened, connecting); err != nil {
		return netip.AddrPort{}, err
	}
	if connected != nil && connected.Err != nil {
		return netip.AddrPort{}, failed(NotDelivered, "%s: the connection was not answered (%s)", connected.where,
			connected.Err.Text)
	}
	return connecting.Local, unanswered(sent)
}

// natlook asks for the other side of a translated connection; that there is none is an answer.
func (s *request) natlook(q pfconf.NATQuery) *stepResult {
	return s.add(script.Natlook{Query: q}, map[string]bool{script.CodeNoState: true})
}
