package explain

import (
	"net/netip"
	"slices"
	"strings"

	"pfdivert/matrix/evidence"
	"pfdivert/pfconf"
)

// lastSeen says how far the packet came, or the one that was to come back: to LOCAL's interface,
// to REMOTE's, to the rule, through its action. What is not known is not said.
func (c *Case) lastSeen() string {
	if !c.is("not-delivered", "no-reply", "not-reinjected", "control-lost", "not-rewritten") {
		return ""
	}
	switch {
	case c.is("control-lost") && c.Claim: // some controls of claims are run when the rule is there
		return c.onWire("")
	case c.is("control-lost"):
		return c.onWire("before the rule was loaded, ")
	case c.Packet():
		return c.packetSeen()
	case c.reply():
		return c.replySeen()
	}
	switch {
	case c.undone():
		return "REMOTE's rule matched it, and its action could not be carried out"
	case c.connecting():
		return "it is at REMOTE's socket; " + c.answerSeen()
	case c.matched() && c.StatesFirst:
		return "REMOTE's rule made a state for it"
	case c.matched():
		return "REMOTE's rule matched it and its action was carried out; it is not at the socket"
	case c.unmatched():
		return c.onWire("") + ", and REMOTE's rule matched no packet"
	}
	return c.onWire("")
}

// connecting reports whether a connection to FAKE is at a socket of REMOTE that waits for the ACK
// of its SYN ACK: SYN_RECV on Linux, SYN_RCVD on the BSDs.
func (c *Case) connecting() bool {
	return slices.ContainsFunc(c.Remote.Sockets, func(s evidence.SocketEntry) bool {
		return s.Local.Addr() == c.Fake && s.Remote.Addr() == c.LocalAddr && strings.HasPrefix(s.State, "SYN_R")
	})
}

// answerSeen says how far the SYN ACK came.
func (c *Case) answerSeen() string {
	answer := func(p evidence.Packet) bool {
		from, _, proto, ok := header(p)
		return ok && from == c.Fake && int(proto) == pfconf.TCP.Number(pfconf.FamilyOf(c.Fake))
	}
	switch {
	case slices.ContainsFunc(c.Local.Packets, answer):
		return "its answer came to LOCAL's interface and is not at the client"
	case slices.ContainsFunc(c.Remote.Packets, answer):
		return "its answer left REMOTE's interface and did not come to LOCAL's"
	}
	return "its answer is not on REMOTE's interface"
}

func (c *Case) replySeen() string {
	switch {
	case c.undone():
		return "REMOTE's rule matched it on its way out, and the flow's state could not be marked"
	case c.unmatched():
		return "REMOTE's client sent it, and the rule matched no packet"
	case c.matched() && c.Counters.Replies > 0:
		return "the answer came back to REMOTE's rule and is not at the socket"
	case c.matched() && c.StatesFirst:
		return "REMOTE's rule made a state for what it sent"
	case c.matched():
		return "REMOTE's rule matched it on its way out; " + c.onWire("")
	}
	return c.onWire("")
}

func (c *Case) packetSeen() string {
	switch {
	case c.is("not-reinjected"):
		return "user space sent it on; it is not at the server's socket"
	case c.matched():
		return "REMOTE's rule matched it and handed it to user space"
	case c.unmatched():
		return "REMOTE's rule matched no packet"
	}
	return c.onWire("")
}

// onWire says at which of the two interfaces the cell's packets were captured.
func (c *Case) onWire(before string) string {
	local, remote := c.captured(&c.Local), c.captured(&c.Remote)
	switch {
	case len(c.Local.Packets)+len(c.Remote.Packets) == 0:
		return before + "it was sent"
	case remote && !local && !c.to():
		return before + "it left REMOTE's interface and did not come to LOCAL's"
	case remote:
		return before + "it was on REMOTE's interface"
	case local:
		return before + "it was on LOCAL's interface and did not come to REMOTE's"
	}
	return before + "it was on neither interface"
}

// captured reports whether a host captured a packet of the cell's. LOCAL's address may have others.
func (c *Case) captured(h *HostFacts) bool {
	return slices.ContainsFunc(h.Packets, func(p evidence.Packet) bool {
		from, to, proto, ok := header(p)
		return ok && (from == c.host() || to == c.host()) &&
			(c.host() == c.Fake || int(proto) == c.Proto.Number(pfconf.FamilyOf(c.Fake)))
	})
}

// header reads the addresses of a captured IP packet, and what comes behind its first header.
func header(p evidence.Packet) (from, to netip.Addr, proto byte, ok bool) {
	b := p.Data
	if p.Link == evidence.LinkEthernet {
		if len(b) < 14 {
			return from, to, 0, false
		}
		b = b[14:]
	}
	switch {
	case p.Link == evidence.LinkPflog || len(b) < 20:
		return from, to, 0, false
	case b[0]>>4 == 4:
		from, to = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
		return from, to, b[9], true
	case b[0]>>4 == 6 && len(b) >= 40:
		from, to = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
		return from, to, b[6], true
	}
	return from, to, 0, false
}
