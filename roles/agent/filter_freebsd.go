package agent

import (
	"context"
	"slices"

	"pfdivert/pfconf"
	"pfdivert/pfconf/ipfw"
	"pfdivert/pfconf/program"
	"pfdivert/roles/endpoint"
)

// WarmUp does nothing: ipfw needs no questions.
func WarmUp() {}

// OpenFilter opens ipfw. FreeBSD's pf has no divert-reply, and its divert-to is a divert-packet.
func OpenFilter(ctx context.Context, s *Setup, opt Options) (pfconf.Firewall, error) {
	c := ipfw.Config{Run: program.ExecBy(endpoint.Start), Journal: opt.Journal}
	for _, fake := range s.Fakes {
		if f := pfconf.FamilyOf(fake.Addr()); !slices.Contains(c.Families, f) {
			c.Families = append(c.Families, f)
		}
	}
	return ipfw.Open(ctx, c)
}
