package matrix

import (
	"context"
	"net/netip"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// control is a flow like the cell's that was sent before the cell's rule was
// there: what is not diverted without the rule was diverted by it.
type control struct {
	// kill are flows whose states must be forgotten before the rule is loaded.
	kill []pfconf.Flow
	// judge sees that the control was not diverted. It may run while the rule
	// is loaded, for it looks at what has arrived before. nil: there was no control.
	judge func(context.Context) error
}

// sendControl sends what the cell's client will send, from another port or id,
// and waits until the other host has seen it. It gives the control's own name.
// With keep its socket stays open for an answer.
func (x *exchange) sendControl(ctx context.Context, keep bool) (netip.AddrPort, error) {
	clientSide, _ := x.sides()
	spec := x.controlSpec()
	there := clientSide.request()
	opened := []*stepResult{there.open("control", spec), there.connect("control", spec)}
	sent := there.send("control", script.ClientLine, 1)
	there.fence()
	if !keep {
		there.close("control")
	}
	if err := there.run(ctx); err != nil {
		return netip.AddrPort{}, err
	}
	if err := x.opened(opened...); err != nil {
		return netip.AddrPort{}, err
	}
	// What was never sent proves nothing by not arriving.
	return opened[1].Local, unanswered(sent)
}

// silentAt is the judgement that nothing of the control waits at the endpoint.
func (x *exchange) silentAt(s side, end, what string) func(context.Context) error {
	return func(ctx context.Context) error {
		at := s.request()
		heard := at.rest(end)
		if err := at.run(ctx); err != nil {
			return err
		}
		return x.silent(heard, what)
	}
}

// openEnds opens the server's socket and the client's, and connects the client.
// The steps that more adds go to REMOTE first.
func (x *exchange) openEnds(ctx context.Context, more ...func(remote *request) *stepResult) error {
	clientSide, serverSide := x.sides()
	at, there := serverSide.request(), clientSide.request()
	remote := there
	if x.toServer() {
		remote = at
	}
	var opened []*stepResult
	for _, m := range more {
		opened = append(opened, m(remote))
	}
	spec := x.clientSpec()
	opened = append(opened, at.open("server"+x.part, x.serverSpec()),
		there.open("client"+x.part, spec), there.connect("client"+x.part, spec))
	if err := both(ctx, at.run, there.run); err != nil {
		return err
	}
	return x.opened(opened...)
}

// loadBehind judges the control and loads the rule.
func (x *exchange) loadBehind(ctx context.Context, c control) error {
	load := func(ctx context.Context) error { return x.load(ctx, c.kill...) }
	if c.judge == nil {
		return load(ctx)
	}
	return both(ctx, c.judge, load)
}
