package report

import (
	"strings"
	"testing"

	"pfdivert/matrix"
)

// What differs between families or engines is told with the reason that the kernel's source has,
// or as a finding.
func TestDisagreements(t *testing.T) {
	const old, new = "Linux 5.10.0", "Linux 6.18.44"
	result := func(host, name string, v matrix.Verdict, reason string) Summary {
		r := matrix.Result{Name: name, Verdict: v, Reason: reason, Detail: "why " + reason}
		return Summary{Host: host, Result: r}
	}
	raw := []Summary{
		result("", "inet-args-rip-to", matrix.Skip, matrix.NoFeature), result("", "inet6-args-rip-to", matrix.Pass, ""),
	}
	one := func(kernel string) Run { return Run{Kernel: kernel, System: "linux/amd64"} }
	engines := Run{Tested: []Machine{
		{Name: "nft", Kernel: new, System: "linux/amd64", Filter: "nft"},
		{Name: "xt", Kernel: new, System: "linux/amd64", Filter: "xt"},
	}}
	for _, c := range []struct {
		name     string
		run      Run
		all      []Summary
		families bool
		want     string
		findings int
	}{
		{"known of an old kernel", one(old), raw, true,
			"DIFFERS args-rip-to: inet SKIP (no-feature), inet6 PASS: known: raw_bind (net/ipv4/raw.c) binds", 0},
		{"not of a new one", one(new), raw, true,
			"DIFFERS args-rip-to: inet SKIP (no-feature), inet6 PASS: no reason is known\n" +
				"The families differ in 1 target, 1 without a known reason\n", 1},
		{"the same failure for another reason", one(new), []Summary{
			result("", "inet-args-tcp-to", matrix.Fail, matrix.NoReply),
			result("", "inet6-args-tcp-to", matrix.Fail, matrix.NotDelivered),
		}, true, "DIFFERS args-tcp-to: inet FAIL (no-reply), inet6 FAIL (not-delivered): no reason is known", 1},
		{"a family that is not there, a known failure, a target of one family", one(new), []Summary{
			result("", "inet-args-tcp-to", matrix.Pass, ""),
			result("", "inet6-args-tcp-to", matrix.Skip, matrix.NoFamily),
			result("", "inet-args-udp-to", matrix.Pass, ""),
			result("", "inet6-args-udp-to", matrix.XFail, matrix.NoReply),
			result("", "inet6-args-icmp-to", matrix.Pass, ""),
		}, true, "The families agree\n", 0},
		{"engines", engines, []Summary{
			result("nft", "inet6-args-tcp-to", matrix.Pass, ""),
			result("xt", "inet6-args-tcp-to", matrix.Fail, matrix.NotDelivered),
			result("nft", "inet-args-tcp-to", matrix.Pass, ""),
			result("xt", "inet-args-tcp-to", matrix.Skip, matrix.NoFeature),
		}, false, "DIFFERS inet-args-tcp-to: nft PASS, xt SKIP (no-feature): known: why no-feature\n" +
			"DIFFERS inet6-args-tcp-to: nft PASS, xt FAIL (not-delivered): no reason is known\n" +
			"The filters differ in 2 targets, 1 without a known reason\n", 1},
	} {
		what, differ := "The filters", EngineDisagreements(c.run, c.all)
		if c.families {
			what, differ = "The families", FamilyDisagreements(c.run, c.all)
		}
		var b strings.Builder
		if err := WriteDisagreements(&b, what, differ); err != nil {
			t.Fatal(err)
		}
		if got := b.String(); !strings.HasPrefix(got, c.want) || Findings(differ) != c.findings {
			t.Errorf("%s: %d findings:\n%s", c.name, Findings(differ), got)
		}
	}
}
