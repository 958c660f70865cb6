package evidence

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"pfdivert/matrix/evidence"
	"pfdivert/pfconf"
	"pfdivert/pfconf/rtnetlink"
	"pfdivert/roles/evidence/netfilter"
)

// maxFollowed bounds the interfaces by which packets are followed.
const maxFollowed = 64

// diversions makes what is told of rules out of what was followed.
func (s *Survey) diversions(rules *netfilter.Ruleset) error {
	h, err := s.netfilterHost()
	if err != nil {
		return err
	}
	all, notes := rules.Follow(h)
	for _, n := range notes {
		s.miss("rules", errors.New(n))
	}
	for _, d := range all {
		if !s.meant(d, h) {
			continue
		}
		s.Diversions = append(s.Diversions, diversionOf(d)...)
		where := d.Rule.Where()
		switch {
		case d.Action != nil && d.Action.Unknown != "":
			s.miss(where, fmt.Errorf("where it leads: %s", d.Action.Unknown))
		case d.Action != nil && d.Action.Does != netfilter.Queue && len(d.Action.Ports) == 0:
			s.miss(where, errors.New("whether somebody listens on the packets' own port is not looked at"))
		}
		if !d.Marked {
			s.miss(where, errors.New("what mark its packets have in the end is not known"))
		}
	}
	return nil
}

// meant reports whether a rule's family matters: one of both families says nothing of a family that
// the host does not have.
func (s *Survey) meant(d netfilter.Diverted, h *netfilter.Host) bool {
	if d.Rule.Chain.Family != "inet" {
		return true
	}
	for _, i := range h.Interfaces {
		if slices.ContainsFunc(i.Nets, func(n netip.Prefix) bool {
			return pfconf.FamilyOf(n.Addr()) == d.Family && !n.Addr().IsLinkLocalUnicast()
		}) {
			return true
		}
	}
	marks := false
	err := rtnetlink.With(func(c *rtnetlink.Conn) error {
		rules, err := c.Rules(afOf(d.Family))
		marks = slices.ContainsFunc(rules, func(r rtnetlink.Rule) bool { return r.Mark != 0 })
		return err
	})
	return err == nil && marks
}

// diversionOf returns one for each port that the rule can choose.
func diversionOf(d netfilter.Diverted) []evidence.Diversion {
	one := evidence.Diversion{
		Kind: evidence.OfSocket, Rule: d.Rule.Where(), Families: []pfconf.Family{d.Family}, Unreached: d.Unreached,
		Mark: d.Mark, MarkUnknown: !d.Marked, Ports: d.Ports, Interfaces: d.Interfaces,
	}
	switch d.Proto {
	case 0:
	case evidence.ProtoTCP:
		one.Proto = "tcp"
	case evidence.ProtoUDP:
		one.Proto = "udp"
	default:
		one.Proto = fmt.Sprint(d.Proto)
	}
	for _, f := range d.Fates {
		o := evidence.Overruling{Family: d.Family, Rule: f.By, All: f.All}
		switch f.What {
		case netfilter.DroppedBefore:
			o.Does, o.Before = evidence.Drops, true
		case netfilter.PassedBefore:
			o.Does, o.Before = evidence.Passes, true
		case netfilter.DroppedAfter:
			o.Does = evidence.Drops
		case netfilter.MarkCleared:
			o.Does = evidence.Clears
		case netfilter.Translated:
			o.Does = evidence.Translates
		case netfilter.Untracked:
			o.Does, o.Before = evidence.Untracks, true
		case netfilter.Looped:
			o.Does = evidence.Loops
		case netfilter.AnswerDropped:
			o.Does = evidence.DropsAnswer
		case netfilter.NoInterface:
			o.Does = evidence.LacksNIC
		}
		one.Overruled = append(one.Overruled, o)
	}
	a := d.Action
	if d.Marks {
		one.Kind = evidence.Marks
	}
	if a == nil {
		return []evidence.Diversion{one}
	}
	one.Address = a.Address
	switch a.Does {
	case netfilter.TProxy:
		one.Kind = evidence.TProxy
	case netfilter.Redirect:
		one.Kind = evidence.Redirect
	case netfilter.Queue:
		one.Kind, one.Queue, one.Last, one.Bypass = evidence.Queue, a.First, a.Last, a.Bypass
	}
	var all []evidence.Diversion
	for _, p := range a.Ports {
		one.Port = p
		all = append(all, one)
	}
	if all == nil && (a.Does != netfilter.Queue || a.Unknown == "") {
		all = []evidence.Diversion{one}
	}
	return all
}

// netfilterHost tells of the host what rules ask for.
func (s *Survey) netfilterHost() (*netfilter.Host, error) {
	h := &netfilter.Host{Leaves: map[pfconf.Family]string{}, Owner: s.owner, Local: leadsHome}
	list, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("interfaces: %w", err)
	}
	for _, i := range list {
		own, err := i.Addrs()
		if err != nil {
			return nil, fmt.Errorf("addresses of %s: %w", i.Name, err)
		}
		one := netfilter.Interface{Name: i.Name}
		for _, a := range own {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				one.Nets = append(one.Nets, p.Masked())
				h.Addresses = append(h.Addresses, p.Addr())
			}
		}
		// A bridge's port hands its packets to the bridge.
		if _, err := os.Stat("/sys/class/net/" + i.Name + "/master"); err == nil && len(one.Nets) == 0 {
			continue
		}
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0 {
			continue
		}
		if len(h.Interfaces) == maxFollowed {
			s.miss("interfaces", fmt.Errorf("packets are followed by %d of them, and not by the rest", maxFollowed))
			break
		}
		h.Interfaces = append(h.Interfaces, one)
	}
	return h, rtnetlink.With(func(c *rtnetlink.Conn) error {
		for _, f := range pfconf.Families {
			route, err := c.RouteTo(anywhere[f], rtnetlink.Lookup{})
			if err != nil {
				continue
			}
			if link, err := c.LinkAt(route.Link); err == nil {
				h.Leaves[f] = link.Name
			}
		}
		return nil
	})
}

// owner returns the user whose socket listens on a port, -1 when there is none or are several.
func (s *Survey) owner(proto uint8, port uint16, f pfconf.Family) int {
	user := -1
	for _, l := range s.Listeners {
		if l.At.Port() == port && l.Takes(f) && (l.Proto == "tcp") == (proto == evidence.ProtoTCP) {
			if user >= 0 && user != int(l.UID) {
				return -1
			}
			user = int(l.UID)
		}
	}
	return user
}
