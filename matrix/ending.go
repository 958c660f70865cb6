package matrix

import (
	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// ending is the last look at both hosts in a half, and what clears the way for
// the next: one script for each host.
type ending struct {
	counters *asked
	// open: the flow's states on REMOTE while the client's socket is open, where the
	// kernel ties them.
	open *asked
	// waiting: the states while the server's socket is in TIME_WAIT; dropped and gone: that
	// socket's end.
	waiting, dropped, gone *asked
	// after: the states when all is closed and dropped.
	after *asked
}

// ending adds the last look to the two scripts and closes the sockets. Of the
// last half of a cell it also removes what the cell left in the hosts' tables.
func (h *half) ending(server, client *request, clientEnd, serverEnd string) ending {
	remote, local := client, server
	if h.toServer() {
		remote, local = server, client
	}
	e := ending{counters: remote.counters(h.label())}
	if h.tied() && h.Proto != pfconf.TCP { // a stream's client is closed before
		e.open = remote.lookup(h.flow())
	}
	client.close(clientEnd)
	if serverEnd != "" {
		server.close(serverEnd)
	}
	if h.Target.reuse() && h.Proto == pfconf.TCP && !h.omit[Drop] {
		// The server closed first: its end is in TIME_WAIT.
		from, to := h.ends()
		if h.mode == To && !h.kernel.Stateless {
			e.waiting = remote.lookup(h.flow())
		}
		e.dropped, e.gone = server.drop(to, from), server.tcpState(to, from, script.Gone)
		// LOCAL's own filter is not under test.
		near := h.flow()
		near.Near, near.Far = near.Far, near.Near
		local.kill(near)
	}
	if h.tied() || h.Target.reuse() && !h.kernel.Stateless {
		e.after = remote.lookup(h.flow())
	}
	if h.last() {
		h.clear(local, remote)
	}
	return e
}

// tied reports whether the kernel ties the state of the half to its client's socket.
func (h *half) tied() bool {
	return h.kernel.TiesStates && (h.mode == Reply || h.mode == ReplyTo) && h.Proto != pfconf.ICMP
}

// wantCounters has the rule's counters looked at before the hosts clear anything; see
// judgeCounters, which is stricter.
func (h *half) wantCounters(e ending, a, b *request, sent, answered uint64) {
	var least pfconf.Counters
	switch {
	case h.kernel.StatesFirst && h.carried():
	case h.kernel.StatesFirst:
		least.States = 1
	case h.kernel.MeetsReplies && h.rule().Action == pfconf.DivertReply:
		least.Replies = answered
	default:
		least.Matched, least.Done = sent, sent
		if h.rule().Action == pfconf.DivertReply {
			least.Replies = answered
		}
	}
	for _, s := range []*request{a, b} {
		s.want(e.counters, script.Want{Counters: least})
	}
}

// note keeps the counters for the details of failures.
func (h *half) note(e ending) {
	if e.counters.Counters != nil {
		h.counters, h.counterKnown = *e.counters.Counters, true
	}
}

// judgeEnding judges states and sockets of the ending.
func (h *half) judgeEnding(e ending) error {
	if e.open != nil && len(e.open.States) == 0 {
		return failed(StateMissing, "remote: there is no state of %s while its socket is open", h.label())
	}
	if e.waiting != nil && len(e.waiting.States) == 0 {
		return failed(StateMissing, "remote: there is no state of %s while its socket is in TIME_WAIT", h.label())
	}
	if e.dropped != nil && e.dropped.Fault != nil && e.dropped.Fault.Code == cantDrop {
		// The next cell takes its addresses and ports up again: it binds with SO_REUSEADDR, and TCP's
		// timestamps tell its packets from old ones (tcp_twsk_unique, net/ipv4/tcp_ipv4.c).
		e.dropped, e.gone = nil, nil
	}
	if e.dropped != nil && e.dropped.Fault != nil {
		return failed(StateMissing, "%s: there is no socket in TIME_WAIT to drop: %s", e.dropped.where, e.dropped.Fault.Text)
	}
	if e.gone != nil && e.gone.Fault == nil {
		return failed(StateLeft, "%s: the dropped socket is still there, in %s", e.gone.where, e.gone.Text)
	}
	if e.after == nil {
		return nil
	}
	left := len(e.after.States) > 0
	switch stays := h.kernel.stateStays(h.Proto, h.mode); {
	case stays && !left:
		return failed(StateMissing, "remote: the state of %s is gone; this kernel keeps it", h.label())
	case !stays && left:
		return failed(StateLeft, "remote: the state of %s is left (%s); it must go with its socket", h.label(), e.after.States[0].Phase)
	}
	return nil
}
