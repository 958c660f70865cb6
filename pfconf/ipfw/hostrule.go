package ipfw

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"pfdivert/pfconf"
	"pfdivert/pfconf/program"
)

// HostRule is a rule of the host's, whoever's it is, as `ipfw -S list` prints it (ipfw2.c,
// show_static_rule, of FreeBSD 12 to 15).
type HostRule struct {
	Number   int
	Set      int
	Disabled bool   // its set is
	Text     string // action and what follows, without the comment
	// Action is the first word, and Argument its argument, "" for none: "fwd" and "127.0.0.1,3128".
	Action   string
	Argument string
	pfconf.Packets
	// State is "keep-state", "limit", "record-state", "set-limit" or "". With one of the first two
	// the rule decides about all later packets of a flow as well, both ways.
	State string
	// Err says what of the text is not understood. The fields that follow it are empty.
	Err error
}

// How many words follow an action.
var arguments = map[string]int{
	"allow": 0, "accept": 0, "pass": 0, "permit": 0,
	"deny": 0, "drop": 0, "reject": 0, "reset": 0, "reset6": 0, "abort": 0, "abort6": 0, "unreach": 1, "unreach6": 1,
	"fwd": 1, "forward": 1, "divert": 1, "tee": 1, "skipto": 1, "call": 1, "return": 1,
	"count": 0, "check-state": 1, "reass": 0, "nat": 1, "pipe": 1, "queue": 1, "netgraph": 1, "ngtee": 1,
	"setfib": 1, "setdscp": 1, "setmark": 1, "tcp-setmss": 1,
	"eaction-ntp": 1, "nat64lsn": 1, "nat64stl": 1, "nat64clat": 1, "nptv6": 1,
}

// Passes reports whether the rule lets packets pass.
func (r *HostRule) Passes() bool {
	return slices.Contains([]string{"allow", "accept", "pass", "permit"}, r.Action)
}

// Drops reports whether the rule drops packets.
func (r *HostRule) Drops() bool {
	return slices.Contains([]string{"deny", "drop", "reject", "reset", "reset6", "abort", "abort6", "unreach",
		"unreach6"}, r.Action)
}

// ParseHostRules reads what `ipfw -S list` printed. There is a HostRule for each line; HostRule.Err
// says which are not understood.
func ParseHostRules(out string) []HostRule {
	var all []HostRule
	for _, line := range program.Lines(out) {
		e, err := parseLine(line)
		r := HostRule{Number: e.number, Set: e.set, Disabled: e.disabled, Text: line}
		if err == nil {
			r.Text, _, _ = strings.Cut(e.text, " // ")
			r.Text = strings.TrimSuffix(r.Text, " //") // of an empty comment
			err = r.read(&words{pfconf.Words{Left: strings.Fields(r.Text)}})
		}
		r.Err = err
		all = append(all, r)
	}
	return all
}

// words reads the words of a rule one by one.
type words struct{ pfconf.Words }

// choice takes a word, or several in braces: "{ 10.0.0.1 or 10.0.0.2 }".
func (w *words) choice() (string, error) {
	text := w.Next()
	if text == "{" {
		for !strings.HasSuffix(text, " }") {
			word := w.Next()
			if word == "" {
				return text, errors.New("a brace is not closed")
			}
			text += " " + word
		}
	}
	if text == "" {
		return "", errors.New("the rule ends too early")
	}
	return text, nil
}

func (r *HostRule) read(w *words) error {
	for w.Is("prob") {
		r.condition("prob", w.Next())
	}
	r.Action = w.Next()
	n, ok := arguments[r.Action]
	if !ok {
		return fmt.Errorf("%.40q is no known action", r.Action)
	}
	if n > 0 && w.Peek() != "" && (r.Action != "check-state" || w.Peek()[0] == ':') {
		r.Argument = w.Next()
	}
	if r.Action == "check-state" {
		return nil // it takes what has a state
	}
	for slices.Contains([]string{"log", "logamount", "altq", "tag", "untag"}, w.Peek()) {
		if w.Next() != "log" {
			w.Next()
		}
	}
	// "return" shows no addresses where there are none, and -c leaves them out everywhere.
	if w.Peek() != "from" && w.Peek() != "proto" && w.Peek() != "" {
		if err := r.protocols(w); err != nil {
			return err
		}
	}
	if w.Is("from") {
		if err := r.side(w, &r.From); err != nil {
			return err
		}
		if !w.Is("to") {
			return fmt.Errorf("no destination before %.40q", w.Peek())
		}
		if err := r.side(w, &r.To); err != nil {
			return err
		}
	}
	for len(w.Left) > 0 {
		if err := r.option(w); err != nil {
			return err
		}
	}
	if r.From.Text == "me6" || r.To.Text == "me6" {
		r.Families = []pfconf.Family{pfconf.Inet6}
	}
	return nil
}

