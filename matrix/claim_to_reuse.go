package matrix

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// reusePortRounds bounds how many groups of flows are sent until both listeners have had one. A
// kernel that chooses by chance leaves one out of so many once in 2^111 runs. The number of flows
// is odd: one that deals messages out to two listeners by turns gives none all of a flow.
const (
	reusePortRounds = 16
	reusePortFlows  = 7 // of a group
)

// reusePort: of two listeners for one address and port, with SO_REUSEPORT, each flow has one that
// gets all of it, and both get flows (socket(7); nf_tproxy_get_sock_v4 and _v6 look a listener up
// as any packet does, inet_lookup_listener and udp4_lib_lookup).
//
//  1. REMOTE has two listeners on the rule's port. Control: before the rule is there, what a
//     client like the cell's sends to FAKE does not reach the first.
//  2. LOCAL begins 7 flows. Of UDP each has three datagrams: all three come to one of the
//     listeners, with FAKE as their destination, and none to the other. Of TCP each is accepted
//     once.
//  3. That is done until both listeners have had a flow, 16 times at most.
func (x *claimRun) reusePort(ctx context.Context) error {
	first, second := x.reusePortSpec(true), x.reusePortSpec(!x.omit[SharedPort])
	at := x.remote.request()
	opened, again := at.open("server", first), at.open("second", second)
	if err := at.run(ctx); err != nil {
		return err
	}
	if err := x.opened(opened); err != nil {
		return err
	}
	if again.Err != nil && again.Err.Code == "EADDRINUSE" {
		return failed(NotOpened, "%s: the kernel refuses a second listener on %v, and both have SO_REUSEPORT: %s",
			again.where, x.divertAddr(), again.Err.Text)
	}
	if err := x.opened(again); err != nil {
		return err
	}
	c, err := x.listenersControl(ctx)
	if err != nil {
		return err
	}
	if err := x.loadBehind(ctx, c); err != nil {
		return err
	}
	had := map[string]bool{}
	for round := range reusePortRounds {
		if err := x.reusePortGroup(ctx, round, had); err != nil {
			return err
		}
		if len(had) == 2 {
			return nil
		}
	}
	return failed(NotDelivered, "remote: all of %d flows came to one of the two listeners",
		reusePortRounds*reusePortFlows)
}

func (x *claimRun) reusePortSpec(shared bool) script.Socket {
	switch s := x.serverSpec().(type) {
	case script.Stream:
		s.ReusePort = shared
		return s
	case script.Datagram:
		s.ReusePort = shared
		return s
	default:
		return s
	}
}

// listenersControl sees that a flow like the cell's does not reach the listener "server" before
// the rule is there.
func (x *claimRun) listenersControl(ctx context.Context) (control, error) {
	if x.Proto == pfconf.TCP {
		return stream{x.exchange}.control(ctx, "server")
	}
	return datagram{x.exchange}.control(ctx, "server")
}

// flowsOf has LOCAL begin so many flows like the cell's, send so many messages in each of UDP, and
// close them when REMOTE has all. It returns the clients' names.
func (x *claimRun) flowsOf(ctx context.Context, flows, messages int) (locals []netip.AddrPort, err error) {
	there := x.local.request()
	var opened, connecting, sent []*stepResult
	for i := range flows {
		end, spec := fmt.Sprintf("client-%d", i), x.clientOf(0, 0)
		opened = append(opened, there.open(end, spec))
		connecting = append(connecting, there.connect(end, spec))
	}
	if x.Proto == pfconf.UDP {
		for i := range flows * messages {
			flow := i % flows
			if x.omit[WholeFlow] && i >= flows*2 {
				flow = (flow + 1) % 2 // of others, so that two have more and five less
			}
			sent = append(sent, there.send(fmt.Sprintf("client-%d", flow), script.ClientLine, 0))
		}
	}
	there.fence()
	for i := range flows {
		there.close(fmt.Sprintf("client-%d", i))
	}
	if err := there.run(ctx); err != nil {
		return nil, err
	}
	if err := x.opened(append(opened, connecting...)...); err != nil {
		return nil, err
	}
	for _, s := range sent {
		if err := unanswered(s); err != nil {
			return nil, err
		}
	}
	for _, c := range connecting {
		locals = append(locals, c.Local)
		x.used = append(x.used, usedFlow{x.controlFlow(c.Local), x.Proto == pfconf.TCP, time.Now()})
	}
	return locals, nil
}

// reusePortGroup runs a group of flows, and notes in had which listeners got one.
func (x *claimRun) reusePortGroup(ctx context.Context, round int, had map[string]bool) error {
	messages := 3
	if x.Proto == pfconf.TCP {
		messages = 1 // a connection that was not accepted before is one
	}
	locals, err := x.flowsOf(ctx, reusePortFlows, messages)
	if err != nil {
		return err
	}
	flows := map[netip.AddrPort]string{} // which listener has the flow, "" before one has
	for _, local := range locals {
		flows[local] = ""
	}
	at := x.remote.request()
	heard := []*stepResult{at.rest("server"), at.rest("second")}
	at.fence()
	if err := at.run(ctx); err != nil {
		return err
	}
	_, to := x.flowEnds()
	for i, end := range []string{"server", "second"} {
		if err := unanswered(heard[i]); err != nil {
			return err
		}
		count := map[netip.AddrPort]int{}
		for _, m := range heard[i].Messages {
			count[m.From]++
			line := script.ClientLine
			if x.Proto == pfconf.TCP {
				line = ""
			}
			if err := judgeMessage(heard[i].where, m, want{line: line, from: m.From, to: to}); err != nil {
				return err
			}
		}
		for from, n := range count {
			other, known := flows[from]
			switch {
			case !known:
				return failed(WrongAddress, "%s: received from %v, and no client has that name", heard[i].where, from)
			case n != messages || other != "":
				return failed(NotDelivered, "%s: %d of the %d messages from %v came to this listener, and the others did not",
					heard[i].where, n, messages, from)
			}
			flows[from], had[end] = end, true
		}
	}
	for from, end := range flows {
		if end == "" {
			return failed(NotDelivered, "remote server: nothing from %v came to either listener", from)
		}
	}
	return nil
}
