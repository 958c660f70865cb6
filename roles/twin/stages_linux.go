package twin

import (
	"fmt"
	"slices"
	"strings"
)

// maxStages is how many things may stop a flow, one behind another, for a fix to be found.
const maxStages = 4

// inStages fixes flows that several things stop: a fix with which they come further is kept, and
// what stops them then is looked for. It reports whether the flows are good in the end, and nothing
// else is worse; then the problem has all causes and fixes.
func (d *doctor) inStages(p *Problem, s suspect, flows []Flow) (bool, error) {
	var all []remedy
	var done []change
	now := d
	for len(all) < maxStages {
		steps, next, err := d.further(now, s, flows[0], done)
		if err != nil || steps == nil {
			return false, err
		}
		for _, r := range steps {
			all, done = append(all, r), append(done, r.fix)
		}
		s = next
		if d.good(s.symptom, s.FlowResult) {
			break
		}
		c, err := d.c.with(done...)
		if err != nil {
			return false, d.ctx.Err()
		}
		now = &doctor{ctx: d.ctx, c: c, hints: c.hints(), results: d.results, paths: d.paths}
	}
	if ok, err := d.try(s.symptom, flows, done...); err != nil || !ok {
		return false, err
	}
	whole := done[0]
	for _, x := range done[1:] {
		whole = whole.and(x)
	}
	if harm, err := d.harms(whole, 0); err != nil || harm {
		return false, err
	}
	p.Cause, p.Confirmed, p.Fix = all[0].cause, true, whole.command
	p.Why, p.Check, p.Price = all[0].why, all[0].check, all[0].price
	if len(all) > 1 {
		p.Why = fmt.Sprintf("%d things stop it, one behind the other, and none of them fixes it alone\n%s", len(all), p.Why)
	}
	for _, r := range all[1:] {
		p.Why += "\n" + r.why
		if !strings.Contains(p.Check, r.check) {
			p.Check += "; " + r.check
		}
		if r.price != "" {
			p.Price = strings.TrimPrefix(p.Price+"\n"+r.price, "\n")
		}
	}
	return true, nil
}

// further finds a fix with which a flow is good after those that are done, or else the first with
// which it comes further. Where none does alone, as one routing decision may fail for several
// reasons, all are tried at once, and those left out that are not needed. The suspect is the flow
// with what was found.
func (d *doctor) further(now *doctor, s suspect, f Flow, done []change) (found []remedy, next suspect, err error) {
	all := now.remedies(s)
	for _, u := range now.noListener(s.Flow.Proto, s.Flow.IPv6()) {
		all = append(all, u.remedy)
	}
	all = slices.DeleteFunc(all, func(r remedy) bool { return r.fix.do == nil })
	for _, r := range all {
		x, ok, err := d.after(now, s, f, append(slices.Clone(done), r.fix))
		if err != nil {
			return nil, suspect{}, err
		}
		if ok && d.good(s.symptom, x.FlowResult) {
			return []remedy{r}, x, nil
		}
		if found == nil && ok && x.isFurther(s) {
			found, next = []remedy{r}, x
		}
	}
	if found != nil || len(all) < 2 {
		return found, next, nil
	}
	helps := func(some []remedy) (bool, error) {
		changes := slices.Clone(done)
		for _, r := range some {
			changes = append(changes, r.fix)
		}
		x, ok, err := d.after(now, s, f, changes)
		if ok = ok && (d.good(s.symptom, x.FlowResult) || x.isFurther(s)); ok {
			next = x
		}
		return ok, err
	}
	if ok, err := helps(all); err != nil || !ok {
		return nil, suspect{}, err
	}
	for i := len(all) - 1; i >= 0; i-- {
		fewer := slices.Delete(slices.Clone(all), i, i+1)
		ok, err := helps(fewer)
		if err != nil {
			return nil, suspect{}, err
		}
		if ok {
			all = fewer
		}
	}
	return all, next, nil
}

// after is the suspect's flow with some changes, and false where it could not be run so.
func (d *doctor) after(now *doctor, s suspect, f Flow, changes []change) (suspect, bool, error) {
	if d.trials >= maxTrials {
		return suspect{}, false, nil
	}
	d.trials++
	c, err := d.c.with(changes...)
	if err != nil {
		return suspect{}, false, d.ctx.Err()
	}
	results, paths, err := Trace(d.ctx, c, []Flow{f})
	if d.ctx.Err() != nil {
		return suspect{}, false, d.ctx.Err()
	}
	if err != nil || len(paths[0].Packets) == 0 {
		return suspect{}, false, nil
	}
	x := suspect{FlowResult: results[0], symptom: s.symptom, path: paths[0]}
	x.key = now.deciding(x.FlowResult, x.path, s.symptom)
	x.end = x.key.end()
	return x, true, nil
}

// isFurther reports whether a flow stopped at a later packet than before, or that packet later on
// its way, or that one which left undiverted no longer does.
func (s suspect) isFurther(before suspect) bool {
	if s.symptom == undiverted && before.end.stage == left {
		return s.end.stage != left
	}
	stop, hops := s.stop(), len(s.key.Hops)
	if was := before.stop(); stop != was {
		return stop > was
	}
	return hops > len(before.key.Hops) && (s.key.Answer || s.end.stage != left)
}

// stop is how many packets of the flow went before the one that decides.
func (s suspect) stop() int {
	return slices.IndexFunc(s.path.Packets, func(k PacketPath) bool {
		return k.Flags == s.key.Flags && k.Answer == s.key.Answer && k.From == s.key.From &&
			len(k.Hops) == len(s.key.Hops)
	})
}

// ofAnyRule finds a rule without which flows are good, among those that a flow's packets met. It is
// told, and fixed by leaving packets that are diverted by their mark out of it, or by taking it
// away where no other flow needs it.
func (d *doctor) ofAnyRule(p *Problem, s suspect, flows []Flow) error {
	tried := map[spot]bool{}
	for _, k := range s.path.Packets {
		for _, h := range k.rules() {
			at := d.c.spotOf(h)
			if tried[at] {
				continue
			}
			tried[at] = true
			ok, err := d.try(s.symptom, flows, at.remove())
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
			p.Cause, p.Confirmed, p.Check = "rule", true, h.lister(d.c)
			p.Why = "without this rule it arrives: " + h.name(d.c)
			if own, has := d.c.markRule(h.Mark, s.Flow.IPv6()); has && d.markBefore(k, h) == h.Mark {
				fix := at.insert(added{UID: -1, HasMark: true, Mark: own.Mark, Mask: own.Mask, Do: doReturn})
				if ok, err = d.try(s.symptom, flows, fix); err != nil {
					return err
				}
				harm, err := d.harms(fix, 0)
				if err != nil {
					return err
				}
				if ok && !harm {
					p.Fix, p.Price = fix.command, ""
					return nil
				}
			}
			harm, err := d.harms(at.remove(), 0)
			if err != nil {
				return err
			}
			if !harm && p.Fix == "" {
				p.Fix, p.Price = at.remove().command, "what else the rule is there for is lost"
			}
		}
	}
	return nil
}
