package ipfw

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"pfdivert/pfconf"
	"pfdivert/pfconf/program"
)

// Text is the rule as ipfw(8) takes it behind a number and a set, and as it prints it;
// the rule must be valid. With its comment it is one of
//
//	fwd 127.0.0.1,5000 tcp from LOCAL to FAKE 4000 in // regress…
//	fwd 127.0.0.1 tcp from LOCAL 4000 to FAKE in // regress…
//	divert 700 udp from LOCAL to REMOTE 4000 in // regress…
//	tee 700 254 from LOCAL to REMOTE in // regress…
//	pipe 5 udp from LOCAL to REMOTE 4000 in // regress…
//
// for divert-to, divert-reply, divert-packet and pipe. A divert-reply rule is about the packets
// that come back: a keep-state rule about those that leave does not bring them to the socket.
// A divert-packet rule for both ways is two.
func Text(r pfconf.Rule) []string {
	from, to := r.From.String(), end(r.To.String(), r.Port)
	line := func(from, to string, d pfconf.Direction) string {
		return fmt.Sprintf("%s %s from %s to %s %v // %s", action(r), protoName(r), from, to, d, r.Label)
	}
	switch {
	case r.Action == pfconf.DivertReply:
		return []string{line(to, from, pfconf.In)}
	case r.Both:
		return []string{line(from, to, r.Direction), line(to, from, back(r.Direction))}
	}
	return []string{line(from, to, r.Direction)}
}

// back is the direction of what answers.
func back(d pfconf.Direction) pfconf.Direction {
	if d == pfconf.In {
		return pfconf.Out
	}
	return pfconf.In
}

func action(r pfconf.Rule) string {
	switch {
	case r.Action == pfconf.ThroughPipe:
		return "pipe " + strconv.Itoa(int(r.Pipe))
	case r.Action == pfconf.DivertPacket && r.Tee:
		return "tee " + strconv.Itoa(int(r.Divert.Port()))
	case r.Action == pfconf.DivertPacket:
		return "divert " + strconv.Itoa(int(r.Divert.Port()))
	}
	if r.Action != pfconf.DivertTo {
		return "fwd " + r.Family.Loopback().String()
	}
	to := "fwd " + r.Divert.Addr().String()
	if r.Proto.HasPorts() {
		to += "," + strconv.Itoa(int(r.Divert.Port()))
	}
	return to
}

func end(addr string, port uint16) string {
	if port == 0 {
		return addr
	}
	return addr + " " + strconv.Itoa(int(port))
}

// protoName is the protocol's name in protocols(5), which has none for 254.
func protoName(r pfconf.Rule) string {
	switch {
	case r.Proto == pfconf.Raw:
		return strconv.Itoa(pfconf.RawNumber)
	case r.Proto == pfconf.ICMP && r.Family == pfconf.Inet6:
		return "ipv6-icmp"
	}
	return r.Proto.String()
}

// number is the number of this program's rules that do not want another: the lowest, so that they
// are evaluated before the host's own. (A packet that is written to a divert socket with 0 would
// begin with the first rule again.)
const number = 1

// numbered is a line of a rule with its number.
type numbered struct {
	number int
	text   string
}

// adding are the commands that put rules into a set.
func adding(rules []pfconf.Rule, set int) string {
	var b strings.Builder
	for _, n := range texts(rules) {
		fmt.Fprintf(&b, "add %d set %d %s\n", n.number, set, n.text)
	}
	return b.String()
}

func texts(rules []pfconf.Rule) []numbered {
	var all []numbered
	for _, r := range rules {
		for _, text := range Text(r) {
			all = append(all, numbered{cmp.Or(int(r.Number), number), text})
		}
	}
	return all
}

// understood compares what `add` printed with the rules that it was given.
func understood(rules []pfconf.Rule, printed string) error {
	given, lines := texts(rules), program.Lines(printed)
	if len(lines) != len(given) {
		return fmt.Errorf("ipfw was given %d rules and printed %d", len(given), len(lines))
	}
	for i, n := range given {
		want := fmt.Sprintf("%05d %s", n.number, n.text)
		if plain(lines[i]) != want {
			return fmt.Errorf("ipfw was given %q and understood %q", want, lines[i])
		}
	}
	return nil
}

// plain is a printed rule without what releases before 12 write before a port.
func plain(text string) string {
	return strings.NewReplacer(" dst-port ", " ", " src-port ", " ").Replace(text)
}
