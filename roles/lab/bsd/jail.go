package bsd

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"pfdivert/pfconf"
	"pfdivert/pfconf/pf"
)

// jailNetworks are those of the lab of network namespaces. The jails have network stacks of
// their own, so that nothing of the host's is in the way.
var jailNetworks = map[pfconf.Family]struct{ cable, fakes netip.Prefix }{
	pfconf.Inet:  {netip.MustParsePrefix("10.188.1.0/24"), netip.MustParsePrefix("10.208.0.0/12")},
	pfconf.Inet6: {netip.MustParsePrefix("fd00:188:1::/64"), netip.MustParsePrefix("fd00:188:2::/64")},
}

// secondNetworks are those of the second cable.
var secondNetworks = map[pfconf.Family]netip.Prefix{
	pfconf.Inet: netip.MustParsePrefix("10.188.3.0/24"), pfconf.Inet6: netip.MustParsePrefix("fd00:188:3::/64"),
}

// mirrorNetworks are those of the cable between REMOTE and the mirror.
var mirrorNetworks = map[pfconf.Family]netip.Prefix{
	pfconf.Inet: netip.MustParsePrefix("10.188.4.0/24"), pfconf.Inet6: netip.MustParsePrefix("fd00:188:4::/64"),
}

// maxEpairs bounds the search for a number of an epair(4) that no one has: those in
// other jails are not seen from here.
const maxEpairs = 256

// jails builds a lab on FreeBSD. unique makes the jails' names their own: a jail
// with sockets in TIME_WAIT lives on for a while after it was removed.
func (b *builder) jails(c Layout, unique int) error {
	local, remote := fmt.Sprintf("pfdivert%dlocal", unique), fmt.Sprintf("pfdivert%dremote", unique)
	for _, name := range []string{local, remote} {
		if err := b.make(pfconf.Undo{Do: undoJail, Args: []string{name}},
			"jail", "-c", "name="+name, "vnet", "persist", "path=/", "host=inherit"); err != nil {
			return err
		}
	}
	pair, err := b.epair(local, remote)
	if err != nil {
		return err
	}
	b.lab.Addresses = map[pfconf.Family]FamilyAddresses{}
	for _, f := range pfconf.Families {
		b.lab.Addresses[f] = addressesIn(jailNetworks[f].cable, jailNetworks[f].fakes, c.Single)
	}
	for _, side := range []struct {
		jail, nic string
		address   func(FamilyAddresses) netip.Addr
		host      *Entry
	}{
		{local, pair + "a", func(a FamilyAddresses) netip.Addr { return a.Local }, &b.lab.Local},
		{remote, pair + "b", func(a FamilyAddresses) netip.Addr { return a.Remote }, &b.lab.Remote},
	} {
		*side.host = Entry{Enter: []string{"jexec", side.jail}, Args: []string{"-lab-host", side.nic}}
		if err := b.all(
			words("ifconfig %s vnet %s", side.nic, side.jail),
			words("jexec %s ifconfig lo0 inet 127.0.0.1/8 up", side.jail),
			words("jexec %s ifconfig lo0 inet6 ::1/128", side.jail),
		); err != nil {
			return err
		}
		if err := b.addresses(side.jail, side.nic, func(f pfconf.Family) netip.Prefix {
			return netip.PrefixFrom(side.address(b.lab.Addresses[f]), jailNetworks[f].cable.Bits())
		}); err != nil {
			return err
		}
		if err := b.filter(side.jail); err != nil {
			return err
		}
	}
	if err := b.fibs(remote); err != nil {
		return err
	}
	if c.PF {
		if err := b.pf(remote); err != nil {
			return err
		}
	}
	if c.Router {
		if err := b.second(local, remote); err != nil {
			return err
		}
		if err := b.mirror(local, remote, fmt.Sprintf("pfdivert%dmirror", unique)); err != nil {
			return err
		}
	}
	for _, f := range pfconf.Families {
		if err := b.tools().do(words("jexec %s route -n add %s", local, b.lab.Addresses[f].route())...); err != nil {
			return err
		}
	}
	return nil
}

