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
