package netfilter

import (
	"slices"

	"pfdivert/pfconf"
)

// ofSockets returns the rules that mark what belongs to a transparent socket.
func (r *Ruleset) ofSockets(h *Host) []Diverted {
	var all []Diverted
	for _, c := range r.Chains {
		if c.Hook == "another" {
			continue
		}
		for _, rule := range c.Rules {
			if !slices.ContainsFunc(rule.Steps, func(s Step) bool { return s.Cond != nil && s.Cond.Field == Transparent }) || rule.diverts() != nil {
				continue
			}
			callers := r.callers(c)
			for _, f := range pfconf.Families {
				if !c.of(f) || !r.takes(rule, f, 6, h) && !r.takes(rule, f, 17, h) {
					continue
				}
				d := Diverted{Rule: rule, Family: f, Proto: 6, Socket: true, Marked: true, Unreached: unreached(c, callers)}
				if !r.takes(rule, f, 6, h) {
					d.Proto = 17
				}
				if d.Unreached == "" {
					if !slices.Contains(callers, "prerouting") || !d.markOf(r, h) {
						continue
					}
				}
				all = append(all, d)
			}
		}
	}
	return all
}

// markOf finds what mark packets of a transparent socket have when they are routed, and false
// when none comes to the rule.
func (d *Diverted) markOf(r *Ruleset, h *Host) bool {
	found := false
	for _, i := range h.Interfaces {
		y := r.come(Packets{Family: d.Family, Proto: d.Proto, In: i.Name, From: ofFamily(i.Nets, d.Family), UID: -1, Addresses: h.Addresses, Answer: true, Socket: true})
		w, in := r.begin(&y.packets)
		in[0].known = 0
		if len(w.wants(d.Rule, in[0])) == 0 {
			continue
		}
		for _, s := range y.routed {
			if !s.socket {
				continue
			}
			found = true
			d.Marked = d.Marked && s.known == ^uint32(0)
			d.Mark = max(d.Mark, s.mark)
			if d.Marked && s.mark == 0 && s.marked != 0 && s.markedBy != nil && len(d.Fates) == 0 {
				d.Fates = append(d.Fates, Fate{MarkCleared, s.markedBy.Where() + ": " + s.markedBy.Text(), true})
				d.Mark = s.marked
			}
			if !slices.Contains(d.Interfaces, i.Name) {
				d.Interfaces = append(d.Interfaces, i.Name)
			}
		}
	}
	return found
}

// marking returns the rules whose mark makes packets local, without tproxy: those back to a proxy
// that uses its clients' addresses.
func marking(h *Host, ways []*way) []Diverted {
	var all []Diverted
	for _, y := range ways {
		for _, s := range y.routed {
			if s.mark == 0 || s.known != ^uint32(0) || s.markedBy == nil || s.taken != nil || s.redirected != nil || !h.Local(s.mark, y.packets.Family) {
				continue
			}
			d := Diverted{Rule: s.markedBy, Family: y.packets.Family, Proto: y.packets.Proto, Marks: true, Mark: s.mark, Marked: true, Interfaces: []string{y.packets.In}}
			i := slices.IndexFunc(all, func(o Diverted) bool {
				return o.Rule == d.Rule && o.Family == d.Family && o.Proto == d.Proto && o.Mark == d.Mark
			})
			if i >= 0 {
				all[i].Interfaces = append(all[i].Interfaces, y.packets.In)
			} else {
				all = append(all, d)
			}
		}
	}
	return all
}
