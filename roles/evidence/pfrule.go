package evidence

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"pfdivert/matrix/evidence"
	"pfdivert/pfconf"
	"pfdivert/pfconf/program"
)

// pfRule is a line of `pfctl -s rules`.
type pfRule struct {
	ordered
	anchor string   // that it calls, by the name that it uses; "" for none
	inline bool     // what it calls follows, in braces
	inner  []pfRule // that
}

// bounds of rules that are not this program's.
const (
	maxAnchors = 100
	maxDepth   = 16
)

// words splits a line; a string in quotes and a group in parentheses are one word each.
func words(line string) ([]string, error) {
	var all []string
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimSpace(line) {
		end, depth, quoted := 0, 0, false
		for ; end < len(line) && (depth > 0 || quoted || line[end] != ' '); end++ {
			switch c := line[end]; {
			case c == '"':
				quoted = !quoted
			case c == '(' && !quoted:
				depth++
			case c == ')' && !quoted:
				depth--
			}
		}
		if quoted || depth > 0 {
			return nil, errors.New("a quote or a parenthesis has no end")
		}
		all = append(all, line[:end])
		line = line[end:]
	}
	return all, nil
}

// reader takes words one by one.
type reader struct{ left []string }

func (r *reader) peek() string {
	if len(r.left) == 0 {
		return ""
	}
	return r.left[0]
}

func (r *reader) next() string {
	w := r.peek()
	if w != "" {
		r.left = r.left[1:]
	}
	return w
}

// is takes the word if it is the next one.
func (r *reader) is(word string) bool {
	if r.peek() == word {
		r.next()
		return true
	}
	return false
}

// parsePFRule reads one rule. What limits it and is not known makes taken.more; a
// rule whose packets can't be told at all is an error.
func parsePFRule(line string) (p pfRule, err error) {
	list, err := words(line)
	if err != nil {
		return p, err
	}
	r := &reader{list}
	p.text = strings.TrimSuffix(strings.TrimSpace(line), " {")
	switch action := r.next(); action {
	case "pass":
		p.passes = true
	case "block":
		p.drops = true
		for strings.HasPrefix(r.peek(), "return") || r.peek() == "drop" {
			r.next()
		}
	case "match":
		p.matches = true
	case "anchor":
		if strings.HasPrefix(r.peek(), `"`) {
			p.anchor = strings.Trim(r.next(), `"`)
		}
	default:
		return p, fmt.Errorf("%.40q is no rule's beginning", action)
	}
	if d := r.peek(); d == "in" || d == "out" {
		p.direction = r.next()
	}
	if r.is("log") && strings.HasPrefix(r.peek(), "(") {
		r.next()
	}
	p.quick = r.is("quick")
	if err := p.packets(r); err != nil {
		return p, err
	}
	return p, p.options(r)
}

// packets takes what a rule says of the packets that it is for.
func (p *pfRule) packets(r *reader) error {
	for r.is("on") {
		switch {
		case r.is("any"):
		case r.is("rdomain"):
			if p.table = r.next(); p.table == "0" {
				p.table = ""
			}
			p.more = true
		case r.is("!"):
			p.nic = "!" + r.next()
		default:
			p.nic = r.next()
		}
	}
	for r.is("received-on") {
		r.next()
		p.more = true
	}
	// FreeBSD has them here, and OpenBSD among the options.
	for r.peek() == "route-to" || r.peek() == "reply-to" || r.peek() == "dup-to" {
		r.next()
		if r.next() == "{" {
			for len(r.left) > 0 && r.next() != "}" {
			}
		}
		for slices.Contains([]string{"round-robin", "random", "source-hash", "bitmask", "sticky-address"}, r.peek()) {
			r.next()
		}
	}
	switch {
	case r.is("inet"):
		p.families = []pfconf.Family{pfconf.Inet}
	case r.is("inet6"):
		p.families = []pfconf.Family{pfconf.Inet6}
	}
	if r.is("proto") {
		p.proto = r.next()
	}
	switch {
	case r.is("all"):
	case r.is("from"):
		p.from.read(r)
		if r.is("os") {
			r.next()
			p.more = true
		}
		if !r.is("to") {
			return fmt.Errorf("no destination before %.40q", r.peek())
		}
		p.to.read(r)
	default:
		return fmt.Errorf("no addresses before %.40q", r.peek())
	}
	return nil
}

