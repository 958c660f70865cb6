package ipfw

import (
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
//
// for divert-to, divert-reply and divert-packet. A divert-reply rule is about the packets
// that come back: a keep-state rule about those that leave does not bring them to the socket.
func Text(r pfconf.Rule) string {
	from, to, direction := r.From.String(), end(r.To.String(), r.Port), r.Direction
	action := "fwd " + r.Family.Loopback().String()
	switch r.Action {
	case pfconf.DivertTo:
		if r.Proto.HasPorts() {
			action += "," + strconv.Itoa(int(r.Divert.Port()))
		}
	case pfconf.DivertReply:
		from, to, direction = to, from, pfconf.In
	case pfconf.DivertPacket:
		action = "divert " + strconv.Itoa(int(r.Divert.Port()))
	}
	return fmt.Sprintf("%s %s from %s to %s %v // %s", action, protoName(r), from, to, direction, r.Label)
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

// number is the number of all rules of this program: the lowest, so that they are
// evaluated before the host's own. (A packet that is written to a divert socket with 0
// would begin with the first rule again.)
const number = 1

// adding are the commands that put rules into a set.
func adding(rules []pfconf.Rule, set int) string {
	var b strings.Builder
	for _, r := range rules {
		fmt.Fprintf(&b, "add %d set %d %s\n", number, set, Text(r))
	}
	return b.String()
}

// understood compares what `add` printed with the rules that it was given.
func understood(rules []pfconf.Rule, printed string) error {
	lines := program.Lines(printed)
	if len(lines) != len(rules) {
		return fmt.Errorf("ipfw was given %d rules and printed %d", len(rules), len(lines))
	}
	for i, r := range rules {
		want := fmt.Sprintf("%05d %s", number, Text(r))
		if got := strings.ReplaceAll(lines[i], " dst-port ", " "); strings.ReplaceAll(got, " src-port ", " ") != want {
			return fmt.Errorf("ipfw was given %q and understood %q", want, lines[i])
		}
	}
	return nil
}
