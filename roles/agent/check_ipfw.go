package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
	"pfdivert/pfconf/ipfw"
	"pfdivert/pfconf/pf"
)

// families are those of the paths.
func familiesOf(s *script.Setup) []pfconf.Family {
	var all []pfconf.Family
	for _, p := range s.Paths {
		all = append(all, pfconf.FamilyOf(p.Here))
	}
	return all
}

// ipfw looks whether ipfw can be used and lets the suite's packets pass that no rule of the suite
// is for.
func (c *checks) ipfw(ctx context.Context, control *ipfw.Control, s *script.Setup) {
	switch host, err := control.Look(ctx, familiesOf(s)); {
	case err != nil:
		c.fail("ipfw", err)
	case host.DeniesAll:
		c.no("ipfw", "let pass what is between LOCAL, REMOTE and FAKE, for instance: ipfw add 65000 allow ip from any to any",
			"it has no rules, and its default rule denies all")
	default:
		c.ok("ipfw", "switched on, %d rules of the host's", host.Rules)
	}
}

// pfBeside looks whether pf is on beside ipfw, which from FreeBSD 14 on spoils what ipfw diverts
// (docs/remote.md). kernel is uname's name and release.
func (c *checks) pfBeside(ctx context.Context, control *pf.Control, kernel string) {
	var major int
	if _, err := fmt.Sscanf(kernel, "FreeBSD %d.", &major); err != nil || major < 14 {
		return
	}
	const name = "pf beside ipfw"
	switch status, err := control.Status(ctx); {
	case err != nil && strings.Contains(err.Error(), "/dev/pf: No such file"):
	case err != nil:
		c.fail(name, err)
	case status.Enabled:
		c.warn(name, "pfctl -d, unless the targets that are about pf are to run",
			"pf is on: in one direction it has ipfw divert what was reinjected again and again, and those targets are XFAIL")
	default:
		c.ok(name, "it is off")
	}
}

// unknownProtocols looks whether the ipfw of LOCAL, which is not under test, is in the way of the
// raw IPv6 cells. REMOTE's is told otherwise for the run.
func (c *checks) unknownProtocols(ctx context.Context, control *ipfw.Control, s *script.Setup) {
	if !slices.Contains(familiesOf(s), pfconf.Inet6) {
		return
	}
	const name = "ipfw passes IPv6 of any protocol"
	switch denies, err := control.DeniesUnknown(ctx); {
	case err != nil:
		c.fail(name, err)
	case denies:
		c.no(name, ipfw.PassUnknown, "it drops what is of protocol %d, as the raw IP cells are", pfconf.RawNumber)
	default:
		c.ok(name, "so it does, or it is off")
	}
}
