package matrix

import (
	"context"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// undiverted loads the cell's rule without its divert-packet, and has another client send. What
// happens to that shows that the hosts are such that the cell can pass. It returns the flow, whose
// states are in the way of what follows. OpenBSD's pf only.
func (x *claimRun) undiverted(ctx context.Context, opened script.Socket) (pfconf.Flow, error) {
	if err := x.loadUndiverted(ctx); err != nil {
		return pfconf.Flow{}, err
	}
	local, err := x.connects(ctx, "undiverted", opened)
	flow := x.controlFlow(local)
	x.used = append(x.used, usedFlow{flow, false, x.began})
	return flow, err
}

// loadUndiverted loads the cell's rule without its divert-packet.
func (x *claimRun) loadUndiverted(ctx context.Context) error {
	change := x.change
	x.change = func(r *pfconf.Rule) {
		if change != nil {
			change(r)
		}
		r.Undiverted = true
	}
	defer func() { x.change = change }()
	return x.load(ctx)
}

// loadBehindUndiverted judges the control and has alone run before it loads the rule.
func (x *claimRun) loadBehindUndiverted(ctx context.Context, c control,
	alone func(context.Context) (pfconf.Flow, error)) error {
	if alone == nil || !x.kernel.StatesFirst {
		return x.loadBehind(ctx, c)
	}
	if c.judge != nil {
		if err := c.judge(ctx); err != nil {
			return err
		}
		c.judge = nil
	}
	flow, err := alone(ctx)
	if err != nil {
		return err
	}
	c.kill = append(c.kill, flow)
	return x.loadBehind(ctx, c)
}

// leavesUndiverted judges that without divert-packet the rule that is due has counted what left,
// and not the other, which says how. Where LOCAL forwards what comes by the gateway, as it does in
// OpenBSD's lab, the packet comes back and leaves once more.
func (x *claimRun) leavesUndiverted(ctx context.Context, due, other pfconf.Rule, how string) (pfconf.Flow, error) {
	due.Label, other.Label = due.Label+"-alone", other.Label+"-alone"
	x.more = []pfconf.Rule{due, other}
	flow, err := x.undiverted(ctx, x.clientOf(0, 0))
	if err != nil {
		return flow, err
	}
	at := x.remote.request()
	left, leaked := at.counters(due.Label), at.counters(other.Label)
	if err := at.run(ctx); err != nil {
		return flow, err
	}
	if n, m := left.Counters.Matched, leaked.Counters.Matched; n == 0 || m != 0 {
		return flow, broken(ControlLost, "remote: without divert-packet too a packet of such a rule left %s: rule %s counted "+
			"%d packets and rule %s %d", how, due.Label, n, other.Label, m)
	}
	return flow, nil
}

// repliesUndiverted judges that without divert-packet the answer comes by the gateway.
func (x *claimRun) repliesUndiverted(ctx context.Context) (pfconf.Flow, error) {
	flow, err := x.undiverted(ctx, x.clientOf(0, 0))
	if err != nil {
		return flow, err
	}
	at := x.remote.request()
	read := at.receive("server")
	at.send("server", script.ServerLine, 0)
	at.fence()
	if err := at.run(ctx); err != nil {
		return flow, err
	}
	if err := x.judge(read, want{line: script.ClientLine, from: flow.Far, missing: ControlLost}); err != nil {
		return flow, err
	}
	there := x.local.request()
	heard := there.restLater("undiverted")
	there.close("undiverted")
	if err := there.run(ctx); err != nil {
		return flow, err
	}
	return flow, x.answersByGateway(heard)
}

// answersByGateway judges what came of the answer of repliesUndiverted.
func (x *claimRun) answersByGateway(heard *stepResult) error {
	switch {
	case len(heard.Messages) > 0:
	case x.localSystem == "openbsd":
		return skipped("LOCAL: what comes by another interface than the one that has its address it does not take, " +
			"with divert-packet or without: OpenBSD takes it where net.inet.ip.forwarding and net.inet6.ip6.forwarding are 1")
	default:
		return broken(ControlLost, "%s: without divert-packet too the answer did not come by the gateway %v, in %v", heard.where,
			x.second.Gateway, otherWay)
	}
	if via := heard.Messages[0].Via.Addr(); via != x.viaGateway {
		return broken(ControlLost, "%s: without divert-packet too the answer came by the interface of %v, not by the "+
			"gateway %v", heard.where, via, x.second.Gateway)
	}
	return nil
}

// restLater is rest of a socket that hears what comes by another interface than the fences do.
func (s *request) restLater(end string) *stepResult {
	return s.add(script.Rest{Socket: end, Wait: otherWay}, lost)
}

// copiesUndiverted judges that without divert-packet the server hears a packet twice.
func (x *claimRun) copiesUndiverted(ctx context.Context) (pfconf.Flow, error) {
	flow, err := x.undiverted(ctx, x.clientOf(0, 0))
	if err != nil {
		return flow, err
	}
	at := x.remote.request()
	arrived, copied := at.receive("server"), at.restLater("server")
	if err := at.run(ctx); err != nil {
		return flow, err
	}
	due := want{line: script.ClientLine, from: flow.Far, missing: ControlLost}
	if err := x.judge(arrived, due); err != nil {
		return flow, err
	}
	return flow, x.judge(copied, due)
}
