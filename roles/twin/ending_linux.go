package twin

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// stage is where a packet ended, in the order of its way.
type stage int

const (
	untraced      stage = iota // no event of it
	inRules                    // dropped by a rule or policy: ending.hop
	inRouting                  // between prerouting and the next hook, or after output
	atSocket                   // behind input: a socket took it, or none did
	left                       // by a device
	lostElsewhere              // after a chain, by something that is not traced
)

// ending is where a packet ended, and what it was then.
type ending struct {
	stage stage
	hop   Hop // the rule that dropped it; else the last hop
	mark  uint32
	in    string
	out   string
	to    netip.AddrPort // its destination then
	from  netip.AddrPort
	at    string // the last of the trace's own chains: "prerouting last"
}

// end finds where the packet ended.
func (p PacketPath) end() ending {
	var e ending
	for _, h := range p.Hops {
		e.hop, e.mark, e.to, e.from = h, h.Mark, h.To, h.From
		if h.In != "" {
			e.in = h.In
		}
		if h.Out != "" {
			e.out = h.Out
		}
		if h.own {
			e.at = h.Chain
		}
	}
	switch {
	case len(p.Hops) == 0:
	case e.hop.Dropped() && !e.hop.own, e.hop.Legacy: // of which no verdict is told
		e.stage = inRules
	case e.at == "prerouting last" || e.at == "output last":
		e.stage = inRouting
	case e.at == "input last":
		e.stage = atSocket
	case e.at == "postrouting last":
		e.stage = left
	default:
		e.stage = lostElsewhere
	}
	return e
}

// at returns the hop of one of the trace's own chains, such as "prerouting last".
func (p PacketPath) at(chain string) (Hop, bool) {
	var found Hop
	ok := false
	for _, h := range p.Hops {
		if h.own && h.Chain == chain {
			found, ok = h, true
		}
	}
	return found, ok
}

// marker is the last rule that changed the packet's mark to what it was in the end, before the hop
// with an index; false when none did.
func (p PacketPath) marker(mark uint32) (Hop, bool) {
	var found Hop
	ok := false
	var before uint32
	for i, h := range p.Hops {
		if i == 0 {
			before = h.Mark
			continue
		}
		if h.Mark != before && h.Mark == mark && !h.own {
			found, ok = h, true
		}
		before = h.Mark
	}
	return found, ok
}

// of returns the packet's hops that are no policies and not the trace's own.
func (p PacketPath) rules() []Hop {
	var all []Hop
	for _, h := range p.Hops {
		if !h.own && h.Number > 0 && !strings.HasPrefix(h.Rule, "policy ") {
			all = append(all, h)
		}
	}
	return all
}

// diverter is the last rule of the packet that diverts: tproxy, redirect, or dnat.
func (p PacketPath) diverter() (Hop, bool) {
	var found Hop
	ok := false
	for _, h := range p.rules() {
		if h.tproxies() || h.redirects() {
			found, ok = h, true
		}
	}
	return found, ok
}

// tproxies reports whether the rule hands packets to a transparent listener.
func (h Hop) tproxies() bool {
	for _, word := range []string{"-j TPROXY", "tproxy to ", "tproxy ip to ", "tproxy ip6 to "} {
		if strings.Contains(h.Rule, word) {
			return true
		}
	}
	return false
}

// redirects reports whether the rule rewrites the destination.
func (h Hop) redirects() bool {
	for _, word := range []string{"-j REDIRECT", "-j DNAT", "redirect to :", "dnat to ", "dnat ip to ",
		"dnat ip6 to "} {
		if strings.Contains(h.Rule, word) {
			return true
		}
	}
	return strings.HasSuffix(h.Rule, "redirect")
}

