package netfilter

// judge says what happens to the packets that a rule is to divert.
func (d *Diverted) judge(r *Ruleset, h *Host, ways []*way, comes, leaves bool) {
	if comes {
		d.arriving(r, ways)
	}
	if leaves && d.Action.Does == Redirect || d.Action.Does == TProxy {
		d.looping(r, h)
	}
	if d.Action.Does == TProxy && len(d.Interfaces) > 0 {
		d.answering(r, h)
	}
}

// arriving looks at packets that come in.
func (d *Diverted) arriving(r *Ruleset, ways []*way) {
	type count struct{ wanted, taken, dropped, after, translated, cleared, untracked spans }
	by := map[What]string{}
	var all []count
	first := func(what What, text string) {
		if by[what] == "" {
			by[what] = text
		}
	}
	marks := map[uint32]bool{}
	wanting := false
	for _, y := range ways {
		var c count
		w, in := y.walk.set.begin(&y.packets)
		in[0].known = 0 // any mark, as rules before may set one
		if c.wanted = w.wants(d.Rule, in[0]); len(c.wanted) == 0 {
			continue
		}
		wanting = true
		d.Ports = d.Ports || len(c.wanted) > 1 || c.wanted[0].lo != c.wanted[0].hi
		for _, e := range y.walk.events {
			switch {
			case e.rule == d.Rule && (e.does == TProxy || e.does == Redirect):
				c.taken = c.taken.or(e.ports)
				if e.does == Redirect && e.state.untracked {
					c.untracked = c.untracked.or(e.ports)
				}
			case e.does == Drop && e.sure && e.state.taken == nil && e.state.redirected == nil && len(c.taken) == 0:
				if lost := e.ports.and(c.wanted); len(lost) > 0 {
					c.dropped = c.dropped.or(lost)
					first(DroppedBefore, e.by())
				}
			case e.does == Drop && e.sure && (e.state.taken == d.Rule || e.state.redirected == d.Rule):
				c.after = c.after.or(e.ports)
				first(DroppedAfter, e.by())
			case (e.does == Redirect || e.does == NATAway) && e.sure && e.state.taken == d.Rule:
				c.translated = c.translated.or(e.ports)
				first(Translated, e.by())
			}
		}
		for _, s := range y.routed {
			if s.untrackedBy != nil && d.Action.Does == Redirect && s.redirected == nil && !s.picked && len(s.ports.and(c.wanted)) > 0 {
				c.untracked = c.untracked.or(s.ports.and(c.wanted))
				first(Untracked, s.untrackedBy.Where()+": "+s.untrackedBy.Text())
			}
			if s.taken != d.Rule {
				continue
			}
			d.Marked = d.Marked && s.known == ^uint32(0)
			if s.mark == 0 && s.marked != 0 && s.known == ^uint32(0) && s.markedBy != nil {
				c.cleared = c.cleared.or(s.ports)
				first(MarkCleared, s.markedBy.Where()+": "+s.markedBy.Text())
				marks[s.marked] = true
			} else {
				marks[s.mark] = true
			}
		}
		if len(c.taken) > 0 {
			d.Interfaces = append(d.Interfaces, y.packets.In)
		} else if len(c.dropped) == 0 && len(c.untracked) == 0 {
			for _, e := range y.walk.events { // who had them
				if (e.does == Accept || e.does == Return || e.does == Redirect || e.does == TProxy) && e.sure && e.rule != d.Rule &&
					e.rule.Chain.Hook+e.rule.Chain.Table != "" && sameTable(e.rule, d.Rule) && len(c.wanted.without(e.ports)) == 0 {
					first(PassedBefore, e.by())
				}
			}
		}
		all = append(all, c)
	}
	for m := range marks {
		if d.Mark == 0 || m != 0 && m < d.Mark {
			d.Mark = m
		}
	}
	if !wanting && !d.own(r) {
		d.Fates = append(d.Fates, Fate{NoInterface, "there is no interface by which they could come", true})
		return
	}
	// Where a rule names no interface, packets may come by one alone, and no one knows which:
	// something happens to them when it does on all.
	fate := func(what What, of func(count) spans, from func(count) spans) {
		every, some := true, true
		n := 0
		for _, c := range all {
			if len(from(c)) == 0 {
				continue
			}
			n++
			hit := of(c)
			every = every && len(from(c).without(hit)) == 0
			some = some && len(hit) > 0
		}
		if n > 0 && some {
			d.Fates = append(d.Fates, Fate{what, by[what], every})
		}
	}
	wanted := func(c count) spans { return c.wanted }
	// After a translation the ports are others.
	after := func(c count) spans {
		if d.Action.Does == Redirect && len(d.Action.Ports) > 0 && len(c.taken) > 0 {
			var all spans
			for _, p := range d.Action.Ports {
				all = all.or(just(uint64(p)))
			}
			return all
		}
		return c.taken
	}
	fate(DroppedBefore, func(c count) spans { return c.dropped }, wanted)
	fate(Untracked, func(c count) spans { return c.untracked }, wanted)
	fate(DroppedAfter, func(c count) spans { return c.after }, after)
	fate(Translated, func(c count) spans { return c.translated }, after)
	fate(MarkCleared, func(c count) spans { return c.cleared }, after)
	if len(d.Interfaces) == 0 && len(d.Fates) == 0 && by[PassedBefore] != "" {
		d.Fates = append(d.Fates, Fate{PassedBefore, by[PassedBefore], true})
	}
}

