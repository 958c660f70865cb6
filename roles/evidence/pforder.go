package evidence

import (
	"errors"
	"slices"
	"strings"
)

// pfOrder puts the rules of all rulesets in the order in which pf looks at them.
type pfOrder struct {
	sets    map[string][]pfRule // by anchor, "" for the main ruleset
	all     []ordered
	reached map[string]bool
	miss    func(string, error)
}

// follow goes through rules of the anchor named at; limited: what calls them takes not all packets.
// alone: one of the anchors that lead there is called with quick.
func (o *pfOrder) follow(at string, rules []pfRule, limited, alone bool, depth int) {
	for _, r := range rules {
		apart := alone
		if r.quick && (r.inline || r.anchor != "") {
			apart = true
		}
		filled := len(r.inner) > 0
		if r.anchor != "" {
			filled = filled || slices.ContainsFunc(o.called(at, r.anchor),
				func(name string) bool { return len(o.sets[name]) > 0 })
		}
		if apart && !alone && filled {
			o.miss(r.where, errors.New("it calls an anchor with quick, whose rules are not compared with others"))
		}
		narrow := limited || !(taken{}).same(r.taken)
		switch {
		case len(o.all) >= maxOrdered || depth > maxDepth:
			o.miss("rules", errors.New("there are more, or deeper anchors, than are looked at"))
			return
		case r.inline:
			o.follow(at, r.inner, narrow, apart, depth+1)
		case r.anchor != "":
			for _, name := range o.called(at, r.anchor) {
				o.reached[name] = true
				o.follow(name, o.sets[name], narrow, apart, depth+1)
			}
		case r.passes || r.drops || r.diverts != nil:
			r.more = r.more || limited
			r.alone = alone
			o.all = append(o.all, r.ordered)
		}
	}
}

// same reports whether both ask for the same.
func (t taken) same(o taken) bool {
	return t.covers(o) && o.covers(t) && len(t.families) == len(o.families)
}

// called returns the anchors that a rule of the anchor named at calls.
func (o *pfOrder) called(at, name string) []string {
	if strings.Contains(name, "..") {
		o.miss("anchor "+name, errors.New("how it is called is not understood"))
		return nil
	}
	if rest, ok := strings.CutPrefix(name, "/"); ok {
		name = rest
	} else if at != "" {
		name = at + "/" + name
	}
	base, ok := strings.CutSuffix(name, "*")
	if !ok {
		return []string{name}
	}
	var all []string
	for set := range o.sets {
		if rest, ok := strings.CutPrefix(set, base); ok && rest != "" && !strings.Contains(rest, "/") {
			all = append(all, set)
		}
	}
	slices.Sort(all)
	return all
}
