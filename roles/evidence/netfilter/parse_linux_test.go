package netfilter

import (
	"os"
	"strings"
	"testing"
)

// TestBlob reads a table as the kernel gave it (Linux 6.18, amd64): that of squid's manual, with a
// policy. The file begins with its struct ipt_getinfo.
func TestBlob(t *testing.T) {
	for name, six := range map[string]bool{"mangle4.blob": false, "mangle6.blob": true} {
		b, err := os.ReadFile("testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		chains, err := parseBlob(b[:84], b[84:], six)
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, c := range chains {
			all = append(all, strings.TrimSpace(c.Name+" "+c.Hook))
			if c.Drops {
				all = append(all, "policy drop")
			}
			for _, r := range c.Rules {
				all = append(all, r.Text())
			}
		}
		const want = `PREROUTING prerouting
-p tcp -m socket -j DIVERT
-p tcp --dport 80 -j TPROXY --on-port :3129 --tproxy-mark 0x1/0x1
INPUT input
FORWARD forward
OUTPUT output
! -o eth* -j DIVERT
POSTROUTING postrouting
policy drop
DIVERT
-j MARK --set-xmark 0x1/0xffffffff
-j ACCEPT`
		if got := strings.Join(all, "\n"); got != want {
			t.Errorf("%s: got\n%s", name, got)
		}
	}
}

// FuzzBlob: what no kernel would give is an error, and does no harm.
func FuzzBlob(f *testing.F) {
	for _, name := range []string{"mangle4.blob", "mangle6.blob"} {
		b, err := os.ReadFile("testdata/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, name == "mangle6.blob")
	}
	f.Fuzz(func(t *testing.T, b []byte, six bool) {
		if len(b) < 84 {
			return
		}
		chains, err := parseBlob(b[:84], b[84:], six)
		if err != nil {
			return
		}
		r := &Ruleset{Chains: chains}
		for _, c := range chains {
			c.Family = "ip"
		}
		h := testHost
		r.Follow(&h)
	})
}

// FuzzRule: a rule's statements are read without harm, whatever they are, and none asks of packets
// what it does not say.
func FuzzRule(f *testing.F) {
	f.Add("payload", []byte{8, 0, 1, 0, 0, 0, 0, 1, 8, 0, 2, 0, 0, 0, 0, 2, 8, 0, 3, 0, 0, 0, 0, 2, 8, 0, 4, 0, 0, 0, 0, 2}, "lookup", []byte{8, 0, 2, 0, 0, 0, 0, 1, 11, 0, 1, 0, '_', '_', 's', 'e', 't', '0', 0, 0})
	f.Add("match", []byte{8, 0, 1, 0, 't', 'c', 'p', 0}, "target", []byte{12, 0, 1, 0, 'T', 'P', 'R', 'O', 'X', 'Y', 0, 0})
	f.Add("meta", []byte{8, 0, 1, 0, 0, 0, 0, 1, 8, 0, 2, 0, 0, 0, 0, 6}, "cmp", []byte{8, 0, 1, 0, 0, 0, 0, 1, 8, 0, 2, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, first string, a []byte, second string, b []byte) {
		c := &Chain{Family: "inet", Table: "t", Name: "c", Hook: "prerouting", Type: "filter"}
		r := &ruleReader{rule: &Rule{Chain: c, Number: 1}, registers: map[uint32]value{}, elements: func(string) ([]element, error) {
			return []element{{key: b}, {key: a, end: true}, {data: a}}, nil
		}}
		_ = r.statement(first, nested{a})
		_ = r.statement(second, nested{b})
		c.Rules = []*Rule{r.rule}
		h := testHost
		(&Ruleset{Chains: []*Chain{c}}).Follow(&h)
	})
}

// TestUnknown: what is not understood is said, where it can matter.
func TestUnknown(t *testing.T) {
	c := &Chain{Family: "ip", Table: "t", Name: "c", Hook: "prerouting", Type: "filter"}
	for _, name := range []string{"match", "target", "newstatement"} {
		r := &ruleReader{rule: &Rule{Chain: c, Number: 1}, registers: map[uint32]value{}}
		_ = r.statement(name, nested{[]byte{8, 0, 1, 0, 'n', 'e', 'w', 0}})
		r.do(Action{Does: Drop, Text: "drop"})
		c.Rules = []*Rule{r.rule}
		h := testHost
		if _, notes := (&Ruleset{Chains: []*Chain{c}}).Follow(&h); len(notes) != 1 || !strings.Contains(notes[0], "table ip t chain c rule 1") {
			t.Errorf("%s: %q", name, notes)
		}
	}
}

func TestSpans(t *testing.T) {
	s := spans{{1, 10}, {20, 30}}
	if got := s.without(spans{{5, 25}}); len(got) != 2 || got[0] != (span{1, 4}) || got[1] != (span{26, 30}) {
		t.Error(got)
	}
	if got := s.and(spans{{10, 20}}); len(got) != 2 || got[0] != (span{10, 10}) || got[1] != (span{20, 20}) {
		t.Error(got)
	}
	if got := s.or(spans{{11, 19}}); len(got) != 1 || got[0] != (span{1, 30}) {
		t.Error(got)
	}
	if got := (spans{{0, last}}).without(just(0)); len(got) != 1 || got[0] != (span{1, last}) {
		t.Error(got)
	}
}
