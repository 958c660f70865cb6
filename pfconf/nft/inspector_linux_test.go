package nft

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pfdivert/pfconf"
)

// What a person sees and clears: this program's table, rules and conntrack entries, and the
// others' only where they are named.
func TestInspector(t *testing.T) {
	l := newLab(t)
	fw := l.remote.open(t, testConfig())
	own := netip.AddrPortFrom(addr(pfconf.Inet, 1, 1), 7501)
	fake := netip.AddrPortFrom(addr(pfconf.Inet, 2, 9), 7500)
	check(t, fw.Load(t.Context(), []pfconf.Rule{{
		Label: "regress-rdr", Direction: pfconf.In, Family: pfconf.Inet, Proto: pfconf.UDP,
		From: addr(pfconf.Inet, 1, 2), To: fake.Addr(), Port: fake.Port(), Action: pfconf.RdrTo, Divert: own,
	}}))
	client := converse(t, l, pfconf.UDP, own, fake)
	strange := netip.AddrPortFrom(own.Addr(), 7502)
	stranger := converse(t, l, pfconf.TCP, strange, strange)

	var d *Inspector
	l.remote.do(t, func() {
		var err error
		d, err = OpenInspector()
		check(t, err)
		defer func() { check(t, d.Close()) }()
		ctx := t.Context()
		s := d.host.nf
		s.mu.Lock()
		r := s.transaction()
		r.newTable(table{familyInet, "stranger"}, exclusive)
		check(t, s.commitAll(r))
		s.mu.Unlock()

		overview, err := d.Overview(ctx)
		if want := (pfconf.Overview{Filter: "nftables", Enabled: true, States: 2, Own: 1}); err != nil ||
			overview != want {
			t.Errorf("%+v, %v; want %+v", overview, err, want)
		}
		wantPlaces := []pfconf.Place{{Name: "inet pfdivert", Own: true}, {Name: "inet stranger"}}
		if places, err := d.Places(ctx); err != nil || !slices.Equal(places, wantPlaces) {
			t.Errorf("%+v, %v", places, err)
		}
		wantRules := []pfconf.LoadedRule{{Label: "regress-rdr", Packets: 1, Place: "chain rdr"}}
		rules, err := d.OwnRules(ctx)
		for i, r := range rules {
			if len(r.Expressions) == 0 {
				t.Errorf("%+v has no expressions", r)
			}
			rules[i].Expressions = nil
		}
		if diff := cmp.Diff(wantRules, rules); err != nil || diff != "" {
			t.Errorf("rules (-want +got), %v:\n%s", err, diff)
		}
		far := func() (all []string) {
			states, err := d.States(ctx)
			check(t, err)
			for _, s := range states {
				if s.ID == "" {
					t.Errorf("%+v: no id", s)
				}
				all = append(all, s.Far.String())
			}
			slices.Sort(all)
			return all
		}
		both := []string{client.String(), stranger.String()}
		slices.Sort(both)
		if diff := cmp.Diff(both, far()); diff != "" {
			t.Errorf("states (-want +got):\n%s", diff)
		}
		if _, err := d.KillLabel(ctx, "regress-rdr"); err == nil {
			t.Error("the entries of one label were found")
		}
		if n, err := d.KillLabel(ctx, ""); err != nil || n != 1 {
			t.Errorf("killed %d, %v", n, err)
		}
		if diff := cmp.Diff([]string{stranger.String()}, far()); diff != "" {
			t.Errorf("states (-want +got):\n%s", diff)
		}
		done, err := d.Flush(ctx)
		if said := strings.Join(done, ", "); err != nil ||
			said != "table inet pfdivert, inet policy rule to table 28774, "+
				"route to 10.188.2.0/24 in table 28774, inet6 policy rule to table 28774, route to fd00:188:2::/64 in table 28774" {
			t.Errorf("flushed %q, %v", said, err)
		}
		if places, err := d.Places(ctx); err != nil || !slices.Equal(places, wantPlaces[1:]) {
			t.Errorf("%+v, %v", places, err)
		}
		if done, err := d.Flush(ctx); err != nil || len(done) > 0 {
			t.Errorf("flushed again: %q, %v", done, err)
		}
		if rules, err := d.OwnRules(ctx); err != nil || len(rules) > 0 {
			t.Errorf("%+v, %v", rules, err)
		}
		states, err := d.States(ctx)
		check(t, err)
		if n, err := d.Kill(ctx, states); err != nil || n != 1 {
			t.Errorf("killed %d, %v", n, err)
		}
		if n, err := d.Kill(ctx, states); err != nil || n != 0 {
			t.Errorf("killed %d again, %v", n, err)
		}
		if _, err := d.Kill(ctx, []pfconf.State{{ID: "no one's"}}); err == nil {
			t.Error("an entry that was never listed was killed")
		}
		timeouts, err := d.Timeouts(ctx)
		if err != nil || len(timeouts) < 8 || timeouts[0].Name != "tcp.first" || timeouts[0].Value <= 0 {
			t.Errorf("%+v, %v", timeouts, err)
		}
		if limits, err := d.Limits(ctx); err != nil || len(limits) == 0 || limits[0].Name != "states" ||
			limits[0].Value <= 0 {
			t.Errorf("%+v, %v", limits, err)
		}
	})
}

