package gather

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"pfdivert/matrix/evidence"
	"pfdivert/pfconf"
	"pfdivert/pfconf/pf"
)

// pfOrder puts the rules of all rulesets in the order in which pf looks at them.
type pfOrder struct {
	sets    map[string][]pf.HostRule // by anchor, "" for the main ruleset
	rdr     bool                     // the rules are those of FreeBSD's list that translate
	own     func(netip.Addr) bool    // reports whether an address is the host's
	all     []ordered
	reached map[string]bool
	miss    func(string, error)
}

func (s *Survey) newOrder(rdr bool, own func(netip.Addr) bool) *pfOrder {
	return &pfOrder{sets: map[string][]pf.HostRule{}, rdr: rdr, own: own, reached: map[string]bool{}, miss: s.miss}
}

// bounds of rules that are not this program's.
const (
	maxAnchors = 100
	maxDepth   = 16
)

// follow goes through the rules of a ruleset, the main one or an anchor's.
func (o *pfOrder) follow(at string) { o.within(at, o.sets[at], calling{}) }

// calling is how pf comes to rules.
type calling struct {
	from    string // the rule that has them in braces, "" for a ruleset
	limited bool   // what calls them takes not all packets
	alone   bool   // one of the anchors that lead there is called with quick
	depth   int
}

func (o *pfOrder) within(at string, rules []pf.HostRule, by calling) {
	n := 0
	for i := range rules {
		r := &rules[i]
		if (r.Action == "scrub" || o.rdr) && !strings.HasPrefix(r.Action, "rdr") && r.Err == nil {
			continue // of another list, and counted there
		}
		where := o.place(at, by, n)
		n++
		if len(o.all) >= maxOrdered || by.depth > maxDepth {
			o.miss("rules", errors.New("there are more, or deeper anchors, than are looked at"))
			return
		}
		if r.Err != nil {
			o.miss(where, fmt.Errorf("%.200q: %w", r.Text, r.Err))
		}
		if r.Inner == nil && (r.Err != nil || !r.Calls()) {
			if r.Err == nil {
				o.add(o.ordered(r, where), by)
			}
			continue
		}
		inner := calling{from: where, limited: by.limited || r.Err != nil || r.Domain != "" ||
			!r.Covers(pfconf.Packets{}), alone: by.alone || r.Quick, depth: by.depth + 1}
		var sets []string
		if r.Inner == nil && r.Anchor != "" {
			sets = o.called(at, r.Anchor)
		}
		filled := len(r.Inner) > 0 || slices.ContainsFunc(sets, func(name string) bool { return len(o.sets[name]) > 0 })
		if inner.alone && !by.alone && filled {
			o.miss(where, errors.New("it calls an anchor with quick, whose rules are not compared with others"))
		}
		o.within(at, r.Inner, inner)
		inner.from = ""
		for _, name := range sets {
			o.reached[name] = true
			o.within(name, o.sets[name], inner)
		}
	}
}

// place says where a rule is.
func (o *pfOrder) place(at string, by calling, n int) string {
	of, kind := "the main ruleset", "rule"
	if at != "" {
		of = "anchor " + at
	}
	if o.rdr {
		kind = "rdr rule" // pfctl -vvsn counts each kind by itself
	}
	if by.from != "" {
		return "a rule within " + by.from
	}
	return fmt.Sprintf("%s %d of %s", kind, n, of)
}

func (o *pfOrder) add(r ordered, by calling) {
	if !r.passes && !r.drops && r.diverts == nil {
		return
	}
	if by.limited {
		r.Conditions = append(slices.Clone(r.Conditions), "what the rule asks for that calls its anchor")
	}
	r.alone = by.alone
	o.all = append(o.all, r)
}

// ordered makes one of a rule that calls nothing.
func (o *pfOrder) ordered(r *pf.HostRule, where string) ordered {
	a := ordered{
		where: where, text: r.Text, Packets: r.Packets, quick: r.Quick,
		passes: r.Action == "pass", drops: r.Action == "block", matches: r.Action == "match",
	}
	if o.rdr {
		// The first that matches decides, and what it translates must pass the filter unless it has
		// "pass" (FreeBSD's pf.conf(5), TRANSLATION).
		a.Direction, a.quick, a.passes, a.through = pfconf.In, true, true, r.Pass
	}
	if r.Domain != "" {
		a.Conditions = append(slices.Clone(a.Conditions), "on rdomain "+r.Domain)
	}
	a.keeps = r.State != "no"
	switch {
	case r.Route != "":
		a.lost = r.Route
	case r.Tag != "":
		a.lost = "tag " + r.Tag
	}
	a.diverts = o.diversions(r, where)
	return a
}

