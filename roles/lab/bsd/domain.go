package bsd

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"pfdivert/pfconf"
	"pfdivert/pfconf/pf"
)

// domains builds a lab on OpenBSD.
func (b *builder) domains(c Layout) error {
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
			if err := b.all(words("ifconfig %s inet 127.0.0.1/8 up", name),
				words("ifconfig %s inet6 ::1/128", name)); err != nil {
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
	b.lab.Addresses = map[pfconf.Family]FamilyAddresses{}
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

// inDomain is an agent in a routing domain; Entry.Command reads the number.
func inDomain(n int) Entry { return Entry{Args: []string{"-in-lab", "-rdomain", strconv.Itoa(n)}} }

// route is LOCAL's route to FAKE, as route(8) takes it: a network must have more than one address.
func (a FamilyAddresses) route() string {
	if a.Fakes.IsSingleIP() {
		return fmt.Sprintf("-%s -host %v %v", inet(a.Remote), a.Fakes.Addr(), a.Remote)
	}
	return fmt.Sprintf("-%s -net %v %v", inet(a.Remote), a.Fakes, a.Remote)
}

// addressesIn returns the addresses of a family: LOCAL is the first of the cable's network.
func addressesIn(cable, fakes netip.Prefix, single bool) FamilyAddresses {
	local := cable.Masked().Addr().Next()
	a := FamilyAddresses{Local: local, Remote: local.Next(), Fakes: fakes}
	if single {
		fake := fakes.Addr()
		for range 9 {
			fake = fake.Next()
		}
		a.Fakes = netip.PrefixFrom(fake, fake.BitLen())
	}
	return a
}

// A new IPv6 address can be used when no one on the link has claimed it for a second
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
				return fmt.Errorf("%s has been destroyed by another process", name)
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
