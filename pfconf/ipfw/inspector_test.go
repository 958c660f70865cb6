package ipfw

import (
	"fmt"
	"strings"
	"testing"

	"pfdivert/pfconf"
)

// What a person sees and clears on FreeBSD.
func TestInspector(t *testing.T) {
	d := OpenInspector(play(t, "desk"))
	ctx := t.Context()
	same := func(what string, got any, err error, want string) {
		t.Helper()
		if s := fmt.Sprintf("%v", got); err != nil || s != want {
			t.Errorf("%s: %s, %v; want %s", what, s, err, want)
		}
	}
	overview, err := d.Overview(ctx)
	same("overview", overview, err, "{ipfw true 0 1}")
	places, err := d.Places(ctx)
	same("places", places, err, "[{set 0 false} {set 2 true} {set 31 false}]")
	rules, err := d.OwnRules(ctx)
	same("rules", rules, err, "[{regress-to 5 set 2 00001 fwd 127.0.0.1,5000 tcp from 10.189.11.1 to 10.189.12.9 5000 in // regress-to [] [] false}]")
	done, err := d.Flush(ctx)
	same("flush", done, err, "[1 rule of set 2]")
	if done, err := d.Flush(ctx); err == nil || len(done) > 0 ||
		!strings.Contains(err.Error(), "has rules of this program and others") {
		t.Errorf("a set of others too was emptied: %q, %v", done, err)
	}
	timeouts, err := d.Timeouts(ctx)
	same("timeouts", timeouts[1], err, "{tcp.established 300  net.inet.ip.fw.dyn_ack_lifetime}")
	limits, err := d.Limits(ctx)
	same("limits", limits[0], err, "{states 16384  net.inet.ip.fw.dyn_max}")
	if n, err := d.Kill(ctx, []pfconf.State{{}}); err == nil {
		t.Errorf("killed %d states, and there are none", n)
	}
}