// name writes the hop's rule with its place, as its own tool would list it.
func (h Hop) name(c *Snapshot) string {
	s := c.spotOf(h)
	if h.Number == 0 || strings.HasPrefix(h.Rule, "policy ") {
		if s.legacy || s.iptables {
			return fmt.Sprintf("the policy of %s -t %s %s", s.tool(), h.Table, h.Chain)
		}
		return fmt.Sprintf("the policy of chain %s in table %s %s", h.Chain, h.Family, h.Table)
	}
	if s.legacy || s.iptables {
		return fmt.Sprintf("%s -t %s -A %s %s (rule %d)", s.tool(), h.Table, h.Chain, h.Rule, h.Number)
	}
	return fmt.Sprintf("%q in table %s %s, chain %s", h.Rule, h.Family, h.Table, h.Chain)
}

// lister is the command that shows the hop's chain.
func (h Hop) lister(c *Snapshot) string {
	s := c.spotOf(h)
	if s.legacy || s.iptables {
		return fmt.Sprintf("%s -t %s -nvL %s --line-numbers", s.tool(), h.Table, h.Chain)
	}
	return fmt.Sprintf("nft -a list chain %s %s %s", h.Family, h.Table, h.Chain)
}

// story tells what rules did to a packet: marks, new destinations, its end.
func (c *Snapshot) story(p PacketPath) []string {
	who := "the packet"
	switch {
	case p.Answer:
		who = "the answer"
	case len(p.Hops) > 0 && p.Hops[0].Hook == "output":
		who = "the host's own"
	case len(p.Hops) > 0:
		who = "the client's"
	}
	lines := []string{fmt.Sprintf("%s %s from %v", who, p.Name(), p.From)}
	var mark uint32
	to, from := p.To, p.From
	var rule Hop
	for i, h := range p.Hops {
		if i == 0 {
			mark = h.Mark
		}
		if h.To != to {
			lines = append(lines, fmt.Sprintf("went to %v by %s", h.To, rule.name(c)))
			to = h.To
		}
		if h.From != from {
			by := "conntrack, as the connection was redirected"
			if rule.Number > 0 {
				by = rule.name(c)
			}
			lines = append(lines, fmt.Sprintf("had its source changed to %v by %s", h.From, by))
			from = h.From
		}
		if h.own {
			continue
		}
		if h.Mark != mark {
			by := h.name(c)
			if h.Number == 0 {
				by = fmt.Sprintf("a rule of chain %s in table %s %s that did not match to its end", h.Chain, h.Family,
					h.Table)
				if text := c.brokenOff(p, h); text != "" {
					by = fmt.Sprintf("%s, whose tproxy found no socket and ended the rule", text)
				}
			}
			lines = append(lines, fmt.Sprintf("got mark 0x%x by %s", h.Mark, by))
			mark = h.Mark
		}
		if h.Number > 0 {
			rule = h
		}
	}
	return append(lines, c.endText(p))
}

// brokenOff is the tproxy rule of nftables that set a packet's mark and found no socket: such a
// rule has no hop.
func (c *Snapshot) brokenOff(p PacketPath, h Hop) string {
	rules := c.hints()
	for _, t := range c.Tables {
		for _, chain := range t.Chains {
			if t.Family != h.Family || t.Name != h.Table {
				continue
			}
			for i, r := range chain.Rules {
				where := hintWhere(t, chain, i)
				if slices.ContainsFunc(rules.seen, func(s hookSeen) bool {
					return s.where == where && s.tproxy && s.marks && s.set == h.Mark && s.of(h.To.Addr().Is6()) &&
						s.takes(askProto, protoNumber(p.Proto)) &&
						s.takes(askDport, uint32(h.To.Port())) && s.takesName(askIn, h.In) &&
						s.takesAddr(askSource, h.From.Addr()) && s.takesAddr(askDest, h.To.Addr())
				}) {
					return fmt.Sprintf("%q in table %s %s, chain %s", newWriter(c).rule(t, r), t.Family, t.Name,
						chain.Name)
				}
			}
		}
	}
	return ""
}

