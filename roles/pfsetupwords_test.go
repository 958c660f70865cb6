package roles

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pfdivert/pfconf"
	"pfdivert/roles/lab"
)

// table is a packet filter that answers from memory.
type table struct {
	list   []pfconf.State
	killed []string // ids, or labels
	flush  []string
	closed int
}

func (d *table) Overview(context.Context) (pfconf.Overview, error) {
	return pfconf.Overview{Filter: "pf", Enabled: true, States: 26, Own: 3}, nil
}

func (d *table) Places(context.Context) ([]pfconf.Place, error) {
	return []pfconf.Place{{Name: "regress", Own: true}, {Name: "other"}}, nil
}

func (d *table) OwnRules(context.Context) ([]pfconf.LoadedRule, error) {
	return []pfconf.LoadedRule{
		{Label: "regress", Packets: 8, Place: "regress", Text: "pass in log inet proto tcp"},
		{Label: "regress\x1b[2J", Place: "chain pre"},
	}, nil
}

func (d *table) States(context.Context) ([]pfconf.State, error) { return d.list, nil }

func (d *table) Kill(_ context.Context, states []pfconf.State) (int, error) {
	for _, s := range states {
		d.killed = append(d.killed, s.ID)
	}
	return len(states), nil
}

func (d *table) KillLabel(_ context.Context, label string) (int, error) {
	d.killed = append(d.killed, "label "+label)
	return 1, nil
}

func (d *table) Flush(context.Context) ([]string, error) { return d.flush, nil }

func (d *table) Timeouts(context.Context) ([]pfconf.Setting, error) {
	return []pfconf.Setting{
		{Name: "tcp.first", Value: 120, System: "net.netfilter.nf_conntrack_tcp_timeout_syn_sent"},
		{Name: "adaptive.start", Value: 60000, Unit: "states", System: "adaptive.start"},
	}, nil
}

func (d *table) Limits(context.Context) ([]pfconf.Setting, error) {
	return []pfconf.Setting{{Name: "states", Value: 100000, System: "states"}}, errors.New("the rest is not known")
}

func (d *table) Close() error { d.closed++; return nil }

// someStates are a redirected connection, one that this host began, and a raw one.
func someStates() []pfconf.State {
	ap := netip.MustParseAddrPort
	return []pfconf.State{
		{Family: pfconf.Inet, Number: 6, Direction: pfconf.In, Near: ap("10.188.1.2:5000"),
			NearWas: ap("10.188.2.9:4000"),
			Far:     ap("10.188.1.1:8000"), Phase: "ESTABLISHED:ESTABLISHED", Expires: 90 * time.Second, ID: "1/a"},
		{Family: pfconf.Inet6, Number: 17, Direction: pfconf.Out, Near: ap("[fd00::2]:53"), Far: ap("[fd00::1]:4000"),
			Phase: "SINGLE:NO_TRAFFIC", ID: "2/a"},
		{Family: pfconf.Inet, Number: 254, Direction: pfconf.In, Near: ap("10.188.2.9:0"), Far: ap("10.188.1.1:0"),
			ID: "3/a"},
	}
}

// What each of pf-setup's words prints.
func TestVerbs(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"status", "NAME       VALUE\nfilter     pf\nenabled    yes\nstates     26\nown-rules  3\n"},
		{"status -plain", "filter\tpf\nenabled\tyes\nstates\t26\nown-rules\t3\n"},
		{"-plain status", "filter\tpf\nenabled\tyes\nstates\t26\nown-rules\t3\n"},
		{"anchors", "NAME     OWNER\nregress  own\nother    host\n"},
		{"rules", "LABEL        PACKETS  PLACE      RULE\nregress      8        regress    pass in log inet proto tcp\nregress?[2J  0        chain pre  -\n"},
		{"rules -plain", "regress\t8\tregress\tpass in log inet proto tcp\nregress?[2J\t0\tchain pre\t\n"},
		{"states", "PROTO  DIR  NEAR                               FAR              PHASE                    EXPIRES  ID\n" +
			"tcp    in   10.188.1.2:5000 (10.188.2.9:4000)  10.188.1.1:8000  ESTABLISHED:ESTABLISHED  90s      1/a\n" +
			"udp    out  [fd00::2]:53                       [fd00::1]:4000   SINGLE:NO_TRAFFIC        0s       2/a\n" +
			"254    in   10.188.2.9                         10.188.1.1       -                        0s       3/a\n"},
		{"states -plain -id 3/a", "254\tin\t10.188.2.9\t10.188.1.1\t\t0s\t3/a\n"},
		{"timeouts", "NAME            VALUE         SYSTEM\ntcp.first       120s          net.netfilter.nf_conntrack_tcp_timeout_syn_sent\nadaptive.start  60000 states  adaptive.start\n"},
		{"flush", "removed 2 rules of anchor regress\n"},
	} {
		d := &table{list: someStates(), flush: []string{"2 rules of anchor regress"}}
		if status, out, err := verb(d, c.args); status != exitOK || err != nil || out != c.want || d.closed != 1 {
			t.Errorf("%s: exit status %d, %v, closed %d times\n%s\nwant\n%s", c.args, status, err, d.closed, out,
				c.want)
		}
	}
	// A question that failed is no answer, and none is printed.
	d := &table{}
	if status, out, err := verb(d, "limits"); status != exitError || err == nil || out != "" || d.closed != 1 {
		t.Errorf("exit status %d, %v, %q", status, err, out)
	}
}

// Which states go: by default this program's alone, others only where they are named.
func TestVerbKill(t *testing.T) {
	for _, c := range []struct{ args, killed string }{
		{"kill", "label "},
		{"kill -label regress-to", "label regress-to"},
		{"kill -s 10.188.1.1", "1/a 3/a"},
		{"kill -s 10.188.1.1:8000", "1/a"},
		{"kill -d 10.188.2.9", "1/a 3/a"},
		{"kill -d 10.188.2.9:4000", "1/a"},
		{"-d 10.188.2.9:4000 kill", "1/a"},
		{"kill -d 10.188.1.2:5000", "1/a"},
		{"kill -s [fd00::2]:53 -d fd00::1", "2/a"},
		{"kill -d fd00::2", ""},
		{"kill -s 10.188.1.1 -id 3/a", "3/a"},
		{"kill -id 9/a", "!"},
		{"kill -label ssh", "!"},
		{"kill -label regress -s 10.188.1.1", "!"},
		{"kill -s nowhere", "!"},
		{"kill all", "!"},
	} {
		d := &table{list: someStates()}
		status, _, err := verb(d, c.args)
		if got := strings.Join(d.killed, " "); c.killed == "!" {
			if status != exitError || err == nil || got != "" {
				t.Errorf("%s: exit status %d, %v, killed %q", c.args, status, err, got)
			}
		} else if status != exitOK || err != nil || got != c.killed {
			t.Errorf("%s: exit status %d, %v, killed %q, want %q", c.args, status, err, got, c.killed)
		}
	}
}

// verb runs a word of pf-setup on the table, as in a lab.
func verb(d *table, args string) (status int, out string, err error) {
	var b bytes.Buffer
	getenv := func(name string) string {
		if name == lab.Marker {
			return "1"
		}
		return ""
	}
	words := strings.Fields(args)
	c := &call{
		IO:   IO{strings.NewReader(""), &b, &b, getenv},
		role: &pfSetupRole, version: "test", args: slices.Clone(words),
	}
	word := slices.IndexFunc(words, func(w string) bool { return verbs[w].rows != nil })
	status, err = c.runVerb(context.Background(), word, func() (pfconf.Inspector, error) { return d, nil })
	return status, b.String(), err
}
