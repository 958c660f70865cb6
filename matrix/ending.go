package matrix

import "pfdivert/pfconf"

// ending is the last look at REMOTE in a half.
type ending struct {
	counters      *asked
	before, after *asked // the flow's states before and after the client's socket is closed
}

// ending adds the last look to the script that is for REMOTE, and closes the
// sockets: a reuse target's second cell binds their ports.
func (h *half) ending(server, client *script, clientEnd, serverEnd string) ending {
	remote := client
	if h.toServer() {
		remote = server
	}
	e := ending{counters: remote.counters(h.label())}
	ties := h.kernel.TiesStates && (h.mode == Reply || h.mode == ReplyTo) && h.Proto != pfconf.ICMP
	if ties {
		e.before = remote.lookup(h.flow())
	}
	client.close(clientEnd)
	if serverEnd != "" {
		server.close(serverEnd)
	}
	if ties {
		e.after = remote.lookup(h.flow())
	}
	return e
}

// note keeps the counters for the details of failures.
func (h *half) note(e ending) {
	if e.counters.Counters != nil {
		h.counters, h.counterKnown = *e.counters.Counters, true
	}
}

// judgeEnding judges the states around the close.
func (h *half) judgeEnding(e ending) error {
	if e.before == nil {
		return nil
	}
	if len(e.before.States) == 0 {
		return failed(StateMissing, "remote: there is no state of %s while its socket is open", h.label())
	}
	if n := len(e.after.States); n > 0 {
		return failed(StateLeft, "remote: the state of %s is left after its socket was closed: %s", h.label(), e.after.States[0].Phase)
	}
	return nil
}