// addresses gives a jail's interface an address of each family.
func (b *builder) addresses(jail, nic string, of func(pfconf.Family) netip.Prefix) error {
	// No one else is on the link: its addresses can be used at once.
	if err := b.tools().do(words("jexec %s ifconfig %s inet6 -ifdisabled no_dad up", jail, nic)...); err != nil {
		return err
	}
	for _, f := range pfconf.Families {
		if err := b.tools().do(words("jexec %s ifconfig %s %v %v", jail, nic, f, of(f))...); err != nil {
			return err
		}
	}
	return nil
}

// second makes a second cable, and REMOTE a router.
func (b *builder) second(local, remote string) error {
	pair, err := b.epair(local, remote)
	if err != nil {
		return err
	}
	if err := b.all(words("ifconfig %sa vnet %s", pair, local),
		words("ifconfig %sb vnet %s", pair, remote)); err != nil {
		return err
	}
	b.lab.Second = Second{Gateways: map[pfconf.Family]netip.Addr{}}
	in := func(f pfconf.Family) FamilyAddresses { return addressesIn(secondNetworks[f], netip.Prefix{}, false) }
	if err := b.addresses(local, pair+"a", func(f pfconf.Family) netip.Prefix {
		return netip.PrefixFrom(in(f).Local, secondNetworks[f].Bits())
	}); err != nil {
		return err
	}
	if err := b.addresses(remote, pair+"b", func(f pfconf.Family) netip.Prefix {
		return netip.PrefixFrom(in(f).Remote, secondNetworks[f].Bits())
	}); err != nil {
		return err
	}
	for _, f := range pfconf.Families {
		b.lab.Second.Gateways[f] = in(f).Local
	}
	return b.forwards(remote)
}

// mirror makes a third host behind REMOTE, so that what REMOTE forwards has two ends: a connection
// of LOCAL with it is one of LOCAL with LOCAL. It takes no process there: pf translates both ends
// of a connection, its destination when it comes in, to LOCAL, and its source when it leaves, to
// the mirror. What answers is translated back, by the states.
func (b *builder) mirror(local, remote, jail string) error {
	if err := b.make(pfconf.Undo{Do: undoJail, Args: []string{jail}},
		"jail", "-c", "name="+jail, "vnet", "persist", "path=/", "host=inherit"); err != nil {
		return err
	}
	pair, err := b.epair(remote, jail)
	if err != nil {
		return err
	}
	if err := b.all(words("ifconfig %sa vnet %s", pair, remote),
		words("ifconfig %sb vnet %s", pair, jail)); err != nil {
		return err
	}
	in := func(f pfconf.Family) FamilyAddresses { return addressesIn(mirrorNetworks[f], netip.Prefix{}, false) }
	if err := b.addresses(remote, pair+"a", func(f pfconf.Family) netip.Prefix {
		return netip.PrefixFrom(in(f).Remote, mirrorNetworks[f].Bits())
	}); err != nil {
		return err
	}
	if err := b.addresses(jail, pair+"b", func(f pfconf.Family) netip.Prefix {
		return netip.PrefixFrom(in(f).Local, mirrorNetworks[f].Bits())
	}); err != nil {
		return err
	}
	if err := b.filter(jail); err != nil {
		return err
	}
	var rdr, nat string
	mirrors := map[pfconf.Family]netip.Addr{}
	for _, f := range pfconf.Families {
		a, mirror := b.lab.Addresses[f], in(f).Local
		there, back := FamilyAddresses{Remote: a.Remote, Fakes: mirrorNetworks[f]},
			FamilyAddresses{Remote: in(f).Remote, Fakes: jailNetworks[f].cable}
		if err := b.all(words("jexec %s route -n add %s", local, there.route()),
			words("jexec %s route -n add %s", jail, back.route())); err != nil {
			return err
		}
		rdr += fmt.Sprintf("rdr on %sb %v proto tcp from %v to %v -> %[3]v\n", pair, f, a.Local, mirror)
		nat += fmt.Sprintf("nat on %sb %v proto tcp from %v to %[3]v -> %v static-port\n", pair, f, a.Local, mirror)
		mirrors[f] = mirror
	}
	err = b.tools().tell(nat+rdr+"pass\n", words("jexec %s pfctl -q -f -", jail)...)
	if err == nil {
		err = b.tools().do(words("jexec %s pfctl -q -e", jail)...)
	}
	if said(err, "/dev/pf: No such file or directory") {
		return nil
	}
	if err == nil {
		b.lab.Second.Mirrors = mirrors
		err = b.forwards(jail)
	}
	return err
}

