package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
	"pfdivert/pfconf/need"
	"pfdivert/pfconf/nft"
	"pfdivert/pfconf/rtnetlink"
	"pfdivert/roles/socket"
)

// asked are the features that check asks the kernel for: those of need.Features that nft probes.
// Without one, those that follow are not worth a word.
var asked = []need.Name{need.NFTables, need.Conntrack, need.CTNetlink, need.TProxy, need.NFQueue}

// askedOf are those that check asks for because of the engine.
var askedOf = map[pfconf.Engine][]need.Name{
	pfconf.XT:        {need.XT, need.XTMark, need.XTTProxy, need.XTQueue},
	pfconf.XTLegacy:  {need.XTLegacy, need.XTMark, need.XTTProxy, need.XTQueue},
	pfconf.BPF:       {need.BPF, need.BPFAssign},
	pfconf.BPFLookup: {need.BPFLookup},
}

// system looks at nf_tables, at policy routing and at what can keep packets from it. A
// run that begins finds out about nf_tables as it opens it: each probe takes the kernel 15 ms.
func (c *checks) system(ctx context.Context, s *script.Setup, begins bool) {
	if !begins {
		c.nftables(ctx, s)
	}
	for _, p := range s.Paths {
		c.way(p)
	}
}

// nftables asks for the kernel's features. Those that only some targets need are no failure: these
// targets are skipped. Of a lack that others follow from only the first is told.
func (c *checks) nftables(ctx context.Context, s *script.Setup) {
	const name = "table, policy rules and routing table of " + nft.TableName
	all := append(slices.Clone(asked), askedOf[s.Filter]...)
	answers, err := nft.Ask(ctx, nft.Config{Fakes: s.Fakes, Engine: s.Filter}, all...)
	for _, feature := range all {
		if a, ok := answers[feature]; ok && !c.feature(feature, a) {
			return
		}
	}
	c.feature(need.SockDiag, answerOf(socket.ProbeTCPDiag()))
	if err != nil {
		c.fail(name, explainNFT(err))
		return
	}
	c.ok(name, "unused")
}

// answerOf is the answer that a probe's error is.
func answerOf(err error) nft.ProbeResult {
	var missing *need.MissingError
	switch {
	case err == nil:
		return nft.ProbeResult{Support: nft.Yes}
	case errors.As(err, &missing):
		return nft.ProbeResult{Support: nft.No, Err: missing.Err}
	}
	return nft.ProbeResult{Support: nft.Unknown, Err: err}
}

// feature tells what the kernel answered, and reports whether the host can do with that.
func (c *checks) feature(name need.Name, a nft.ProbeResult) (fine bool) {
	f, _ := need.Of(name)
	switch {
	case a.Support == nft.Yes:
		c.ok(string(name), "the kernel has it")
	case a.Support == nft.No && f.Some:
		c.ok(string(name), "the kernel has it not (%v): the targets that need it are skipped; to have it, %s", a.Err, f.Cure())
	case a.Support == nft.No:
		var missing *need.MissingError
		err := a.Err
		if !errors.As(err, &missing) {
			err = &need.MissingError{Feature: name, Err: err}
		}
		c.fail(string(name), err)
		return false
	default:
		c.fail(string(name), a.Err)
		return false
	}
	return true
}

// explainNFT adds to an error of the packet filter's what can be done about it.
func explainNFT(err error) error {
	var taken *nft.TakenError
	switch {
	case errors.As(err, &taken):
		return hinted{err, fmt.Sprintf(CleanUp+"; without a journal, on that host: nft delete table inet %s; ip rule del fwmark 0x%x; ip route flush table %d; the last two with ip -6 too",
			nft.TableName, nft.Mark, nft.Table)}
	}
	return err
}

// way looks at the interface by which packets of LOCAL come in.
func (c *checks) way(p script.Path) {
	in, err := interfaceOf(p.Here)
	if err != nil || in == "" {
		return // said before
	}
	out, err := towards(p.There)
	if err != nil {
		c.no(fmt.Sprintf("way to LOCAL %v", p.There), fmt.Sprintf("ip link set %s up; ip route add %v dev %[1]s, "+
			"or via the router between the hosts", in, p.There), "%v", err)
		return
	}
	if p.There.Is4() {
		name := "rp_filter"
		switch strict, err := strictReversePath(in); {
		case err != nil:
			c.fail(name, err)
		case strict && in != out:
			c.no(name, cureReversePath(in),
				"%v is on %s, packets to LOCAL %v go out by %s, and %s drops what does not come the same way", p.Here, in, p.There, out, in)
		default:
			c.ok(name, "packets to and from LOCAL use %s", out)
		}
	}
	c.bridge(p, out)
}

