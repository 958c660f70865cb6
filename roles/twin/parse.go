package twin

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// maxFlowText bounds the text of a flow.
const maxFlowText = 256

// FlowError says what is wrong with the text of a flow. Its hint is an example that is right.
type FlowError struct {
	Text, What string
}

func (e *FlowError) Error() string { return fmt.Sprintf("flow %q: %s", e.Text, e.What) }

// Hint is what to type instead.
func (e *FlowError) Hint() string {
	return `write PROTO SENDER -> ADDRESS:PORT, such as 'tcp 192.168.1.20 -> 198.51.100.7:443', 'udp [2001:db8::20]:4000 -> [2001:db8:7::7]:53', ` +
		`or 'tcp host mark 0xff uid 1000 -> 198.51.100.7:443' for a program of the host itself`
}

// ParseFlow reads a flow as Flow.ID has it: "tcp 192.168.1.20 -> 198.51.100.7:443". The sender is
// "host", or a client's address, perhaps with a port, and perhaps behind the name of its device; of
// the host's own sender "mark N", "uid N" and "gid N" may be given. Config.Place finds the device
// of a client without one.
func ParseFlow(text string) (Flow, error) {
	fail := func(format string, args ...any) (Flow, error) {
		short := text
		if len(short) > 80 {
			short = short[:80]
		}
		return Flow{}, &FlowError{short, fmt.Sprintf(format, args...)}
	}
	if len(text) > maxFlowText {
		return fail("longer than %d characters", maxFlowText)
	}
	words := strings.Fields(text)
	if len(words) < 4 || words[len(words)-2] != "->" {
		return fail("it has no sender, or no \"->\" before the destination")
	}
	f := Flow{Kind: Given, Proto: words[0]}
	if f.Proto != "tcp" && f.Proto != "udp" {
		return fail("%q is neither tcp nor udp", words[0])
	}
	to, err := netip.ParseAddrPort(words[len(words)-1])
	if err != nil || to.Port() == 0 {
		return fail("%q is no address with a port", words[len(words)-1])
	}
	f.To = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	if reason := unusable(f.To.Addr()); reason != "" {
		return fail("the destination is %s", reason)
	}
	sender := words[1 : len(words)-2]
	host := sender[0] == "host"
	if host {
		sender = sender[1:]
	} else if f.In = Anywhere; len(sender) > 1 && len(sender[0]) < 16 {
		if _, err := parseSender(sender[0]); err != nil {
			f.In, sender = sender[0], sender[1:]
		}
	}
	if len(sender) > 0 {
		if a, err := parseSender(sender[0]); err == nil {
			f.From, sender = netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), sender[1:]
			if reason := unusable(f.From.Addr()); reason != "" {
				return fail("the sender is %s", reason)
			}
		} else if !host {
			return fail("%q is neither an address nor \"host\"", sender[0])
		}
	}
	for ; len(sender) > 0; sender = sender[2:] {
		values := map[string]*uint32{"mark": &f.Mark, "uid": &f.UID, "gid": &f.GID}
		if len(sender) == 1 || values[sender[0]] == nil || !host {
			return fail("%q is not known of a sender", strings.Join(sender, " "))
		}
		n, err := strconv.ParseUint(sender[1], 0, 32)
		if err != nil {
			return fail("%s %q is no number", sender[0], sender[1])
		}
		*values[sender[0]] = uint32(n)
	}
	if f.From.IsValid() && f.From.Addr().Is6() != f.To.Addr().Is6() {
		return fail("the sender and the destination are of different families")
	}
	f.ID = f.name()
	return f, nil
}

// parseSender reads an address, with a port or without.
func parseSender(text string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.AddrPortFrom(a, 0), nil
	}
	return netip.ParseAddrPort(text)
}

// unusable says why no flow can have an address, "" where one can.
func unusable(a netip.Addr) string {
	switch {
	case a.Zone() != "" || a.IsLinkLocalUnicast():
		return "of one link alone"
	case a.IsMulticast():
		return "a group's"
	case a.IsUnspecified():
		return "no one's"
	}
	return ""
}
