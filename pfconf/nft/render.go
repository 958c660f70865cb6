package nft

import (
	"fmt"
	"slices"
	"strings"

	"pfdivert/pfconf"
)

// Render returns the table with these rules as "nft list table inet pfdivert"
// shows it right after a load, on a kernel with the queue expression. Rules
// that the driver would refuse are shown as comments with the reason.
func Render(rules []pfconf.Rule, c Config) string { return render(rules, c, false) }

func render(rules []pfconf.Rule, c Config, xt bool) string {
	chains, lines := slices.Clone(chains), map[string][]string{permanent.chain.name: {permanent.String()}}
	var b strings.Builder
	for _, r := range rules {
		compiled, err := c.compile(r)
		if err != nil {
			fmt.Fprintf(&b, "# %v\n", err)
		} else if r.Action == pfconf.DivertPacket {
			q := queueRule(queueOf(r), xt)
			if lines[q.chain.name] == nil {
				chains, compiled = append(chains, q.chain), append(compiled, q)
			}
		} else if z := zoneRule(r.Zone); r.Zone != 0 && lines[z.chain.name] == nil {
			chains, compiled = append(chains, z.chain), append(compiled, z)
		}
		for _, k := range compiled {
			if (k.chain == rdr || k.chain == snat || k.chain == outRoute) && lines[k.chain.name] == nil {
				chains = append(chains, k.chain)
			}
			lines[k.chain.name] = append(lines[k.chain.name], k.String())
		}
	}
	fmt.Fprintf(&b, "table inet %s {\n", TableName)
	for i, ch := range chains {
		if i > 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "\tchain %s {\n", ch.name)
		if ch.hook != "" {
			fmt.Fprintf(&b, "\t\t%v\n", ch)
		}
		for _, l := range lines[ch.name] {
			fmt.Fprintf(&b, "\t\t%s\n", l)
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	return b.String()
}
