package explain

import (
	"net/netip"
	"testing"

	"pfdivert/matrix/evidence"
	"pfdivert/pfconf"
)

// TestAnswerSeen: of a connection that REMOTE's socket has it is not said that it did not come
// there, but how far the answer came.
func TestAnswerSeen(t *testing.T) {
	// The beginning of a SYN ACK from FAKE, as BSD's and Linux' captures of the test interface have
	// it.
	answer := func(from netip.Addr) []evidence.Packet {
		ip := make([]byte, 40)
		ip[0], ip[9] = 0x45, 6
		copy(ip[12:], from.AsSlice())
		return []evidence.Packet{{Link: evidence.LinkRaw, Data: ip}}
	}
	base := to()
	base.Proto = pfconf.TCP
	const at = "REMOTE's rule matched it and its action was carried out; it is not at the socket"
	const has = "it is at REMOTE's socket; its answer "
	for name, x := range map[string]struct {
		state         string
		local, remote bool // captured the answer
		want          string
	}{
		"no socket":          {"", false, false, at},
		"of the cell before": {"TIME_WAIT", false, false, at},
		"dropped on its way": {"SYN_RECV", false, false, has + "is not on REMOTE's interface"},
		"lost between":       {"SYN_RECV", false, true, has + "left REMOTE's interface and did not come to LOCAL's"},
		"dropped by LOCAL":   {"SYN_RECV", true, true, has + "came to LOCAL's interface and is not at the client"},
		"a BSD's socket":     {"SYN_RCVD", true, true, has + "came to LOCAL's interface and is not at the client"},
		"another host's RST": {"", false, true, at},
	} {
		c := base
		if x.state != "" {
			c.Remote.Sockets = []evidence.SocketEntry{{Proto: "tcp", Local: netip.AddrPortFrom(c.Fake, 1),
				Remote: netip.AddrPortFrom(c.LocalAddr, 2), State: x.state}}
		}
		if x.local {
			c.Local.Packets = answer(c.Fake)
		}
		if x.remote {
			c.Remote.Packets = answer(c.Fake)
		}
		if got := c.lastSeen(); got != x.want {
			t.Errorf("%s: %q, want %q", name, got, x.want)
		}
	}
}