// The rules that are x_tables' are shown with their counters, whichever engine loaded them, the
// states of their flows are known, and all is cleared.
func TestInspectorOfXT(t *testing.T) {
	for _, e := range xtEngines {
		t.Run(string(e), func(t *testing.T) {
			l, config := newLab(t), testConfig()
			config.Engine = e
			fw := l.remote.open(t, config)
			for _, f := range pfconf.Families {
				own := netip.AddrPortFrom(addr(f, 1, 1), 7501)
				fake := netip.AddrPortFrom(addr(f, 2, 9), 7500)
				rules := []pfconf.Rule{
					{Label: "regress-rdr", Direction: pfconf.In, Family: f, Proto: pfconf.UDP, From: addr(f, 1, 2),
						To: fake.Addr(), Port: fake.Port(), Action: pfconf.RdrTo, Divert: own},
					{Label: "regress-packet", Direction: pfconf.In, Family: f, Proto: pfconf.TCP,
						From: addr(f, 1, 2), To: own.Addr(), Port: 7503, Action: pfconf.DivertPacket, Bypass: true,
						Divert: netip.AddrPortFrom(netip.Addr{}, 7503)},
				}
				check(t, fw.Load(t.Context(), rules))
				converse(t, l, pfconf.UDP, own, fake)
				queued := netip.AddrPortFrom(own.Addr(), 7503)
				converse(t, l, pfconf.TCP, queued, queued)
				stranger := netip.AddrPortFrom(own.Addr(), 7504)
				converse(t, l, pfconf.TCP, stranger, stranger)
				l.remote.do(t, func() {
					d, err := OpenInspector()
					check(t, err)
					defer func() { check(t, d.Close()) }()
					got := map[string]uint64{}
					rules, err := d.OwnRules(t.Context())
					check(t, err)
					for _, r := range rules {
						if (r.Entry == nil) == (r.Expressions == nil) ||
							r.IPv6 != (r.Entry != nil && f == pfconf.Inet6) {
							t.Errorf("%+v", r)
						}
						got[r.Label] = max(got[r.Label], r.Packets)
					}
					if got["regress-rdr"] != 1 || got["regress-packet"] < 2 {
						t.Errorf("%v: counted %v", f, got)
					}
					if n, err := d.KillLabel(t.Context(), ""); err != nil || n != 2 {
						t.Errorf("%v: killed %d, %v", f, n, err)
					}
				})
			}
			l.remote.do(t, func() {
				d, err := OpenInspector()
				check(t, err)
				defer func() { check(t, d.Close()) }()
				done, err := d.Flush(t.Context())
				check(t, err)
				want := map[pfconf.Engine]string{
					pfconf.XT: "chains pfdivert-* of table ip mangle, chains pfdivert-* of table ip nat, " +
						"chains pfdivert-* of table ip6 mangle, chains pfdivert-* of table ip6 nat",
					// What is loaded for inet6 replaced what was for inet.
					pfconf.XTLegacy: "chains pfdivert-* of ip6tables-legacy's table mangle, " +
						"chains pfdivert-* of ip6tables-legacy's table nat",
				}[e]
				said := strings.Join(done, ", ")
				if !strings.HasPrefix(said, "table inet pfdivert, "+want+", inet policy rule") {
					t.Errorf("flushed %q, not %q", said, want)
				}
				if done, err := d.Flush(t.Context()); err != nil || len(done) > 0 {
					t.Errorf("flushed again: %q, %v", done, err)
				}
				if rules, err := d.OwnRules(t.Context()); err != nil || len(rules) > 0 {
					t.Errorf("%+v, %v", rules, err)
				}
			})
		})
	}
}
