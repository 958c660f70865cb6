package agent

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
	"pfdivert/pfconf/pf"
	"pfdivert/pfconf/program"
	"pfdivert/roles/socket"
)

// hasBeyond reports whether hosts besides LOCAL and REMOTE take part.
func hasBeyond(s *script.Setup) bool { return len(s.Beyond)+len(s.Gateways) > 0 }

// findBeyond finds out how REMOTE, which reaches LOCAL by the interfaces towards, reaches the hosts
// beyond it, and whether it forwards packets to them, by the programs of a BSD.
func findBeyond(ctx context.Context, run program.Runner, s *script.Setup,
	towards map[pfconf.Family]string) map[pfconf.Family]script.Beyond {
	all := map[pfconf.Family]script.Beyond{}
	for _, f := range pfconf.Families {
		var b script.Beyond
		gateway, mirror := ofFamily(s.Gateways, f), ofFamily(s.Beyond, f)
		routes := routeTool{run}
		if mirror.IsValid() {
			b.Mirror, b.NoMirror = routes.mirror(ctx, mirror, towards[f])
			b.NoForwarding = forwarding(ctx, run, f)
		}
		if gateway.IsValid() {
			b.Gateway, b.NoGateway = routes.gateway(ctx, gateway, towards[f])
			if b.Gateway != "" && b.Gateway == b.Mirror {
				b.NoGateway = script.Lack{Hint: script.GatewayHint(f), Why: fmt.Sprintf(
					"it reaches the gateway %v and the third host %v by one interface, %s", gateway, mirror, b.Gateway)}
				b.Gateway = ""
			}
		}
		if gateway.IsValid() || mirror.IsValid() {
			b.NoPF = unseen(ctx, pf.NewControl(run, 0), b.Gateway, b.Mirror)
			all[f] = b
		}
	}
	return all
}

// unseen asks whether pf, if it is on, looks at what goes by the interfaces. An empty name is of
// none.
func unseen(ctx context.Context, control *pf.Control, nics ...string) script.Lack {
	if status, err := control.Status(ctx); err != nil || !status.Enabled {
		return script.Lack{} // no target about pf is run then, and why is said elsewhere
	}
	skipped, err := control.Skipped(ctx)
	if err != nil {
		names := strings.TrimSpace(strings.Join(nics, " "))
		return script.Lack{Failed: true, Why: fmt.Sprintf("whether pf looks at %s: %v", names, err)}
	}
	for _, nic := range nics {
		if nic != "" && slices.Contains(skipped, nic) {
			return script.Lack{Why: "pf.conf has 'set skip on' for " + nic, Hint: cureSkip(nic)}
		}
	}
	return script.Lack{}
}

// ofFamily returns the first address of a family, the zero Addr if there is none.
func ofFamily(all []netip.Addr, f pfconf.Family) netip.Addr {
	if i := slices.IndexFunc(all, func(a netip.Addr) bool { return pfconf.FamilyOf(a) == f }); i >= 0 {
		return all[i]
	}
	return netip.Addr{}
}

// way is how a host reaches another.
type way struct {
	nic    string
	router string // the gateway, empty when no router is on the way
	own    bool   // it is the host's own address
}

// way asks for the way to an address, nil when there is none.
func (t routeTool) way(ctx context.Context, a netip.Addr) (*way, error) {
	out, absent, err := t.route(ctx, "get", familyFlag(a), a.String())
	if err != nil || absent {
		return nil, err
	}
	values := routeValues(out)
	nic, flags := values["interface"], strings.Split(strings.Trim(values["flags"], "<>"), ",")
	if nic == "" || len(flags) < 2 {
		return nil, fmt.Errorf("route -n get %v: not understood: %q", a, out)
	}
	has := func(flag string) bool { return slices.Contains(flags, flag) }
	switch {
	case has("REJECT"), has("BLACKHOLE"):
		return nil, nil
	case has("GATEWAY"):
		return &way{nic: nic, router: values["gateway"]}, nil
	}
	// FreeBSD has its own addresses on the loopback interface, OpenBSD marks them.
	return &way{nic: nic, own: has("LOCAL") || strings.HasPrefix(nic, "lo")}, nil
}

// gateway returns the interface in whose network the gateway is.
func (t routeTool) gateway(ctx context.Context, a netip.Addr, towards string) (string, script.Lack) {
	lack := script.Lack{Hint: script.GatewayHint(pfconf.FamilyOf(a))}
	switch w, err := t.way(ctx, a); {
	case err != nil:
		lack.Failed, lack.Why = true, fmt.Sprintf("the way to the gateway %v: %v", a, err)
	case w == nil:
		lack.Why = fmt.Sprintf("it has no route to the gateway %v", a)
	case w.own:
		lack.Why = fmt.Sprintf("the gateway %v is its own address", a)
	case w.router != "":
		lack.Why = fmt.Sprintf("it has no interface in the network of the gateway %v: the way there is via %s", a, w.router)
	case w.nic == towards:
		lack.Why = fmt.Sprintf("it reaches the gateway %v by %s, as it does LOCAL", a, w.nic)
	default:
		return w.nic, script.Lack{}
	}
	return "", lack
}

