package evidence

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"pfdivert/matrix/evidence"
	"pfdivert/pfconf"
	"pfdivert/pfconf/program"
)

// The readers of what pfctl(8) prints build everywhere, so that they are tested everywhere.

var pfStatus = regexp.MustCompile(`(?m)^Status: (Enabled|Disabled)\b`)

// surveyPF reads OpenBSD's pf and what its rules need. own reports whether an address is the
// host's.
func surveyPF(ctx context.Context, run program.Runner, own func(netip.Addr) bool) *Survey {
	s := &Survey{Firewall: "pf"}
	o := &pfOrder{sets: map[string][]pfRule{}, reached: map[string]bool{}, miss: s.miss}
	out, err := ask1(ctx, run, "pfctl", "-s", "rules")
	s.miss("rules of pf", err)
	if err == nil {
		s.RulesKnown = true
		o.sets[""] = parsePF(out, "", s.miss)
		s.pfAnchors(ctx, run, func(name string) {
			out, err := ask1(ctx, run, "pfctl", "-a", name, "-s", "rules")
			s.miss("anchor "+name, err)
			o.sets[name] = parsePF(out, name, s.miss)
		})
		o.follow("", o.sets[""], false, false, 0)
		overrule(o.all)
		s.pfDiversions(o, own)
		s.pfHost(ctx, run)
	}
	s.sockets(ctx, run, "-v")
	s.unseenSockets()
	if slices.ContainsFunc(s.Diversions, func(d evidence.Diversion) bool { return d.Kind == evidence.Divert }) {
		s.divertSockets(ctx, run)
	}
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
		s.Queues = append(s.Queues, evidence.Socket{Proto: evidence.ProtoDivert, Local: netip.AddrPortFrom(at, 0),
			Text: "divert" + m[1] + ": " + m[0]})
	}
	if len(s.Queues) > 0 {
		s.miss("divert sockets", errors.New("there are some; the system does not show of which port"))
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
func (s *Survey) pfDiversions(o *pfOrder, own func(netip.Addr) bool) {
	take := func(d *evidence.Diversion) {
		if d != nil && (d.Kind != evidence.RdrTo || own(d.Address)) { // to another host is to no program here
			s.Diversions = append(s.Diversions, *d)
		}
	}
	for _, r := range o.all {
		take(r.diverts)
	}
	var names []string
	for name := range o.sets {
		if name != "" && !o.reached[name] {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		lost := &pfOrder{sets: map[string][]pfRule{}, reached: map[string]bool{}, miss: o.miss}
		lost.follow(name, o.sets[name], false, false, 0)
		for _, r := range lost.all {
			if r.diverts != nil {
				r.diverts.Unreached = "no rule that is evaluated calls the anchor " + name
			}
			take(r.diverts)
		}
	}
}

// pfHost asks whether pf is on, and on which interfaces it looks at nothing.
func (s *Survey) pfHost(ctx context.Context, run program.Runner) {
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
			}
		}
	}
}
