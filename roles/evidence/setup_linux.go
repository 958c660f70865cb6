package evidence

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"pfdivert/pfconf"
	"pfdivert/pfconf/shared"
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
	s.Diversions, err = diversions()
	s.RulesKnown = err == nil
	miss("rules of nf_tables", err)
	s.Listeners, err = listeners()
	miss("sockets", err)
	for _, f := range []string{"ip_tables_names", "ip6_tables_names"} {
		// Root alone may read them; without the modules they are not there.
		if text, err := os.ReadFile(procNet + "/" + f); err == nil && len(strings.TrimSpace(string(text))) > 0 {
			s.Missing = append(s.Missing, f+": rules of the old iptables (iptables-legacy) are not read")
		}
	}
	s.Queues, err = readSockets(ctx, Options{}, protoDivert)
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
		if d.Kind != TProxy || d.Mark == 0 {
			continue // no mark is to lead them
		}
		for _, f := range d.Families {
			n := 0
			for _, l := range links[f] {
				q := question{f, l.name, d.Mark}
				if d.Interface != "" && d.Interface != l.name || slices.Contains(asked, q) || n == maxInterfaces {
					continue
				}
				n++
				asked = append(asked, q)
				cell, err := ask(ctx, f, l, d.Mark)
				miss(fmt.Sprintf("%v by %s", f, l.name), err)
				s.Cells = append(s.Cells, SurveyCell{f, l.name, d.Mark, cell})
			}
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

// addresses gives the interfaces that are up, with their first address of each family.
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

// ask asks what becomes of a packet with the mark that comes in by the interface.
func ask(ctx context.Context, f pfconf.Family, l link, mark uint32) (Cell, error) {
	table, to, err := tableOf(f, mark)
	if err != nil {
		return Cell{}, err
	}
	opt := Options{Interface: l.name, Mark: mark, Table: table, Remote: true}
	h := &Host{opt: opt, filters: shared.New(readFilters(opt))}
	answers, errs := h.answers(ctx, About{Proto: pfconf.TCP, Local: l.beside, Remote: l.own, Fake: to})
	return Cell{Answers: answers}, errors.Join(errs...)
}

// tableOf gives the routing table that marked packets are meant to go by: the one that the mark chooses,
// else one that any mark chooses, else any that has a local route and is not the kernel's own; and a
// destination to ask about.
func tableOf(f pfconf.Family, mark uint32) (int, netip.Addr, error) {
	family := netlink.FAMILY_V4
	if f == pfconf.Inet6 {
		family = netlink.FAMILY_V6
	}
	rules, err := netlink.RuleList(family)
	if err != nil {
		return 0, netip.Addr{}, fmt.Errorf("policy rules: %w", err)
	}
	routes, err := netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return 0, netip.Addr{}, fmt.Errorf("routes: %w", err)
	}
	table := 0
	for _, r := range rules {
		mask := uint32(1<<32 - 1)
		if r.Mask != nil {
			mask = *r.Mask
		}
		if r.Mark != 0 && (mark&mask == r.Mark || table == 0) {
			table = r.Table
			if mark&mask == r.Mark {
				break
			}
		}
	}
	to := anywhere[f]
	for _, r := range routes {
		if r.Type != unix.RTN_LOCAL || r.Table == unix.RT_TABLE_LOCAL || table != 0 && table != r.Table {
			continue
		}
		table = r.Table
		if r.Dst != nil {
			if ones, _ := r.Dst.Mask.Size(); ones > 0 {
				if a, ok := netip.AddrFromSlice(r.Dst.IP); ok {
					to = a.Unmap()
				}
			}
		}
	}
	if table == 0 {
		table = 100 // the one of every manual
	}
	return table, to, nil
}
