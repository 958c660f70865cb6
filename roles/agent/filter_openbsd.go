package agent

import (
	"context"

	"pfdivert/pfconf"
	"pfdivert/pfconf/pf"
	"pfdivert/roles/endpoint"
)

// OpenFilter opens pf's anchor. pf has every feature: divert-to, divert-reply and
// divert-packet are parts of its grammar.
func OpenFilter(ctx context.Context, _ *Setup, opt Options, _ *Facts) (pfconf.Firewall, error) {
	return pf.Open(ctx, pf.Config{Anchor: "regress", Run: pf.ExecBy(endpoint.Start), Journal: opt.Journal})
}
