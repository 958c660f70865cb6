package pf

import (
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"pfdivert/pfconf"
)

// mainRule is what of a printed rule reports whether a flow may match it. What is
// not understood only makes a rule match less, so it may be left out.
type mainRule struct {
	text   string
	action string // "pass", "block", "match", "anchor"
	anchor string // what an anchor rule calls
	dir    string // "in", "out", or empty
	quick  bool
	family string   // "inet", "inet6", or empty
	proto  int      // 0 for all
	from   []string // the words of the address and port, empty for all
	to     []string
}

// parseMainRule reads a rule in the order that print_rule (pfctl_parser.c) writes
// it: action, direction, log, quick, interface, family, protocol, addresses, options.
func parseMainRule(text string) (mainRule, error) {
	r := mainRule{text: text}
	w := strings.Fields(text)
	next := func() string {
		if len(w) == 0 {
			return ""
		}
		word := w[0]
		w = w[1:]
		return word
	}
	is := func(word string) bool { return len(w) > 0 && w[0] == word }
	switch r.action = next(); r.action {
	case "pass", "match":
	case "block":
		if len(w) > 0 && (w[0] == "drop" || strings.HasPrefix(w[0], "return")) {
			next()
			for len(w) > 0 && strings.HasSuffix(w[0], ")") { // return-icmp(port-unr, port-unr)
				next()
			}
		}
	case "anchor":
		if len(w) > 0 && strings.HasPrefix(w[0], `"`) {
			r.anchor = strings.Trim(next(), `"`)
		}
	default:
		return r, errors.New("not a rule of OpenBSD's pf")
	}
	if is("in") || is("out") {
		r.dir = next()
	}
	if is("log") {
		next()
		if len(w) > 0 && strings.HasPrefix(w[0], "(") {
			for !strings.HasSuffix(next(), ")") && len(w) > 0 {
			}
		}
	}
	if is("quick") {
		r.quick = true
		next()
	}
	if is("on") {
		next()
		if is("!") {
			next()
		}
		if next() == "rdomain" {
			next()
		}
	}
	if is("inet") || is("inet6") {
		r.family = next()
	}
	if is("proto") {
		next()
		n, ok := protoNumber(next())
		if !ok {
			return r, errors.New("unknown protocol")
		}
		r.proto = n
	}
	if is("from") {
		next()
		to := slices.Index(w, "to")
		if to < 0 {
			return r, errors.New("from without to")
		}
		r.from, r.to = w[:to], w[to+1:]
	} else if !is("all") {
		return r, errors.New("no addresses")
	}
	return r, nil
}

// calls reports whether the rule has the rules of the anchor evaluated: by its name,
// or by its parent's with "/*", which means the anchors below and not the parent
// itself (pf.conf(5), ANCHORS).
func (r mainRule) calls(anchor string) bool {
	name := strings.TrimPrefix(r.anchor, "/")
	if name == anchor {
		return true
	}
	above := ""
	if i := strings.LastIndexByte(anchor, '/'); i >= 0 {
		above = anchor[:i+1]
	}
	return name == above+"*"
}

// mayMatch is false when the rule surely does not match the first packet of r's flow.
func (r mainRule) mayMatch(flow pfconf.Rule) bool {
	return (r.dir == "" || r.dir == flow.Direction.String()) &&
		(r.family == "" || r.family == flow.Family.String()) &&
		(r.proto == 0 || r.proto == flow.Proto.Number(flow.Family)) &&
		mayBe(r.from, flow.From, 0) && mayBe(r.to, flow.To, flow.Port)
}

// mayBe is false when an address and port are surely not those of the words, which
// are like `! 10.0.0.0/8 port = 80` and whatever follows. Port 0 is not known.
func mayBe(words []string, addr netip.Addr, port uint16) bool {
	if len(words) == 0 {
		return true
	}
	not := words[0] == "!"
	if not && len(words) > 1 {
		words = words[1:]
	}
	if p, ok := prefix(words[0]); ok && p.Contains(addr) == not {
		return false
	}
	if len(words) >= 4 && words[1] == "port" && words[2] == "=" && port != 0 {
		n, err := strconv.ParseUint(words[3], 10, 16)
		return err != nil || uint16(n) == port
	}
	return true
}

func prefix(s string) (netip.Prefix, bool) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p, true
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a, a.BitLen()), true
}
