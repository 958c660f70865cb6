package explain

import (
	"strings"
	"testing"

	"pfdivert/matrix/evidence"
)

// TestTraced: of someone else's chains only those are blamed that a traced packet met, and the rule
// that dropped it is named.
func TestTraced(t *testing.T) {
	const chain = "table inet fw chain early type filter hook prerouting priority -300: drop"
	hop := func(table, rule, verdict string) evidence.Hop {
		return evidence.Hop{Hook: "prerouting", Table: table, Chain: "early", Rule: rule, Verdict: verdict}
	}
	ours := hop("inet pfdivert", "policy accept", "accept")
	for _, x := range []struct {
		name  string
		trace []evidence.Traced
		cause string
		told  string // in the explanation
	}{
		{"no trace", nil, "dropped-before", "chain early type filter"},
		{"dropped there", []evidence.Traced{
			{Packet: "udp A > B", Lost: true, End: "was dropped by a rule",
				Hops: []evidence.Hop{hop("inet fw", "udp dport 9 drop", "drop")}},
		}, "dropped-before", "table inet fw chain early hook prerouting: udp dport 9 drop"},
		{"dropped by a policy", []evidence.Traced{
			{Packet: "udp A > B", Lost: true, End: "was dropped by a policy",
				Hops: []evidence.Hop{hop("inet fw", "policy drop", "drop")}},
		}, "dropped-before", "hook prerouting: policy drop"},
		{"passed there", []evidence.Traced{
			{Packet: "udp A > B", Lost: true, End: "was dropped by routing",
				Hops: []evidence.Hop{hop("inet fw", "policy accept", "accept"), ours}},
		}, "rule-mismatch", "udp A > B was dropped by routing"},
	} {
		c := to()
		c.Counters.Matched, c.Counters.Done = 0, 0
		for i, a := range c.Remote.Answers {
			if a.Command == "nft list ruleset" {
				c.Remote.Answers[i].Text = chain
			}
		}
		c.Remote.Trace = x.trace
		e := Explain(c)
		if told := e.LastSeen + " " + e.Likely; e.Cause != x.cause || !strings.Contains(told, x.told) {
			t.Errorf("%s: want %s, %q; got %+v", x.name, x.cause, x.told, e)
		}
	}
}
