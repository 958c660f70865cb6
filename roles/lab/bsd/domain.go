package bsd

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"pfdivert/pfconf"
	"pfdivert/pfconf/pf"
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

// plan chooses routing domains and interfaces that nobody has.
func (t tools) plan(nics []nic, remote int) (d domainLab, err error) {
	d.remote = remote
	names := map[string]bool{}
	members := map[int][]nic{}
	for _, n := range nics {
		names[n.name] = true
		members[n.domain] = append(members[n.domain], n)
	}
	// free tells whether a routing domain can be made. Its loopback interface has its
	// number, and its routing table may be one of another domain, with routes in it; an
	// empty one stays of every domain that once was (rdomain(4)).
	free := func(n int) (bool, error) {
		if len(members[n]) > 0 || names[loop(n)] {
			return false, nil
		}
		out, err := t.ask("route", "-n", "-T"+strconv.Itoa(n), "show")
		if said(err, "No such file", "Invalid argument", "not exist") {
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
		return d, hinted{fmt.Errorf("no routing domain of 1 to %d is free for LOCAL", MaxDomain), "destroy an interface with its domain, or test another host: REMOTE_SSH"}
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
			return d, hinted{fmt.Errorf("routing domain %d can't be made for REMOTE: its routing table or %s is in use", remote, loop(remote)), "choose another number for -rdomain"}
		}
		d.loops = append(d.loops, loop(remote))
	case !slices.ContainsFunc(there, func(n nic) bool { return n.has("127.0.0.1") }):
		return d, hinted{fmt.Errorf("routing domain %d has no 127.0.0.1", remote), fmt.Sprintf("ifconfig %s inet 127.0.0.1/8; ifconfig %[1]s inet6 ::1/128", loop(remote))}
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

// chooseNetworks gives networks that no interface of the host has, in whatever
// domain, and to which no route of REMOTE's leads but a default one.
func (t tools) chooseNetworks(nics []nic, remote int) (cables, fakes map[pfconf.Family]netip.Prefix, err error) {
	used := func(p netip.Prefix) (bool, error) {
		for _, n := range nics {
			if slices.ContainsFunc(n.addresses, p.Overlaps) {
				return true, nil
			}
		}
		out, err := t.ask("route", "-n", "-T"+strconv.Itoa(remote), "get", "-"+inet(p.Addr()), p.Addr().Next().String())
		// A table that is about to be made has no routes.
		if said(err, "not in table", "No such file", "Invalid argument", "not exist") {
			return false, nil
		}
		return err == nil && !defaultRoute.MatchString(out), err
	}
	for n := 1; n < 2*256; n += 2 {
		cables, fakes = networks(n)
		taken := false
		for _, f := range pfconf.Families {
			for _, p := range []netip.Prefix{cables[f], fakes[f]} {
				if taken, err = used(p); err != nil {
					return nil, nil, err
				}
				if taken {
					break
				}
			}
			if taken {
				break
			}
		}
		if !taken {
			return cables, fakes, nil
		}
	}
	return nil, nil, hinted{fmt.Errorf("this host has routes to all networks that a lab could have"), "test another host: REMOTE_SSH"}
}

// domains builds a lab on OpenBSD.
func (b *builder) domains(c Config) error {
	nics, err := b.tools().interfaces()
	if err != nil {
		return err
	}
	d, err := b.tools().plan(nics, c.Domain)
	if err != nil {
		return err
	}
	cables, fakes, err := b.tools().chooseNetworks(nics, c.Domain)
	if err != nil {
		return err
	}
	create := func(name string, domain int) error {
		return b.make(
			pfconf.Undo{Do: undoInterface, Args: []string{name, strconv.Itoa(d.local), strconv.Itoa(d.remote)}},
			"ifconfig", name, "create", "description", mark, "rdomain", strconv.Itoa(domain))
	}
	for _, name := range d.loops {
		domain := d.local
		if name == loop(d.remote) {
			domain = d.remote
		}
		if err := create(name, domain); err != nil {
			return err
		}
		if domain == d.remote { // REMOTE's servers listen there
			if err := b.all(words("ifconfig %s inet 127.0.0.1/8 up", name), words("ifconfig %s inet6 ::1/128", name)); err != nil {
				return err
			}
		}
	}
	if err := create(d.localNIC, d.local); err != nil {
		return err
	}
	if err := create(d.remoteNIC, d.remote); err != nil {
		return err
	}
	if err := b.tools().do("ifconfig", d.localNIC, "patch", d.remoteNIC); err != nil {
		return err
	}
	b.lab.Local, b.lab.Remote = inDomain(d.local), inDomain(d.remote)
	b.lab.Addresses = map[pfconf.Family]Addresses{}
	for _, f := range pfconf.Families {
		a := addressesIn(cables[f], fakes[f], c.Single)
		b.lab.Addresses[f] = a
		if err := b.all(
			words("ifconfig %s %v %v/%d up", d.localNIC, f, a.Local, cables[f].Bits()),
			words("ifconfig %s %v %v/%d up", d.remoteNIC, f, a.Remote, cables[f].Bits()),
		); err != nil {
			return err
		}
	}
	if err := b.ready(d.localNIC, d.remoteNIC); err != nil {
		return err
	}
	for _, f := range pfconf.Families {
		a := b.lab.Addresses[f]
		if err := b.tools().do(words("route -n -T%d add %s", d.local, a.route())...); err != nil {
			return err
		}
	}
	return nil
}

// inDomain is an agent in a routing domain.
func inDomain(n int) Host { return Host{Args: []string{"-rdomain", strconv.Itoa(n)}} }

// route is LOCAL's route to FAKE, as route(8) takes it: a network must have more than one address.
func (a Addresses) route() string {
	if a.Fakes.IsSingleIP() {
		return fmt.Sprintf("-%s -host %v %v", inet(a.Remote), a.Fakes.Addr(), a.Remote)
	}
	return fmt.Sprintf("-%s -net %v %v", inet(a.Remote), a.Fakes, a.Remote)
}

// addressesIn gives the addresses of a family: LOCAL is the first of the cable's network.
func addressesIn(cable, fakes netip.Prefix, single bool) Addresses {
	local := cable.Masked().Addr().Next()
	a := Addresses{Local: local, Remote: local.Next(), Fakes: fakes}
	if single {
		fake := fakes.Addr()
		for range 9 {
			fake = fake.Next()
		}
		a.Fakes = netip.PrefixFrom(fake, fake.BitLen())
	}
	return a
}

// A new IPv6 address can be used when nobody on the link has claimed it for a second
// (RFC 4862, 5.4). No message tells of that moment, so the interface is looked at.
const (
	readyPatience = 10 * time.Second
	readyPause    = 50 * time.Millisecond
)

// ready waits until the addresses of the interfaces can be used.
func (b *builder) ready(names ...string) error {
	end := time.Now().Add(readyPatience)
	for _, name := range names {
		for {
			n, err := b.tools().nic(name)
			switch {
			case err != nil:
				return err
			case n == nil:
				return fmt.Errorf("%s has been destroyed by somebody else", name)
			case n.duplicated != "":
				return fmt.Errorf("%s: the address %s is duplicated", name, n.duplicated)
			}
			if !n.waiting {
				break
			}
			if time.Now().After(end) {
				return fmt.Errorf("%s: its IPv6 addresses are still tentative after %v", name, readyPatience)
			}
			select {
			case <-time.After(readyPause):
			case <-b.ctx.Done():
				return b.ctx.Err()
			}
		}
	}
	return nil
}

// removeInterface destroys an interface of a lab, with the routes over it. The states that pf has
// for its networks would outlive it: they go before, when it is down and no packet makes new
// ones, so that an interface that is there tells of states that may be left.
func (t tools) removeInterface(name string, domains []string) error {
	n, err := t.nic(name)
	if err != nil || n == nil || n.description != mark {
		return err
	}
	if err := t.do("ifconfig", name, "down"); err != nil {
		return err
	}
	for _, text := range slices.Compact(slices.Clone(domains)) {
		domain, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("routing domain %q: %w", text, err)
		}
		for _, p := range n.addresses {
			if p.Addr().IsLoopback() {
				continue
			}
			if p.Addr().IsLinkLocalUnicast() {
				p = netip.PrefixFrom(p.Addr(), p.Addr().BitLen())
			}
			if err := pf.NewControl(t.run, domain).KillNetwork(t.ctx, p.Masked()); err != nil {
				return fmt.Errorf("the states of %s: %w", name, err)
			}
		}
	}
	return t.do("ifconfig", name, "destroy")
}