// own reports whether the rule is for what the host sends itself, and a policy rule sends back by
// lo.
func (d *Diverted) own(r *Ruleset) bool {
	w, in := r.begin(&Packets{Family: d.Family, Proto: d.Proto, In: "lo", UID: -1})
	in[0].known = 0
	return len(w.wants(d.Rule, in[0])) > 0
}

// sameTable reports whether a rule that accepts keeps packets from another one: those of one
// chain's hook and what it calls.
func sameTable(a, b *Rule) bool {
	return a.Chain.Table == b.Chain.Table && a.Chain.Family == b.Chain.Family && a.Chain.Program == b.Chain.Program
}

// looping looks whether what the proxy itself sends comes to it.
func (d *Diverted) looping(r *Ruleset, h *Host) {
	port := uint16(0)
	if len(d.Action.Ports) > 0 {
		port = d.Action.Ports[0]
	}
	p := Packets{Family: d.Family, Proto: d.Proto, Out: h.Leaves[d.Family], UID: h.Owner(d.Proto, port, d.Family), Addresses: h.Addresses}
	y := r.leave(p)
	if d.Action.Does == Redirect {
		for _, e := range y.walk.events {
			if e.rule == d.Rule && e.does == Redirect && !e.state.picked && !e.state.guarded {
				d.Fates = append(d.Fates, Fate{Looped, e.by(), true})
				return
			}
		}
		return
	}
	for _, s := range y.routed {
		if s.guarded || s.picked || s.mark == 0 || s.mark != d.Mark || s.markedBy == nil {
			continue
		}
		back := r.come(Packets{Family: d.Family, Proto: d.Proto, In: "lo", UID: -1, Mark: s.mark, Addresses: h.Addresses})
		for _, e := range back.walk.events {
			if e.rule == d.Rule && e.does == TProxy && len(e.ports.and(s.ports)) > 0 && !e.state.picked {
				d.Fates = append(d.Fates, Fate{Looped, s.markedBy.Where() + ": " + s.markedBy.Text(), true})
				return
			}
		}
	}
}

// answering looks whether what the proxy answers, from the original destination, leaves.
func (d *Diverted) answering(r *Ruleset, h *Host) {
	var by string
	for _, i := range d.Interfaces {
		y := r.leave(Packets{Family: d.Family, Proto: d.Proto, Out: i, UID: -1, Answer: true, Addresses: h.Addresses})
		in := y.routed
		y.walk.hook("postrouting", in)
		lost := false
		for _, e := range y.walk.events {
			if e.does == Drop && e.sure && len(allPorts.without(e.ports)) == 0 {
				lost, by = true, e.by()
			}
		}
		if !lost {
			return
		}
	}
	if by != "" {
		d.Fates = append(d.Fates, Fate{AnswerDropped, by, true})
	}
}
