package evidence

import (
	"net/netip"
	"slices"
	"strings"

	"pfdivert/matrix/evidence"
	"pfdivert/pfconf"
)

// What a filter's rule takes, as far as its text tells: enough to say of two rules that the one
// takes all that the other does, or nothing of it. Where that is not certain it is neither.
type taken struct {
	families  []pfconf.Family // nil for both
	proto     string          // as printed, "" for any
	direction string          // "in", "out", "" for both
	nic       string          // "" for any
	from, to  side
	more      bool // it asks for more than this
}

// side is the source or the destination that a rule asks for.
type side struct {
	text   string       // as printed, "" for any address
	prefix netip.Prefix // of the text, if it is one
	port   string       // as printed, "" for any
}

// address takes an address as a rule has it.
func (s *side) address(text string) {
	if text == "any" {
		return
	}
	s.text = text
	if p, err := netip.ParsePrefix(text); err == nil {
		s.prefix = p
	} else if a, err := netip.ParseAddr(text); err == nil {
		s.prefix = netip.PrefixFrom(a, a.BitLen())
	}
}

// familiesOf returns the families of what is taken.
func (t taken) familiesOf() []pfconf.Family {
	if t.families != nil {
		return t.families
	}
	for _, s := range []side{t.from, t.to} {
		if s.prefix.IsValid() {
			return []pfconf.Family{pfconf.FamilyOf(s.prefix.Addr())}
		}
	}
	return pfconf.Families
}

// covers reports whether t surely takes all of a family that o takes.
func (t taken) covers(o taken) bool {
	return !t.more && in(t.proto, o.proto) && in(t.direction, o.direction) && in(t.nic, o.nic) &&
		t.from.covers(o.from) && t.to.covers(o.to)
}

func in(wide, narrow string) bool { return wide == "" || wide == narrow }

func (s side) covers(o side) bool {
	switch {
	case !portIn(s.port, o.port):
		return false
	case s.text == "" || s.text == o.text:
		return true
	}
	return s.prefix.IsValid() && o.prefix.IsValid() && s.prefix.Bits() <= o.prefix.Bits() &&
		s.prefix.Contains(o.prefix.Addr())
}

// narrows reports whether t surely takes some of what o takes, whoever sends it and wherever to: it
// asks for less than o only in protocol or port.
func (t taken) narrows(o taken) bool {
	wide := t
	if o.proto == "" {
		wide.proto = ""
	}
	if o.from.port == "" {
		wide.from.port = ""
	}
	if _, _, known := portRange(t.to.port); o.to.port == "" || known && portIn(o.to.port, t.to.port) {
		wide.to.port = ""
	}
	return wide.covers(o)
}

// portRange reads a port, or a range as pf (1:1024) or ipfw (1-1024) has it, with both ends.
func portRange(text string) (from, to uint16, ok bool) {
	low, high, is := strings.Cut(strings.ReplaceAll(text, "-", ":"), ":")
	if !is {
		high = low
	}
	from, err := portNumber(low)
	to, err2 := portNumber(high)
	return from, to, err == nil && err2 == nil
}

// portIn reports whether ports are all among others.
func portIn(wide, narrow string) bool {
	a, b, known := portRange(wide)
	c, d, also := portRange(narrow)
	return in(wide, narrow) || known && also && a <= c && d <= b
}

// apart reports whether no packet surely is taken by both.
func (t taken) apart(o taken) bool {
	differ := func(a, b string) bool { return a != "" && b != "" && a != b }
	// A name without a number may be a group of interfaces; one that is negated is none.
	unit := func(name string) bool {
		return name != "" && name[0] != '!' && strings.ContainsRune("0123456789", rune(name[len(name)-1]))
	}
	return differ(t.proto, o.proto) || differ(t.direction, o.direction) || unit(t.nic) && unit(o.nic) &&
		t.nic != o.nic ||
		t.from.apart(o.from) || t.to.apart(o.to)
}

func (s side) apart(o side) bool {
	a, b, known := portRange(s.port)
	c, d, also := portRange(o.port)
	return known && also && (b < c || d < a) ||
		s.prefix.IsValid() && o.prefix.IsValid() && !s.prefix.Overlaps(o.prefix)
}

// ordered is a rule in the order in which the filter looks at them.
type ordered struct {
	where string // "rule 3 of anchor regress"
	text  string
	taken
	drops   bool
	passes  bool
	jumps   int                 // to the rule of that number, behind it; 0 for none
	number  int                 // of ipfw's rule
	quick   bool                // it decides at once
	alone   bool                // it is not compared with others
	through bool                // what it translates is not filtered
	matches bool                // it does not decide, and what it translates is for the rules behind it
	table   string              // the routing table or domain that it is for, "" for the usual one
	diverts *evidence.Diversion // nil for a rule that does not
}

// The most rules of a host that are compared with one that diverts; what others decide is not
// known.
const maxOrdered = 5000

// overrule notes at the rules that divert which others decide in their place. Where not all is
// quick, the last rule that matches decides.
func overrule(rules []ordered) {
	for i, r := range rules {
		if r.diverts == nil || r.alone {
			continue
		}
		for _, f := range r.diverts.Families {
			var some *evidence.Overruling // the first that takes some packets only
			all := false
			for j, o := range rules {
				before := j < i
				switch {
				case r.matches && !before:
					continue // they see what it has translated
				case i == j || o.alone || before && !o.quick || !before && r.quick:
					continue
				case !o.drops && !o.passes && (o.jumps <= r.number):
					continue
				case !slices.Contains(o.familiesOf(), f) || o.apart(r.taken):
					continue
				}
				over := evidence.Overruling{Family: f, Rule: o.where + ": " + o.text, Does: evidence.Passes,
					Before: before, All: o.covers(r.taken)}
				if o.drops {
					over.Does = evidence.Drops
				}
				if over.All {
					r.diverts.Overruled = append(r.diverts.Overruled, over)
					all = true
					break
				}
				// A rule that passes some is an exception that is meant, and so is one that drops
				// what comes from some addresses.
				if some == nil && o.drops && o.narrows(r.taken) {
					some = &over
				}
			}
			if !all && some != nil {
				r.diverts.Overruled = append(r.diverts.Overruled, *some)
			}
		}
		if r.matches && r.diverts.Kind == evidence.RdrTo {
			blocked(r.diverts, r.taken, rules[i+1:])
		}
	}
}