// strictReversePath reports whether the interface drops what would be answered by another one: the
// larger of its own and of all's rp_filter counts (ip-sysctl.rst).
func strictReversePath(nic string) (bool, error) {
	highest := ""
	for _, name := range []string{"all", nic} {
		b, err := os.ReadFile("/proc/sys/net/ipv4/conf/" + name + "/rp_filter")
		if err != nil {
			return false, err
		}
		highest = max(highest, strings.TrimSpace(string(b)))
	}
	return highest == "1", nil
}

// dropsOthers reports whether an interface drops what does not come the way that the answer goes.
func dropsOthers(nic string, f pfconf.Family) (bool, error) {
	if f == pfconf.Inet6 || nic == "" { // there is no such setting
		return false, nil
	}
	return strictReversePath(nic)
}

// bridge looks whether br_netfilter takes the packets of a bridge through the IP hooks before the
// bridge has handed them to IP: the socket that tproxy chose is lost between (skb_orphan in
// ip_rcv_core).
func (c *checks) bridge(p script.Path, nic string) {
	var link rtnetlink.Link
	err := rtnetlink.With(func(c *rtnetlink.Conn) (err error) {
		link, err = c.Link(nic)
		return err
	})
	if err != nil {
		c.fail("interface "+nic, err)
		return
	}
	if link.Kind != rtnetlink.Bridge {
		return
	}
	key := "bridge-nf-call-iptables"
	if p.There.Is6() {
		key = "bridge-nf-call-ip6tables"
	}
	b, err := os.ReadFile("/proc/sys/net/bridge/" + key)
	switch {
	case errors.Is(err, fs.ErrNotExist): // br_netfilter is not loaded
		c.ok(key, "there is no br_netfilter")
	case err != nil:
		c.fail(key, err)
	case strings.TrimSpace(string(b)) != "0":
		c.no(key, "sysctl -w net.bridge."+key+"=0", "%s is a bridge, whose packets br_netfilter takes through nftables too early", nic)
	default:
		c.ok(key, "off")
	}
}

// towards returns the name of the interface by which packets to the address leave.
func towards(a netip.Addr) (name string, err error) {
	err = rtnetlink.With(func(c *rtnetlink.Conn) error {
		r, err := c.RouteTo(a, rtnetlink.RouteQuery{})
		if err != nil {
			return fmt.Errorf("ask for the way to %v: %w", a, err)
		}
		link, err := c.LinkAt(r.Link)
		if err != nil {
			return fmt.Errorf("the interface on the way to %v: %w", a, err)
		}
		name = link.Name
		return nil
	})
	return name, err
}

// interfaceTowards returns the interface on the way to the other host, "" for any if the
// families use several.
func interfaceTowards(paths []script.Path) (string, error) {
	var names []string
	for _, p := range paths {
		name, err := towards(p.There)
		if err != nil {
			return "", err
		}
		names = append(names, name)
	}
	if names = slices.Compact(names); len(names) != 1 {
		return "", nil
	}
	return names[0], nil
}

// locals returns FAKE addresses that a local route makes the host's own: no interface needs to
// have them. The tables of a proxy, to which only packets with a mark are sent, do no such thing.
func locals(fakes []netip.Prefix) ([]string, error) {
	var found []string
	err := rtnetlink.With(func(c *rtnetlink.Conn) error {
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			// A kernel that lacks the family refuses the question, and has no FAKE address of it.
			of := func(p netip.Prefix) bool { return p.Addr().Is4() == (family == unix.AF_INET) }
			if !slices.ContainsFunc(fakes, of) {
				continue
			}
			list, err := c.Routes(family, unix.RT_TABLE_UNSPEC)
			if err != nil {
				return fmt.Errorf("list the local routes: %w", err)
			}
			rules, err := c.Rules(family)
			if err != nil {
				return fmt.Errorf("list the policy rules: %w", err)
			}
			for _, r := range list {
				if r.Type != unix.RTN_LOCAL || r.Dst.IsSingleIP() || !sentWithoutMark(rules, r.Table) {
					continue
				}
				if slices.ContainsFunc(fakes, r.Dst.Overlaps) {
					found = append(found, fmt.Sprintf("a local route to %v in table %d", r.Dst, r.Table))
				}
			}
		}
		return nil
	})
	return found, err
}

// sentWithoutMark reports whether packets without a mark may be looked up in the table. A rule that
// names no table may choose any (l3mdev).
func sentWithoutMark(rules []rtnetlink.PolicyRule, table int) bool {
	return slices.ContainsFunc(rules, func(r rtnetlink.PolicyRule) bool {
		return r.Mark == 0 && (r.Table == table || r.Table == unix.RT_TABLE_UNSPEC && r.Action == rtnetlink.ToTable)
	})
}
