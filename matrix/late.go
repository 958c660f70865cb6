package matrix

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// statesStay is how long a kernel keeps any state of a flow that is quiet, at least, unless it was
// told otherwise. The shortest timeouts are 30 seconds: pf's udp.single and other.single
// (pf.conf(5)), conntrack's of UDP without an answer, of ICMP and of TCP's LAST_ACK
// (nf_conntrack-sysctl.rst). TCP's CLOSE, with 10, follows a RST, after which no cell looks.
const statesStay = 25 * time.Second

// ofStates are the failures that the end of a state brings about.
var ofStates = map[string]bool{
	NotDelivered: true, NoReply: true, NotReinjected: true, NotRewritten: true, NotCounted: true, StateMissing: true,
	WrongAddress: true,
}

// stateAge is how long the state that the exchange's packets may belong to may have been quiet; 0
// before the rule is in force. A reuse target's second cell may use the state that the first has
// left. When the second's rule has counted nothing, that state was there for its packets, which are
// no older than the rule: had the state ended before, they would have met the rule.
func (x *exchange) stateAge() time.Duration {
	switch n := len(x.used); {
	case n == 0 || x.part != "" && n == 1 && !x.carried():
		return 0
	case !x.kernel.StatesFirst, x.carried() && (!x.counterKnown || x.counters != pfconf.Counters{}):
		return time.Since(x.used[0].began)
	default:
		return time.Since(x.used[n-1].began)
	}
}

// unlessLate returns err, or that the run was too slow to know: a slow machine's kernel lets states
// go in the middle of an exchange, and is not to blame.
func (x *exchange) unlessLate(err error) error {
	var f *finding
	if !errors.As(err, &f) || f.verdict != Fail || !ofStates[f.reason] || x.kernel.Stateless &&
		f.reason != StateMissing {
		return err
	}
	if age := x.stateAge(); age > statesStay {
		return tooLate(age, f.detail)
	}
	return err
}

// tooLate is the ERROR of an exchange in whose time a state may have ended.
func tooLate(age time.Duration, detail string) error {
	return broken(TimedOut, "the exchange took %v, and a kernel may let a quiet flow's state go after 30s; what was seen then: %s",
		age.Round(time.Second), detail)
}

// inTimeWait judges that a socket is in TIME_WAIT; because says why it must be.
func (x *exchange) inTimeWait(w waiting, because string) error {
	if w.socket.Text == timeWait {
		return nil
	}
	return x.notWaiting("%s: %s, and the socket is not in TIME_WAIT but %s", w.socket.where, because, w.socket.found())
}

// notWaiting is what is found when there is no socket in TIME_WAIT where one must be. A machine
// that is busy may be to blame: TCP sends a segment again, TIME_WAIT answers it, the peer, which
// has closed, answers that with a reset, and the reset ends TIME_WAIT (RFC 1337).
func (x *exchange) notWaiting(format string, args ...any) error {
	detail := fmt.Sprintf(format, args...)
	if took := time.Since(x.began); took >= busyAfter {
		return broken(TimedOut, "the exchange took %v, in which TCP may send a segment again, and a reset that answers it ends "+
			"TIME_WAIT; what was seen then: %s", took.Round(time.Second/10), detail)
	}
	return failed(StateMissing, "%s", detail)
}

// tcpAgain is after how long TCP may send a segment again that was not acknowledged (TCP_RTO_MIN,
// include/net/tcp.h of Linux; no system's is shorter).
const tcpAgain = 200 * time.Millisecond

// A machine that is busy may lose a packet, and TCP sends it again. How long an exchange took tells
// of such a machine: one that is idle needs milliseconds. synAgain is after how long a SYN has been
// sent again: 6 seconds on OpenBSD (TCPTV_SRTTDFLT, netinet/tcp_subr.c), 1 on Linux and FreeBSD.
const (
	busyAfter = time.Second
	synAgain  = 8 * time.Second
)

// gaveUp is the error of a connection for which TCP has waited as long as it does: 75 seconds on
// the BSDs (TCPTV_KEEP_INIT), some 2 minutes on Linux (tcp_syn_retries). No exchange lasts so long
// but on a machine that is stopped meanwhile, or whose timers run away.
const gaveUp = "ETIMEDOUT"

// unlessAnswered returns err, or that a machine that is busy is to blame, when it is that a
// connection was not answered: TCP gave it up, or it is answered when TCP has sent its SYN again. A
// kernel that does not divert answers no SYN.
func (p *testCase) unlessAnswered(ctx context.Context, err error) error {
	var f *finding
	if !errors.As(err, &f) || f.verdict != Fail || !ofStates[f.reason] {
		return err
	}
	for _, s := range []side{p.local, p.remote} {
		for _, end := range slices.Sorted(maps.Keys(s.unanswered)) {
			switch {
			case s.unanswered[end] == gaveUp:
				return broken(TimedOut, "%s %s: TCP gave the connection up, for which it waits more than a minute; what "+
					"was seen then: %s", s.name, end, f.detail)
			case s.unanswered[end] != script.CodeNothing || *s.closed || time.Since(p.began) < busyAfter:
				continue
			}
			at := s.request()
			answered := at.add(script.Connected{Socket: end, Wait: synAgain}, lost)
			if at.run(ctx) == nil && answered.Err == nil {
				return broken(TimedOut, "%s: the connection was answered only when TCP had asked again: a packet was "+
					"lost, and a busy machine may lose some; what was seen then: %s", answered.where, f.detail)
			}
		}
	}
	return err
}
