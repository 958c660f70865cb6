package matrix

import (
	"context"
	"net/netip"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// ownNumbers: "Divert ports have their own number space, completely separated from
// tcp(4) and udp(4)." (OpenBSD divert(4)) The numbers of netfilter's queues have too.
//
//  1. REMOTE has a TCP server and a UDP server on ports of the divert port's number.
//  2. The divert socket is opened nevertheless. Control: before the rule is there, what a client
//     like the cell's sends arrives, and the divert socket does not see it.
//  3. LOCAL sends a datagram to the UDP port of that number: it comes to the UDP server, not to
//     the divert socket.
//  4. The cell's client sends. That comes to the divert socket, and through it to the
//     cell's server, and nothing more to the two.
func (x *claimRun) ownNumbers(ctx context.Context) error {
	number := netip.AddrPortFrom(x.Remote, x.Divert)
	at := x.remote.request()
	opened := []*stepResult{
		at.open("tcp", script.Stream{Ends: script.Ends{Role: script.Server, Local: number}}),
		at.open("udp", script.Datagram{Ends: script.Ends{Role: script.Server, Local: number}}),
	}
	if err := at.run(ctx); err != nil {
		return err
	}
	if err := x.opened(opened...); err != nil {
		return err
	}
	if x.omit[Number] {
		r := x.rule()
		r.Label, r.Port = x.Cell.label("-number"), x.Divert
		x.more = []pfconf.Rule{r}
	}
	if err := x.begin(ctx, true); err != nil {
		return err
	}
	there := x.local.request()
	spec := script.Datagram{Ends: script.Ends{Role: script.Client, Local: netip.AddrPortFrom(x.Local, 0),
		Remote: number}}
	ready := []*stepResult{there.open("prober", spec), there.connect("prober", spec)}
	sent := there.send("prober", script.ClientLine, 0)
	there.fence()
	if err := there.run(ctx); err != nil {
		return err
	}
	if err := x.opened(ready...); err != nil {
		return err
	}
	if err := unanswered(sent); err != nil {
		return err
	}
	at = x.remote.request()
	probed := at.rest("udp")
	if err := at.run(ctx); err != nil {
		return err
	}
	if err := x.judge(probed, want{line: script.ClientLine, from: ready[1].Local, missing: NotDelivered}); err != nil {
		return err
	}
	if err := x.passes(ctx, "packet"); err != nil {
		return err
	}
	at = x.remote.request()
	tcp, udp := at.rest("tcp"), at.rest("udp")
	if err := at.run(ctx); err != nil {
		return err
	}
	for _, a := range []*stepResult{tcp, udp} {
		if err := x.silent(a, "it was diverted to a divert port of the same number"); err != nil {
			return err
		}
	}
	return x.judgeMatched(ctx, 1, 1)
}

// rulesPort: "it is immediately sent to the divert socket listening on the port specified in the
// rule" (OpenBSD divert(4)).
//
//  1. REMOTE has two divert sockets, one on the rule's port. Control: before the rule is there,
//     what a client like the cell's sends arrives, and the socket on the rule's port does not see
//     it.
//  2. The client sends. As soon as REMOTE's kernel has processed the packet it is at the socket on
//     the rule's port, and is reinjected.
//  3. It arrives; the other divert socket has seen nothing.
func (x *claimRun) rulesPort(ctx context.Context) error {
	other := x.divertSpec()
	other.Local = x.otherDivert()
	at := x.remote.request()
	opened := at.open("other", other)
	if err := at.run(ctx); err != nil {
		return err
	}
	if err := x.opened(opened); err != nil {
		return err
	}
	if err := x.begin(ctx, true); err != nil {
		return err
	}
	if err := x.passes(ctx, "packet"); err != nil {
		return err
	}
	if err := x.silentAt(x.remote, "other", "its port is not the rule's")(ctx); err != nil {
		return err
	}
	return x.judgeMatched(ctx, 1, 1)
}

// inUse and unprivileged are what kernels say to a second bind and to one without privilege:
// in_pcbbind and divert_attach of OpenBSD, div_attach of FreeBSD; on Linux
// nfnetlink_rcv, and nfqnl_recv_config for a queue that another socket has.
var (
	inUse        = map[string]string{"pf": "EADDRINUSE", "ipfw": "EADDRINUSE", "nftables": "EPERM"}
	unprivileged = map[string]string{"pf": "EACCES", "ipfw": "EPERM", "nftables": "EPERM"}
)

// secondBind: a divert port is one socket's (EADDRINUSE of bind(2)); a netfilter queue as well.
//
//  1. A divert socket is open. Another process tries to open one on the same port, and is refused.
//  2. The first still works: what the client sends comes to it, and through it to the server.
//  3. The first is closed. Another process can have the port now: it was the first that kept it.
func (x *claimRun) secondBind(ctx context.Context) error {
	if err := x.begin(ctx, true); err != nil {
		return err
	}
	if x.omit[First] {
		at := x.remote.request()
		at.close("packet")
		if err := at.run(ctx); err != nil {
			return err
		}
	}
	if err := x.refused(ctx, "second", script.OtherProcess, inUse); err != nil {
		return err
	}
	if err := x.passes(ctx, "packet"); err != nil {
		return err
	}
	at := x.remote.request()
	at.close("packet")
	third := at.openOther("third", x.divertSpec(), script.OtherProcess)
	if err := at.run(ctx); err != nil {
		return err
	}
	if third.Err != nil {
		return failed(NotOpened, "%s: the divert port is still kept from others when its socket is closed: %s",
			third.where, third.Err.Text)
	}
	return x.judgeMatched(ctx, 1, 1)
}

// superuser: "A divert socket must be bound to a divert port through bind(2), which only
// the superuser can do." (OpenBSD divert(4)) On Linux it takes CAP_NET_ADMIN.
//
//  1. A process without privilege tries to open a divert socket, and is refused.
//  2. The same process with privilege can.
//  3. Nothing is left of the attempt: the cell's own divert socket gets the port then, and passes
//     on what the client sends.
func (x *claimRun) superuser(ctx context.Context) error {
	who := script.UnprivilegedProcess
	if x.omit[Privilege] {
		who = script.OtherProcess
	}
	if err := x.refused(ctx, "nobody", who, unprivileged); err != nil {
		return err
	}
	at := x.remote.request()
	opened := at.openOther("root", x.divertSpec(), script.OtherProcess)
	at.close("root")
	if err := at.run(ctx); err != nil {
		return err
	}
	if opened.Err != nil {
		return broken(SocketFailed, "%s: %s", opened.where, opened.Err.Text)
	}
	if err := x.begin(ctx, true); err != nil {
		return err
	}
	return x.passes(ctx, "packet")
}

// lowPorts are divert ports below 1024, for those who have one of newDivertPorts.
const lowPorts = 1024 - divertPortsEach

// lowPort: "Binding to port numbers less than 1024 requires super-user access, as does creating a
// socket of type SOCK_RAW." (FreeBSD divert(4); the second half is the claim superuser.)
//
//  1. A process opens a divert socket and gives its privilege up. To bind it to a port below 1024
//     is refused (EACCES).
//  2. The same process with privilege can bind that port, and without privilege one above.
//  3. Nothing is left of the attempts: the cell's own divert socket gets its port then, and passes
//     on what the client sends.
func (x *claimRun) lowPort(ctx context.Context) error {
	low, high := x.divertSpec(), x.divertSpec()
	low.Local = netip.AddrPortFrom(low.Local.Addr(), lowPorts+(x.Divert-divertPorts))
	privileged := low
	low.Unprivileged, high.Unprivileged = !x.omit[Privilege], true
	at := x.remote.request()
	refused := at.openOther("low", low, script.OtherProcess)
	at.close("low")
	opened := at.openOther("root", privileged, script.OtherProcess)
	at.close("root")
	above := at.openOther("high", high, script.OtherProcess)
	at.close("high")
	if err := at.run(ctx); err != nil {
		return err
	}
	switch {
	case refused.Err == nil:
		return failed(NotRefused,
			"%s: the kernel lets a process without privilege bind divert port %d and must say EACCES", refused.where, low.Local.Port())
	case refused.Err.Code != "EACCES":
		return failed(NotRefused, "%s: the kernel must refuse with EACCES, and says %s", refused.where,
			refused.Err.Text)
	case opened.Err != nil:
		return broken(SocketFailed, "%s: %s", opened.where, opened.Err.Text)
	case above.Err != nil:
		return failed(NotOpened, "%s: the kernel does not let a process without privilege bind divert port %d: %s",
			above.where, x.Divert, above.Err.Text)
	}
	if err := x.begin(ctx, true); err != nil {
		return err
	}
	return x.passes(ctx, "packet")
}

// refused judges that a process cannot open the cell's divert socket, for the reason that
// the kernel has.
func (x *claimRun) refused(ctx context.Context, end string, apart script.Process, codes map[string]string) error {
	at := x.remote.request()
	opened := at.openOther(end, x.divertSpec(), apart)
	if err := at.run(ctx); err != nil {
		return err
	}
	code := codes[x.kernel.Firewall]
	switch {
	case opened.Err == nil:
		return failed(NotRefused, "%s: the kernel lets the divert socket be opened and must say %s", opened.where, code)
	case opened.Err.Code != code:
		return failed(NotRefused, "%s: the kernel must refuse with %s, and says %s", opened.where, code,
			opened.Err.Text)
	}
	return nil
}

// bypass: "bypass: let packets go through if userspace application cannot back off"
// (nft(8), queue statement): a queue to which no one listens lets them pass.
//
//  1. The rule is loaded and no one listens. What the client sends arrives as it was sent.
//  2. A divert socket is opened. What the client sends now comes to it, and arrives
//     as the socket has rewritten it.
//  3. The rule has counted both, before and behind.
func (x *claimRun) bypass(ctx context.Context) error {
	x.change = func(r *pfconf.Rule) { r.Bypass = !x.omit[Bypass] }
	if err := x.begin(ctx, false); err != nil {
		return err
	}
	if err := x.sends(ctx); err != nil {
		return err
	}
	if err := x.arrives(ctx, script.ClientLine, NotBypassed); err != nil {
		return err
	}
	if err := x.judgeMatched(ctx, 1, 1); err != nil {
		return err
	}
	if err := x.openDivert(ctx, "packet"); err != nil {
		return err
	}
	if err := x.passes(ctx, "packet"); err != nil {
		return err
	}
	return x.judgeMatched(ctx, 2, 2)
}
