package pf

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"pfdivert/pfconf"
)

// ParseStates reads what `pfctl -ss` (vv false) or `pfctl -ss -vv` printed, on
// OpenBSD or FreeBSD (print_state in their pf_print_state.c). A line that it
// does not understand is an error with the line's number and text: a listing
// that is understood in part would make states seem absent. With vv every state
// must come with its id.
//
// State.Label stays empty: pf shows only the rule's number, which stops meaning
// anything when the anchor is loaded again.
func ParseStates(r io.Reader, vv bool) ([]pfconf.State, error) {
	var states []pfconf.State
	in := bufio.NewScanner(r)
	n := 0
	bad := func(err error) error {
		return fmt.Errorf("line %d, %q: %w", n, in.Text(), err)
	}
	for in.Scan() {
		n++
		line := in.Text()
		if !strings.HasPrefix(line, " ") {
			if err := idKnown(states, vv); err != nil {
				return nil, bad(err)
			}
			s, err := parseState(line)
			if err != nil {
				return nil, bad(err)
			}
			states = append(states, s)
			continue
		}
		if !vv || len(states) == 0 {
			return nil, bad(errors.New("details of a state where none were asked for"))
		}
		if err := parseDetail(&states[len(states)-1], line); err != nil {
			return nil, bad(err)
		}
	}
	if err := in.Err(); err != nil {
		return nil, fmt.Errorf("line %d: %w", n+1, err)
	}
	if err := idKnown(states, vv); err != nil {
		return nil, fmt.Errorf("at the end: %w", err)
	}
	return states, nil
}

func idKnown(states []pfconf.State, vv bool) error {
	if vv && len(states) > 0 && states[len(states)-1].ID == "" {
		return errors.New("the state before it has no id")
	}
	return nil
}

// phase is the last word of a state line: the levels of both ends by name, or
// by number for ICMP; PROXY:SRC is a name like others.
var phase = regexp.MustCompile(`^([A-Z0-9_?]+:[A-Z0-9_?]+|<BAD STATE LEVELS [0-9]+:[0-9]+>)$`)

// parseState reads a line like
//
//	all tcp 10.188.2.9:5000 <- 10.188.1.1:43876       ESTABLISHED:FIN_WAIT_2
//
// where each end may be followed by what it was before translation, in
// parentheses, and by the next hop of route-to, in braces.
func parseState(line string) (pfconf.State, error) {
	var s pfconf.State
	var ok bool
	iface, rest, ok1 := strings.Cut(line, " ")
	proto, rest, ok2 := strings.Cut(rest, " ")
	if !ok1 || !ok2 || iface == "" {
		return s, errors.New("no state")
	}
	if iface != "all" {
		s.Interface = iface
	}
	if s.Number, ok = pfconf.ProtoNumber(proto); !ok {
		return s, fmt.Errorf("unknown protocol %q", proto)
	}
	near, rest, err := parseEnd(rest)
	if err != nil {
		return s, err
	}
	switch {
	case strings.HasPrefix(rest, " <- "):
		s.Direction = pfconf.In
	case strings.HasPrefix(rest, " -> "):
		s.Direction = pfconf.Out
	default:
		return s, errors.New("no direction")
	}
	far, rest, err := parseEnd(rest[len(" <- "):])
	if err != nil {
		return s, err
	}
	s.Near, s.NearWas, s.Domain = near.is, near.was, near.domain
	s.Far, s.FarWas = far.is, far.was
	s.Family = pfconf.FamilyOf(near.is.Addr())
	if pfconf.FamilyOf(far.is.Addr()) != s.Family || far.domain != s.Domain {
		return s, errors.New("its ends are of two families or routing domains")
	}
	word, indented := strings.CutPrefix(rest, "       ")
	if !indented || !phase.MatchString(word) {
		return s, errors.New("no phase at its end")
	}
	s.Phase = word
	return s, nil
}

// end is one side of a state line.
type end struct {
	is, was netip.AddrPort
	domain  int
}

// parseEnd reads `HOST`, `HOST (HOST)`, `HOST {ADDRESS}` or all three, and gives
// what follows.
func parseEnd(text string) (e end, rest string, err error) {
	if e.is, e.domain, rest, err = parseHost(text); err != nil {
		return e, "", err
	}
	if was, found := strings.CutPrefix(rest, " ("); found {
		if e.was, _, rest, err = parseHost(was); err != nil {
			return e, "", err
		}
		if rest, found = strings.CutPrefix(rest, ")"); !found {
			return e, "", errors.New("unclosed parenthesis")
		}
	}
	if hop, found := strings.CutPrefix(rest, " {"); found {
		if hop, rest, found = strings.Cut(hop, "}"); !found {
			return e, "", errors.New("unclosed brace")
		}
		if _, err := netip.ParseAddr(hop); err != nil {
			return e, "", err
		}
	}
	return e, rest, nil
}

// parseHost reads `10.0.0.1:80`, `fd00::1[80]`, either without a port, and
// `(1) ` before it for routing domain 1. An address has no ':' behind it without
// a port when it is IPv4, and none at all to tell from a port when it is IPv6.
func parseHost(text string) (a netip.AddrPort, domain int, rest string, err error) {
	if in, found := strings.CutPrefix(text, "("); found {
		number, after, found := strings.Cut(in, ") ")
		if domain, err = strconv.Atoi(number); err != nil || !found || domain < 1 || number[0] == '+' {
			return a, 0, "", errors.New("no routing domain in parentheses")
		}
		text = after
	}
	host := text
	if i := strings.IndexAny(text, " )"); i >= 0 {
		host, rest = text[:i], text[i:]
	}
	name, port := host, ""
	if v6, found := strings.CutSuffix(host, "]"); found {
		if name, port, found = strings.Cut(v6, "["); !found {
			return a, 0, "", errors.New("no port in brackets")
		}
	} else if strings.Count(host, ":") == 1 {
		name, port, _ = strings.Cut(host, ":")
	}
	addr, err := netip.ParseAddr(name)
	if err != nil {
		return a, 0, "", err
	}
	number := uint64(0)
	if name != host {
		if number, err = strconv.ParseUint(port, 10, 16); err != nil || number == 0 || port[0] == '0' {
			return a, 0, "", fmt.Errorf("no port number: %q", port)
		}
		if addr.Is4() == strings.HasSuffix(host, "]") {
			return a, 0, "", fmt.Errorf("the port of %v is not written so", addr)
		}
	}
	return netip.AddrPortFrom(addr, uint16(number)), domain, rest, nil
}

// Line is the state as `pfctl -ss` prints it, except for a next hop in braces.
func Line(s pfconf.State) string {
	arrow, iface := "->", s.Interface
	if s.Direction == pfconf.In {
		arrow = "<-"
	}
	if iface == "" {
		iface = "all"
	}
	return fmt.Sprintf("%s %s %s %s %s       %s", iface, pfconf.ProtoName(s.Number),
		endText(s.Near, s.NearWas, s.Domain), arrow, endText(s.Far, s.FarWas, s.Domain), s.Phase)
}

func endText(is, was netip.AddrPort, domain int) string {
	text := hostText(is, domain)
	if was.IsValid() {
		text += " (" + hostText(was, domain) + ")"
	}
	return text
}

func hostText(a netip.AddrPort, domain int) string {
	text := a.Addr().String()
	if domain != 0 {
		text = fmt.Sprintf("(%d) %s", domain, text)
	}
	switch {
	case a.Port() == 0:
		return text
	case a.Addr().Is4():
		return fmt.Sprintf("%s:%d", text, a.Port())
	}
	return fmt.Sprintf("%s[%d]", text, a.Port())
}
