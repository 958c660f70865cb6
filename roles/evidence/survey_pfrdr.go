package evidence

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"pfdivert/matrix/evidence"
	"pfdivert/pfconf"
	"pfdivert/pfconf/program"
)

// FreeBSD's pf translates by rules of their own, before it filters: the first one that matches
// decides, and what it translated must pass the filter, unless it has "pass" (pf.conf(5),
// TRANSLATION). Its divert-to is what OpenBSD calls divert-packet.

// parsePFTranslation reads a line of `pfctl -s nat`; relevant: it can decide where packets that
// come in go.
func parsePFTranslation(line string) (p pfRule, relevant bool, err error) {
	list, err := words(line)
	if err != nil {
		return p, false, err
	}
	r := &reader{list}
	p.text, p.quick, p.direction = strings.TrimSpace(line), true, "in"
	no := r.is("no")
	switch action := r.next(); action {
	case "nat", "binat", "nat-anchor", "binat-anchor":
		return p, false, nil
	case "rdr":
	case "rdr-anchor":
		p.anchor, p.quick = strings.Trim(r.next(), `"`), false
	default:
		return p, true, fmt.Errorf("%.40q is no rule's beginning", action)
	}
	if r.is("pass") {
		p.through = true
	}
	if r.is("log") && strings.HasPrefix(r.peek(), "(") {
		r.next()
	}
	if err := p.packets(r); err != nil {
		return p, true, err
	}
	for len(r.left) > 0 && r.peek() != "->" {
		switch r.next() {
		case "tag":
			r.next()
		default: // tagged, and what is not known
			p.more = true
		}
	}
	if no || p.anchor != "" {
		p.passes = no
		return p, true, nil
	}
	if !r.is("->") {
		return p, true, errors.New("where it leads is not understood")
	}
	p.passes = true
	d := evidence.Diversion{Kind: evidence.RdrTo, Families: p.familiesOf(), Interface: p.nic, Proto: p.proto}
	if d.Address, err = netip.ParseAddr(r.next()); err == nil && r.is("port") {
		d.Port, err = portNumber(r.next())
	} else if err == nil {
		ownPort(&d, p.to)
	}
	if err != nil {
		return p, true, fmt.Errorf("where it leads is not understood: %w", err)
	}
	d.Families = []pfconf.Family{pfconf.FamilyOf(d.Address)}
	p.diverts = &d
	return p, true, nil
}

// ownPort takes the packets' own port, where the rule is for one alone.
func ownPort(d *evidence.Diversion, to side) {
	if n, err := portNumber(to.port); err == nil {
		d.Port = n
	}
}

// parsePFTranslations reads `pfctl -s nat` of a ruleset.
func parsePFTranslations(out, anchor string, miss func(string, error)) []pfRule {
	of := "the main ruleset"
	if anchor != "" {
		of = "anchor " + anchor
	}
	var all []pfRule
	n := 0 // as pfctl -vvsn counts: each kind by itself
	for _, line := range program.Lines(out) {
		p, relevant, err := parsePFTranslation(line)
		p.where = fmt.Sprintf("rdr rule %d of %s", n, of)
		if relevant {
			n++
		}
		if err != nil {
			miss(p.where, fmt.Errorf("%.200q: %w", line, err))
		}
		if !relevant || err != nil {
			continue
		}
		if p.diverts != nil {
			p.diverts.Rule = p.where
		}
		all = append(all, p)
	}
	return all
}

// surveyRdr adds what FreeBSD's pf diverts, and reports whether its rules are known: they are where
// the host has no pf.
func (s *Survey) surveyRdr(ctx context.Context, run program.Runner, own func(netip.Addr) bool) bool {
	out, err := ask1(ctx, run, "pfctl", "-P", "-s", "rules")
	if err != nil {
		if strings.Contains(err.Error(), "/dev/pf: No such file") {
			return true
		}
		s.miss("rules of pf", err)
		return false
	}
	translations, err := ask1(ctx, run, "pfctl", "-P", "-s", "nat")
	s.miss("translation rules of pf", err)
	if err != nil {
		return false
	}
	filter := &pfOrder{sets: map[string][]pfRule{"": parsePF(out, "", s.miss)}, reached: map[string]bool{},
		miss: s.miss}
	first := &pfOrder{sets: map[string][]pfRule{"": parsePFTranslations(translations, "", s.miss)},
		reached: map[string]bool{}, miss: s.miss}
	s.pfAnchors(ctx, run, func(name string) {
		out, err := ask1(ctx, run, "pfctl", "-P", "-a", name, "-s", "rules")
		s.miss("anchor "+name, err)
		filter.sets[name] = parsePF(out, name, s.miss)
		out, err = ask1(ctx, run, "pfctl", "-P", "-a", name, "-s", "nat")
		s.miss("anchor "+name, err)
		first.sets[name] = parsePFTranslations(out, name, s.miss)
	})
	p := &Survey{Missing: s.Missing}
	for _, o := range []*pfOrder{filter, first} {
		o.miss = p.miss
		o.follow("", o.sets[""], false, false, 0)
		overrule(o.all)
	}
	for _, r := range first.all {
		if d := r.diverts; d != nil && !r.through {
			blocked(d, r.taken, filter.all)
		}
	}
	p.pfDiversions(first, own)
	p.pfDiversions(filter, own)
	p.pfHost(ctx, run)
	for i := range p.Diversions {
		p.Diversions[i].Firewall = "pf"
	}
	for i := range p.Cells {
		p.Cells[i].Firewall = "pf"
	}
	s.Diversions, s.Cells, s.Missing = append(s.Diversions, p.Diversions...), append(s.Cells, p.Cells...), p.Missing
	return true
}

// blocked notes at a rule that translates whether the filter drops what it made.
func blocked(d *evidence.Diversion, rule taken, rules []ordered) {
	for _, f := range d.Families {
		made := rule
		made.direction, made.families, made.more = "in", []pfconf.Family{f}, false
		made.to = side{}
		made.to.address(d.Address.String())
		if d.Port != 0 {
			made.to.port = fmt.Sprint(d.Port)
		}
		var decides *ordered
		certain := true
	rules:
		for i := range rules {
			o := &rules[i]
			switch {
			case o.alone || !o.drops && !o.passes || !slices.Contains(o.familiesOf(), f) || o.apart(made):
				continue
			case !o.covers(made):
				// It may decide about some of them.
				certain = certain && o.drops
				continue
			}
			if decides, certain = o, true; o.quick {
				break rules
			}
		}
		if decides != nil && decides.drops && certain {
			d.Overruled = append(d.Overruled, evidence.Overruling{Family: f, Rule: decides.where + ": " + decides.text,
				Does: evidence.Refuses, All: true})
		}
	}
}
