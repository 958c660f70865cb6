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
	local, remote       int    // the routing domains
	localNIC, remoteNIC string // the ends of the pair(4)
	// loops are the loopback interfaces of the domains that the lab makes. Made by the
	// kernel, with the first interface of a domain, they would not be known as a lab's.
	loops []string
}

// plan chooses routing domains and interfaces that no one has.
func (t tools) plan(nics []nic, remote int) (d domainLab, err error) {
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
	for n := 1; n <= MaxDomain && d.local == 0; n++ {
		if n == remote {
			continue
		}
		ok, err := free(n)
		if err != nil {
			return d, err
		}
		if ok {
			d.local = n
		}
	}
	if d.local == 0 {
		return d, hinted{fmt.Errorf("no routing domain of 1 to %d is free for LOCAL", MaxDomain),
			"destroy an interface with its domain, or test another host: REMOTE_SSH"}
	}
	d.loops = []string{loop(d.local)}
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
	for n := 1; d.remoteNIC == ""; n++ {
		switch name := fmt.Sprintf("pair%d", n); {
		case names[name]:
		case d.localNIC == "":
			d.localNIC = name
		default:
			d.remoteNIC = name
		}
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

// A lab's networks are 10.188.N.0/24 and fd00:188:N::/64 for the cable and those of N+1
// for FAKE, for the first odd N that this host has no use for; else the same below 198.18, which
// is set apart for tests (RFC 2544, C.2.2).
func networks(n int) (cables, fakes map[pfconf.Family]netip.Prefix) {
	second := "10.188"
	if n > 255 {
		second = "198.18"
	}
	of := func(n int) map[pfconf.Family]netip.Prefix {
		return map[pfconf.Family]netip.Prefix{
			pfconf.Inet:  netip.MustParsePrefix(fmt.Sprintf("%s.%d.0/24", second, n%256)),
			pfconf.Inet6: netip.MustParsePrefix(fmt.Sprintf("fd00:188:%x::/64", n)),
		}
	}
	return of(n), of(n + 1)
}

// chooseNetworks returns networks that no interface of the host has, in whatever
// domain, and to which no route of REMOTE's leads but a default one.
func (t tools) chooseNetworks(nics []nic, remote int) (cables, fakes map[pfconf.Family]netip.Prefix, err error) {
	used := func(networks ...netip.Prefix) (bool, error) {
		for _, p := range networks {
			for _, n := range nics {
				if slices.ContainsFunc(n.addresses, p.Overlaps) {
					return true, nil
				}
			}
			out, err := t.ask("route", "-n", "-T"+strconv.Itoa(remote), "get", "-"+inet(p.Addr()),
				p.Addr().Next().String())
			// A table that is about to be made has no routes.
			if said(err, "not in table", "No such file") {
				continue
			}
			if err != nil || !defaultRoute.MatchString(out) {
				return true, err
			}
		}
		return false, nil
	}
	for n := 1; n < 2*256; n += 2 {
		cables, fakes = networks(n)
		taken, err := used(cables[pfconf.Inet], fakes[pfconf.Inet], cables[pfconf.Inet6], fakes[pfconf.Inet6])
		if err != nil {
			return nil, nil, err
		}
		if !taken {
			return cables, fakes, nil
		}
	}
	return nil, nil, hinted{errors.New("this host has routes to all networks that a lab could have"),
		"test another host: REMOTE_SSH"}
}