// condition notes what else the rule asks of packets.
func (r *HostRule) condition(words ...string) {
	r.Conditions = append(r.Conditions, strings.TrimSpace(strings.Join(words, " ")))
}

// protocols reads what stands before "from": a protocol, a family, or a choice of some.
func (r *HostRule) protocols(w *words) error {
	not := w.Is("not")
	text, err := w.choice()
	if err != nil {
		return err
	}
	if not || strings.HasPrefix(text, "{") {
		r.condition(map[bool]string{true: "not "}[not] + text)
		return nil
	}
	return r.proto(text)
}

func (r *HostRule) proto(name string) error {
	switch name {
	case "ip", "all":
		return nil
	case "ip4":
		r.Families = []pfconf.Family{pfconf.Inet}
		return nil
	case "ip6":
		r.Families = []pfconf.Family{pfconf.Inet6}
		return nil
	}
	n, ok := pfconf.ProtoNumber(name)
	if !ok {
		return fmt.Errorf("unknown protocol %.40q", name)
	}
	r.Proto = n
	return nil
}

// side reads addresses and ports.
func (r *HostRule) side(w *words, s *pfconf.Side) error {
	s.Not = w.Is("not")
	text, err := w.choice()
	if err != nil {
		return err
	}
	s.Address(plainChoice(text))
	if word := w.Peek(); word == "src-port" || word == "dst-port" { // before 12
		w.Next()
	}
	not := w.Peek() == "not" && len(w.Left) > 1 && startsPorts(w.Left[1])
	if not {
		w.Next()
	}
	if !startsPorts(w.Peek()) {
		return nil
	}
	return r.ports(s, w.Next(), not)
}

// plainChoice writes "{ 10.0.0.1 or 10.0.0.2 }" as the list that it is, if it is one of addresses.
func plainChoice(text string) string {
	in, ok := strings.CutPrefix(text, "{ ")
	if !ok {
		return text
	}
	list := strings.ReplaceAll(strings.TrimSuffix(in, " }"), " or ", ",")
	for one := range strings.SplitSeq(list, ",") {
		_, errAddr := netip.ParseAddr(one)
		_, errPrefix := netip.ParsePrefix(one)
		if errAddr != nil && errPrefix != nil {
			return text
		}
	}
	return list
}

func startsPorts(word string) bool { return word != "" && '0' <= word[0] && word[0] <= '9' }

// ports reads "80", "80,443" and "80-90".
func (r *HostRule) ports(s *pfconf.Side, text string, not bool) error {
	if not {
		r.condition("not", text)
		return nil
	}
	var all pfconf.Ports
	for one := range strings.SplitSeq(text, ",") {
		low, high, ranged := strings.Cut(one, "-")
		if !ranged {
			high = low
		}
		a, errA := strconv.ParseUint(low, 10, 16)
		b, errB := strconv.ParseUint(high, 10, 16)
		if errA != nil || errB != nil {
			return fmt.Errorf("no ports: %.40q", text)
		}
		all = append(all, pfconf.PortRange{First: uint16(a), Last: uint16(b)})
	}
	s.Ports = all
	return nil
}

