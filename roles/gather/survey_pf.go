package gather

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"pfdivert/matrix/evidence"
	"pfdivert/pfconf"
	"pfdivert/pfconf/pf"
	"pfdivert/pfconf/program"
)

// The readers of what pfctl(8) prints build everywhere, so that they are tested everywhere.

var pfStatus = regexp.MustCompile(`(?m)^Status: (Enabled|Disabled)\b`)

// surveyPF reads OpenBSD's pf and what its rules need. own reports whether an address is the
// host's.
func surveyPF(ctx context.Context, run program.Runner, own func(netip.Addr) bool) *Survey {
	s := &Survey{Firewall: "pf"}
	o := s.newOrder(false, own)
	out, err := ask1(ctx, run, "pfctl", "-s", "rules")
	s.miss("rules of pf", err)
	if err == nil {
		s.RulesKnown = true
		o.sets[""] = pf.ParseHostRules(out)
		s.pfAnchors(ctx, run, func(name string) {
			out, err := ask1(ctx, run, "pfctl", "-a", name, "-s", "rules")
			s.miss("anchor "+name, err)
			o.sets[name] = pf.ParseHostRules(out)
		})
		o.follow("")
		overrule(o.all)
		s.pfDiversions(o)
		s.pfHost(ctx, run)
		s.absentInterfaces(ctx, run)
	}
	s.sockets(ctx, run, "-v")
	if slices.ContainsFunc(s.Diversions, func(d evidence.Diversion) bool { return d.Kind == evidence.Divert }) {
		s.divertSockets(ctx, run)
	}
	s.unseenSockets()
	return s
}

var divertSocket = regexp.MustCompile(`\binternet(6?) raw divert\b.*`)

// divertSockets lists the divert sockets, which fstat(1) alone shows, without their ports.
func (s *Survey) divertSockets(ctx context.Context, run program.Runner) {
	out, err := ask1(ctx, run, "fstat")
	s.miss("divert sockets", err)
	if err != nil {
		s.Queues = nil
		s.QueuesUnknown = true
		return
	}
	for _, m := range divertSocket.FindAllStringSubmatch(out, -1) {
		at := netip.IPv4Unspecified()
		if m[1] != "" {
			at = netip.IPv6Unspecified()
		}
		s.Queues = append(s.Queues, evidence.SocketEntry{Proto: evidence.ProtoDivert, Local: netip.AddrPortFrom(at, 0),
			Text: "divert" + m[1] + ": " + m[0]})
	}
}

// pfAnchors has the rules of all anchors read.
func (s *Survey) pfAnchors(ctx context.Context, run program.Runner, read func(name string)) {
	out, err := ask1(ctx, run, "pfctl", "-v", "-s", "Anchors")
	s.miss("anchors of pf", err)
	for i, name := range program.Lines(out) {
		name = strings.TrimSpace(name)
		if _, last, _ := strings.Cut("/"+name, "/_"); last != "" {
			continue // without a name: its rules are shown where it is called
		}
		if i >= maxAnchors {
			s.miss("anchors of pf", fmt.Errorf("of more than %d the rest is not read", maxAnchors))
			return
		}
		read(name)
	}
}

// pfDiversions takes those that are evaluated, and those of anchors that no rule calls.
func (s *Survey) pfDiversions(o *pfOrder) {
	take := func(r ordered) {
		for _, d := range r.diverts {
			s.Diversions = append(s.Diversions, *d)
		}
	}
	for _, r := range o.all {
		take(r)
	}
	for _, name := range slices.Sorted(maps.Keys(o.sets)) {
		if name == "" || o.reached[name] {
			continue
		}
		lost := *o
		lost.all = nil
		lost.follow(name)
		for _, r := range lost.all {
			for _, d := range r.diverts {
				d.Unreached = "no rule that is evaluated calls the anchor " + name
				kind, list := "anchor", "rules"
				if o.rdr {
					kind, list = "rdr-anchor", "nat"
				}
				d.Fix = fmt.Sprintf(
					"put the line   %s %q   into pf.conf, or, if no program uses it any more: pfctl -a %s -F %s", kind, name, name, list)
			}
			take(r)
		}
	}
}

// pfHost asks whether pf is on, which it reports, and on which interfaces it looks at nothing.
func (s *Survey) pfHost(ctx context.Context, run program.Runner) (on bool) {
	info, err := ask1(ctx, run, "pfctl", "-s", "info")
	if err == nil && pfStatus.FindString(info) == "" {
		err = fmt.Errorf("not understood: %.80q", info)
	}
	s.miss("status of pf", err)
	if err == nil {
		s.answers(func(pfconf.Family) evidence.Answer {
			return evidence.Answer{Command: "pfctl -s info", Text: pfStatus.FindString(info)}
		})
	}
	out, err := ask1(ctx, run, "pfctl", "-s", "Interfaces", "-v")
	s.miss("interfaces of pf", err)
	for _, line := range program.Lines(out) {
		name, skipped := strings.CutSuffix(line, " (skip)")
		for i := range s.Diversions {
			if d := &s.Diversions[i]; skipped && d.Interface == name && d.Unreached == "" {
				d.Unreached = "pf looks at nothing on " + name + " (set skip on)"
				d.Fix = "take " + name + " out of 'set skip on' in pf.conf, then: pfctl -f /etc/pf.conf"
			}
		}
	}
	return pfStatus.FindString(info) == "Status: Enabled"
}
