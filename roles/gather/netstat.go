package gather

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"pfdivert/matrix/evidence"
	"pfdivert/pfconf"
)

// What netstat(1) of the BSDs prints. The readers build everywhere, so that they are tested
// everywhere.

// parseStatistics reads "netstat -s": under each protocol's name lines of a number and what was
// counted. "3 packets" and "1 packet" count the same, so names are kept in the singular, and
// without further numbers: "2 data packets (9 bytes)" are "data packet".
func parseStatistics(out string, into map[string]int64) {
	section, head := "", ""
	for line := range strings.Lines(out) {
		text := strings.TrimSpace(line)
		if text == "" {
			continue
		}
		if line[0] != '\t' && line[0] != ' ' {
			section, head = strings.TrimSuffix(text, ":"), ""
			continue
		}
		if strings.HasSuffix(section, " by state") {
			continue // FreeBSD's numbers of TCP's connections: they come and go, and count nothing
		}
		first, rest, _ := strings.Cut(text, " ")
		if n, err := strconv.ParseInt(first, 10, 64); err == nil && rest != "" {
			into[section+": "+singular(numbers.ReplaceAllString(rest, ""))] += n
			continue
		}
		// A histogram's line: "echo reply: 4", below "Output histogram:".
		name, number, ok := strings.Cut(text, ": ")
		if n, err := strconv.ParseInt(number, 10, 64); ok && err == nil {
			into[section+": "+strings.TrimSpace(head+" "+name)] += n
		} else {
			head = strings.TrimSuffix(text, ":")
		}
	}
}

// numbers are words in parentheses with a number: "(for 45369 bytes)".
var numbers = regexp.MustCompile(`\s*\([^()]*[0-9][^()]*\)`)

// singular makes words singular as the BSDs' netstat makes them plural: with "s", "es" or "ies".
func singular(text string) string {
	words := strings.Fields(text)
	for i, w := range words {
		switch {
		case len(w) <= 3 || w == "this" || strings.HasSuffix(w, "ss"):
		case strings.HasSuffix(w, "ies"):
			words[i] = strings.TrimSuffix(w, "ies") + "y"
		case strings.HasSuffix(w, "sses"):
			words[i] = strings.TrimSuffix(w, "es")
		default:
			words[i] = strings.TrimSuffix(w, "s")
		}
	}
	return strings.Join(words, " ")
}

// parseNetstat reads "netstat -an" and gives each socket of the Internet protocols to take. Lines
// of other kinds are passed over; an address that can't be read is an error.
func parseNetstat(out string, take func(evidence.SocketEntry)) error {
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		// Proto Recv-Q Send-Q Local Foreign State
		if len(f) < 5 {
			continue
		}
		if _, err := strconv.ParseUint(f[1], 10, 64); err != nil {
			continue // a heading
		}
		if f[0] == "ip" && !strings.Contains(f[3], ".") {
			f = append([]string{f[0] + f[1]}, f[2:]...) // FreeBSD 12's "ip 4"
		}
		if len(f) < 5 {
			continue
		}
		s := evidence.SocketEntry{Proto: netstatProto(f), Text: strings.TrimSpace(line)}
		if s.Proto == "" {
			continue
		}
		six := strings.Contains(f[0], "6")
		var err error
		if s.Local, err = netstatAddress(f[3], six); err == nil {
			s.Remote, err = netstatAddress(f[4], six)
		}
		if err != nil {
			return fmt.Errorf("netstat: %.80q: %w", s.Text, err)
		}
		if s.Remote.Addr().IsUnspecified() {
			s.Remote = netip.AddrPort{}
		}
		if s.Proto == "tcp" && len(f) > 5 {
			s.State = f[5]
		}
		take(s)
	}
	return nil
}

// netstatProto is the Socket.Proto of a line, "" for one of no Internet protocol. OpenBSD shows the
// number of a raw socket's protocol at the line's end.
func netstatProto(f []string) string {
	for prefix, proto := range map[string]string{"tcp": "tcp", "udp": "udp", "div": evidence.ProtoDivert,
		"icm": "icmp"} {
		if strings.HasPrefix(f[0], prefix) {
			return proto
		}
	}
	if !strings.HasPrefix(f[0], "ip") && !strings.HasPrefix(f[0], "raw") {
		return ""
	}
	n, err := strconv.Atoi(f[len(f)-1])
	switch {
	case err != nil || len(f) < 6:
		return evidence.ProtoRaw
	case n == pfconf.ICMP.Number(pfconf.Inet) || n == pfconf.ICMP.Number(pfconf.Inet6):
		return pfconf.ICMP.String()
	}
	return fmt.Sprintf("raw %d", n)
}

// netstatAddress reads "10.188.2.9.5000", "fd00:188:2::9.5000", "*.22" and "*.*".
func netstatAddress(s string, six bool) (netip.AddrPort, error) {
	i := strings.LastIndexByte(s, '.')
	if i < 0 {
		return netip.AddrPort{}, fmt.Errorf("%.60q is no address with a port", s)
	}
	addr, port := netip.IPv4Unspecified(), uint64(0)
	if six {
		addr = netip.IPv6Unspecified()
	}
	var err error
	if s[:i] != "*" {
		if addr, err = netip.ParseAddr(s[:i]); err != nil {
			return netip.AddrPort{}, err
		}
	}
	if s[i+1:] != "*" {
		if port, err = strconv.ParseUint(s[i+1:], 10, 16); err != nil {
			return netip.AddrPort{}, err
		}
	}
	return netip.AddrPortFrom(addr.WithZone(""), uint16(port)), nil
}
