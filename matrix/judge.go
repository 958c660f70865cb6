package matrix

import (
	"errors"
	"fmt"
	"net/netip"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

func asFault(err error, f **script.Error) bool { return errors.As(err, f) }

// want is a message that must have arrived, alone.
type want struct {
	line     string
	from, to netip.AddrPort // to is not looked at when it is invalid
	missing  string         // the reason code when it has not arrived
	echo     *script.EchoHeader
}

// judge compares what a socket received with what it must have received, in order.
func (x *exchange) judge(a *stepResult, wants ...want) error {
	if a.Err != nil && !lost[a.Err.Code] {
		return broken(QuestionFailed, "%s: %s", a.where, a.Err.Text)
	}
	got := a.Messages
	for i, w := range wants {
		if i >= len(got) {
			detail := fmt.Sprintf("%s: nothing arrived, %q from %v was due", a.where, w.line, w.from)
			if i > 0 {
				detail = fmt.Sprintf("%s: %d of %d messages arrived", a.where, i, len(wants))
			}
			if a.Err != nil {
				detail += " (" + a.Err.Text + ")"
			} else if a.Text != "" {
				detail += " (" + a.Text + ")"
			}
			if w.missing == ControlLost { // no rule has anything to do with it
				return broken(ControlLost, "%s", detail)
			}
			return failed(w.missing, "%s%s", detail, x.counted())
		}
		if err := judgeMessage(a.where, got[i], w); err != nil {
			if i > 0 && judgeMessage(a.where, got[i], wants[i-1]) == nil {
				return failed(Duplicate, "%s: received again what had come before: %q from %v", a.where, got[i].Data,
					got[i].From)
			}
			return err
		}
	}
	if extra := len(got) - len(wants); extra > 0 {
		m := got[len(wants)]
		return failed(Duplicate, "%s: %d more than was sent, the first %q from %v", a.where, extra, m.Data, m.From)
	}
	return unanswered(a)
}

// unanswered is the ERROR of a step that failed although nothing more was due: that
// nothing more had arrived is then not known.
func unanswered(a *stepResult) error {
	if err := a.unsent(); err != nil {
		return err
	}
	if a.Err != nil && a.Err.Code != script.CodeNothing {
		return broken(QuestionFailed, "%s: %s: %s", a.where, a.step.Name(), a.Err.Text)
	}
	return nil
}

// unrouted is the ERROR of a step that LOCAL could not do because it has no way to FAKE.
func (a *stepResult) unrouted() error {
	if a.Err != nil && a.host == "local" && (a.Err.Code == "ENETUNREACH" || a.Err.Code == "EHOSTUNREACH") {
		return broken(LocalRoute, "%s: LOCAL has no route: %s", a.where, a.Err.Text)
	}
	return nil
}

// unsent is the ERROR of a step whose packet its own host did not let go, for want of a way or
// because its filter refuses it (EACCES on the BSDs).
func (a *stepResult) unsent() error {
	if err := a.unrouted(); err != nil {
		return err
	}
	if _, sends := a.step.(script.Send); a.Err != nil && sends && unsendable[a.Err.Code] {
		return broken(SocketFailed, "%s: %s", a.where, a.Err.Text)
	}
	return nil
}

var unsendable = map[string]bool{"ENETUNREACH": true, "EHOSTUNREACH": true, "EACCES": true}

// judgeMessage compares one message.
func judgeMessage(where string, m script.Message, w want) error {
	switch {
	case string(m.Data) != w.line:
		reason := WrongData
		if (w.line == script.PacketLine || w.line == onwardLine) && string(m.Data) == script.ClientLine {
			reason = NotRewritten
		}
		return failed(reason, "%s: received %q, not %q", where, m.Data, w.line)
	case m.From != w.from:
		return failed(WrongAddress, "%s: received from %v, not %v", where, m.From, w.from)
	case w.to.IsValid() && m.To != w.to:
		return failed(WrongAddress, "%s: the destination is shown as %v, not %v", where, m.To, w.to)
	case w.echo != nil && m.Echo == nil:
		return failed(WrongData, "%s: received no ICMP header", where)
	case w.echo != nil && *m.Echo != *w.echo:
		return failed(WrongData, "%s: received %+v, not %+v", where, *m.Echo, *w.echo)
	}
	return nil
}

// silent judges that a socket has received nothing of a control.
func (x *exchange) silent(a *stepResult, what string) error {
	if got := a.Messages; len(got) > 0 {
		return failed(ControlDelivered, "%s: received %q from %v: %s", a.where, got[0].Data, got[0].From, what)
	}
	return unanswered(a)
}

// opened judges that the endpoints could be opened and connected. A port that is
// taken is worth another try with other ports; what else the kernel refuses
// is its fault only where it must let a foreign address be bound.
func (x *exchange) opened(steps ...*stepResult) error {
	for _, a := range steps {
		if a.Err == nil {
			continue
		}
		open, _ := a.step.(script.Open)
		_, connects := a.step.(script.Connect)
		switch code := a.Err.Code; {
		case code == "EADDRINUSE" && x.part == "":
			return &portTakenError{a.where + ": " + a.Err.Text}
		case code == "EADDRINUSE":
			return failed(PortBlocked, "%s: the first cell's socket blocks the port: %s", a.where, a.Err.Text)
		case code == script.CodeMissing:
			return skipped("%s: %s", a.where, a.Err.Text)
		case code == "EADDRNOTAVAIL" && bindany(open.Spec) && !x.kernel.bindsRaw(x.Family, x.Proto):
			return skipped("%s: Linux before 5.17 binds no raw IPv4 socket to an address that is not the host's own "+
				"(raw_bind, net/ipv4/raw.c): %s", a.where, a.Err.Text)
		case code == "EADDRNOTAVAIL" && bindany(open.Spec):
			return failed(NoBindany, "%s: the kernel does not let a foreign address be bound: %s", a.where,
				a.Err.Text)
		case code == "EADDRNOTAVAIL" && connects && x.part != "":
			return failed(PortBlocked, "%s: the first cell's socket blocks the flow: %s", a.where, a.Err.Text)
		case a.unrouted() != nil:
			return a.unrouted()
		// where the other host is the same machine, the answer is there at once
		case code == "ECONNREFUSED" && connects:
			return failed(NotDelivered, "%s: the connection was not answered: %s", a.where, a.Err.Text)
		case (code == "ENETUNREACH" || code == "EHOSTUNREACH") && a.bound:
			return failed(NoBindany, "%s: the kernel does not let a socket with a foreign address connect: %s",
				a.where, a.Err.Text)
		default:
			return broken(SocketFailed, "%s: %s", a.where, a.Err.Text)
		}
	}
	return nil
}

// portTakenError: a planned port is in use by someone else.
type portTakenError struct{ detail string }

func (e *portTakenError) Error() string { return e.detail }

// counted says for the detail of a failure how far the packets came by the
// rule's counters.
func (x *exchange) counted() string {
	c := x.counters
	switch {
	case !x.counterKnown:
		return ""
	case c.Matched == 0 && c.States == 0:
		return "; REMOTE's rule matched no packet"
	case x.kernel.StatesFirst:
		return fmt.Sprintf("; REMOTE's rule created %s; they and it had %s", pfconf.Count(c.States, "state"),
			pfconf.Count(c.Matched, "packet"))
	case c.Done < c.Matched:
		return fmt.Sprintf("; REMOTE's rule matched %s and its action found no socket for %d",
			pfconf.Count(c.Matched, "packet"), c.Matched-c.Done)
	case x.rule().Action == pfconf.DivertReply && x.kernel.MeetsReplies:
		return fmt.Sprintf("; REMOTE's rule matched %s that came back", pfconf.Count(c.Matched, "packet"))
	case x.mode.IsDivertReply():
		return fmt.Sprintf("; REMOTE's rule matched %s on the way out and %d came back",
			pfconf.Count(c.Matched, "packet"), c.Replies)
	}
	return "; REMOTE's rule matched " + pfconf.Count(c.Matched, "packet")
}

// carried reports whether the exchange's packets belong to a state that a reuse target's
// first cell has left: udp-to and rip-to leave one, which is also that of the same
// addresses and ports in the other direction.
func (x *exchange) carried() bool {
	return x.part != "" && x.kernel.StatesFirst && x.kernel.stateStays(x.Proto, x.First) && x.used[0].flow == x.flow()
}

// judgeCounters judges that the rule's own counters moved by the packets of the
// cell: sent is how many the client sent past the rule, answered how many came
// back to it. TCP's numbers are the least that an exchange needs.
func (x *exchange) judgeCounters(sent, answered uint64) error {
	c, k := x.counters, x.kernel
	sent = k.counts(x.Proto, sent)
	if k.StatesFirst {
		return x.judgeStateCounters(sent + answered)
	}
	bad := func(what string, n, want uint64) error {
		if n == want || x.Proto == pfconf.TCP && n > want {
			return nil
		}
		return failed(NotCounted, "remote: rule %s: %s is %d, not %d", x.label(), what, n, want)
	}
	if x.rule().Action == pfconf.DivertReply && k.MeetsReplies {
		return bad("the number of replies it brought back", c.Replies, answered)
	}
	if err := bad("the number of packets it matched", c.Matched, sent); err != nil {
		return err
	}
	if err := bad("the number of packets its action served", c.Done, sent); err != nil {
		return err
	}
	if x.rule().Action == pfconf.DivertReply && k.RepliesNeedRule {
		return bad("the number of replies it brought back", c.Replies, answered)
	}
	return nil
}

// judgeStateCounters judges the counters of a rule that makes states, which have the
// packets: how many states it made, and that they had the packets of both
// directions. The number of packets is the least, for ICMP errors that belong to a
// state are counted with it. A divert-packet rule counts none.
func (x *exchange) judgeStateCounters(packets uint64) error {
	c, states := x.counters, uint64(1)
	switch {
	case x.carried():
		states = 0
		if c.Matched > 0 {
			return failed(NotCounted, "remote: rule %s matched %s, which belong to the first cell's state",
				x.label(), pfconf.Count(c.Matched, "packet"))
		}
		packets = 0
	case x.mode.requests > 1:
		states = uint64(x.mode.requests) // one for each echo id, of the same socket
	case x.rule().Action == pfconf.DivertPacket:
		packets = 0
	}
	if c.States != states {
		return failed(NotCounted, "remote: rule %s: the number of states it created is %d, not %d", x.label(),
			c.States, states)
	}
	if c.Matched < packets {
		return failed(NotCounted,
			"remote: rule %s: the number of packets that it and its states matched is %d, not %d", x.label(), c.Matched, packets)
	}
	return nil
}
