package gather

import (
	"net/netip"
	"slices"

	"pfdivert/matrix/evidence"
	"pfdivert/pfconf"
)

// ordered is a rule in the order in which the filter looks at them.
type ordered struct {
	where string // "rule 3 of anchor regress"
	text  string
	pfconf.Packets
	drops   bool
	passes  bool
	jumps   int                   // to the rule of that number, behind it; 0 for none
	number  int                   // of ipfw's rule
	quick   bool                  // it decides at once
	alone   bool                  // it is not compared with others
	through bool                  // what it translates is not filtered
	matches bool                  // it does not decide, and what it translates is for the rules behind it
	states  bool                  // it decides about all later packets of a flow as well, both ways
	keeps   bool                  // it is FreeBSD's pf's, and makes a state
	lost    string                // what of it does not happen to a packet that was diverted
	diverts []*evidence.Diversion // none for a rule that does not
}

// The most rules of a host that are compared with one that diverts; what others decide is not
// known.
const maxOrdered = 5000

// note adds to the rule's diversions of a family what another rule does.
func (o *ordered) note(over evidence.Overruling) {
	for _, d := range o.diverts {
		if slices.Contains(d.Families, over.Family) {
			d.Overruled = append(d.Overruled, over)
		}
	}
}

// of is the rule's packets of one family.
func (o *ordered) of(f pfconf.Family) pfconf.Packets {
	p := o.Packets
	p.Families = []pfconf.Family{f}
	return p
}

// deed is what the rule does, as an Overruling of packets of a family.
func (o *ordered) deed(f pfconf.Family, note string) evidence.Overruling {
	over := evidence.Overruling{Family: f, Rule: o.where + ": " + o.text + note, Does: evidence.Passes}
	if o.drops {
		over.Does = evidence.Drops
	}
	return over
}

// overrule notes at the rules that divert which others decide in their place. Where not all is
// quick, the last rule that matches decides.
func overrule(rules []ordered) {
	for i := range rules {
		r := &rules[i]
		if len(r.diverts) == 0 || r.alone {
			continue
		}
		for _, f := range pfconf.Families {
			r.overruled(rules, i, f)
		}
		if !r.matches {
			continue
		}
		for _, d := range r.diverts {
			if d.Kind == evidence.RdrTo {
				blocked(d, r.Packets, rules[:i], rules[i+1:])
			}
		}
	}
}

// overruled notes what the others do to the rule's packets of a family; i is the rule's own place.
func (r *ordered) overruled(rules []ordered, i int, f pfconf.Family) {
	packets := r.of(f)
	var some *evidence.Overruling // the first that takes some packets only
	for j := range rules {
		o, before := &rules[j], j < i
		switch {
		case r.matches && !before:
			continue // they see what it has translated
		case i == j || o.alone || before && !o.quick || !before && r.quick:
			continue
		case !o.drops && !o.passes && (o.jumps <= r.number):
			continue
		}
		over, all := o.takes(packets, f, before, r.diverts[0].Kind == evidence.Divert)
		if over == nil {
			continue
		}
		over.Before, over.All = before, all
		if all {
			r.note(*over)
			return
		}
		if some == nil {
			some = over
		}
	}
	if some != nil {
		r.note(*some)
	}
}

// takes returns what the rule does to packets, nil if that is nothing or not known to be anything;
// all: it takes all of them, or of each connection what the diversion can't do without. single: the
// diversion can do with some packets of a connection.
func (o *ordered) takes(packets pfconf.Packets, f pfconf.Family, before, single bool) (over *evidence.Overruling,
	all bool) {
	// The flow of a state, both ways and whatever interface.
	anyway := func(p pfconf.Packets) pfconf.Packets {
		p.Direction, p.Interface, p.Conditions = 0, "", nil
		return p
	}
	whole, note := o.Packets, ""
	switch {
	case slices.Equal(o.Conditions, []string{"established"}):
		whole.Conditions, note = nil, " (it takes all packets of a connection but the first)"
	case slices.Equal(o.Conditions, []string{"setup"}) && o.states:
		whole.Conditions = nil
	case slices.Equal(o.Conditions, []string{"setup"}):
		whole.Conditions, note = nil, " (it takes the first packet of a connection)"
	}
	tell := func(note string) *evidence.Overruling {
		over := o.deed(f, note)
		return &over
	}
	switch {
	case o.Packets.Apart(packets):
		there := anyway(o.of(f))
		back, wide := there, anyway(packets)
		back.From, back.To = there.To, there.From
		if o.states && before && (wide.Covers(there) || wide.Covers(back)) {
			return tell(" (its state takes what belongs to the same flows, both ways)"), false
		}
		return nil, false
	case o.Packets.Covers(packets):
		return tell(""), true
	case before && note != "" && whole.Covers(packets):
		return tell(note), !single
	case before && whole.Covers(packets):
		return tell(""), true
	case !before && len(o.Conditions) == 0 && known(o.From) && known(o.To) &&
		(o.Proto == 0 || o.Proto == packets.Proto):
		return tell(""), false // for some of the clients or servers
	case o.drops && o.TakesSome(packets):
		// A rule before it that passes some is an exception that is meant, and so is one that drops
		// what comes from some addresses.
		return tell(""), false
	}
	return nil, false
}

// known reports whether the addresses of the side are known, and not those of a table for instance.
func known(s pfconf.Side) bool { return s.Text == "" || s.Prefixes != nil }

// blocked notes at a rule that translates whether the filter drops what it made. before are the
// filter's rules that have seen the packets as they were: on OpenBSD, where one that translates is
// among them. after see what was made.
func blocked(d *evidence.Diversion, rule pfconf.Packets, before, after []ordered) {
	for _, f := range d.Families {
		was := rule
		was.Direction, was.Families, was.Conditions = pfconf.In, []pfconf.Family{f}, nil
		made := was
		made.To = pfconf.Side{}
		if d.Address.IsValid() {
			made.To = pfconf.Side{Text: d.Address.String(), Prefixes: []netip.Prefix{single(d.Address)}}
		}
		if d.Port != 0 {
			made.To.Ports = pfconf.Ports{{First: d.Port, Last: d.Port}}
		}
		v := verdict{certain: true}
		if !v.see(before, was) {
			v.see(after, made)
		}
		if v.decides != nil && v.decides.drops && v.certain {
			d.Overruled = append(d.Overruled, evidence.Overruling{Family: f,
				Rule: v.decides.where + ": " + v.decides.text, Does: evidence.Refuses, All: true})
		}
	}
}

// verdict is which rule decides about packets, as far as is known.
type verdict struct {
	decides *ordered
	certain bool
}

// see has rules look at packets in their order, and reports whether one has ended it.
func (v *verdict) see(rules []ordered, packets pfconf.Packets) (done bool) {
	for i := range rules {
		o := &rules[i]
		switch {
		case o.alone || !o.drops && !o.passes || o.Packets.Apart(packets):
		case !o.Packets.Covers(packets):
			v.certain = v.certain && o.drops // it may decide about some of them
		default:
			v.decides, v.certain = o, true
			if o.quick {
				return true
			}
		}
	}
	return false
}