// forwards has a jail forward packets, and not tell of shorter ways.
func (b *builder) forwards(jail string) error {
	return b.tools().do(words("jexec %s sysctl net.inet.ip.redirect=0 net.inet6.ip6.redirect=0 "+
		"net.inet.ip.forwarding=1 net.inet6.ip6.forwarding=1", jail)...)
}

// epair makes the cable and gives its name, to which the ends add a and b.
func (b *builder) epair(local, remote string) (string, error) {
	nics, err := b.tools().interfaces()
	if err != nil {
		return "", err
	}
	for n := range maxEpairs {
		name := "epair" + strconv.Itoa(n)
		tried := func(u pfconf.Undo) bool { return u.Do == undoEpair && u.Args[0] == name }
		if slices.ContainsFunc(nics, func(n nic) bool { return n.name == name+"a" || n.name == name+"b" }) ||
			slices.ContainsFunc(b.lab.steps, tried) {
			continue
		}
		err := b.make(pfconf.Undo{Do: undoEpair, Args: []string{name, local, remote}},
			"ifconfig", name, "create", "description", mark)
		if said(err, "File exists") {
			continue
		}
		return name, err
	}
	return "", fmt.Errorf("no epair of %d is free", maxEpairs)
}

// filter has a jail's ipfw pass what the run does not divert. What an ipfw does that
// has no rules was decided when the kernel module was loaded; and extension headers that it
// does not know, protocol 254 among them, it drops unless it is told not to.
func (b *builder) filter(jail string) error {
	err := b.all(
		words("jexec %s sysctl net.inet.ip.maxfragsperpacket=64", jail),
		words("jexec %s sysctl net.inet6.ip6.fw.deny_unknown_exthdrs=0", jail),
		words("jexec %s ipfw -q add 65534 allow ip from any to any", jail),
	)
	if said(err, "unknown oid", "Protocol not available") {
		return hinted{fmt.Errorf("this kernel has no ipfw: %w", err),
			"kenv net.inet.ip.fw.default_to_accept=1; kldload ipfw ipdivert (without the first, ipfw cuts this host off)"}
	}
	return err
}

// fibs gives a jail a second routing table, where the release lets a jail have its own number of
// them.
func (b *builder) fibs(jail string) error {
	err := b.tools().do(words("jexec %s sysctl net.fibs=2", jail)...)
	if said(err, "unknown oid", "read only", "Operation not permitted") {
		return nil
	}
	return err
}

// mainRules are all that a lab's pf has besides the run's rules. Without states it is in no other
// cell's way.
const mainRules = `scrub in all fragment reassemble
rdr-anchor "` + pf.DefaultAnchor + `"
pass no state
anchor "` + pf.DefaultAnchor + `"
`

// pf has a jail's own pf, which is off at first, evaluate the rules of a run's anchor. A kernel
// without pf can't, and the cells that are about pf are skipped then.
func (b *builder) pf(jail string) error {
	err := b.tools().tell(mainRules, words("jexec %s pfctl -q -f -", jail)...)
	if err == nil {
		err = b.tools().do(words("jexec %s pfctl -q -e", jail)...)
	}
	if said(err, "/dev/pf: No such file or directory") {
		return nil
	}
	return err
}

// removeEpair takes both ends back from their jails and destroys them: what a jail has when it is
// removed comes back only when its last socket in TIME_WAIT is gone.
func (t tools) removeEpair(name string, jails []string) error {
	ours := false
	for i, end := range []string{name + "a", name + "b"} {
		err := t.do("ifconfig", end, "-vnet", jails[i])
		if err == nil {
			ours = true // the jails' names are the lab's own
			continue
		}
		if !said(err, "does not exist", "not found", "Device not configured", "Operation not permitted") {
			return err
		}
	}
	n, err := t.nic(name + "a")
	if err != nil || n == nil || !ours && n.description != mark {
		return err
	}
	return t.do("ifconfig", n.name, "destroy")
}

// removeJail removes a jail and ends what runs in it.
func (t tools) removeJail(name string) error {
	err := t.do("jail", "-r", name)
	if said(err, "not found") {
		return nil
	}
	return err
}