// mirror returns the interface by which packets go to the third host.
func (t routeTool) mirror(ctx context.Context, a netip.Addr, towards string) (string, script.Lack) {
	lack := script.Lack{Hint: script.MirrorHint(pfconf.FamilyOf(a))}
	switch w, err := t.way(ctx, a); {
	case err != nil:
		lack.Failed, lack.Why = true, fmt.Sprintf("the way to the third host %v: %v", a, err)
	case w == nil:
		lack.Why = fmt.Sprintf("it has no route to the third host %v", a)
	case w.own:
		lack.Why = fmt.Sprintf("the third host's address %v is its own", a)
	case w.nic == towards:
		lack.Why = fmt.Sprintf("it reaches the third host %v by %s, as it does LOCAL", a, w.nic)
	default:
		return w.nic, script.Lack{}
	}
	return "", lack
}

// forwarding asks whether the host forwards packets of a family. OpenBSD's 2 means those of IPsec
// alone (sysctl(2)).
func forwarding(ctx context.Context, run program.Runner, f pfconf.Family) script.Lack {
	name, of := "net.inet.ip.forwarding", "IPv4"
	if f == pfconf.Inet6 {
		name, of = "net.inet6.ip6.forwarding", "IPv6"
	}
	argv := []string{"sysctl", "-n", name}
	failed := func(format string, a ...any) script.Lack {
		return script.Lack{Failed: true, Why: fmt.Sprintf("whether it forwards %s: %s: ", of, strings.Join(argv, " ")) +
			fmt.Sprintf(format, a...)}
	}
	r, err := run(ctx, program.Command{Argv: argv})
	switch value := strings.TrimSpace(r.Stdout); {
	case err != nil:
		return failed("%v", err)
	case r.Status != 0, r.Stderr != "":
		return failed("%s (exit status %d)", strings.TrimSpace(r.Stderr), r.Status)
	case value == "1":
		return script.Lack{}
	case value != "0" && value != "2":
		return failed("not understood: %q", value)
	default:
		return script.Lack{Why: fmt.Sprintf("it does not forward %s: sysctl %s is %s", of, name, value),
			Hint: fmt.Sprintf("sysctl %s=1", name)}
	}
}

// arrivals returns what LOCAL says of datagrams that come by its interfaces with the gateways.
func arrivals(s *script.Setup) (map[pfconf.Family]netip.Addr, error) {
	var all map[pfconf.Family]netip.Addr
	for _, a := range s.Gateways {
		name, err := interfaceOf(a)
		if err == nil && name == "" {
			err = fmt.Errorf("no interface of this host has %v", a)
		}
		var nic *net.Interface
		if err == nil {
			nic, err = net.InterfaceByName(name)
		}
		var known netip.Addr
		if err == nil {
			known, err = socket.KnownBy(nic, a.Is6())
		}
		if err != nil {
			return nil, fmt.Errorf("the gateway %v: %w", a, err)
		}
		if all == nil {
			all = map[pfconf.Family]netip.Addr{}
		}
		all[pfconf.FamilyOf(a)] = known
	}
	return all, nil
}

// gateways looks whether LOCAL has the gateways' addresses, and takes what comes there for its
// other ones.
func (c *checks) gateways(s *script.Setup) {
	for _, a := range s.Gateways {
		f := pfconf.FamilyOf(a)
		name, variable := fmt.Sprintf("%v second network", f), script.GatewayVariable(f)
		nic, err := interfaceOf(a)
		if err != nil {
			c.fail(name, err)
			continue
		}
		strict, err := dropsOthers(nic, f)
		switch {
		case nic == "":
			c.no(name, fmt.Sprintf("correct %s, or give %v to an interface of that host", variable, a),
				"no interface of this host has %v", a)
		case nic == nicOf(s, f):
			c.no(name, "give it to an interface in a network of its own with REMOTE, or unset "+variable,
				"%v is on %s, as LOCAL's address is", a, nic)
		case err != nil:
			c.fail(name, err)
		case strict:
			c.no(name, cureReversePath(nic),
				"%s, which has %v, drops what REMOTE sends there from its other address", nic, a)
		default:
			c.ok(name, "%v on %s", a, nic)
		}
	}
}

// cureReversePath has an interface of Linux's take what comes by another way than the answer goes.
// In a name with dots that separate, sysctl(8) takes a slash for a dot, as in eth0.100.
func cureReversePath(nic string) string {
	return "sysctl -w net.ipv4.conf." + strings.ReplaceAll(nic, ".", "/") + ".rp_filter=2"
}

// beyond notes how REMOTE reaches the hosts beyond it. What is lacking does not stop a run: the
// targets that need it are skipped.
func (c *checks) beyond(s *script.Setup, all map[pfconf.Family]script.Beyond) {
	note := func(name string, l script.Lack, format string, a ...any) {
		switch {
		case l.Failed:
			c.fail(name, &script.Error{Text: l.Why})
		case l.Why != "":
			c.warn(name, l.Hint, "%s: the targets that need it are SKIP", l.Why)
		default:
			c.ok(name, format, a...)
		}
	}
	for _, f := range pfconf.Families {
		b, there := all[f]
		if !there {
			continue
		}
		if a := ofFamily(s.Gateways, f); a.IsValid() {
			note(fmt.Sprintf("%v second network", f), b.NoGateway, "%v by %s", a, b.Gateway)
		}
		if a := ofFamily(s.Beyond, f); a.IsValid() {
			note(fmt.Sprintf("%v third host", f), b.NoMirror, "%v by %s", a, b.Mirror)
			note(fmt.Sprintf("%v forwarding", f), b.NoForwarding, "it is on")
		}
		if b.NoPF.Why != "" {
			note(fmt.Sprintf("%v pf sees the interfaces", f), b.NoPF, "")
		}
	}
}
