package matrix

import (
	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// teardown is the last look at both hosts in an exchange, and what clears the way for
// the next: one script for each host.
type teardown struct {
	counters *stepResult
	// open: the flow's states on REMOTE while the client's socket is open, where the
	// kernel ties them.
	open *stepResult
	// waiting: the states while the server's socket is in TIME_WAIT; dropped and gone: that
	// socket's end.
	waiting, dropped, gone *stepResult
	// after: the states when all is closed and dropped.
	after *stepResult
}

// tearDown adds the last look to the two scripts and closes the sockets. Of the
// last exchange of a cell it also removes what the cell left in the hosts' tables.
func (x *exchange) tearDown(server, client *request, clientEnd, serverEnd string) teardown {
	remote, local := client, server
	if x.toServer() {
		remote, local = server, client
	}
	e := teardown{counters: remote.counters(x.label())}
	if x.tied() && x.Proto != pfconf.TCP { // a stream's client is closed before
		e.open = remote.lookup(x.flow())
	}
	client.close(clientEnd)
	if serverEnd != "" {
		server.close(serverEnd)
	}
	if x.Target.reuse() && x.Proto == pfconf.TCP && !x.omit[TimeWaitDrop] {
		// The server closed first: its end is in TIME_WAIT.
		from, to := x.flowEnds()
		if x.mode.IsDivertTo() && !x.kernel.Stateless {
			e.waiting = remote.lookup(x.flow())
		}
		e.dropped, e.gone = server.drop(to, from), server.tcpState(to, from, script.Gone)
		// LOCAL's own filter is not under test.
		near := x.flow()
		near.Near, near.Far = near.Far, near.Near
		local.kill(near)
	}
	if x.tied() || x.Target.reuse() && !x.kernel.Stateless {
		e.after = remote.lookup(x.flow())
	}
	if x.last() {
		x.clear(local, remote)
	}
	return e
}

// tied reports whether the kernel ties the state of the exchange to its client's socket.
func (x *exchange) tied() bool {
	return x.kernel.TiesStates && x.mode.IsDivertReply() && x.Proto != pfconf.ICMP
}

// wantCounters has the rule's counters looked at before the hosts clear anything; see
// judgeCounters, which is stricter.
func (x *exchange) wantCounters(e teardown, a, b *request, sent, answered uint64) {
	var least pfconf.Counters
	switch {
	case x.kernel.StatesFirst && x.carried():
	case x.kernel.StatesFirst:
		least.States = 1
	case x.kernel.MeetsReplies && x.rule().Action == pfconf.DivertReply:
		least.Replies = answered
	default:
		sent = x.kernel.counts(x.Proto, sent)
		least.Matched, least.Done = sent, sent
		if x.rule().Action == pfconf.DivertReply {
			least.Replies = answered
		}
	}
	for _, s := range []*request{a, b} {
		s.wantCounters(e.counters, least)
	}
}

// note keeps the counters for the details of failures.
func (x *exchange) note(e teardown) {
	if e.counters.Counters != nil {
		x.counters, x.counterKnown = *e.counters.Counters, true
	}
}

// judgeTeardown judges states and sockets of the ending.
func (x *exchange) judgeTeardown(e teardown) error {
	if e.open != nil && len(e.open.States) == 0 {
		return failed(StateMissing, "remote: there is no state of %s while its socket is open", x.label())
	}
	if e.waiting != nil && len(e.waiting.States) == 0 {
		return x.notWaiting("remote: there is no state of %s while its socket is in TIME_WAIT", x.label())
	}
	if e.dropped != nil && e.dropped.Err != nil && e.dropped.Err.Code == cantDrop {
		// The next cell takes its addresses and ports up again: it binds with SO_REUSEADDR, and
		// TCP's timestamps tell its packets from old ones (tcp_twsk_unique, net/ipv4/tcp_ipv4.c).
		e.dropped, e.gone = nil, nil
	}
	if e.dropped != nil && e.dropped.Err != nil {
		return x.notWaiting("%s: there is no socket in TIME_WAIT to drop: %s", e.dropped.where, e.dropped.Err.Text)
	}
	if e.gone != nil && e.gone.Err == nil {
		return failed(StateLeft, "%s: the dropped socket is still there, in %s", e.gone.where, e.gone.Text)
	}
	if e.after == nil {
		return nil
	}
	left := len(e.after.States) > 0
	switch stays := x.kernel.stateStays(x.Proto, x.mode); {
	case stays && !left:
		return failed(StateMissing, "remote: the state of %s is gone; this kernel keeps it", x.label())
	case !stays && left:
		return failed(StateLeft, "remote: the state of %s is left (%s); it must go with its socket", x.label(),
			e.after.States[0].Phase)
	case !stays && x.stateAge() > statesStay:
		return tooLate(x.stateAge(), "its state is gone, which must go with its socket")
	}
	return nil
}
