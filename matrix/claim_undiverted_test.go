package matrix

import (
	"net/netip"
	"testing"

	"pfdivert/matrix/script"
)

// The control of pf-reply-to knows LOCAL's interface by what LOCAL says of it, which may be another
// address than the gateway's, and waits for an answer that no fence waits for. Only of OpenBSD it
// is known that a LOCAL takes none.
func TestAnswersByGateway(t *testing.T) {
	x := &claimRun{exchange: exchangeOf(t, "pf", "inet-divert-pf-reply-to", false)}
	x.second.Gateway, x.viaGateway = netip.MustParseAddr("10.188.3.1"), netip.MustParseAddr("10.188.3.77")
	by := func(via string) []script.Message {
		return []script.Message{{Via: netip.AddrPortFrom(netip.MustParseAddr(via), 0)}}
	}
	for _, c := range []struct {
		system   string
		messages []script.Message
		want     string
	}{
		{"linux", by("10.188.3.77"), "PASS"},
		{"openbsd", by("10.188.3.77"), "PASS"},
		{"openbsd", by("10.188.3.1"), "ERROR control-lost"},
		{"linux", by("10.188.1.1"), "ERROR control-lost"},
		{"openbsd", nil, "SKIP no-feature"},
		{"linux", nil, "ERROR control-lost"},
		{"freebsd", nil, "ERROR control-lost"},
	} {
		x.localSystem = c.system
		heard := &stepResult{Outcome: script.Outcome{Messages: c.messages}}
		if got := verdictOf(x.answersByGateway(heard)); got != c.want {
			t.Errorf("%s, %v: %s, want %s", c.system, c.messages, got, c.want)
		}
	}
	at := x.local.request()
	if rest, ok := at.restLater("client").step.(script.Rest); !ok || rest.Wait != otherWay {
		t.Errorf("it waits for %+v", rest)
	}
}
