package ipfw

import (
	"context"
	"fmt"
	"strings"

	"pfdivert/pfconf"
)

// Status is what there is of ipfw on a host.
type Status struct {
	// Rules are the host's own, without the default rules. DeniesAll: there are none, and
	// the default rule lets nothing pass.
	Rules     int
	DeniesAll bool

	free  [2]int // sets
	first int    // the number of its first rule
}

// Look asks for it. It fails when ipfw may not be used, is switched off for one of the
// families, or has no place for rules before the host's own.
func (c *Control) Look(ctx context.Context, families []pfconf.Family) (h Status, err error) {
	rules, err := c.list(ctx)
	if err != nil {
		return h, fmt.Errorf("reading ipfw's rules: %w", err)
	}
	for _, e := range rules {
		if !e.isDefault() {
			h.Rules++
		}
	}
	h.DeniesAll = h.Rules == 0 && strings.HasPrefix(rules[len(rules)-1].text, "deny ")
	h.first = rules[0].number
	if first := rules[0]; first.number <= number {
		return h, hinted{
			fmt.Errorf("ipfw has a rule with the number %d already, %q: there is none left before it", first.number, first.text),
			fmt.Sprintf("give that rule a higher number: add it again with one, then ipfw delete %d", first.number),
		}
	}
	out, err := c.ipfw(ctx, "", "set", "show")
	if err != nil {
		return h, fmt.Errorf("reading ipfw's sets: %w", err)
	}
	enabled, err := parseSets(out)
	if err != nil {
		return h, err
	}
	if h.free, err = freeSets(rules, enabled); err != nil {
		return h, err
	}
	for _, family := range families {
		name := enableName(family)
		switch n, err := c.sysctl(ctx, name); {
		case err != nil:
			return h, fmt.Errorf("asking whether ipfw is switched on: %w", err)
		case n == 0:
			return h, hinted{fmt.Errorf("ipfw is switched off for %v", family), "switch it on: sysctl " + name + "=1"}
		}
	}
	return h, nil
}

// enableName is the sysctl that switches ipfw on for a family.
func enableName(f pfconf.Family) string {
	if f == pfconf.Inet6 {
		return "net.inet6.ip6.fw.enable"
	}
	return "net.inet.ip.fw.enable"
}
