package bsd

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"pfdivert/pfconf"
)

// MaxDomain is the largest number of a routing domain (RT_TABLEID_MAX in OpenBSD's
// net/route.h).
const MaxDomain = 255

// domainLab is what a lab of routing domains is made of.
type domainLab struct {
	local, remote int // the routing domains
	mirror        int // that of the third host, 0 where there is none
	// cables are the one between LOCAL and REMOTE and, with a third host, a second one between
	// them and the one between REMOTE and the third host.
	cables []domainCable
	// loops are the loopback interfaces of the domains that the lab makes. Made by the
	// kernel, with the first interface of a domain, they would not be known as a lab's.
	loops []string
}

// domainCable is two interfaces, pair(4), that are patched to each other.
type domainCable struct{ near, far domainEnd }

// domainEnd is an end of a cable, and the routing domain that it is in.
type domainEnd struct {
	name   string
	domain int
}

// plan chooses routing domains and interfaces that no one has, with a third host's for a router.
func (t tools) plan(nics []nic, remote int, router bool) (d domainLab, err error) {
	d.remote = remote
	names := map[string]bool{}
	members := map[int][]nic{}
	for _, n := range nics {
		names[n.name] = true
		members[n.domain] = append(members[n.domain], n)
	}
	// free reports whether a routing domain can be made. Its loopback interface has its
	// number, and its routing table may be one of another domain, with routes in it; an
	// empty one stays of every domain that once was (rdomain(4)).
	free := func(n int) (bool, error) {
		if len(members[n]) > 0 || names[loop(n)] {
			return false, nil
		}
		out, err := t.ask("route", "-n", "-T"+strconv.Itoa(n), "show")
		if said(err, "No such file") {
			return true, nil
		}
		return err == nil && strings.TrimSpace(out) == "Routing tables", err
	}
	for n := 1; n <= MaxDomain && (d.local == 0 || router && d.mirror == 0); n++ {
		if n == remote {
			continue
		}
		ok, err := free(n)
		switch {
		case err != nil:
			return d, err
		case ok && d.local == 0:
			d.local = n
		case ok:
			d.mirror = n
		}
	}
	if whose := "LOCAL"; d.local == 0 || router && d.mirror == 0 {
		if d.local != 0 {
			whose = "the third host"
		}
		return d, hinted{fmt.Errorf("no routing domain of 1 to %d is free for %s", MaxDomain, whose),
			"destroy an interface with its domain, or test another host: REMOTE_SSH"}
	}
	d.loops = []string{loop(d.local)}
	if router {
		d.loops = append(d.loops, loop(d.mirror))
	}
	switch there := members[remote]; {
	case remote == 0:
	case len(there) == 0:
		ok, err := free(remote)
		if err != nil {
			return d, err
		}
		if !ok {
			return d, hinted{fmt.Errorf(
				"routing domain %d can't be made for REMOTE: its routing table or %s is in use", remote, loop(remote)),
				"choose another number for -rdomain"}
		}
		d.loops = append(d.loops, loop(remote))
	case !slices.ContainsFunc(there, func(n nic) bool { return n.has("127.0.0.1") }):
		return d, hinted{fmt.Errorf("routing domain %d has no 127.0.0.1", remote),
			fmt.Sprintf("ifconfig %s inet 127.0.0.1/8; ifconfig %[1]s inet6 ::1/128", loop(remote))}
	}
	d.cables = []domainCable{{domainEnd{domain: d.local}, domainEnd{domain: remote}}}
	if router {
		d.cables = append(d.cables, d.cables[0], domainCable{domainEnd{domain: remote}, domainEnd{domain: d.mirror}})
	}
	n := 0
	next := func() (name string) {
		for name == "" || names[name] {
			n++
			name = fmt.Sprintf("pair%d", n)
		}
		return name
	}
	for i := range d.cables {
		d.cables[i].near.name, d.cables[i].far.name = next(), next()
	}
	return d, nil
}

func loop(domain int) string { return fmt.Sprintf("lo%d", domain) }

// defaultRoute is what `route -n get` says of a default route; older releases and other
// systems print the word.
var defaultRoute = regexp.MustCompile(`(?m)^destination: (0\.0\.0\.0|::|default)$`)

func (n nic) has(addr string) bool {
	return slices.ContainsFunc(n.addresses, func(p netip.Prefix) bool { return p.Addr().String() == addr })
}

// network is one of a lab's: 10.188.N.0/24 and fd00:188:N::/64, or the same below 198.18, which is
// set apart for tests (RFC 2544, C.2.2), when the lab's first network has a number that is too
// high.
func network(first, n int) map[pfconf.Family]netip.Prefix {
	second := "10.188"
	if first > 255 {
		second = "198.18"
	}
	return map[pfconf.Family]netip.Prefix{
		pfconf.Inet:  netip.MustParsePrefix(fmt.Sprintf("%s.%d.0/24", second, n%256)),
		pfconf.Inet6: netip.MustParsePrefix(fmt.Sprintf("fd00:188:%x::/64", n)),
	}
}

// networks are those of a lab that has so many, the first with the number first.
func networks(first, count int) (all []map[pfconf.Family]netip.Prefix) {
	for n := first; n < first+count; n++ {
		all = append(all, network(first, n))
	}
	return all
}

// chooseNetworks returns so many networks, for the first odd number that this host has no use for:
// no interface of the host has them, in whatever domain, and no route of REMOTE's leads there but a
// default one.
func (t tools) chooseNetworks(nics []nic, remote, count int) ([]map[pfconf.Family]netip.Prefix, error) {
	used := func(p netip.Prefix) (bool, error) {
		for _, n := range nics {
			if slices.ContainsFunc(n.addresses, p.Overlaps) {
				return true, nil
			}
		}
		out, err := t.ask("route", "-n", "-T"+strconv.Itoa(remote), "get", "-"+inet(p.Addr()),
			p.Addr().Next().String())
		// A table that is about to be made has no routes.
		if said(err, "not in table", "No such file") {
			return false, nil
		}
		return err != nil || !defaultRoute.MatchString(out), err
	}
	free := func(all []map[pfconf.Family]netip.Prefix) (bool, error) {
		for _, f := range pfconf.Families {
			for _, network := range all {
				if taken, err := used(network[f]); taken || err != nil {
					return false, err
				}
			}
		}
		return true, nil
	}
	for n := 1; n < 2*256; n += 2 {
		all := networks(n, count)
		ok, err := free(all)
		if err != nil {
			return nil, err
		}
		if ok {
			return all, nil
		}
	}
	return nil, hinted{errors.New("this host has routes to all networks that a lab could have"),
		"test another host: REMOTE_SSH"}
}
