package agent

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
	"pfdivert/pfconf/ipfw"
	"pfdivert/pfconf/pf"
)

// pf looks whether rules in the anchor will decide about the suite's packets, which use the
// interfaces nics.
func (c *checks) pf(ctx context.Context, control *pf.Control, s *script.Setup, nics []string) {
	status, err := control.Status(ctx)
	switch {
	case err != nil:
		c.fail("pf", err)
		return
	case !status.Enabled:
		c.no("pf", "pfctl -e", "it is switched off")
		return
	}
	c.ok("pf", "switched on, %s", pfconf.Count(status.States, "state"))

	skipped, err := control.Skipped(ctx)
	if err != nil {
		c.fail("pf sees the interfaces", err)
	} else {
		c.skipped(skipped, nics)
	}
	main, err := control.MainRuleset(ctx)
	if err != nil {
		c.fail(anchorItem, err)
		return
	}
	c.reach(main, s)
}

const anchorItem = `anchor "` + pf.DefaultAnchor + `"`

// skipped looks whether pf looks at the packets between the hosts.
func (c *checks) skipped(skipped, nics []string) {
	const name = "pf sees the interfaces"
	for _, nic := range nics {
		if slices.Contains(skipped, nic) {
			c.no(name, cureSkip(nic), "pf.conf has 'set skip on' for %s", nic)
			return
		}
	}
	c.ok(name, "%s", strings.Join(nics, ", "))
}

func cureSkip(nic string) string {
	return "take " + nic + " (and its group) out of 'set skip on' in /etc/pf.conf, then: pfctl -f /etc/pf.conf"
}

// reach looks whether the main ruleset comes to the anchor for every kind of rule, and to no other
// rule that decides in its place.
func (c *checks) reach(main *pf.MainRuleset, s *script.Setup) {
	said := map[string]bool{}
	var call string
	for _, r := range typicalRules(s) {
		reach := c.reaches(main, r, s)
		if reach == nil {
			return
		}
		call = reach.Calls[0]
		for _, rule := range reach.May {
			switch {
			case said[rule]:
			case strings.Contains(rule, " from urpf-failed "):
				said[rule] = true
				c.pathBack(rule, r.From)
			default:
				said[rule] = true
				c.warn(anchorItem, "if targets FAIL with rule-mismatch, put the anchor before that rule",
					"this rule may decide in its place for some packets (%s): %s", flowOf(r), rule)
			}
		}
		for _, rule := range reach.Translates {
			if r.Action == pfconf.DivertReply && !said[rule] {
				said[rule] = true
				c.warn("source of FAKE", "leave FAKE out of that rule: match out from ! FAKE nat-to and so on",
					"this rule changes the source of what leaves from FAKE, so the divert-reply targets FAIL: %s", rule)
			}
		}
	}
	c.ok(anchorItem, "the main ruleset calls it: %s", call)
}

// pathBack says what a rule about packets that fail the reverse path check does to a run.
func (c *checks) pathBack(rule string, from netip.Addr) {
	c.warn("path back", fmt.Sprintf("see that the interface is the one by which the packets come: route -n get %v; "+
		"and take the rule out for 'pfdivert faults'", from),
		"this rule is for packets that come by another interface than the one by which their sender is reached "+
			"(urpf-failed, pf.conf(5)): where that is so for %v, targets FAIL with not-delivered; and where 'pfdivert "+
			"faults' takes LOCAL's route to FAKE away (fake-unrouted), the rule drops what comes from FAKE besides: %s",
		from, rule)
}

// unread says which rule keeps it from being known whether the anchor is called.
func unread(r pf.Reach) error {
	return hinted{
		fmt.Errorf("no rule of the main ruleset calls it that is understood, and this one is not: %s", r.May[0]),
		"report that rule, or put it behind the anchor's line and make it simpler",
	}
}

func flowOf(r pfconf.Rule) string { return fmt.Sprintf("%v %v %v", r.Family, r.Proto, r.Action) }

// reaches looks whether the main ruleset comes to the anchor with what the rule is about. It notes
// what is certainly wrong and returns nil then.
func (c *checks) reaches(main *pf.MainRuleset, r pfconf.Rule, s *script.Setup) *pf.Reach {
	const cure = "put the line   " + anchorItem + "   last into /etc/pf.conf, then: pfctl -f /etc/pf.conf"
	reach := main.Reach(pf.DefaultAnchor, r, nicOf(s, r.Family))
	switch {
	case len(reach.Calls) == 0 && len(reach.May) > 0:
		c.fail(anchorItem, unread(reach))
	case len(reach.Calls) == 0 && len(reach.Children) > 0:
		c.no(anchorItem, cure, "the main ruleset has %s, which leaves out the anchor's own rules", reach.Children[0])
	case len(reach.Calls) == 0:
		c.no(anchorItem, cure, "no rule of the main ruleset comes to it (%s)", flowOf(r))
	case len(reach.Decides) > 0:
		c.no(anchorItem, cure+"; and no rule with 'quick' before it may match the tests' packets",
			"this rule decides before it (%s): %s", flowOf(r), reach.Decides[0])
	default:
		return &reach
	}
	return nil
}

