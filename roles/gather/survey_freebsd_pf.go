package gather

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"pfdivert/matrix/evidence"
	"pfdivert/pfconf"
	"pfdivert/pfconf/pf"
	"pfdivert/pfconf/program"
)

// surveyFreeBSD reads FreeBSD's ipfw and pf, and what their rules need. own reports whether an
// address is the host's.
func surveyFreeBSD(ctx context.Context, run program.Runner, own func(netip.Addr) bool) *Survey {
	s := &Survey{Firewall: "ipfw"}
	s.surveyIPFW(ctx, run, own)
	// A host can have both.
	s.RulesKnown = s.besides(ctx, run, own) && s.RulesKnown
	s.absentInterfaces(ctx, run)
	s.sockets(ctx, run, "-W")
	s.unseenSockets()
	return s
}

// besides adds what FreeBSD's pf diverts, and reports whether its rules are known: they are where
// the host has no pf.
func (s *Survey) besides(ctx context.Context, run program.Runner, own func(netip.Addr) bool) bool {
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
	p := &Survey{}
	filter, first := p.newOrder(false, own), p.newOrder(true, own)
	filter.sets[""], first.sets[""] = pf.ParseHostRules(out), pf.ParseHostRules(translations)
	p.pfAnchors(ctx, run, func(name string) {
		out, err := ask1(ctx, run, "pfctl", "-P", "-a", name, "-s", "rules")
		p.miss("anchor "+name, err)
		filter.sets[name] = pf.ParseHostRules(out)
		out, err = ask1(ctx, run, "pfctl", "-P", "-a", name, "-s", "nat")
		p.miss("anchor "+name, err)
		first.sets[name] = pf.ParseHostRules(out)
	})
	for _, o := range []*pfOrder{filter, first} {
		o.follow("")
		overrule(o.all)
	}
	for _, r := range first.all {
		for _, d := range r.diverts {
			if !r.through {
				blocked(d, r.Packets, nil, filter.all)
			}
		}
	}
	release := 0 // matters where packets are diverted
	if slices.ContainsFunc(s.Diversions, diverts) || slices.ContainsFunc(filter.all,
		func(r ordered) bool { return len(r.diverts) > 0 }) {
		release = p.release(ctx, run)
	}
	if release >= 15 {
		lostByDivert(filter.all, first.all)
	}
	p.pfDiversions(first)
	p.pfDiversions(filter)
	on := p.pfHost(ctx, run)
	for i := range p.Diversions {
		p.Diversions[i].Firewall = "pf"
	}
	for i := range p.Cells {
		p.Cells[i].Firewall = "pf"
	}
	if on && release >= 14 {
		s.spoilt()
	}
	s.Diversions, s.Cells, s.Missing = append(s.Diversions, p.Diversions...), append(s.Cells, p.Cells...),
		append(s.Missing, p.Missing...)
	return true
}

var osRelease = regexp.MustCompile(`^kern\.osrelease: ([0-9]+)\.`)

// release is the first number of FreeBSD's release, 0 if it is not known.
func (s *Survey) release(ctx context.Context, run program.Runner) int {
	out, err := ask1(ctx, run, "sysctl", "kern.osrelease")
	m := osRelease.FindStringSubmatch(out)
	if err == nil && m == nil {
		err = fmt.Errorf("not understood: %.80q", out)
	}
	s.miss("release of the system", err)
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(m[1]) // digits
	return n
}

// lostByDivert notes at rules of FreeBSD 15's pf what does not happen to packets that they divert
// (sys/netpfil/pf/pf.c of 15.1: 6312 for a translated packet, 1986 for a looped one).
func lostByDivert(filter, translating []ordered) {
	for i := range filter {
		r := &filter[i]
		for _, d := range r.diverts {
			if d.Kind != evidence.Divert {
				continue
			}
			for _, f := range d.Families {
				lost := func(rule string, all bool) {
					d.Overruled = append(d.Overruled, evidence.Overruling{Family: f, Rule: rule,
						Does: evidence.PFLoses, All: all})
				}
				if r.lost != "" {
					lost("its "+r.lost+" has no effect on what is reinjected, which leaves by the routing table and without the tag", true)
				}
				translated := func(t ordered) bool {
					return r.keeps && slices.ContainsFunc(t.diverts, func(to *evidence.Diversion) bool {
						made := t.of(f)
						made.To = pfconf.Side{}
						if to.Address.IsValid() {
							made.To.Address(to.Address.String())
						}
						if to.Port != 0 {
							made.To.Ports = pfconf.Ports{{First: to.Port, Last: to.Port}}
						}
						return slices.Contains(to.Families, f) && !r.Packets.Apart(made)
					})
				}
				if t := slices.IndexFunc(translating, translated); t >= 0 {
					lost("what "+translating[t].where+
						" has translated and this one keeps state for is not delivered when it is reinjected (state-insert counts it)", false)
				}
			}
		}
	}
}

// diverts reports whether packets go to a divert socket, and are expected back.
func diverts(d evidence.Diversion) bool { return d.Kind == evidence.Divert && !d.Bypass }

// spoilt notes at ipfw's rules that divert that pf is on beside them. From FreeBSD 14 on, pf
// deletes the tag by which ipfw knows where to go on with a packet (sys/netpfil/pf/pf.c of 15.1,
// 11013).
func (s *Survey) spoilt() {
	for i := range s.Diversions {
		d := &s.Diversions[i]
		for _, f := range d.Families {
			if diverts(*d) {
				d.Overruled = append(d.Overruled, evidence.Overruling{Family: f, Does: evidence.PFLoops, All: true})
			}
		}
	}
}
