package pfconf

import (
	"net/netip"
	"slices"
	"strings"
)

// Packets describes which packets a rule of a host's own filter matches, as far as its text tells.
// It serves to prove that one rule matches all that another matches (Covers), or nothing of it
// (Apart). Where neither can be proven both are false.
type Packets struct {
	Families  []Family  // nil for both
	Proto     int       // IP protocol number, 0 for all
	Direction Direction // 0 for both
	// Interface is "" for all and "!em0" for all but em0. A name without a number at its end may be
	// that of a group of interfaces.
	Interface string
	From, To  Side
	// Conditions are all else that a packet must meet, as printed ("user = 0").
	Conditions []string
}

// Side is the source or the destination that a rule asks for.
type Side struct {
	Text     string         // as printed, "" for any address
	Prefixes []netip.Prefix // the same, nil if the text is not a list of addresses
	Not      bool           // the rule asks for all addresses but these
	Ports    Ports          // nil for all
}

// Ports is a set of ports.
type Ports []PortRange

// PortRange is what lies between two ports, with both.
type PortRange struct{ First, Last uint16 }

// PacketsOf returns the packets of a rule of this program's. nic is the interface by which they
// come and go, "" if it is not known.
func PacketsOf(r Rule, nic string) Packets {
	side := func(a netip.Addr) Side {
		return Side{Text: a.String(), Prefixes: []netip.Prefix{netip.PrefixFrom(a, a.BitLen())}}
	}
	p := Packets{
		Families: []Family{r.Family}, Proto: r.Proto.Number(r.Family), Direction: r.Direction, Interface: nic,
		From: side(r.From), To: side(r.To),
	}
	if r.Port != 0 {
		p.To.Ports = Ports{{r.Port, r.Port}}
	}
	return p
}

// FamilyList returns the families of the packets: those that the rule names, or that its addresses
// have.
func (p Packets) FamilyList() []Family {
	if p.Families != nil {
		return p.Families
	}
	for _, s := range []Side{p.From, p.To} {
		if s.Not || len(s.Prefixes) == 0 {
			continue
		}
		var all []Family
		for _, f := range Families {
			if slices.ContainsFunc(s.Prefixes, func(x netip.Prefix) bool { return FamilyOf(x.Addr()) == f }) {
				all = append(all, f)
			}
		}
		return all
	}
	return Families
}

// Covers reports whether p certainly has all packets of o.
func (p Packets) Covers(o Packets) bool {
	for _, f := range o.FamilyList() {
		if !slices.Contains(p.FamilyList(), f) {
			return false
		}
	}
	return len(p.Conditions) == 0 && (p.Proto == 0 || p.Proto == o.Proto) &&
		(p.Direction == 0 || p.Direction == o.Direction) && interfaceCovers(p.Interface, o.Interface) &&
		p.From.covers(o.From) && p.To.covers(o.To)
}

// Apart reports whether p and o certainly have no packet in common.
func (p Packets) Apart(o Packets) bool {
	common := func(f Family) bool { return slices.Contains(o.FamilyList(), f) }
	return !slices.ContainsFunc(p.FamilyList(), common) ||
		p.Proto != 0 && o.Proto != 0 && p.Proto != o.Proto ||
		p.Direction != 0 && o.Direction != 0 && p.Direction != o.Direction ||
		interfacesApart(p.Interface, o.Interface) || p.From.apart(o.From) || p.To.apart(o.To)
}

// TakesSome reports whether p certainly has some packets of o, whoever sends them and wherever to:
// it asks for less than o only in protocol or ports. Port 0, which no program uses, is none.
func (p Packets) TakesSome(o Packets) bool {
	zero := func(s Side) bool { return len(s.Ports) == 1 && s.Ports[0] == PortRange{} }
	if zero(p.From) || zero(p.To) {
		return false
	}
	if o.Proto == 0 {
		p.Proto = 0
	}
	if o.From.Ports == nil {
		p.From.Ports = nil
	}
	if o.To.Ports == nil || p.To.Ports != nil && o.To.Ports.cover(p.To.Ports) {
		p.To.Ports = nil
	}
	return p.Covers(o)
}

// unit reports whether the name is certainly that of one interface: a group's has no number at its
// end.
func unit(name string) bool {
	return name != "" && name[0] != '!' && strings.ContainsRune("0123456789", rune(name[len(name)-1]))
}

func interfaceCovers(wide, narrow string) bool {
	but, not := strings.CutPrefix(wide, "!")
	return wide == "" || wide == narrow || not && unit(but) && unit(narrow) && but != narrow
}

func interfacesApart(a, b string) bool {
	return unit(a) && unit(b) && a != b || a != "" && b == "!"+a || b != "" && a == "!"+b
}

func (s Side) covers(o Side) bool {
	switch {
	case s.Ports != nil && (o.Ports == nil || !s.Ports.cover(o.Ports)):
		return false
	case s.Text == "" || s.Text == o.Text && s.Not == o.Not:
		return true
	case s.Prefixes == nil || o.Prefixes == nil || o.Not:
		return false
	}
	for _, x := range o.Prefixes {
		within := func(w netip.Prefix) bool { return w.Bits() <= x.Bits() && w.Contains(x.Addr()) }
		if s.Not && slices.ContainsFunc(s.Prefixes, x.Overlaps) || !s.Not && !slices.ContainsFunc(s.Prefixes, within) {
			return false
		}
	}
	return true
}

func (s Side) apart(o Side) bool {
	if s.Ports != nil && o.Ports != nil && !s.Ports.meet(o.Ports) {
		return true
	}
	if s.Prefixes == nil || o.Prefixes == nil || s.Not && o.Not {
		return false
	}
	if s.Not {
		s, o = o, s
	}
	if o.Not { // all of s is what o leaves out
		return Side{Text: o.Text, Prefixes: o.Prefixes}.covers(Side{Text: s.Text, Prefixes: s.Prefixes})
	}
	return !slices.ContainsFunc(s.Prefixes,
		func(x netip.Prefix) bool { return slices.ContainsFunc(o.Prefixes, x.Overlaps) })
}

// cover reports whether each range of o lies within one of p.
func (p Ports) cover(o Ports) bool {
	for _, x := range o {
		if !slices.ContainsFunc(p, func(w PortRange) bool { return w.First <= x.First && x.Last <= w.Last }) {
			return false
		}
	}
	return true
}

func (p Ports) meet(o Ports) bool {
	return slices.ContainsFunc(p, func(a PortRange) bool {
		return slices.ContainsFunc(o, func(b PortRange) bool { return a.First <= b.Last && b.First <= a.Last })
	})
}

// Address takes an address as a rule has it: "any", an address, a prefix, or several of them with
// commas between. Anything else is kept as text.
func (s *Side) Address(text string) {
	if text == "any" {
		return
	}
	s.Text = text
	var all []netip.Prefix
	for one := range strings.SplitSeq(text, ",") {
		p, err := netip.ParsePrefix(one)
		if err != nil {
			a, err := netip.ParseAddr(one)
			if err != nil {
				return
			}
			a = a.WithZone("")
			p = netip.PrefixFrom(a, a.BitLen())
		}
		all = append(all, p)
	}
	s.Prefixes = all
}
