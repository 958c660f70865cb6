package pf

import (
	"fmt"
	"strconv"
	"strings"

	"pfdivert/pfconf"
	"pfdivert/pfconf/program"
)

// Text is the rule as a line of pf.conf(5), written as OpenBSD's regress suite
// writes it; the rule must be valid.
//
// A PFDivertTo rule is for FreeBSD's pf alone. It decides in place of the host's own rules, as ipfw's
// does, and makes no state: the packets of one would not meet the rule.
func Text(r pfconf.Rule) string {
	var b strings.Builder
	quick, stateless := "", ""
	if r.Action == pfconf.PFDivertTo {
		quick, stateless = " quick", " no state"
	}
	fmt.Fprintf(&b, "pass %v log%s %v proto %s from %v to %v", r.Direction, quick, r.Family, protoWritten(r), r.From, r.To)
	if r.Port != 0 {
		fmt.Fprintf(&b, " port %d", r.Port)
	}
	fmt.Fprintf(&b, " %s%s label %s", divertClause(r), stateless, r.Label)
	return b.String()
}

// protoWritten is the protocol as it is written in a rule.
func protoWritten(r pfconf.Rule) string {
	switch {
	case r.Proto == pfconf.Raw:
		return strconv.Itoa(pfconf.RawNumber)
	case r.Proto == pfconf.ICMP && r.Family == pfconf.Inet6:
		return "icmp6"
	}
	return r.Proto.String()
}

func divertClause(r pfconf.Rule) string {
	switch r.Action {
	case pfconf.DivertTo:
		return "divert-to " + r.Divert.Addr().String() + " port " + divertPort(r)
	case pfconf.DivertPacket:
		return "divert-packet port " + divertPort(r)
	case pfconf.PFDivertTo: // the grammar wants an address, which means nothing
		return fmt.Sprintf("divert-to %v port %d", r.Family.Loopback(), r.Divert.Port())
	case pfconf.RdrTo:
		return fmt.Sprintf("rdr-to %v port %d", r.Divert.Addr(), r.Divert.Port())
	}
	return r.Action.String()
}

// divertPort is 1 for protocols without ports: the grammar wants a port there,
// and it means nothing.
func divertPort(r pfconf.Rule) string {
	if r.Action == pfconf.DivertTo && !r.Proto.HasPorts() {
		return "1"
	}
	return strconv.Itoa(int(r.Divert.Port()))
}

// Document is the rules as the whole content of an anchor. With no rules it is
// a blank line, which empties the anchor.
func Document(rules []pfconf.Rule) string {
	if len(rules) == 0 {
		return "\n"
	}
	var b strings.Builder
	for _, r := range rules {
		b.WriteString(Text(r))
		b.WriteByte('\n')
	}
	return b.String()
}

// understood compares what `pfctl -v -f -` printed with the rules that it was
// given. Other systems have rules that read the same and mean something else:
// FreeBSD loads divert-to and shows `divert-to 5000`, the port of a divert socket.
// Only what a cell depends on is compared, so that a release may print more.
func understood(rules []pfconf.Rule, printed string) error {
	lines := program.Lines(printed)
	if len(lines) != len(rules) {
		return fmt.Errorf("pfctl was given %d rules and printed %d", len(rules), len(lines))
	}
	for i, r := range rules {
		label := fmt.Sprintf(" label %q", r.Label)
		clause := divertClause(r)
		if r.Action == pfconf.PFDivertTo { // FreeBSD's divert-to of a divert socket
			clause = fmt.Sprintf("no state%s divert-to %d", label, r.Divert.Port())
		}
		if !strings.HasSuffix(lines[i], " "+clause) || !strings.Contains(lines[i], label) {
			return fmt.Errorf("pfctl was given %q and understood %q", Text(r), lines[i])
		}
	}
	return nil
}
