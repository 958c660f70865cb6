package evidence

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"pfdivert/matrix/evidence"
	"pfdivert/pfconf"
	"pfdivert/pfconf/program"
)

// The readers of what ipfw(8) prints build everywhere, so that they are tested everywhere.

var ipfwLine = regexp.MustCompile(`^(# DISABLED )?([0-9]{5}) set ([0-9]+) (.+)$`)

// What ipfw's actions do; 1 is how many words follow the action.
var (
	ipfwPasses = []string{"allow", "accept", "pass", "permit"}
	ipfwDrops  = map[string]int{"deny": 0, "drop": 0, "reject": 0, "reset": 0, "reset6": 0, "abort": 0, "abort6": 0,
		"unreach": 1, "unreach6": 1}
	ipfwOthers = map[string]int{
		"count": 0, "check-state": 0, "return": 0, "reass": 0, "call": 1, "nat": 1, "pipe": 1, "queue": 1,
		"netgraph": 1,
		"ngtee":    1, "setfib": 1, "setdscp": 1, "tcp-setmss": 1, "nat64lsn": 1, "nat64stl": 1, "nat64clat": 1,
		"nptv6": 1,
	}
)

// parseIPFWRule reads a rule behind its number and set.
func parseIPFWRule(body string) (o ordered, err error) {
	body, _, _ = strings.Cut(body, " // ")
	o.text, o.quick = body, true
	r := &reader{strings.Fields(body)}
	for r.is("prob") {
		r.next()
		o.more = true
	}
	action := r.next()
	argument := -1
	if n, ok := ipfwDrops[action]; ok {
		o.drops, argument = true, n
	} else if n, ok := ipfwOthers[action]; ok {
		argument = n
	}
	var d *evidence.Diversion
	switch {
	case slices.Contains(ipfwPasses, action):
		o.passes = true
	case action == "skipto":
		if o.jumps, err = strconv.Atoi(r.next()); err != nil {
			return o, errors.New("where it leads is not understood")
		}
	case action == "fwd" || action == "forward":
		d = &evidence.Diversion{Kind: evidence.Fwd}
		address, port, ok := strings.Cut(r.next(), ",")
		if d.Address, err = netip.ParseAddr(address); err == nil && ok {
			d.Port, err = portNumber(port)
		}
		if err != nil {
			return o, fmt.Errorf("where it leads is not understood: %w", err)
		}
		o.passes = true // it decides
	case action == "divert" || action == "tee":
		d = &evidence.Diversion{Kind: evidence.Divert, Bypass: action == "tee"}
		if d.Queue, err = portNumber(r.next()); err != nil {
			return o, fmt.Errorf("where it leads is not understood: %w", err)
		}
		d.Last = d.Queue
	case argument >= 0:
		for range argument {
			r.next()
		}
	default:
		return o, fmt.Errorf("%.40q is no known action", action)
	}
	if action == "check-state" {
		return o, nil // it takes what has a state
	}
	for slices.Contains([]string{"log", "logamount", "altq", "tag", "untag"}, r.peek()) {
		if r.next() != "log" {
			r.next()
		}
	}
	if err := o.ipfwPackets(r); err != nil {
		return o, err
	}
	if d != nil {
		d.Families, d.Proto, d.Interface = o.familiesOf(), o.proto, o.nic
		if d.Address.IsValid() {
			d.Families = []pfconf.Family{pfconf.FamilyOf(d.Address)}
		}
		o.diverts = d
	}
	return o, nil
}

// ipfwPackets takes the protocol, the addresses and the options.
func (o *ordered) ipfwPackets(r *reader) error {
	if r.peek() != "from" {
		o.ipfwProto(ipfwGroup(r))
	}
	if r.is("from") {
		o.from.readIPFW(r)
		if !r.is("to") {
			return fmt.Errorf("no destination before %.40q", r.peek())
		}
		o.to.readIPFW(r)
		if o.from.text == "me6" || o.to.text == "me6" {
			o.families = []pfconf.Family{pfconf.Inet6}
		}
	}
	for len(r.left) > 0 {
		switch word := r.next(); word {
		case "in", "out":
			o.direction = word
		case "via":
			o.nic = r.next()
		case "recv":
			o.nic, o.direction = r.next(), "in"
		case "xmit":
			o.nic, o.direction = r.next(), "out"
		case "proto":
			o.ipfwProto(r.next())
		case "src-port":
			o.from.port = r.next()
		case "dst-port":
			o.to.port = r.next()
		case "ip4", "ip6":
			o.ipfwProto(word)
		case "setup", "keep-state", "record-state", ":default":
		default:
			if word == "not" || !strings.HasPrefix(word, ":") {
				o.more = true
			}
			if word == "not" || word == "{" {
				// What is negated or a choice is no limit of the kind that it begins with.
				r.left = nil
			}
		}
	}
	return nil
}

