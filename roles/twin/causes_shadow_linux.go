package twin

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// shadowed warns of rules that drop all of a client's packets of a protocol before rules that
// divert see them: it may be meant, and nothing is diverted. It is confirmed by taking the rule
// away.
func (d *doctor) shadowed() error {
	groups := map[string][]suspect{}
	diverted := map[string]bool{}
	var order []string
	for _, r := range d.results {
		if r.Flow.Kind != Client || r.Flow.Why != "" {
			continue
		}
		like := fmt.Sprint(r.Flow.In, r.Flow.Proto, r.Flow.IPv6())
		diverted[like] = diverted[like] || r.Reached == AtSocket && d.isProxy(r.Socket)
		s := suspect{FlowResult: r, symptom: lost, path: d.paths[r.Flow.ID]}
		if s.path.Flow == "" || d.told(r.Flow.ID) || d.complaint(r) != lost || d.involved(s.path) {
			continue
		}
		s.key = d.deciding(r, s.path, lost)
		s.end = s.key.end()
		if s.end.stage != untraced && (s.end.stage != inRules || s.end.hop.Hook != "prerouting") {
			continue
		}
		if groups[like] == nil {
			order = append(order, like)
		}
		groups[like] = append(groups[like], s)
	}
	for _, like := range order {
		g := groups[like]
		if diverted[like] || !d.diverting(0, g[0].Flow.IPv6()) {
			continue
		}
		p := Problem{
			Severity: Warn, Cause: "dropped-before", What: d.what(g), stage: int(inRules), Seen: d.c.story(g[0].key),
			Check: "nft list ruleset netdev", Why: "a chain of table netdev drops it before rules that divert see it",
		}
		take := change{do: withoutNetdev}
		if h := g[0].end.hop; g[0].end.stage == inRules {
			take = d.c.spotOf(h).remove()
			p.Check, p.Why = h.lister(d.c), h.name(d.c)+" drops it before rules that divert see it"
		}
		var flows []Flow
		for _, s := range g {
			flows, p.Flows = append(flows, s.Flow), append(p.Flows, s.Flow.ID)
		}
		results, err := d.run(flows, take)
		if err != nil {
			return err
		}
		if p.Confirmed = slices.ContainsFunc(results, func(r FlowResult) bool {
			return r.Reached == AtSocket && d.isProxy(r.Socket)
		}); !p.Confirmed {
			continue
		}
		if take.command != "" {
			p.Fix, p.Price = take.command, "what else the rule is there for is lost"
		}
		d.add(p)
	}
	return nil
}

// withoutNetdev takes the tables of family netdev away.
func withoutNetdev(d *Dump) error {
	d.NFT = slices.DeleteFunc(d.NFT, func(m NetlinkMessage) bool {
		return len(m.Data) > 0 && m.Data[0] == unix.NFPROTO_NETDEV
	})
	return nil
}