// How many words follow an option that limits a rule's packets.
var conditions = map[string]int{
	"established": 0, "setup": 0, "frag": 0, "diverted": 0, "diverted-loopback": 0, "diverted-output": 0, "layer2": 0,
	"bridged":    0,
	"verrevpath": 0, "versrcreach": 0, "antispoof": 0, "ipsec": 0, "sockarg": 0, "defer-action": 0,
	"defer-immediate-action": 0, "skip-action": 0,
	"tagged": 1, "uid": 1, "gid": 1, "jail": 1, "fib": 1, "ipoptions": 1, "iplen": 1, "ipid": 1, "ipprecedence": 1,
	"dscp": 1, "iptos": 1,
	"ipttl": 1, "ipversion": 1, "ipver": 1, "tcpdatalen": 1, "tcpflags": 1, "tcpoptions": 1, "tcpseq": 1, "tcpack": 1,
	"tcpwin": 1, "tcpmss": 1,
	"icmptypes": 1, "icmp6types": 1, "ip6icmptypes": 1, "ext6hdr": 1, "flow-id": 1, "mac-type": 1, "mark": 1, "flow": 1,
	"MAC": 2, "mac": 2, "lookup": 2,
	"src-ip6": 1, "dst-ip6": 1, "src-mac": 1, "dst-mac": 1,
}

// option reads one option.
func (r *HostRule) option(w *words) error {
	switch word := w.Next(); word {
	case "in":
		r.Direction = pfconf.In
	case "out":
		r.Direction = pfconf.Out
	case "via":
		r.nic(w.Next())
	case "recv":
		if r.Direction == pfconf.Out { // what leaves, having come by that interface
			r.condition(word, w.Next())
			return nil
		}
		r.Direction = pfconf.In
		r.nic(w.Next())
	case "xmit":
		r.Direction = pfconf.Out
		r.nic(w.Next())
	case "proto":
		return r.proto(w.Next())
	case "src-ip":
		r.From.Address(w.Next())
	case "dst-ip":
		r.To.Address(w.Next())
	case "src-port":
		return r.ports(&r.From, w.Next(), false)
	case "dst-port":
		return r.ports(&r.To, w.Next(), false)
	case "ip4", "ip6":
		return r.proto(word)
	case "keep-state", "record-state":
		r.State = word
		r.stateName(w)
	case "limit", "set-limit":
		r.State = word
		for slices.Contains([]string{"src-addr", "dst-addr", "src-port", "dst-port"}, w.Peek()) {
			w.Next()
		}
		w.Next()
		r.stateName(w)
	case "not":
		return r.negated(w)
	case "{":
		w.Left = append([]string{word}, w.Left...)
		text, err := w.choice()
		r.condition(text)
		return err
	default:
		n, ok := conditions[word]
		if !ok {
			return fmt.Errorf("unknown option %.40q", word)
		}
		text := []string{word}
		for range n {
			text = append(text, w.Next())
		}
		if word == "frag" && fragments(w.Peek()) {
			text = append(text, w.Next())
		}
		r.condition(text...)
	}
	return nil
}

// fragments reports whether the word says which fragments are meant, as FreeBSD 14 and 15 do:
// "offset", "!mf,df".
func fragments(word string) bool {
	for one := range strings.SplitSeq(word, ",") {
		if !slices.Contains([]string{"offset", "mf", "df", "rf"}, strings.TrimPrefix(one, "!")) {
			return false
		}
	}
	return true
}

// negated reads "not" and the option behind it. In the first default rule of FreeBSD 15, which no
// packet matches, nothing follows.
func (r *HostRule) negated(w *words) error {
	if w.Peek() == "" {
		r.condition("not")
		return nil
	}
	var inner HostRule
	before := slices.Clone(w.Left)
	if err := inner.option(w); err != nil {
		return err
	}
	r.condition(append([]string{"not"}, before[:len(before)-len(w.Left)]...)...)
	return nil
}

// nic takes an interface: its name, "vt*" for several, "any", an address or a table.
func (r *HostRule) nic(name string) {
	switch {
	case name == "any":
	case strings.ContainsAny(name, "*?[(:.") || name == "":
		r.condition("interface", name)
	default:
		r.Interface = name
	}
}

// stateName takes the name of a state, ":default".
func (r *HostRule) stateName(w *words) {
	if strings.HasPrefix(w.Peek(), ":") {
		w.Next()
	}
}
