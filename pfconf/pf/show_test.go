package pf

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestParseRules reads what OpenBSD's pfctl printed.
func TestParseRules(t *testing.T) {
	const out = `@0 pass in log inet6 proto tcp from fd00:188:1::1 to fd00:188:2::9 port = 4000 flags S/SA label "regress" divert-to ::1 port 5000
  [ Evaluations: 2         Packets: 0         Bytes: 0           States: 0     ]
  [ Inserted: uid 0 pid 21440 State Creations: 0     ]
@1 pass all flags S/SA
  [ Evaluations: 2         Packets: 0         Bytes: 0           States: 0     ]
@2 pass in log inet proto tcp from 10.188.1.1 to 10.188.2.9 port = 5000 flags S/SA label "regress-2" divert-to 127.0.0.1 port 5000
  [ Evaluations: 12        Packets: 8         Bytes: 450         States: 1     ]
  [ Inserted: uid 0 pid 49465 State Creations: 1     ]
`
	want := map[string]string{
		"regress": `@0 pass in log inet6 proto tcp from fd00:188:1::1 to fd00:188:2::9 port = 4000 flags S/SA label "regress" divert-to ::1 port 5000
  [ Evaluations: 2         Packets: 0         Bytes: 0           States: 0     ]
  [ Inserted: uid 0 pid 21440 State Creations: 0     ]`,
		"regress-2": `@2 pass in log inet proto tcp from 10.188.1.1 to 10.188.2.9 port = 5000 flags S/SA label "regress-2" divert-to 127.0.0.1 port 5000
  [ Evaluations: 12        Packets: 8         Bytes: 450         States: 1     ]
  [ Inserted: uid 0 pid 49465 State Creations: 1     ]`,
	}
	if d := cmp.Diff(want, parseRules(out)); d != "" {
		t.Error(d)
	}
	if got := parseRules(""); len(got) != 0 {
		t.Errorf("no rules: %q", got)
	}
}
