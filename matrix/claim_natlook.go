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
func (h *half) natlook(ctx context.Context) error {
	from, to := h.ends()
	own := h.redirected()
	at := h.remote.request()
	opened := at.open("server", h.serverSpec())
	if err := at.run(ctx); err != nil {
		return err
	}
	if err := h.opened(opened); err != nil {
		return err
	}
	c, err := h.redirectControl(ctx)
	if err != nil {
		return err
	}
	if err := h.loadBehind(ctx, c); err != nil {
		return err
	}
	if err := h.connects(ctx); err != nil {
		return err
	}

	at = h.remote.request()
	var accepted *asked
	if h.Proto == pfconf.TCP {
		accepted = at.accept("server")
	}
	read := at.receive("server")
	q := pfconf.NATQuery{Proto: h.Proto, Direction: pfconf.Out, Src: from, Dst: own}
	if h.omit[Tuple] {
		q.Src = otherPort(from)
	}
	found := at.natlook(q)
	other := q
	other.Src = otherPort(from)
	inside := q
	inside.Direction = pfconf.In
	unknown := []*asked{at.natlook(other), at.natlook(inside)}
	answered := at.send("server", script.ServerLine, 0)
	at.fence()
	if err := at.run(ctx); err != nil {
		return err
	}
	there := h.local.request()
	heard := there.receive("client")
	there.closeConn("client") // first, so that no socket of REMOTE's is in TIME_WAIT
	there.fence()
	if err := there.run(ctx); err != nil {
		return err
	}

	switch {
	case accepted == nil:
	case accepted.Fault != nil:
		return failed(NotDelivered, "%s: the connection to %v did not come to %v (%s)", accepted.where, to, own, accepted.Fault.Text)
	case accepted.Local != own || accepted.Peer != from:
		return failed(WrongAddress, "%s: a connection from %v to %v came, not from %v to %v", accepted.where, accepted.Peer, accepted.Local, from, own)
	}
	if err := h.judge(read, want{line: script.ClientLine, from: from, missing: NotDelivered}); err != nil {
		return err
	}
	switch {
	case found.Fault != nil:
		return failed(StateMissing, "remote: %s", found.Fault.Text)
	case found.Peer != from || found.Local != to:
		return failed(WrongAddress, "remote: %v is said to be from %v to %v, not from %v to %v", q, found.Peer, found.Local, from, to)
	}
	for i, u := range unknown {
		if u.Fault == nil {
			asked := []pfconf.NATQuery{other, inside}[i]
			return failed(WrongAddress, "remote: %v (%v) is said to be from %v to %v, and there is no such connection", asked, asked.Direction, u.Peer, u.Local)
		}
	}
	if err := unanswered(answered); err != nil {
		return err
	}
	if err := h.judge(heard, want{line: script.ServerLine, from: to, missing: NoReply}); err != nil {
		return err
	}
	return h.judgeMatched(ctx, 1, 1)
}

// redirected is where a Redirect cell's rule sends the client's packets. REMOTE's own address, not
// the loopback one, for those who come from outside may be refused there.
func (h *half) redirected() netip.AddrPort { return netip.AddrPortFrom(h.Remote, h.server) }

// otherPort is a name that no cell's client has together with this server.
func otherPort(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr(), a.Port()^1) }

// redirectControl tries to reach the server through FAKE before the rule is there.
func (h *half) redirectControl(ctx context.Context) (control, error) {
	if h.Proto == pfconf.TCP {
		return h.streamControl(ctx, "server")
	}
	local, err := h.sendControl(ctx, false)
	return control{
		kill:  []pfconf.Flow{h.controlFlow(local)},
		judge: h.silentAt(h.remote, "server", "it was sent before the rule was there"),
	}, err
}

// connects has the client open its socket, connect and send its line.
func (h *half) connects(ctx context.Context) error {
	_, to := h.ends()
	spec := h.clientSpec()
	there := h.local.request()
	ready := []*asked{there.open("client", spec), there.connect("client", spec)}
	var connected *asked
	if h.Proto == pfconf.TCP {
		there.fence()
		connected = there.connected("client")
	}
	sent := there.send("client", script.ClientLine, 0)
	there.fence()
	if err := there.run(ctx); err != nil {
		return err
	}
	if err := h.opened(ready...); err != nil {
		return err
	}
	if connected != nil && connected.Fault != nil {
		return failed(NotDelivered, "%s: the connection to %v was not answered (%s)", connected.where, to, connected.Fault.Text)
	}
	return unanswered(sent)
}

// natlook asks for the other side of a translated connection; that there is none is an answer.
func (s *request) natlook(q pfconf.NATQuery) *asked {
	return s.add(script.Natlook{Query: q}, map[string]bool{script.CodeNoState: true})
}
