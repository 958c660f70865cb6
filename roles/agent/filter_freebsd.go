package agent

import (
	"context"
	"slices"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
	"pfdivert/pfconf/ipfw"
	"pfdivert/pfconf/program"
	"pfdivert/roles/endpoint"
)

// WarmUp does nothing: ipfw needs no questions.
func WarmUp() {}

// OpenFilter opens ipfw, and pf beside it where it can be used. FreeBSD's pf has no divert-reply,
// and its divert-to is a divert-packet.
func OpenFilter(ctx context.Context, s *script.Setup, opt Options) (pfconf.Firewall, error) {
	run := program.ExecBy(endpoint.Start)
	c := ipfw.Config{Run: run, Journal: opt.Journal}
	for _, fake := range s.Fakes {
		if f := pfconf.FamilyOf(fake.Addr()); !slices.Contains(c.Families, f) {
			c.Families = append(c.Families, f)
		}
	}
	fw, err := ipfw.Open(ctx, c)
	if err != nil {
		return nil, err
	}
	return put(ctx, fw, s, run, opt.Journal), nil
}
