package agent

import (
	"context"
	"net/netip"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
	"pfdivert/pfconf/pf"
	"pfdivert/pfconf/program"
	"pfdivert/roles/endpoint"
)

// WarmUp does nothing: pf needs no questions.
func WarmUp() {}

// OpenFilter opens pf's anchor. pf has every feature: divert-to, divert-reply and
// divert-packet are parts of its grammar.
func OpenFilter(ctx context.Context, s *script.Setup, opt Options) (pfconf.Firewall, error) {
	c := pf.Config{Anchor: "regress", Run: program.ExecBy(endpoint.Start), Journal: opt.Journal, Domain: opt.Domain}
	for _, p := range s.Paths {
		for _, f := range s.Fakes {
			if pfconf.FamilyOf(f.Addr()) == pfconf.FamilyOf(p.There) {
				c.Between = append(c.Between, [2]netip.Prefix{netip.PrefixFrom(p.There, p.There.BitLen()), f.Masked()})
			}
		}
	}
	return pf.Open(ctx, c)
}
