package pf

import (
	"errors"
	"fmt"
	"strings"

	"pfdivert/pfconf"
)

// HostRule is a rule of the host's, whoever's it is, as `pfctl -s rules` or `pfctl -s nat` prints
// it: print_rule in pfctl_parser.c of FreeBSD 12 to 15 and of OpenBSD 7.7.
type HostRule struct {
	Text string // as printed
	// Action is what the line begins with: pass, block, match or scrub; nat, binat or rdr; or
	// anchor, nat-anchor, binat-anchor or rdr-anchor.
	Action string
	No     bool // "no rdr" and its like: what matches is not translated
	Pass   bool // "rdr pass": what it translates is not filtered
	Quick  bool
	// Anchor is the name that an anchor rule calls, "" when it has none: then its rules are Inner.
	Anchor string
	Inner  []HostRule
	pfconf.Packets
	Domain string // of "on rdomain", which may begin with "! "; "" for all
	Table  string // of "rtable", "" for none
	State  string // "no", "keep", "modulate" or "synproxy"; "" where OpenBSD keeps state unasked
	Route  string // "route-to", "reply-to", "dup-to" or ""
	Tag    string // that it sets
	// Divert and Translate are where the rule leads packets, nil where it does not.
	Divert, Translate *Destination
	// Err says what of the text is not understood. Such a rule keeps its place; the fields that
	// follow what was understood are empty.
	Err error
}

// Destination is where a rule leads packets.
type Destination struct {
	// Kind is "divert-to", "divert-reply", "divert-packet", "rdr-to", "nat-to", "af-to" or "->".
	Kind string
	// Hosts are the addresses as printed, of several one is chosen: "127.0.0.1", "10.0.0.0/28",
	// "(em0)", "<table>". FreeBSD's divert-to, which leads to a divert socket, has none.
	Hosts []string
	// Port and Last are the first port and the last; 0: the packet's own.
	Port, Last uint16
}

// Calls reports whether the rule has an anchor's rules evaluated.
func (r *HostRule) Calls() bool { return strings.HasSuffix(r.Action, "anchor") }

// parseHostRule reads one line, without the brace that may end it. What is not understood is in
// HostRule.Err.
func parseHostRule(line string) HostRule {
	r := HostRule{Text: strings.TrimSpace(line)}
	w, err := splitWords(r.Text)
	if err == nil {
		err = r.head(w)
	}
	if err == nil {
		err = r.packets(w)
	}
	if err == nil {
		err = r.options(w)
	}
	r.Err = err
	return r
}

var actions = map[string]bool{
	"pass": true, "block": true, "match": true, "scrub": true, "nat": true, "binat": true, "rdr": true,
	"anchor": true, "nat-anchor": true, "binat-anchor": true, "rdr-anchor": true,
}

// head reads the action, the direction, log and quick.
func (r *HostRule) head(w *words) error {
	r.No = w.Is("no")
	r.Action = w.Next()
	if !actions[r.Action] {
		return fmt.Errorf("%.40q is no rule's beginning", r.Action)
	}
	switch {
	case r.Calls():
		if strings.HasPrefix(w.Peek(), `"`) {
			r.Anchor = strings.Trim(w.Next(), `"`)
		}
	case r.Action == "block":
		if strings.HasPrefix(w.Peek(), "return") || w.Peek() == "drop" { // return-icmp(port-unr, port-unr)
			w.Next()
		}
	case r.Action != "pass": // of those that translate
		r.Pass = w.Is("pass")
	}
	switch {
	case w.Is("in"):
		r.Direction = pfconf.In
	case w.Is("out"):
		r.Direction = pfconf.Out
	}
	if w.Is("log") && strings.HasPrefix(w.Peek(), "(") {
		w.Next()
	}
	r.Quick = w.Is("quick")
	return nil
}