// ipfwGroup takes a word, or a choice in braces.
func ipfwGroup(r *reader) string {
	text := r.next()
	if text == "not" {
		text += " " + r.next()
	}
	if strings.HasSuffix(text, "{") {
		for len(r.left) > 0 && !strings.HasSuffix(text, "}") {
			text += " " + r.next()
		}
	}
	return text
}

// ipfwProto takes the name of a protocol, which can be a family's.
func (o *ordered) ipfwProto(name string) {
	switch name {
	case "ip", "all", "":
	case "ip4":
		o.families = []pfconf.Family{pfconf.Inet}
	case "ip6":
		o.families = []pfconf.Family{pfconf.Inet6}
	case "tcp", "udp", "icmp", "ipv6-icmp":
		o.proto = name
	default:
		if _, err := strconv.ParseUint(name, 10, 8); err == nil {
			o.proto = name
		} else {
			o.more = true
		}
	}
}

// readIPFW takes an address with its ports.
func (s *side) readIPFW(r *reader) {
	s.address(ipfwGroup(r))
	if word := r.peek(); word == "src-port" || word == "dst-port" {
		r.next()
	}
	if word := r.peek(); word != "" && '0' <= word[0] && word[0] <= '9' {
		s.port = r.next()
	}
}

// surveyIPFW reads FreeBSD's ipfw and pf, and what their rules need. own reports whether an address
// is the host's.
func surveyIPFW(ctx context.Context, run program.Runner, own func(netip.Addr) bool) *Survey {
	s := &Survey{Firewall: "ipfw"}
	out, err := ask1(ctx, run, "ipfw", "-S", "list")
	switch {
	case err == nil:
		s.RulesKnown = true
		s.ipfwRules(out, own)
		s.ipfwHost(ctx, run)
	case strings.Contains(err.Error(), "Protocol not available"):
		s.RulesKnown = true // it is not loaded
	default:
		s.miss("rules of ipfw", err)
	}
	// A host can have both.
	s.RulesKnown = s.surveyRdr(ctx, run, own) && s.RulesKnown
	s.sockets(ctx, run, "-W")
	s.unseenSockets()
	return s
}

// ipfwRules reads what `ipfw -S list` prints.
func (s *Survey) ipfwRules(out string, own func(netip.Addr) bool) {
	var all []ordered
	for i, line := range program.Lines(out) {
		m := ipfwLine.FindStringSubmatch(line)
		if m == nil {
			s.miss("a rule of ipfw", fmt.Errorf("not understood: %.200q", line))
			continue
		}
		if i == maxOrdered {
			s.miss("rules of ipfw", fmt.Errorf("of more than %d the rest is not looked at", maxOrdered))
			break
		}
		o, err := parseIPFWRule(m[4])
		if err != nil {
			s.miss("rule "+m[2], fmt.Errorf("%.200q: %w", line, err))
			continue
		}
		o.number, _ = strconv.Atoi(m[2]) // five digits
		o.where = "rule " + m[2]
		if d := o.diverts; d != nil {
			d.Rule = o.where
			if d.Kind == evidence.Fwd && !own(d.Address) {
				o.diverts = nil // to another host
			} else if m[1] != "" {
				d.Unreached = "its set " + m[3] + " is disabled"
				s.Diversions = append(s.Diversions, *d)
			}
		}
		if m[1] == "" {
			all = append(all, o)
		}
	}
	overrule(all)
	for _, o := range all {
		if o.diverts != nil {
			s.Diversions = append(s.Diversions, *o.diverts)
		}
	}
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