// endText says where a packet ended.
func (c *Snapshot) endText(p PacketPath) string {
	e := p.end()
	switch e.stage {
	case inRules:
		return "was dropped by " + e.hop.name(c)
	case inRouting:
		if h, ok := p.diverter(); ok && h.tproxies() && p.routeType == unix.RTN_UNICAST {
			return fmt.Sprintf("was dropped: routing found %s for mark 0x%x, and a packet that tproxy assigned a socket is not forwarded", p.Route, e.mark)
		}
		return fmt.Sprintf("was dropped by routing, with mark 0x%x (%s)", e.mark, p.Route)
	case atSocket:
		if h, ok := p.diverter(); ok && h.tproxies() && !p.Answer {
			return fmt.Sprintf("came to the listener of port %d", targetPort(h.Rule))
		}
		if !slices.ContainsFunc(c.Sockets, func(s BoundSocket) bool {
			return s.Proto == p.Proto &&
				s.Local.Port() == e.to.Port()
		}) && !p.Answer {
			return fmt.Sprintf("came to the host's %s port %d, where no socket is", p.Proto, e.to.Port())
		}
		return fmt.Sprintf("came to the sockets of port %d", e.to.Port())
	case left:
		text := fmt.Sprintf("left by %s with mark 0x%x", e.out, e.mark)
		if p.Route != "" {
			text += " (" + p.Route + ")"
		}
		return text
	case lostElsewhere:
		return fmt.Sprintf("was lost after chain %s of table %s", e.hop.Chain, e.hop.Table)
	}
	return "was not traced"
}

// askRoutes asks a kernel where packets are routed that ended in routing or left.
func (c *Snapshot) askRoutes(conn *netlink.Conn, packets []PacketPath) error {
	for i := range packets {
		p := &packets[i]
		h, ok := p.at("prerouting last")
		if !ok {
			if h, ok = p.at("output last"); !ok {
				continue
			}
		}
		family, size := byte(unix.AF_INET), byte(32)
		if h.To.Addr().Is6() {
			family, size = unix.AF_INET6, 128
		}
		// struct rtmsg, with RTM_F_LOOKUP_TABLE: else the table is always said to be main
		b := []byte{family, size, size, 0, 0, 0, 0, 0}
		b = append(b, native(unix.RTM_F_LOOKUP_TABLE)...)
		all := attrs{{unix.RTA_DST, h.To.Addr().AsSlice()}, {unix.RTA_SRC, h.From.Addr().AsSlice()},
			{unix.RTA_MARK, native(h.Mark)}}
		if l := c.linkNamed(h.In); l != nil && h.Hook == "prerouting" {
			all = all.with(unix.RTA_IIF, native(uint32(l.Index)))
		}
		if family == unix.AF_INET || h.Hook == "prerouting" {
			if number, ok := protoNumbers[p.Proto]; ok {
				all = all.with(unix.RTA_IP_PROTO, []byte{number}).with(unix.RTA_DPORT, be16(h.To.Port()))
			}
		}
		answer, err := conn.Execute(netlink.Message{Header: netlink.Header{Type: unix.RTM_GETROUTE,
			Flags: netlink.Request}, Data: all.append(b)})
		if err != nil {
			p.Route = "the kernel's answer to a route request: " + routeError(err)
			continue
		}
		for _, m := range answer {
			if len(m.Data) < unix.SizeofRtMsg {
				continue
			}
			found, err := split(m.Data, unix.SizeofRtMsg)
			if err != nil {
				return err
			}
			p.routeType = m.Data[7]
			p.Route = fmt.Sprintf("%s, table %s", routeTypes[m.Data[7]], tableName(host32(found.get(unix.RTA_TABLE))))
			if l := c.link(int(host32(found.get(unix.RTA_OIF)))); l != nil {
				p.Route += ", dev " + l.Name
			}
		}
	}
	return nil
}

func routeError(err error) string {
	text := err.Error()
	if i := strings.LastIndex(text, ": "); i >= 0 {
		text = text[i+2:]
	}
	return text
}

func (c *Snapshot) linkNamed(name string) *Link {
	for i := range c.Links {
		if c.Links[i].Name == name && name != "" {
			return &c.Links[i]
		}
	}
	return nil
}