// diversions are where a rule leads packets on this host. What it has for other hosts, or what is
// not known, is none; the latter is told.
func (o *pfOrder) diversions(r *pf.HostRule, where string) []*evidence.Diversion {
	base := evidence.Diversion{Rule: where, Families: r.FamilyList(), Interface: r.Interface, Table: r.Table}
	if r.Proto != 0 {
		base.Proto = pfconf.ProtoName(r.Proto)
	}
	if base.Table == "" {
		base.Table = r.Domain
	}
	if base.Table == "0" {
		base.Table = ""
	}
	var all []*evidence.Diversion
	if t := r.Divert; t != nil {
		d := base
		switch {
		case t.Kind == "divert-reply":
			d.Kind = evidence.DivertReply
		case t.Kind == "divert-packet" || len(t.Hosts) == 0:
			d.Kind, d.Queue, d.Last = evidence.Divert, t.Port, t.Port
		default:
			d.Kind, d.Port = evidence.DivertTo, t.Port
			a, err := netip.ParseAddr(t.Hosts[0])
			if err != nil {
				o.miss(where, fmt.Errorf("where it leads is not understood: %w", err))
				return nil
			}
			d.Address, d.Families = a, []pfconf.Family{pfconf.FamilyOf(a)}
		}
		unmatched(&d, r)
		all = append(all, &d)
	}
	if t := r.Translate; t != nil && !r.No && (t.Kind == "rdr-to" || t.Kind == "->") {
		base.Kind = evidence.RdrTo
		all = append(all, o.translations(base, t, r.To, where)...)
	}
	return all
}

// unmatched notes why packets do not come to a rule, or only some, that its text lets expect.
func unmatched(d *evidence.Diversion, r *pf.HostRule) {
	if d.Kind == evidence.DivertTo && r.Direction == pfconf.Out {
		// pf_test in OpenBSD's sys/net/pf.c looks at divert-to for PF_IN alone.
		d.Unreached = "divert-to takes what comes in, and the rule is for what leaves (out)"
		d.Fix = "divert where the packets come in (pass in … divert-to)"
	}
	for _, c := range r.Conditions {
		if kind, _, _ := strings.Cut(c, " "); (kind == "user" || kind == "group") && r.Direction != pfconf.Out {
			for _, f := range d.Families {
				d.Overruled = append(d.Overruled, evidence.Overruling{Family: f, Does: evidence.Unowned,
					Rule: "it asks for " + c + ", which of what comes in is the owner of the socket that the packet's own address has, mostly none"})
			}
		}
	}
}

// The most addresses of a pool that are looked at.
const maxTargets = 16

// translations are those to the host's own addresses, one for each.
func (o *pfOrder) translations(base evidence.Diversion, t *pf.Destination, to pfconf.Side,
	where string) []*evidence.Diversion {
	base.Port = t.Port
	switch {
	case t.Port == 0 && len(to.Ports) == 1 && to.Ports[0].First == to.Ports[0].Last: // the packets' own port
		base.Port = to.Ports[0].First
	case t.Port != t.Last:
		base.Port, base.Unseen = 0,
			fmt.Sprintf("whether a program listens on each of the ports %d:%d is not looked at", t.Port, t.Last)
	}
	var all []*evidence.Diversion
	for i, host := range t.Hosts {
		if i == maxTargets {
			o.miss(where, fmt.Errorf("of more than %d addresses the rest is not looked at", maxTargets))
			break
		}
		d := base
		switch a, err := netip.ParseAddr(host); {
		case err == nil && !o.own(a):
			continue // to no program here
		case err == nil:
			d.Address, d.Families = a, []pfconf.Family{pfconf.FamilyOf(a)}
		case strings.HasPrefix(host, "(") && !strings.Contains(host, ":network") &&
			!strings.Contains(host, ":broadcast") && !strings.Contains(host, ":peer"):
			// The interface's own, which is what no address of d's means.
		default:
			o.miss(where, errors.New("which addresses "+host+" has is not looked at"))
			continue
		}
		all = append(all, &d)
	}
	return all
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
