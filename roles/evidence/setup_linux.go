package evidence

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"pfdivert/matrix/evidence"
	"pfdivert/pfconf"
	"pfdivert/pfconf/rtnetlink"
	"pfdivert/pfconf/shared"
	"pfdivert/roles/evidence/netfilter"
)

// maxInterfaces bounds the interfaces that are asked about where a rule does not name one.
const maxInterfaces = 8

// The addresses that stand for any: of documentation (RFC 5737, RFC 3849), for a policy
// table that has all addresses local or none.
var anywhere = map[pfconf.Family]netip.Addr{
	pfconf.Inet: netip.MustParseAddr("203.0.113.1"), pfconf.Inet6: netip.MustParseAddr("2001:db8::1"),
}

// LookAround surveys this host. Nothing is changed.
func LookAround(ctx context.Context) (*Survey, error) {
	s := &Survey{Firewall: "nftables"}
	miss := s.miss
	var err error
	s.Listeners, err = listeners()
	miss("sockets", err)
	rules, errs := netfilter.Read()
	s.RulesKnown = len(errs) == 0
	for _, err := range errs {
		miss("rules", err)
	}
	miss("rules", s.diversions(rules))
	s.Queues, err = readSockets(ctx, Options{}, evidence.ProtoDivert)
	miss("netfilter queues", err)
	links, err := addresses()
	miss("addresses", err)
	type question struct {
		family pfconf.Family
		name   string
		mark   uint32
	}
	var asked []question
	for _, d := range s.Diversions {
		if d.Kind != evidence.TProxy && d.Kind != evidence.OfSocket && d.Kind != evidence.Marks || d.Mark == 0 || d.MarkUnknown {
			continue // no mark is to lead them
		}
		f := d.Families[0]
		n := 0
		for _, l := range links[f] {
			q := question{f, l.name, d.Mark}
			if !slices.Contains(d.Interfaces, l.name) || slices.Contains(asked, q) {
				continue
			}
			if n++; n > maxInterfaces {
				miss(fmt.Sprintf("%v by %s", f, l.name), errors.New("routes are asked for packets by other interfaces"))
				continue
			}
			asked = append(asked, q)
			cell, err := ask(ctx, f, l, d.Mark)
			miss(fmt.Sprintf("%v by %s", f, l.name), err)
			s.Cells = append(s.Cells, SurveyCell{Family: f, Interface: l.name, Mark: d.Mark, Cell: cell})
		}
	}
	return s, nil
}

// link is an interface with an address.
type link struct {
	name   string
	own    netip.Addr
	beside netip.Addr // another address of the same prefix
}

// addresses returns the interfaces that are up, with their first address of each family.
func addresses() (map[pfconf.Family][]link, error) {
	all := map[pfconf.Family][]link{}
	list, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	for _, i := range list {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0 {
			continue
		}
		own, err := i.Addrs()
		if err != nil {
			return nil, fmt.Errorf("addresses of %s: %w", i.Name, err)
		}
		for _, f := range pfconf.Families {
			for _, a := range own {
				p, err := netip.ParsePrefix(a.String())
				if err != nil || pfconf.FamilyOf(p.Addr()) != f || p.Addr().IsLinkLocalUnicast() {
					continue
				}
				beside := p.Addr().Next()
				if !p.Contains(beside) || !p.Contains(beside.Next()) {
					beside = p.Addr().Prev()
				}
				all[f] = append(all[f], link{i.Name, p.Addr(), beside})
				break
			}
		}
	}
	return all, nil
}

// ask asks what happens to a packet with the mark that comes in by the interface.
func ask(ctx context.Context, f pfconf.Family, l link, mark uint32) (evidence.Cell, error) {
	table, to, err := tableOf(f, mark)
	if err != nil {
		return evidence.Cell{}, err
	}
	opt := Options{Interface: l.name, Mark: mark, Table: table, Remote: true}
	// Other rules were followed, and are not asked for here.
	h := &Host{opt: opt, filters: shared.New(func(context.Context) (asking, error) { return asking{}, nil })}
	answers, errs := h.answers(ctx, evidence.About{Proto: pfconf.TCP, Local: l.beside, Remote: l.own, Fake: to})
	return evidence.Cell{Answers: answers}, errors.Join(errs...)
}

// tableOf returns the routing table that marked packets are meant to go by: the one that the mark
// chooses, else one that any mark chooses, else any that has a local route and is not the kernel's
// own; and a destination to ask about.
func tableOf(f pfconf.Family, mark uint32) (int, netip.Addr, error) {
	rules, routes, err := ways(f)
	if err != nil {
		return 0, netip.Addr{}, err
	}
	ours := func(r rtnetlink.Route) bool { return r.Type == unix.RTN_LOCAL && r.Table != unix.RT_TABLE_LOCAL }
	table := 0
	for _, r := range rules {
		if r.Mark == 0 || r.Invert || r.Table == 0 {
			continue
		}
		if mark&r.Mask == r.Mark {
			table = r.Table
			break
		}
		// Marks are for other ends too: one that leads to addresses that are local is meant for
		// this.
		if table == 0 && slices.ContainsFunc(routes, func(x rtnetlink.Route) bool { return ours(x) && x.Table == r.Table }) {
			table = r.Table
		}
	}
	to := anywhere[f]
	for _, r := range routes {
		if !ours(r) || table != 0 && table != r.Table {
			continue
		}
		table = r.Table
		if r.Dst.Bits() > 0 {
			to = r.Dst.Addr()
		}
	}
	if table == 0 {
		table = 100 // the one of every manual
	}
	return table, to, nil
}

// ways lists a family's policy rules and routes.
func ways(f pfconf.Family) (rules []rtnetlink.Rule, routes []rtnetlink.Route, err error) {
	err = rtnetlink.With(func(c *rtnetlink.Conn) error {
		if rules, err = c.Rules(afOf(f)); err != nil {
			return fmt.Errorf("policy rules: %w", err)
		}
		if routes, err = c.Routes(afOf(f), unix.RT_TABLE_UNSPEC); err != nil {
			return fmt.Errorf("routes: %w", err)
		}
		return nil
	})
	return rules, routes, err
}

// leadsHome reports whether packets with a mark are meant to be local: by the table that the mark
// chooses, which has local routes or none at all; or, where no policy rule chooses such a table by
// any mark, because there is one besides the kernel's.
func leadsHome(mark uint32, f pfconf.Family) bool {
	table, _, err := tableOf(f, mark)
	if err != nil || table == unix.RT_TABLE_MAIN || table == unix.RT_TABLE_LOCAL {
		return false
	}
	rules, routes, err := ways(f)
	if err != nil {
		return false
	}
	routes = slices.DeleteFunc(routes, func(r rtnetlink.Route) bool { return r.Table != table })
	chosen, taken := false, false
	for _, r := range rules {
		if r.Mark != 0 && r.Table == table && !r.Invert {
			chosen = true
			taken = taken || mark&r.Mask == r.Mark
		}
	}
	local := slices.ContainsFunc(routes, func(r rtnetlink.Route) bool { return r.Type == unix.RTN_LOCAL })
	return taken && (local || len(routes) == 0) || !chosen && local
}