// read takes an address with its port.
func (s *side) read(r *reader) {
	text := r.next()
	if text == "!" {
		text += " " + r.next()
	}
	if text == "route" { // a label of routes
		text += " " + r.next()
	}
	if r.is("-") {
		text += " - " + r.next()
	}
	s.address(text)
	if !r.is("port") {
		return
	}
	s.port = r.next()
	switch s.port {
	case "=":
		s.port = r.next()
	case "!=", "<", ">", "<=", ">=":
		s.port += " " + r.next()
	}
	if op := r.peek(); op == "><" || op == "<>" {
		s.port += " " + r.next() + " " + r.next()
	}
}

// options takes what follows the addresses.
func (p *pfRule) options(r *reader) error {
	target := func() (d evidence.Diversion, err error) {
		if d.Address, err = netip.ParseAddr(r.next()); err == nil && r.is("port") {
			d.Port, err = portNumber(r.next())
		} else if err == nil {
			ownPort(&d, p.to)
		}
		return d, err
	}
	var d evidence.Diversion
	var err error
	for len(r.left) > 0 && err == nil {
		switch word := r.next(); word {
		case "{":
			p.inline = true
		case "flags":
			if f := r.next(); f != "S/SA" && f != "any" { // what is without limit, as TCP's rules are
				p.more = true
			}
		case "label", "tag", "queue", "scrub", "set":
			r.next()
		case "rtable":
			if p.table = r.next(); p.table == "0" {
				p.table = ""
			}
		case "no", "keep", "modulate", "synproxy":
			if !r.is("state") {
				p.more = true
			} else if strings.HasPrefix(r.peek(), "(") {
				r.next()
			}
		case "allow-opts", "once":
		case "divert-to":
			if n, numeric := portNumber(r.peek()); numeric == nil { // FreeBSD's
				r.next()
				d.Kind, d.Queue, d.Last = evidence.Divert, n, n
				break
			}
			d, err = target()
			d.Kind = evidence.DivertTo
		case "rdr-to":
			d, err = target()
			d.Kind = evidence.RdrTo
		case "divert-reply":
			d.Kind = evidence.DivertReply
		case "divert-packet":
			if !r.is("port") {
				err = errors.New("divert-packet has no port")
				break
			}
			d.Kind = evidence.Divert
			d.Queue, err = portNumber(r.next())
			d.Last = d.Queue
		default:
			p.more = true
		}
	}
	if err != nil {
		return fmt.Errorf("where it leads is not understood: %w", err)
	}
	if d.Kind != "" {
		d.Families, d.Interface = p.familiesOf(), p.nic
		if d.Address.IsValid() {
			d.Families = []pfconf.Family{pfconf.FamilyOf(d.Address)}
		}
		d.Proto, d.Table = p.proto, p.table
		p.diverts = &d
	}
	return nil
}

func portNumber(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("port %.20q", s)
	}
	return uint16(n), nil
}

// parsePF reads `pfctl -s rules` of a ruleset: the main one, or an anchor by its name. What is not
// understood is said.
func parsePF(out, anchor string, miss func(string, error)) []pfRule {
	of := "the main ruleset"
	if anchor != "" {
		of = "anchor " + anchor
	}
	type level struct {
		rules []pfRule
		owner pfRule
	}
	open := []level{{}}
	for _, line := range program.Lines(out) {
		last := len(open) - 1
		if strings.TrimSpace(line) == "}" {
			if last == 0 {
				miss(of, errors.New("a brace closes what was not opened"))
				continue
			}
			owner := open[last].owner
			owner.inner = open[last].rules
			open = open[:last]
			open[last-1].rules = append(open[last-1].rules, owner)
			continue
		}
		rule, err := parsePFRule(line)
		rule.where = fmt.Sprintf("rule %d of %s", len(open[last].rules), of)
		if last > 0 {
			rule.where = "a rule within " + open[last].owner.where
		}
		if err != nil {
			miss(rule.where, fmt.Errorf("%.200q: %w", line, err))
			rule = pfRule{} // it keeps its number
		}
		if rule.diverts != nil {
			rule.diverts.Rule = rule.where
		}
		if rule.inline && len(open) < maxDepth {
			open = append(open, level{owner: rule})
			continue
		}
		open[last].rules = append(open[last].rules, rule)
	}
	if len(open) > 1 {
		miss(of, errors.New("braces are not closed"))
	}
	for last := len(open) - 1; last > 0; last-- {
		owner := open[last].owner
		owner.inner = open[last].rules
		open[last-1].rules = append(open[last-1].rules, owner)
	}
	return open[0].rules
}
