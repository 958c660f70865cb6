package pf

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"pfdivert/pfconf/program"
)

// Options that have one argument, and whether a packet must meet them to match.
var oneArgument = map[string]bool{
	"received-on": true, "!received-on": true, "tos": true, "prio": true, "max-pkt-rate": true, "max-pkt-size": true,
	"probability": true, "tagged": true,
	"set": false, "label": false, "ridentifier": false, "dnpipe": false, "dnqueue": false, "queue": false,
	"min-ttl": false, "max-mss": false, "set-tos": false,
}

// options reads what follows the addresses. Each release prints it in another order.
func (r *HostRule) options(w *words) error {
	for len(w.Left) > 0 {
		if err := r.option(w); err != nil {
			return err
		}
	}
	return nil
}

func (r *HostRule) option(w *words) (err error) {
	word := w.Next()
	if limits, ok := oneArgument[word]; ok {
		value, err := w.argument(word)
		if err == nil && limits {
			r.condition(word, value)
		}
		return err
	}
	switch word {
	case "allow-opts", "no-df", "random-id":
	case "once", "fragment":
		// A rule that scrubs has its way of reassembling here: "fragment no reassemble".
		if r.Action == "scrub" {
			w.Is("no")
			w.Next()
			return nil
		}
		r.condition(word)
	case "reassemble":
		return w.want("tcp")
	case "scrub":
		return w.group(word)
	case "user", "group":
		text, _, err := operator(w)
		r.condition(word, text)
		return err
	case "flags":
		// A TCP flow's first packet has SYN alone.
		if value := w.Next(); value != "any" && !strings.HasPrefix(value, "S/") {
			r.condition(word, value)
		}
	case "icmp-type", "icmp6-type":
		text := word + " " + w.Next()
		if w.Is("code") {
			text += " code " + w.Next()
		}
		r.condition(text)
	case "no", "keep", "modulate", "synproxy":
		r.State = word
		return w.want("state")
	case "tag":
		r.Tag, err = w.argument(word)
		return err
	case "!":
		if err := w.want("tagged"); err != nil {
			return err
		}
		r.condition("! tagged", w.Next())
	case "rtable":
		r.Table, err = w.argument(word)
		return err
	case "route-to", "reply-to", "dup-to":
		w.Left = append([]string{word}, w.Left...)
		return r.route(w)
	case "divert-to", "divert-reply", "divert-packet":
		r.Divert, err = divertTarget(w, word)
		return err
	case "rdr-to", "nat-to", "->":
		r.Translate, err = pool(w, word)
		return err
	case "af-to":
		return r.afTo(w)
	default:
		grouped := func(name string) bool { return strings.HasPrefix(word, name+"(") }
		if strings.HasPrefix(word, "(") && r.State != "" ||
			slices.ContainsFunc([]string{"scrub", "queue", "dnpipe", "dnqueue"}, grouped) {
			return nil // the options of the state
		}
		return fmt.Errorf("unknown option %.40q", word)
	}
	return nil
}

// group takes a word in parentheses.
func (w *words) group(of string) error {
	if word := w.Next(); !strings.HasPrefix(word, "(") {
		return fmt.Errorf("no parenthesis behind %q but %.40q", of, word)
	}
	return nil
}

func divertTarget(w *words, kind string) (*Destination, error) {
	t := &Destination{Kind: kind}
	switch kind {
	case "divert-reply":
		return t, nil
	case "divert-to":
		host, err := w.argument(kind)
		if err != nil {
			return nil, err
		}
		if n, err := portNumber(host); err == nil { // FreeBSD's
			t.Port, t.Last = n, n
			return t, nil
		}
		t.Hosts = []string{host}
	}
	if err := w.want("port"); err != nil {
		return nil, err
	}
	n, err := portNumber(w.Next())
	t.Port, t.Last = n, n
	return t, err
}

// afTo reads "af-to inet from A to B". Where B is missing, the new destination is in the old one.
func (r *HostRule) afTo(w *words) error {
	if !w.Is("inet") && !w.Is("inet6") {
		return fmt.Errorf("no family behind af-to but %.40q", w.Peek())
	}
	if err := w.want("from"); err != nil {
		return err
	}
	t, err := pool(w, "af-to")
	if err == nil && w.Is("to") {
		t, err = pool(w, "af-to")
	}
	r.Translate = t
	return err
}

func isRoute(word string) bool { return word == "route-to" || word == "reply-to" || word == "dup-to" }

// route reads "route-to POOL", and of the pool only where it ends.
func (r *HostRule) route(w *words) error {
	r.Route = w.Next()
	_, err := pool(w, r.Route)
	return err
}

// Options of a pool that are a word each.
var poolOptions = []string{
	"bitmask", "random", "round-robin", "least-states", "sticky-address", "static-port", "endpoint-independent",
	"prefer-ipv6-nexthop",
}

// pool reads what print_pool prints: an address, or several in braces with commas between; a port
// or a range of them; how one is chosen.
func pool(w *words, kind string) (*Destination, error) {
	t := &Destination{Kind: kind}
	if w.Is("{") {
		for !w.Is("}") {
			host, err := w.argument("{")
			if err != nil {
				return nil, err
			}
			t.Hosts = append(t.Hosts, strings.TrimSuffix(host, ","))
		}
	} else {
		host, err := w.argument(kind)
		if err != nil {
			return nil, err
		}
		if w.Is("-") {
			host += " - " + w.Next()
		}
		t.Hosts = []string{host}
	}
	if w.Is("port") {
		low, high, ranged := strings.Cut(w.Next(), ":")
		var err, errLast error
		t.Port, err = portNumber(low)
		if t.Last = t.Port; ranged {
			t.Last, errLast = portNumber(high)
		}
		if err := errors.Join(err, errLast); err != nil {
			return nil, err
		}
	}
	for {
		switch word := w.Peek(); {
		case slices.Contains(poolOptions, word):
			w.Next()
		case word == "source-hash" || word == "map-e-portset":
			w.Next()
			if key := w.Peek(); word == "map-e-portset" || strings.HasPrefix(key, "0x") {
				w.Next()
			}
		default:
			return t, nil
		}
	}
}

func portNumber(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("no port: %.20q", s)
	}
	return uint16(n), nil
}

// maxNested bounds how deep anchors are written in one another.
const maxNested = 16

// ParseHostRules reads what `pfctl -s rules` or `pfctl -s nat` printed, with and without -P, of the
// main ruleset or of an anchor. Rules that an anchor rule has in braces are its Inner. There is a
// HostRule for each line but closing braces; HostRule.Err says which are not understood.
func ParseHostRules(out string) []HostRule {
	open := [][]HostRule{nil} // the rules of each level
	closeOne := func() {
		last := len(open) - 1
		owner := &open[last-1][len(open[last-1])-1]
		owner.Inner = open[last]
		open = open[:last]
	}
	for _, line := range program.Lines(out) {
		last := len(open) - 1
		text := strings.TrimSpace(line)
		if text == "}" && last > 0 {
			closeOne()
			continue
		}
		text, opens := strings.CutSuffix(text, " {")
		r := parseHostRule(text)
		if opens && (r.Err == nil && !r.Calls() || last == maxNested) {
			r.Err = errors.New("a brace where no rules can follow")
		}
		open[last] = append(open[last], r)
		if opens && last < maxNested {
			open = append(open, nil)
		}
	}
	for len(open) > 1 {
		owner := &open[len(open)-2][len(open[len(open)-2])-1]
		owner.Err = errors.Join(owner.Err, errors.New("its brace is not closed"))
		closeOne()
	}
	return open[0]
}
