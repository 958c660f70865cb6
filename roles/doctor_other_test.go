//go:build !linux

package roles

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"testing"

	"pfdivert/matrix/evidence"
	"pfdivert/pfconf"
	"pfdivert/roles/gather"
)

// TestUnread: what is written for programs says that the rules could not be read.
func TestUnread(t *testing.T) {
	for known, want := range map[bool]string{true: "", false: "the rules could not be read"} {
		var b bytes.Buffer
		found := judge(&gather.Survey{Firewall: "pf", RulesKnown: known})
		if err := found.write(&call{IO: IO{Out: &b}}, true); err != nil {
			t.Fatal(err)
		}
		var got struct{ Error string }
		if err := json.Unmarshal(b.Bytes(), &got); err != nil || got.Error != want {
			t.Errorf("rules read: %v: error %q, want %q; %v", known, got.Error, want, err)
		}
	}
}

// TestUnseenIsNotOK: of a rule whose sockets are not known doctor says that they are not seen, and
// not that all is well; what is wrong with it is said all the same.
func TestUnseenIsNotOK(t *testing.T) {
	rule := evidence.Diversion{
		Kind: evidence.DivertTo, Rule: "rule 1", Families: []pfconf.Family{pfconf.Inet}, Proto: "tcp",
		Address: netip.MustParseAddr("127.0.0.1"), Port: 3128,
	}
	unseen, lost := rule, rule
	unseen.Rule, unseen.Table, unseen.Unseen = "rule 2", "1", "it is in domain 1"
	lost.Rule, lost.Table, lost.Unseen, lost.Unreached, lost.Fix = "rule 3", "1", "it is in domain 1",
		"no one calls it", "call it"
	s := &gather.Survey{
		Firewall: "pf", RulesKnown: true, Diversions: []evidence.Diversion{rule, unseen, lost},
		Listeners: []evidence.Listener{{Proto: "tcp", At: netip.MustParseAddrPort("127.0.0.1:3128")}},
	}
	var b bytes.Buffer
	if err := judge(s).write(&call{IO: IO{Out: &b}}, false); err != nil {
		t.Fatal(err)
	}
	const want = `ok    rule 1: inet tcp divert-to 127.0.0.1:3128
bad   rule 3: inet tcp divert-to 127.0.0.1:3128
      not-evaluated: pf never looks at the rule: no one calls it
      check: pfctl -sr; pfctl -v -sA; pfctl -vsI
      fix: call it
not seen: rule 2: inet tcp divert-to 127.0.0.1:3128: it is in domain 1
`
	if b.String() != want {
		t.Errorf("%s", &b)
	}
}
