package pf

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"pfdivert/pfconf"
	"pfdivert/pfconf/program"
)

// Text is the rule as a line of pf.conf(5), written as OpenBSD's regress suite writes it; the rule
// must be valid.
//
// PFDivertTo rules are for FreeBSD's pf alone. They and PFPass rules decide in place of the host's
// own rules, as ipfw's do, and make no state unless they are to: the packets of one would not meet
// the rule. How that pf is told of a rule that redirects, redirect says.
func Text(r pfconf.Rule) string {
	var b strings.Builder
	quick, stateless := "", ""
	switch {
	case r.Action == pfconf.DivertPacket && r.On != "":
		quick, stateless = " on "+r.On, boundState
	case r.Action == pfconf.DivertPacket:
	case r.Gateway.IsValid():
		quick, stateless = " quick"+gatewayClause(r), statement(r)
	case r.Action == pfconf.PFDivertTo:
		quick, stateless = " quick", statement(r)
	case r.Action == pfconf.PFPass:
		quick, stateless = " quick on "+r.Interface, statement(r)
	}
	fmt.Fprintf(&b, "pass %v log%s %s", r.Direction, quick, packets(behindMatch(r)))
	if r.Received != "" {
		b.WriteString(receivedClause(r))
	}
	if clause := divertClause(r); clause != "" {
		b.WriteString(" " + clause)
	}
	if r.Most != 0 {
		b.WriteString(mostClause(r))
	}
	fmt.Fprintf(&b, "%s label %s%s", stateless, r.Label, pipeClause(r))
	if r.Once {
		b.WriteString(" once")
	}
	if r.Tag != "" {
		b.WriteString(tagClause(r))
	}
	b.WriteString(translation(r))
	b.WriteString(routeClause(r))
	return b.String()
}

// packets are a rule's family, protocol, addresses and port.
func packets(r pfconf.Rule) string {
	s := fmt.Sprintf("%v proto %s from %v to %v", r.Family, protoWritten(r), r.From, r.To)
	if r.Port != 0 {
		s += fmt.Sprintf(" port %d", r.Port)
	}
	return s
}

// matchRule is the match rule that stands before a rule of OpenBSD's pf, and what pfctl prints at
// its end.
func matchRule(r pfconf.Rule) (text, end string) {
	end = " tag " + r.Tag
	if r.Tag == "" {
		end = translates(r)
	}
	return fmt.Sprintf("match %v %s%s", r.Direction, packets(r), end), end
}

// behindMatch has the ends of packets as a rule of OpenBSD's pf sees them, behind its match rule.
func behindMatch(r pfconf.Rule) pfconf.Rule {
	switch {
	case r.Match && r.Redirected.IsValid():
		r.To, r.Port = r.Redirected.Addr(), r.Redirected.Port()
	case r.Match && r.Translated.IsValid():
		r.From = r.Translated
	}
	return r
}

// translation is what the rule itself translates.
func translation(r pfconf.Rule) string {
	if r.Match || r.Action != pfconf.DivertPacket && r.Action != pfconf.PFDivertTo {
		return ""
	}
	return translates(r)
}

func translates(r pfconf.Rule) string {
	switch {
	case r.Translated.IsValid():
		return natClause(r)
	case r.Redirected.IsValid() && r.Action == pfconf.DivertPacket: // see redirect for PFDivertTo
		return fmt.Sprintf(" rdr-to %v port %d", r.Redirected.Addr(), r.Redirected.Port())
	case r.OtherTo.IsValid():
		return fmt.Sprintf(" af-to %v from %v to %v", r.Family.Other(), r.OtherFrom, r.OtherTo)
	}
	return ""
}

func receivedClause(r pfconf.Rule) string { return " received-on " + r.Received }

