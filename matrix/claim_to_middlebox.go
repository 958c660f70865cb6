package matrix

import (
	"context"
	"net/netip"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// bridge: a connection between two hosts that REMOTE's bridge joins is diverted, when rules of the
// bridge hand its frames to REMOTE and br_netfilter is not asked (nft(8), tproxy statement and
// payload statements; ip-sysctl.rst, bridge-nf-call-iptables).
//
//  1. In network namespaces of their own are a client, a server, and REMOTE's part, which joins
//     them by a bridge. Control: before there are rules, the client's connection comes to the
//     server.
//  2. With the rules there, the client connects to the server's name, and REMOTE's listener
//     accepts: the socket's own name is the server's, its peer's the client's. Each end reads the
//     other's line.
//  3. The rule with tproxy counted at least three packets, and found a socket for each.
func (x *claimRun) bridge(ctx context.Context) error { return x.between(ctx, script.Bridge) }

// filteredBridge: bridge, where br_netfilter takes what is bridged through the rules of IP.
//
// The steps are those of bridge.
func (x *claimRun) filteredBridge(ctx context.Context) error {
	return x.between(ctx, script.FilteredBridge)
}

// flowtable: a flowtable that has taken what is forwarded leaves alone what is diverted, by the
// same interfaces, and goes on with its own (nft(8), flow statement;
// Documentation/networking/nf_flowtable.rst).
//
// The steps are those of bridge, but REMOTE's part forwards, by a flowtable on both interfaces. A
// connection to another name of the server's is there before the rule: its conntrack entry says
// that it is offloaded, then and after the diverted connection, and each end reads the other's
// line once more.
func (x *claimRun) flowtable(ctx context.Context) error { return x.between(ctx, script.Flowtable) }

// vrf: a listener that is bound to a VRF gets the connections that come by an interface of it, when
// the rule names the VRF (Documentation/networking/vrf.rst).
//
// The steps are those of bridge, but REMOTE's part forwards, and both of its interfaces are in a
// VRF. Another listener, on the proxy's address as well, is bound to another VRF.
func (x *claimRun) vrf(ctx context.Context) error { return x.between(ctx, script.VRF) }

// anyVRF: with tcp_l3mdev_accept, a listener that is bound to no device gets the connections of a
// VRF, and its answers leave by that (Documentation/networking/vrf.rst).
//
// The steps are those of vrf, with the one listener.
func (x *claimRun) anyVRF(ctx context.Context) error { return x.between(ctx, script.AnyVRF) }

// between runs a connection that REMOTE's kernel diverts between a client and a server.
func (x *claimRun) between(ctx context.Context, joint script.Joint) error {
	from, to := x.flowEnds()
	st := script.Middlebox{Joint: joint, Client: from, Server: to,
		Beside: netip.AddrPortFrom(x.Remote, to.Port()), Rule: x.rule()}
	for _, p := range middlePieces {
		if x.omit[string(p)] {
			st.Omit = append(st.Omit, p)
		}
	}
	at := x.remote.request()
	found := at.add(st, map[string]bool{script.CodeMissing: true})
	if err := at.run(ctx); err != nil {
		return err
	}
	if found.Err != nil {
		return skipped("REMOTE: %s", found.Err.Text)
	}
	if err := judgeMiddle(found, from, to, x.kernel.counts(x.Proto, 3)); err != nil ||
		joint != script.Flowtable {
		return err
	}
	return judgeBeside(found)
}

// judgeBeside judges that the flowtable has the connection beside.
func judgeBeside(found *stepResult) error {
	m, c := found.Middle, found.Middle.Beside
	if m.Before != pfconf.Offloaded || m.After != pfconf.Offloaded {
		return failed(StateMissing, "%s: the state of a connection that is forwarded is %q before another one is "+
			"diverted, and %q after: want %s", found.where, m.Before, m.After, pfconf.Offloaded)
	}
	switch {
	case c.Read != script.ClientLine:
		return failed(NotDelivered, "%s: of an offloaded connection the server read %q, not %q (%s)", found.where, c.Read,
			script.ClientLine, c.Err)
	case c.Heard != script.ServerLine:
		return failed(NoReply, "%s: of an offloaded connection the client read %q, not %q (%s)", found.where, c.Heard,
			script.ServerLine, c.Err)
	}
	return nil
}

// judgeMiddle judges that the proxy had the connection whole, and that the rule counted so many
// packets of it, or more.
func judgeMiddle(found *stepResult, from, to netip.AddrPort, least uint64) error {
	if found.Middle == nil {
		return broken(QuestionFailed, "%s: nothing is told of the connection", found.where)
	}
	c, counters := found.Middle.Diverted, found.Middle.Counters
	switch {
	case c.At == "":
		return failed(NotDelivered, "%s: the connection to %v was not answered (%s)", found.where, to, c.Err)
	case c.At == script.AtServer:
		return failed(NotDelivered, "%s: the connection to %v came to the server, and was not diverted", found.where, to)
	case c.At != script.AtProxy:
		return failed(NotDelivered, "%s: the connection to %v came to %s, not to the proxy", found.where, to, c.At)
	case c.Own != to || c.Peer != from:
		return failed(WrongAddress, "%s: the connection is from %v to %v, not from %v to %v", found.where, c.Peer,
			c.Own, from, to)
	case c.Read != script.ClientLine:
		return failed(NotDelivered, "%s: the proxy read %q, not %q (%s)", found.where, c.Read, script.ClientLine, c.Err)
	case c.Heard != script.ServerLine:
		return failed(NoReply, "%s: the client read %q, not %q (%s)", found.where, c.Heard, script.ServerLine, c.Err)
	case counters.Matched < least || counters.Done != counters.Matched:
		return failed(NotCounted, "%s: the rule matched %d packets of a connection, and found a socket for %d",
			found.where, counters.Matched, counters.Done)
	}
	return nil
}

// middlePieces are the pieces of script.Middlebox.
var middlePieces = []script.Piece{script.TakenUp, script.Offloaded, script.Enslaved, script.AllVRFs,
	script.MiddleRule}
