package twin

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// ofForwarding is forwarding that is off, where rules send a packet to another host.
func (d *doctor) ofForwarding(s suspect) []remedy {
	in, ipv6 := s.end.in, s.Flow.IPv6()
	if in == "" || in == "lo" || d.ownAddr(s.end.to.Addr()) || !sentAway(s.Flow, s.path) {
		return nil
	}
	whole := "ipv4/ip_forward"
	if ipv6 {
		whole = "ipv6/conf/all/forwarding"
	}
	r := remedy{
		cause: "forwarding", fix: writeSysctl(whole, "1"),
		price: "this host then routes between all its networks, as far as FORWARD lets packets pass",
	}
	switch {
	case d.c.Settings[whole] == "0" && !ipv6:
		write := r.fix.do
		r.fix.do = func(x *Dump) error { // the kernel writes it to all devices
			for _, l := range d.c.Links {
				if err := x.editConf4(l.Name, "forwarding", "1"); err != nil {
					return err
				}
			}
			for _, name := range []string{"all", "default"} {
				x.Settings["ipv4/conf/"+name+"/forwarding"] = "1"
			}
			return write(x)
		}
	case d.c.Settings[whole] == "0":
	case !ipv6 && d.c.conf4Of(in, "forwarding") == 0:
		whole = "ipv4/conf/" + in + "/forwarding"
		r.fix, r.price = writeSysctl(whole, "1"), ""
	default:
		return nil
	}
	r.check = "sysctl " + dotted(whole)
	r.why = fmt.Sprintf("rules send it to %v, which is another host, and %s is 0", s.end.to, dotted(whole))
	return []remedy{r}
}

// ofTable are routes of a mark's table that lead some destinations elsewhere.
func (d *doctor) ofTable(s suspect) []remedy {
	own, ok := d.c.markRule(s.end.mark, s.Flow.IPv6())
	if !ok || s.end.mark == 0 {
		return nil
	}
	var all []remedy
	for i, r := range d.c.Routes {
		if r.Table != own.Table || r.Type == unix.RTN_LOCAL || !r.Dst.IsValid() || !r.Dst.Contains(s.end.to.Addr()) {
			continue
		}
		all = append(all, remedy{
			cause: "table-route", check: fmt.Sprintf("%s route show table %d", ipCommand(s.Flow.IPv6()), r.Table),
			why: fmt.Sprintf("table %d, to which mark 0x%x leads, has a route \"%s %v\" that is not local",
				r.Table, s.end.mark, routeTypes[r.Type], r.Dst),
			fix: d.c.removeRoute(i),
		})
	}
	return all
}

// removeRoute deletes a route, by its place in the dump.
func (c *Snapshot) removeRoute(i int) change {
	r, m := c.Routes[i], c.Dump.Routes[i]
	kind := routeTypes[r.Type] + " "
	if r.Type == unix.RTN_UNICAST {
		kind = ""
	}
	command := fmt.Sprintf("%s route del %s%v table %d", ipCommand(r.Dst.Addr().Is6()), kind, r.Dst, r.Table)
	return change{command: command, do: func(d *Dump) error {
		k := slices.IndexFunc(d.Routes, func(x []byte) bool { return bytes.Equal(x, m) })
		if k < 0 {
			return errGone
		}
		d.Routes = slices.Delete(d.Routes, k, k+1)
		return nil
	}}
}

// pastHost reports whether a rule sends a client's flow to another host in the client's own
// network, which then answers the client itself: under an address that the client did not ask.
func (d *doctor) pastHost(r FlowResult) bool {
	f := r.Flow
	in, out := d.c.linkNamed(f.In), d.c.linkNamed(r.Out)
	if in == nil || out == nil || !r.SeenTo.IsValid() || r.SeenTo.Addr() == f.To.Addr() ||
		r.SeenFrom.Addr() != f.From.Addr() {
		return false
	}
	at := d.c.holder(*in)
	if at.Index != d.c.holder(*out).Index || !at.ethernet() {
		return false
	}
	// In a bridge whose packets go through the rules of IP the answer is translated on its way.
	name := "bridge/bridge-nf-call-iptables"
	if f.IPv6() {
		name = "bridge/bridge-nf-call-ip6tables"
	}
	if at.Kind == "bridge" && (d.c.Settings[name] == "1" || d.c.callsIptables(at.Name, f.IPv6())) {
		return false
	}
	_, ok := d.sharedNetwork(at, f.From.Addr(), r.SeenTo.Addr())
	return ok
}

// sharedNetwork is the network of a device that two addresses are in.
func (d *doctor) sharedNetwork(at Link, a, b netip.Addr) (netip.Prefix, bool) {
	for _, x := range d.c.Addrs {
		if x.Index == at.Index && x.Prefix.Contains(a) && x.Prefix.Contains(b) {
			return x.Prefix.Masked(), true
		}
	}
	return netip.Prefix{}, false
}

// ofHairpin is a source that is to be translated too, so that answers come back.
func (d *doctor) ofHairpin(s suspect) []remedy {
	ipv6 := s.Flow.IPv6()
	h, ok := s.key.diverter()
	in := d.c.linkNamed(s.Flow.In)
	if !ok || in == nil {
		return nil
	}
	network, _ := d.sharedNetwork(d.c.holder(*in), s.Flow.From.Addr(), s.SeenTo.Addr())
	add := d.hookSpot(ipv6, hookPlace{"nat", "POSTROUTING", "nat", unix.NF_INET_POST_ROUTING, 100, "proxy-answers",
		"srcnat"})
	return []remedy{{
		cause: "hairpin", check: h.lister(d.c) + "; tcpdump -ni " + d.c.holder(*in).Name + " host " +
			s.SeenTo.Addr().String(),
		why: fmt.Sprintf("%s sends it to %v and leaves the client's address: that host answers the client directly, who does not know it",
			h.name(d.c), s.SeenTo),
		fix: add(added{UID: -1, From: network, To: hostPrefix(s.SeenTo.Addr()), Proto: s.Flow.Proto,
			Port: s.SeenTo.Port(), Do: doMasq, IPv6: ipv6}),
		price: fmt.Sprintf("%v then sees this host's address in place of the clients'", s.SeenTo.Addr()),
	}}
}