// packets reads the interface, FreeBSD's route, the family, the protocol and the addresses.
func (r *HostRule) packets(w *words) error {
	for w.Is("on") {
		not := w.Is("!")
		name, err := w.argument("on")
		switch {
		case err != nil:
			return err
		case name == "any":
		case name == "rdomain" && not:
			r.Domain = "! " + w.Next()
		case name == "rdomain":
			r.Domain = w.Next()
		case not:
			r.Interface = "!" + name
		default:
			r.Interface = name
		}
	}
	for isRoute(w.Peek()) { // FreeBSD's place for it
		if err := r.route(w); err != nil {
			return err
		}
	}
	switch {
	case w.Is("inet"):
		r.Families = []pfconf.Family{pfconf.Inet}
	case w.Is("inet6"):
		r.Families = []pfconf.Family{pfconf.Inet6}
	}
	if w.Is("proto") {
		n, ok := pfconf.ProtoNumber(w.Peek())
		if !ok {
			return fmt.Errorf("unknown protocol %.40q", w.Peek())
		}
		w.Next()
		r.Proto = n
	}
	if w.Is("all") {
		return nil
	}
	if !w.Is("from") {
		return fmt.Errorf("no addresses before %.40q", w.Peek())
	}
	if err := r.side(w, &r.From); err != nil {
		return err
	}
	if w.Is("os") {
		r.condition("os", w.Next())
	}
	if err := w.want("to"); err != nil {
		return err
	}
	return r.side(w, &r.To)
}

// condition notes what else the rule asks of packets.
func (r *HostRule) condition(words ...string) {
	r.Conditions = append(r.Conditions, strings.Join(words, " "))
}

// side reads an address and its ports.
func (r *HostRule) side(w *words, s *pfconf.Side) error {
	s.Not = w.Is("!")
	text, err := w.argument("from or to")
	if err != nil {
		return err
	}
	if text == "route" { // the label of a route
		text += " " + w.Next()
	}
	if w.Is("-") {
		text += " - " + w.Next()
	}
	s.Address(text)
	if !w.Is("port") {
		return nil
	}
	op, ports, err := operator(w)
	if err != nil {
		return err
	}
	if s.Ports = ports; ports == nil {
		r.condition("port", op)
	}
	return nil
}

// operator reads what print_op prints: "= 80", "!= 80", "< 80", "80 >< 90", "80 <> 90", "80:90".
// ports is nil when the numbers are names, or none are left.
func operator(w *words) (text string, ports pfconf.Ports, err error) {
	const top = 1<<16 - 1
	first := w.Next()
	second, third := "", ""
	switch op := w.Peek(); {
	case strings.ContainsAny(first, "=<>"):
		second = w.Next()
	case op == "><" || op == "<>":
		second, third = w.Next(), w.Next()
	}
	text = strings.TrimSpace(strings.Join([]string{first, second, third}, " "))
	if first == "" || second == "" && !strings.Contains(first, ":") || second != "" && third == "" &&
		!strings.ContainsAny(first, "=<>") {
		return text, nil, fmt.Errorf("no comparison of numbers: %.40q", text)
	}
	low, high, colon := strings.Cut(first, ":")
	a, b := low, high
	switch {
	case third != "":
		b = third
	case !colon:
		a, b = second, second
	}
	m, err1 := portNumber(a)
	n, err2 := portNumber(b)
	if err1 != nil || err2 != nil {
		return text, nil, nil // a service's name, or a user's number
	}
	x, y := int(m), int(n)
	between := func(from, to int) {
		if from <= to {
			ports = append(ports, pfconf.PortRange{First: uint16(from), Last: uint16(to)})
		}
	}
	switch {
	case colon:
		between(x, y)
	case second == "><":
		between(x+1, y-1)
	case second == "<>":
		between(0, x-1)
		between(y+1, top)
	case first == "=":
		between(x, x)
	case first == "!=":
		between(0, x-1)
		between(x+1, top)
	case first == "<":
		between(0, x-1)
	case first == "<=":
		between(0, x)
	case first == ">":
		between(x+1, top)
	case first == ">=":
		between(x, top)
	default:
		return text, nil, errors.New("no comparison of numbers: " + first)
	}
	return text, ports, nil
}
