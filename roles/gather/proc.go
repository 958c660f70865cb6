package gather

import (
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"

	"pfdivert/matrix/evidence"
	"pfdivert/pfconf"
	"pfdivert/pfconf/netlink"
)

// What Linux shows in /proc/net. The readers build everywhere, so that they are tested
// everywhere.

// parsePairs reads /proc/net/snmp and netstat: two lines for each protocol, the names
// and the values (net/ipv4/proc.c).
func parsePairs(text string, into map[string]int64) error {
	if text == "" {
		return nil
	}
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if len(lines)%2 != 0 {
		return fmt.Errorf("%d lines, not pairs of names and values", len(lines))
	}
	for i := 0; i < len(lines); i += 2 {
		names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
		if len(names) != len(values) || len(names) == 0 || names[0] != values[0] {
			return fmt.Errorf("%.20q has %d names and %d values", lines[i], len(names), len(values))
		}
		for n := 1; n < len(names); n++ {
			v, err := counter(values[n])
			if err != nil {
				return err
			}
			into[names[0]+" "+names[n]] = v
		}
	}
	return nil
}

// parseNames reads /proc/net/snmp6: a name and a value on each line, and the name begins with its
// protocol's. They get the form of the other two: "Ip6: InNoRoutes".
func parseNames(text string, into map[string]int64) error {
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) != 2 {
			return fmt.Errorf("%.60q is no name with a value", line)
		}
		v, err := counter(words[1])
		if err != nil {
			return err
		}
		name := words[0]
		if at := strings.IndexByte(name, '6'); at > 0 {
			name = name[:at+1] + ": " + name[at+1:]
		}
		into[name] = v
	}
	return nil
}

// counter reads a counter. Those that count in 64 bits without sign do not come near the end of
// what an int64 holds, but for "Tcp: MaxConn", which is -1 for any.
func counter(s string) (int64, error) {
	if v, err := strconv.ParseInt(s, 10, 64); err == nil {
		return v, nil
	}
	v, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%.40q is no counter", s)
	}
	return int64(min(v, math.MaxInt64)), nil
}

// parseSockets reads /proc/net/tcp, udp or raw, or the same with 6 at the end, and returns each
// socket to take. What is counted on a socket (queues, drops) becomes its text.
func parseSockets(proto, text string, take func(evidence.SocketEntry)) error {
	for i, line := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		words := strings.Fields(line)
		if i == 0 || len(words) == 0 {
			continue // the heading
		}
		if len(words) < 5 {
			return fmt.Errorf("/proc/net/%s: %.60q is no socket", proto, line)
		}
		var s evidence.SocketEntry
		var err error
		if s.Local, err = netlink.ParseProcAddress(words[1]); err == nil {
			s.Remote, err = netlink.ParseProcAddress(words[2])
		}
		s.Local, s.Remote = unmapped(s.Local), unmapped(s.Remote)
		if err != nil {
			return fmt.Errorf("/proc/net/%s: %w", proto, err)
		}
		state, err := strconv.ParseUint(words[3], 16, 8)
		if err != nil {
			return fmt.Errorf("/proc/net/%s: state %.10q", proto, words[3])
		}
		s.Proto = proto
		switch proto {
		case "tcp":
			if s.State, err = netlink.TCPState(uint8(state)); err != nil {
				return fmt.Errorf("/proc/net/%s: %w", proto, err)
			}
		case "raw":
			// The local port is the protocol's number, the other the number too or 0.
			number := int(s.Local.Port())
			s.Proto = fmt.Sprintf("raw %d", number)
			if number == pfconf.ICMP.Number(pfconf.Inet) || number == pfconf.ICMP.Number(pfconf.Inet6) {
				s.Proto = pfconf.ICMP.String()
			}
			s.Local, s.Remote = netip.AddrPortFrom(s.Local.Addr(), 0), netip.AddrPortFrom(s.Remote.Addr(), 0)
		}
		if !s.Remote.Addr().IsValid() || s.Remote.Addr().IsUnspecified() {
			s.Remote = netip.AddrPort{}
		}
		s.Text = "tx:rx queue " + words[4]
		if n := len(words); n >= 13 && proto != "tcp" {
			s.Text += ", drops " + words[n-1]
		}
		take(s)
	}
	return nil
}

func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// queueEntry is a queue of netfilter as the socket of a divert-packet rule.
func queueEntry(q netlink.Queue) evidence.SocketEntry {
	return evidence.SocketEntry{
		Proto: evidence.ProtoDivert, Local: netip.AddrPortFrom(netip.IPv4Unspecified(), q.Number),
		Text: fmt.Sprintf("netfilter queue, %d waiting, dropped %d by the full queue and %d by the full socket, last id %d",
			q.Waiting, q.Full, q.Socket, q.LastID),
	}
}
