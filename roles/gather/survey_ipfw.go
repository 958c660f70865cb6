package gather

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"pfdivert/matrix/evidence"
	"pfdivert/pfconf"
	"pfdivert/pfconf/ipfw"
	"pfdivert/pfconf/program"
)

// The readers of what ipfw(8) prints build everywhere, so that they are tested everywhere.

// surveyIPFW reads ipfw's rules. own reports whether an address is the host's.
func (s *Survey) surveyIPFW(ctx context.Context, run program.Runner, own func(netip.Addr) bool) {
	out, err := ask1(ctx, run, "ipfw", "-S", "list")
	switch {
	case err == nil:
		s.RulesKnown = true
		rules := ipfw.ParseHostRules(out)
		s.ipfwRules(rules, s.onePass(ctx, run, rules), own)
		s.ipfwHost(ctx, run)
	case strings.Contains(err.Error(), "Protocol not available"):
		s.RulesKnown = true // it is not loaded
	default:
		s.miss("rules of ipfw", err)
	}
}

// Actions whose packets come back to the rules behind only where net.inet.ip.fw.one_pass is 0.
var onePassActions = []string{"nat", "pipe", "queue", "netgraph"}

// onePass reports whether what nat, pipe and their like take comes to no later rule. It asks only
// where there is such a rule.
func (s *Survey) onePass(ctx context.Context, run program.Runner, rules []ipfw.HostRule) bool {
	if !slices.ContainsFunc(rules, func(r ipfw.HostRule) bool { return slices.Contains(onePassActions, r.Action) }) {
		return false
	}
	const name = "net.inet.ip.fw.one_pass"
	out, err := ask1(ctx, run, "sysctl", name)
	s.miss("sysctl "+name, err)
	return strings.TrimSpace(out) == name+": 1"
}

// ipfwRules takes the rules that divert.
func (s *Survey) ipfwRules(rules []ipfw.HostRule, onePass bool, own func(netip.Addr) bool) {
	var all []ordered
	for i := range rules {
		r := &rules[i]
		where := fmt.Sprintf("rule %05d", r.Number)
		if r.Err != nil {
			s.miss(where, fmt.Errorf("%.200q: %w", r.Text, r.Err))
			continue
		}
		if i == maxOrdered {
			s.miss("rules of ipfw", fmt.Errorf("of more than %d the rest is not looked at", maxOrdered))
			break
		}
		o := ordered{
			where: where, text: r.Text, Packets: r.Packets, number: r.Number, quick: true,
			passes: r.Passes() || onePass && slices.Contains(onePassActions, r.Action), drops: r.Drops(),
			states: r.State == "keep-state" || r.State == "limit",
		}
		if o.passes && !r.Passes() {
			o.text += " (net.inet.ip.fw.one_pass is 1, so no later rule sees what it takes)"
		}
		var err error
		if r.Action == "skipto" && r.Argument != "tablearg" {
			o.jumps, err = strconv.Atoi(r.Argument)
		}
		d, errTo := ipfwDiversion(r, where)
		if err := errors.Join(err, errTo); err != nil {
			s.miss(where, fmt.Errorf("%.200q: where it leads is not understood: %w", r.Text, err))
			continue
		}
		o.passes = o.passes || d != nil && d.Kind == evidence.Fwd // it decides
		if d != nil && (d.Kind != evidence.Fwd || own(d.Address)) {
			o.diverts = []*evidence.Diversion{d}
		}
		switch {
		case !r.Disabled:
			all = append(all, o)
		case o.diverts != nil:
			d.Unreached = fmt.Sprintf("its set %d is disabled", r.Set)
			d.Fix = fmt.Sprintf("ipfw set enable %d", r.Set)
			s.Diversions = append(s.Diversions, *d)
		}
	}
	overrule(all)
	for _, o := range all {
		for _, d := range o.diverts {
			s.Diversions = append(s.Diversions, *d)
		}
	}
}

// ipfwDiversion is where a rule leads packets, nil where it does not.
func ipfwDiversion(r *ipfw.HostRule, where string) (*evidence.Diversion, error) {
	d := &evidence.Diversion{Rule: where, Families: r.FamilyList(), Interface: r.Interface}
	if r.Proto != 0 {
		d.Proto = pfconf.ProtoName(r.Proto)
	}
	switch r.Action {
	case "fwd", "forward":
		d.Kind = evidence.Fwd
		address, port, withPort := strings.Cut(r.Argument, ",")
		var err, errPort error
		d.Address, err = netip.ParseAddr(address)
		if withPort {
			d.Port, errPort = portNumber(port)
		}
		if err := errors.Join(err, errPort); err != nil {
			return nil, err
		}
		d.Families = []pfconf.Family{pfconf.FamilyOf(d.Address)}
	case "divert", "tee":
		d.Kind, d.Bypass = evidence.Divert, r.Action == "tee"
		n, err := portNumber(r.Argument)
		if err != nil {
			return nil, err
		}
		d.Queue, d.Last = n, n
	default:
		return nil, nil
	}
	return d, nil
}

func portNumber(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("port %.20q", s)
	}
	return uint16(n), nil
}

// ipfwHost asks whether ipfw is on, for each family.
func (s *Survey) ipfwHost(ctx context.Context, run program.Runner) {
	s.answers(func(f pfconf.Family) evidence.Answer {
		name := "net.inet.ip.fw.enable"
		if f == pfconf.Inet6 {
			name = "net.inet6.ip6.fw.enable"
		}
		out, err := ask1(ctx, run, "sysctl", name)
		s.miss("sysctl "+name, err)
		return evidence.Answer{Command: "sysctl " + name, Text: strings.TrimSpace(out)}
	})
}
