package agent

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"pfdivert/matrix/script"
	"pfdivert/pfconf/pf"
	"pfdivert/pfconf/program"
)

// pf's settings are said to be right, or what fixes them.
func TestCheckPF(t *testing.T) {
	s := &script.Setup{Remote: true,
		Paths: []script.Path{{Here: netip.MustParseAddr("10.188.1.2"), There: netip.MustParseAddr("10.188.1.1")}, {Here: netip.MustParseAddr("fd00:188:1::2"), There: netip.MustParseAddr("fd00:188:1::1")}},
		Fakes: []netip.Prefix{netip.MustParsePrefix("10.188.2.9/32"), netip.MustParsePrefix("fd00:188:2::9/128")},
	}
	for _, c := range []struct {
		name     string
		rules    string // the main ruleset
		old, new string // what differs in the other transcripts
		item     string // that is wrong
		detail   string
		cure     string
	}{
		{"as it must be", "", "", "", "", "", ""},
		{"switched off", "", "Enabled", "Disabled", "pf", "switched off", "pfctl -e"},
		{"no answer", "", "Status", "Stand", "pf", "not understood", ""},
		{"skipped", "", "vio0", "vio0 (skip)", "pf sees the interfaces", "set skip", "pfctl -f /etc/pf.conf"},
		{"no anchor", "pass all flags S/SA\n", "", "", anchorItem, "comes to it", `anchor "regress"`},
		{"another anchor", "pass all flags S/SA\nanchor \"regression\" all\n", "", "", anchorItem, "comes to it", `anchor "regress"`},
		{"only its children", "anchor \"regress/*\" all\n", "", "", anchorItem, "leaves out", `anchor "regress"`},
		{"one family", "anchor \"regress\" inet all\n", "", "", anchorItem, "(inet6 tcp divert-to)", `anchor "regress"`},
		{"quick before it", "block drop in quick inet6 proto udp all\nanchor \"regress\" all\n", "", "", anchorItem, "block drop in quick inet6 proto udp all", "quick"},
		{"quick about others", "pass in quick proto tcp from any to any port = 22 flags S/SA\nanchor \"regress\" all\n", "", "", "", "", ""},
		{"behind it", "anchor \"regress\" all\npass all flags S/SA\n", "", "", anchorItem, "decides before it", "last"},
	} {
		t.Run(c.name, func(t *testing.T) {
			run := replay(t, "pf", func(command string, r *program.Result) {
				if command == "pfctl -s rules" && c.rules != "" {
					r.Stdout = c.rules
				}
				r.Stdout = strings.Replace(r.Stdout, c.old, c.new, 1)
			})
			var found checks
			found.pf(context.Background(), pf.NewControl(run, 0), s, []string{"vio0"})
			var wrong []CheckItem
			for _, i := range found {
				if !i.OK {
					wrong = append(wrong, i)
				}
			}
			switch {
			case c.item == "" && len(wrong) == 0 && len(found) == 3:
			case c.item == "" || len(wrong) != 1:
				t.Errorf("%+v", found)
			case wrong[0].Name != c.item || !strings.Contains(wrong[0].Detail, c.detail) || !strings.Contains(wrong[0].Cure, c.cure):
				t.Errorf("%+v", wrong[0])
			}
		})
	}
}