func mostClause(r pfconf.Rule) string { return fmt.Sprintf(" keep state (max %d)", r.Most) }

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
	if r.Undiverted {
		return ""
	}
	switch r.Action {
	case pfconf.DivertTo:
		return "divert-to " + r.Divert.Addr().String() + " port " + divertPort(r)
	case pfconf.DivertPacket:
		return "divert-packet port " + divertPort(r)
	case pfconf.PFPass:
		return ""
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

// tagClause sets the rule's tag, or asks for it.
func tagClause(r pfconf.Rule) string {
	if r.Action != pfconf.PFDivertTo {
		return " tagged " + r.Tag
	}
	return " tag " + r.Tag
}

// routeClause is the gateway that the packets of a rule of OpenBSD's pf go on to. The interface
// follows from it: "routes the packet to the specified destination address" (pf.conf(5),
// shortened).
func routeClause(r pfconf.Rule) string {
	if r.Action != pfconf.DivertPacket || !r.Gateway.IsValid() {
		return ""
	}
	return fmt.Sprintf(" %v %v", r.Routing, r.Gateway)
}

// gatewayClause is, for FreeBSD's pf, the interface of the rule, and the gateway that its packets
// go on to.
func gatewayClause(r pfconf.Rule) string {
	on := ""
	if r.On != "" {
		on = " on " + r.On
	}
	return fmt.Sprintf("%s %v (%s %v)", on, r.Routing, r.Interface, r.Gateway)
}

// pipeClause sends the packets through a pipe of dummynet(4), which FreeBSD's pf does since 14.
func pipeClause(r pfconf.Rule) string {
	if r.Pipe == 0 {
		return ""
	}
	return fmt.Sprintf(" dnpipe %d", r.Pipe)
}

// natClause translates the source. FreeBSD's pfctl takes it in a rule that passes since 15.
func natClause(r pfconf.Rule) string { return fmt.Sprintf(" nat-to %v", r.Translated) }

// boundState keeps a state that has the packets of the rule's interface alone.
const boundState = " keep state (if-bound)"

// statement reports whether a PFDivertTo rule keeps a state.
func statement(r pfconf.Rule) string {
	if r.Keep && r.On != "" {
		return boundState
	}
	if r.Keep {
		return " keep state"
	}
	return " no state"
}

// redirect is a rule that redirects, and diverts with Redirected, as FreeBSD's pf takes it
// (OpenBSD's did before 4.7): a rule of the list of those that translate, and one that lets pass
// what the first has translated, which it tells by a tag. The second decides in place of the
// host's own rules. It makes the state and has the label and the counters: the first can have
// none.
func redirect(r pfconf.Rule) (translates, passes string) {
	from := fmt.Sprintf("%v proto %s from %v to", r.Family, protoWritten(r), r.From)
	name, _ := r.RedirectsTo()
	to, port := name.Addr(), name.Port()
	translates = fmt.Sprintf("rdr %s %v port %d tag %s -> %v port %d", from, r.To, r.Port, r.Label, to, port)
	passes = fmt.Sprintf("pass %v log quick %s %v port %d %s keep state label %s", r.Direction, from, to, port,
		passing(r), r.Label)
	return translates, passes
}

// passing is what the second rule of redirect has besides: the tag that tells what the first has
// translated, or the divert, of which what is reinjected has no tag any more.
func passing(r pfconf.Rule) string {
	if r.Action == pfconf.PFDivertTo {
		return divertClause(r)
	}
	return "tagged " + r.Label
}

// written is a rule as it is written, and what pfctl prints of it if it has understood it: a line
// with these in it and this at its end. Only what a cell depends on is compared, so that a release
// may print more.
type written struct {
	text string
	in   []string
	end  string
}

// writings are the rules line by line; rdrRules as Config has it. What translates comes first:
// pfctl wants it so.
func writings(rules []pfconf.Rule, rdrRules bool) []written {
	var translating, all []written
	for _, r := range rules {
		label := fmt.Sprintf(" label %q", r.Label)
		w := written{Text(r), []string{label}, translation(r) + routeClause(r)}
		if clause := divertClause(r); clause != "" {
			w.end = " " + clause + w.end
		}
		if r.Action == pfconf.PFDivertTo || r.Action == pfconf.PFPass {
			w.end = statement(r) + label + pipeClause(r)
			if r.Tag != "" {
				w.end += tagClause(r)
			}
		}
		switch {
		case r.Gateway.IsValid() && r.Action == pfconf.PFDivertTo:
			w.in = []string{gatewayClause(r) + " "}
		case r.Action == pfconf.PFPass:
			w.in = []string{" out log quick on " + r.Interface + " "}
		case r.OnlyOpenBSD():
			w.in = asked(r, label)
		}
		if r.Action == pfconf.PFDivertTo { // FreeBSD's divert-to of a divert socket
			w.end += fmt.Sprintf(" divert-to %d%s", r.Divert.Port(), translation(r))
		}
		if to, ok := r.RedirectsTo(); ok && rdrRules {
			translates, passes := redirect(r)
			end := fmt.Sprintf(" tag %s -> %v port %d", r.Label, to.Addr(), to.Port())
			translating = append(translating, written{translates, []string{"rdr "}, end})
			if r.Action == pfconf.RdrTo {
				w.end = fmt.Sprintf(" keep state%s tagged %s", label, r.Label)
			}
			w.text, w.in = passes, []string{"pass "}
		}
		if r.Match {
			text, end := matchRule(r)
			all = append(all, written{text, []string{"match "}, end})
		}
		all = append(all, w)
	}
	return append(translating, all...)
}

// asked is what a rule of OpenBSD's pf asks for, besides what every rule does, as pfctl prints it.
func asked(r pfconf.Rule, label string) []string {
	if r.Once {
		label += " once"
	}
	if r.Tag != "" {
		label += tagClause(r)
	}
	all := []string{label}
	if r.On != "" {
		all = append(all, " log on "+r.On+" ", boundState+" ")
	}
	if r.Received != "" {
		all = append(all, receivedClause(r)+" ")
	}
	if r.Most != 0 {
		all = append(all, mostClause(r)+" ")
	}
	return all
}

// document is the content of an anchor. With no rules it is a blank line, which empties the anchor.
func document(lines []written) string {
	if len(lines) == 0 {
		return "\n"
	}
	var b strings.Builder
	for _, w := range lines {
		b.WriteString(w.text)
		b.WriteByte('\n')
	}
	return b.String()
}

// understood compares what `pfctl -v -f -` printed with the rules that it was
// given. Other systems have rules that read the same and mean something else:
// FreeBSD loads divert-to and shows `divert-to 5000`, the port of a divert socket.
func understood(given []written, printed string) error {
	lines := program.Lines(printed)
	if len(lines) != len(given) {
		return fmt.Errorf("pfctl was given %d rules and printed %d", len(given), len(lines))
	}
	for i, w := range given {
		lacks := func(part string) bool { return !strings.Contains(lines[i], part) }
		if !strings.HasSuffix(lines[i], w.end) || slices.ContainsFunc(w.in, lacks) {
			return fmt.Errorf("pfctl was given %q and understood %q", w.text, lines[i])
		}
	}
	return nil
}