// nicOf is the interface towards the other host, "" if it is not known.
func nicOf(s *script.Setup, f pfconf.Family) string {
	for _, p := range s.Paths {
		if pfconf.FamilyOf(p.Here) == f {
			nic, err := interfaceOf(p.Here)
			if err != nil {
				return ""
			}
			return nic
		}
	}
	return ""
}

// nicsOf are the interfaces towards the other host.
func nicsOf(s *script.Setup) map[pfconf.Family]string {
	all := map[pfconf.Family]string{}
	for _, p := range s.Paths {
		f := pfconf.FamilyOf(p.Here)
		all[f] = nicOf(s, f)
	}
	return all
}

// typicalRules are rules of each kind that the suite loads, about flows as it has them.
func typicalRules(s *script.Setup) []pfconf.Rule {
	var rules []pfconf.Rule
	for _, p := range s.Paths {
		family := pfconf.FamilyOf(p.Here)
		i := slices.IndexFunc(s.Fakes, func(f netip.Prefix) bool { return pfconf.FamilyOf(f.Addr()) == family })
		if i < 0 {
			continue
		}
		fake := s.Fakes[i].Addr()
		const port = 20000 // of those that cells have
		rule := func(a pfconf.Action, d pfconf.Direction, proto pfconf.Proto, from, to netip.Addr) {
			r := pfconf.Rule{Family: family, Action: a, Direction: d, Proto: proto, From: from, To: to}
			if proto.HasPorts() {
				r.Port = port
			}
			rules = append(rules, r)
		}
		for _, proto := range []pfconf.Proto{pfconf.TCP, pfconf.UDP, pfconf.Raw, pfconf.ICMP} {
			rule(pfconf.DivertTo, pfconf.In, proto, p.There, fake)
			rule(pfconf.DivertReply, pfconf.Out, proto, fake, p.There)
		}
		rule(pfconf.DivertPacket, pfconf.In, pfconf.UDP, p.There, p.Here)
		rule(pfconf.DivertPacket, pfconf.Out, pfconf.UDP, p.Here, p.There)
	}
	return rules
}

const rdrAnchorItem = `rdr-` + anchorItem

// redirects looks whether FreeBSD's pf comes to the anchor with what is to be redirected, and with
// what was. It notes what is wrong, and nothing else.
func (c *checks) redirects(ctx context.Context, control *pf.Control, s *script.Setup) {
	translating, main, err := control.MainRulesets(ctx)
	if err != nil {
		c.fail(rdrAnchorItem, err)
		return
	}
	cure := "put the line   " + rdrAnchorItem + "   before all other rdr rules into /etc/pf.conf, then: pfctl -f /etc/pf.conf"
	for _, proto := range []pfconf.Proto{pfconf.TCP, pfconf.UDP} {
		for _, p := range s.Paths {
			r := pfconf.Rule{Family: pfconf.FamilyOf(p.Here), Action: pfconf.RdrTo, Direction: pfconf.In, Proto: proto,
				From: p.There, Port: 20000}
			for _, fake := range s.Fakes {
				if pfconf.FamilyOf(fake.Addr()) != r.Family {
					continue
				}
				r.To = fake.Addr()
				switch reach := translating.Reach(pf.DefaultAnchor, r, nicOf(s, r.Family)); {
				case len(reach.Calls) == 0 && len(reach.May) > 0:
					c.fail(rdrAnchorItem, unread(reach))
					return
				case len(reach.Calls) == 0:
					c.no(rdrAnchorItem, cure, "no rule of the main ruleset comes to it (%v %v rdr)", r.Family, proto)
					return
				case len(reach.Decides) > 0:
					c.no(rdrAnchorItem, cure, "this rule decides before it (%v %v rdr): %s", r.Family, proto,
						reach.Decides[0])
					return
				}
			}
			r.To = p.Here
			if c.reaches(main, r, s) == nil {
				return
			}
		}
	}
}

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
		c.ok("ipfw", "switched on, %s of the host's", pfconf.Count(host.Rules, "rule"))
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
