package matrix

import (
	"errors"
	"net/netip"
	"testing"

	"pfdivert/matrix/script"
)

// Each flow has one of the divert sockets that share a port, and all of it.
func TestJudgeShared(t *testing.T) {
	one, two := netip.MustParseAddrPort("10.188.1.1:4001"), netip.MustParseAddrPort("10.188.1.1:4002")
	from := func(flows ...netip.AddrPort) (all []script.Message) {
		for _, f := range flows {
			all = append(all, script.Message{From: f})
		}
		return all
	}
	for name, c := range map[string]struct {
		packet, second []script.Message
		reason         string
		had            int
	}{
		"a flow for each":              {from(one, one, one), from(two, two, two), "", 2},
		"both for one":                 {from(one, two, one, two, one, two), nil, "", 1},
		"a flow in two sockets":        {from(one, one, one, two), from(two, two), WrongData, 1},
		"a flow that lost some":        {from(one, one, one), from(two, two), NotDelivered, 1},
		"a flow that passed by":        {from(one, one, one), nil, NotDelivered, 1},
		"a packet that is there twice": {from(one, one, one, one), from(two, two, two), NotDelivered, 0},
	} {
		had := map[string]bool{}
		err := judgeShared(map[string][]script.Message{"packet": c.packet, "second": c.second},
			[]netip.AddrPort{one, two}, had)
		var f *finding
		if errors.As(err, &f) != (c.reason != "") || f != nil && f.reason != c.reason || len(had) != c.had {
			t.Errorf("%s: %v, and %d sockets had a flow", name, err, len(had))
		}
	}
}
