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
	d, err := b.tools().plan(nics, c.Domain, c.Router)
	if err != nil {
		return err
	}
	// The first is the cable's, the second FAKE's.
	networks, err := b.tools().chooseNetworks(nics, c.Domain, len(d.cables)+1)
	if err != nil {
		return err
	}
	for _, name := range d.loops {
		if err := b.loop(d, name); err != nil {
			return err
		}
	}
	b.lab.Local, b.lab.Remote = inDomain(d.local), inDomain(d.remote)
	b.lab.Addresses = map[pfconf.Family]FamilyAddresses{}
	for _, f := range pfconf.Families {
		b.lab.Addresses[f] = addressesIn(networks[0][f], networks[1][f], c.Single)
	}
	if err := b.cable(d.cables[0], networks[0]); err != nil {
		return err
	}
	var names []string
	if c.Router {
		if err := b.beyond(d, networks[2], networks[3]); err != nil {
			return err
		}
	}
	for _, cable := range d.cables {
		names = append(names, cable.near.name, cable.far.name)
	}
	if err := b.ready(names...); err != nil {
		return err
	}
	for _, f := range pfconf.Families {
		a := b.lab.Addresses[f]
		if err := b.tools().do(words("route -n -T%d add %s", d.local, a.route())...); err != nil {
			return err
		}
		if !c.Router {
			continue
		}
		third := addressesIn(networks[3][f], netip.Prefix{}, false)
		there := FamilyAddresses{Remote: a.Remote, Fakes: networks[3][f]}
		back := FamilyAddresses{Remote: third.Local, Fakes: networks[0][f]}
		if err := b.all(words("route -n -T%d add %s", d.local, there.route()),
			words("route -n -T%d add %s", d.mirror, back.route())); err != nil {
			return err
		}
	}
	return nil
}

// loop makes the loopback interface of a routing domain that the lab makes.
func (b *builder) loop(d domainLab, name string) error {
	domain := d.local
	switch name {
	case loop(d.remote):
		domain = d.remote
	case loop(d.mirror):
		domain = d.mirror
	}
	if err := b.create(name, domain, d.local, d.remote); err != nil {
		return err
	}
	if domain != d.remote {
		return nil
	}
	// REMOTE's servers listen there.
	return b.all(words("ifconfig %s inet 127.0.0.1/8 up", name), words("ifconfig %s inet6 ::1/128", name))
}

// create makes an interface in a routing domain. Those that may have states of its addresses are
// recorded with it.
func (b *builder) create(name string, domain int, known ...int) error {
	args := []string{name}
	for _, n := range known {
		args = append(args, strconv.Itoa(n))
	}
	return b.make(pfconf.Undo{Do: undoInterface, Args: args},
		"ifconfig", name, "create", "description", mark, "rdomain", strconv.Itoa(domain))
}

// cable makes a cable. Its near end has the first address of the network, the far one the second.
func (b *builder) cable(c domainCable, network map[pfconf.Family]netip.Prefix) error {
	for _, end := range []domainEnd{c.near, c.far} {
		if err := b.create(end.name, end.domain, c.near.domain, c.far.domain); err != nil {
			return err
		}
	}
	if err := b.tools().do("ifconfig", c.near.name, "patch", c.far.name); err != nil {
		return err
	}
	for _, f := range pfconf.Families {
		a := addressesIn(network[f], netip.Prefix{}, false)
		if err := b.all(
			words("ifconfig %s %v %v/%d up", c.near.name, f, a.Local, network[f].Bits()),
			words("ifconfig %s %v %v/%d up", c.far.name, f, a.Remote, network[f].Bits()),
		); err != nil {
			return err
		}
	}
	return nil
}

// beyond makes REMOTE's second cable to LOCAL, and a third host behind REMOTE. It takes no process
// there, and no rules: LOCAL's agent opens sockets in the third host's routing domain. Whether
// REMOTE forwards packets to it the machine's settings say, which are not the lab's to change.
func (b *builder) beyond(d domainLab, second, third map[pfconf.Family]netip.Prefix) error {
	if err := b.cable(d.cables[1], second); err != nil {
		return err
	}
	if err := b.cable(d.cables[2], third); err != nil {
		return err
	}
	b.lab.Second = Second{Gateways: map[pfconf.Family]netip.Addr{},
		Mirrors: map[pfconf.Family]netip.Addr{}, Domain: d.mirror}
	for _, f := range pfconf.Families {
		b.lab.Second.Gateways[f] = addressesIn(second[f], netip.Prefix{}, false).Local
		b.lab.Second.Mirrors[f] = addressesIn(third[f], netip.Prefix{}, false).Remote
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
