package twin

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// addresses gives the devices their addresses of a family. Those of IPv6 were listed newest first.
func (r *replay) addresses(family byte) error {
	var requests []request
	var of []Addr
	for i, m := range r.Dump.Addrs {
		if m[0] == family {
			requests, of = append(requests, request{unix.RTM_NEWADDR, netlink.Create | netlink.Replace, r.newAddr(i)}),
				append(of, r.Addrs[i])
		}
	}
	if family == unix.AF_INET6 {
		slices.Reverse(requests)
		slices.Reverse(of)
	}
	return r.route(requests, func(i int, err error) { r.lack("address", "%v: %v", of[i].Prefix, err) })
}

// surplusAddresses takes away what addresses lo got by itself and the host's has not.
func (r *replay) surplusAddresses() error {
	now := &Dump{}
	if err := now.readRoutes(r.ctx, unix.RTM_GETADDR); err != nil {
		return err
	}
	twin, err := decode(now)
	if err != nil {
		return err
	}
	var requests []request
	for i, a := range twin.Addrs {
		if !slices.ContainsFunc(r.Addrs, func(o Addr) bool {
			return o.Index == a.Index && o.Local == a.Local &&
				o.Prefix == a.Prefix
		}) {
			requests = append(requests, request{unix.RTM_DELADDR, 0, now.Addrs[i]})
		}
	}
	return r.route(requests, func(int, error) {}) // the comparison says what is still there
}

// waits reports whether an address of IPv6 waits for its device to have a carrier, to ask then
// whether others have it.
func (c *Snapshot) waits(a Addr) bool {
	l := c.link(a.Index)
	return a.Local.Is6() && a.Flags&unix.IFA_F_TENTATIVE != 0 && l != nil && !l.Carrier
}

// newAddr is the message of an address without what the kernel made up for it.
func (c *Snapshot) newAddr(i int) []byte {
	m := c.Dump.Addrs[i]
	all, err := split(m, unix.SizeofIfAddrmsg)
	if err != nil {
		return m
	}
	head := bytes.Clone(m[:unix.SizeofIfAddrmsg])
	flags := c.Addrs[i].Flags & (unix.IFA_F_NOPREFIXROUTE | unix.IFA_F_HOMEADDRESS | unix.IFA_F_MCAUTOJOIN)
	if head[0] == unix.AF_INET6 && !c.waits(c.Addrs[i]) {
		flags |= unix.IFA_F_NODAD
	}
	head[2] = byte(flags)
	all = all.without(unix.IFA_CACHEINFO, unix.IFA_FLAGS, unix.IFA_TARGET_NETNSID).with(unix.IFA_FLAGS, native(flags))
	// no source of new connections: preferred for 0 seconds, valid for ever
	if c.Addrs[i].Flags&unix.IFA_F_DEPRECATED != 0 {
		all = all.with(unix.IFA_CACHEINFO, append(append(native(0), native(^uint32(0))...), make([]byte, 8)...))
	}
	return all.append(head)
}

// routes copies policy rules, nexthop objects and routes. What the namespace has already, by itself
// or because of an address, stays if the host has it and goes if not.
func (r *replay) routes() error {
	if err := r.rules(); err != nil {
		return err
	}
	var nexthops []request
	for _, m := range r.Nexthops {
		nexthops = append(nexthops, request{unix.RTM_NEWNEXTHOP, netlink.Create | netlink.Replace, cleanNexthop(m)})
	}
	// Groups name others.
	sortStable(nexthops, func(a, b request) int {
		return hasAttr(a.data, unix.SizeofNhmsg, unix.NHA_GROUP) - hasAttr(b.data, unix.SizeofNhmsg, unix.NHA_GROUP)
	})
	if err := r.route(nexthops, func(_ int, err error) { r.lack("nexthop object", "%v", err) }); err != nil {
		return err
	}
	if err := r.awaitLocal(); err != nil {
		return err
	}
	now := &Dump{}
	if err := now.readRoutes(r.ctx, unix.RTM_GETROUTE); err != nil {
		return err
	}
	want := routeKeys(r.Dump.Routes)
	got := routeKeys(now.Routes)
	var surplus []request
	for _, k := range lacks(got, want) {
		surplus = append(surplus, request{unix.RTM_DELROUTE, 0, []byte(got[k])})
	}
	// A route that is there in another way is found by the comparison.
	if err := r.route(surplus, func(int, error) {}); err != nil {
		return err
	}
	lacking := lacks(want, got)
	// A gateway must be reached by another route when its own is made.
	sortStable(lacking, func(a, b int) int { return r.order(a) - r.order(b) })
	for len(lacking) > 0 {
		requests := make([]request, len(lacking))
		for i, n := range lacking {
			flags := netlink.Create
			if want[n][0] == unix.AF_INET {
				flags |= netlink.Append
			}
			requests[i] = request{unix.RTM_NEWROUTE, flags, []byte(want[n])}
		}
		var again []int
		var errs []error
		if err := r.route(requests, func(i int, err error) {
			again, errs = append(again, lacking[i]),
				append(errs, err)
		}); err != nil {
			return err
		}
		if len(again) == len(lacking) {
			for i, n := range again {
				r.lack("route", "%s: %v", r.routeText(n), errs[i])
			}
			break
		}
		lacking = again
	}
	return nil
}

// Attributes of nexthop objects that golang.org/x/sys lacks.
const (
	nhaFDB      = 11 // NHA_FDB
	nhaResGroup = 12 // NHA_RES_GROUP
)

// cleanNexthop is the message of a nexthop object without what the kernel tells of its present
// state.
func cleanNexthop(m []byte) []byte {
	all, err := split(m, unix.SizeofNhmsg)
	if err != nil {
		return m
	}
	// struct nhmsg: family, scope, protocol, reserved, flags u32
	head := bytes.Clone(m[:unix.SizeofNhmsg])
	head[1] = 0
	copy(head[4:], native(host32(head[4:8])&unix.RTNH_F_ONLINK))
	var some attrs
	for _, a := range all {
		switch a.kind() {
		case unix.NHA_ID, unix.NHA_GROUP, unix.NHA_GROUP_TYPE, unix.NHA_BLACKHOLE, unix.NHA_OIF, unix.NHA_GATEWAY,
			unix.NHA_ENCAP_TYPE, unix.NHA_ENCAP, nhaFDB:
			some = append(some, a)
		case nhaResGroup:
			inner, err := split(a.data, 0)
			if err != nil {
				return m
			}
			const unbalancedTime = 4 // NHA_RES_GROUP_UNBALANCED_TIME
			some = append(some, attr{a.flagged, inner.without(unbalancedTime).bytes()})
		}
	}
	return some.append(head)
}

func hasAttr(m []byte, head int, kind uint16) int {
	if all, err := split(m, head); err == nil && all.has(kind) {
		return 1
	}
	return 0
}

// order is by scope, the narrowest first, and in IPv6 by whether there is a gateway.
func (r *replay) order(n int) int {
	m := r.Dump.Routes[n]
	all, err := split(m, unix.SizeofRtMsg)
	if err != nil {
		return 0
	}
	order := 2 * (255 - int(m[6]))
	if all.has(unix.RTA_GATEWAY) || all.has(unix.RTA_MULTIPATH) || all.has(unix.RTA_VIA) || all.has(rtaNexthop) {
		order++
	}
	return order
}

// awaitLocal waits until the kernel has made the routes of IPv6 addresses that are up, which it
// does later.
func (r *replay) awaitLocal() error {
	if !hasIPv6() {
		return nil
	}
	c, err := dial(unix.NETLINK_ROUTE, 0)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.JoinGroup(unix.RTNLGRP_IPV6_ROUTE); err != nil {
		return err
	}
	_ = c.SetReadDeadline(time.Now().Add(time.Second))
	for {
		now := &Dump{}
		if err := now.readRoutes(r.ctx, unix.RTM_GETROUTE); err != nil {
			return err
		}
		twin, err := decode(now)
		if err != nil {
			return err
		}
		there := map[netip.Addr]bool{}
		for _, route := range twin.Routes {
			if route.Type == unix.RTN_LOCAL && route.Dst.IsSingleIP() {
				there[route.Dst.Addr()] = true
			}
		}
		if !slices.ContainsFunc(r.Addrs, func(a Addr) bool {
			l := r.link(a.Index)
			return a.Local.Is6() && l != nil && l.Up() && !r.waits(a) && r.hasLocal(a.Local) && !there[a.Local]
		}) {
			return nil
		}
		// Lost notices are as good as one; after the time the comparison says what lacks.
		if _, err := c.Receive(); isTimeout(err) {
			return nil
		}
	}
}

// hasLocal reports whether the host has a local route for its address.
func (r *replay) hasLocal(a netip.Addr) bool {
	return slices.ContainsFunc(r.Routes, func(route Route) bool {
		return route.Type == unix.RTN_LOCAL && route.Dst.IsSingleIP() && route.Dst.Addr() == a
	})
}

// rules makes the policy rules the host's.
func (r *replay) rules() error {
	now := &Dump{}
	if err := now.readRoutes(r.ctx, unix.RTM_GETRULE); err != nil {
		return err
	}
	want, got := ruleKeys(r.Dump.Rules), ruleKeys(now.Rules)
	var add, surplus []request
	added := lacks(want, got)
	for _, i := range added {
		add = append(add, request{unix.RTM_NEWRULE, netlink.Create | netlink.Excl, []byte(want[i])})
	}
	for _, i := range lacks(got, want) {
		surplus = append(surplus, request{unix.RTM_DELRULE, 0, []byte(got[i])})
	}
	if err := r.route(add, func(i int, err error) {
		r.lack("policy rule", "%s: %v", r.ruleText(added[i]),
			err)
	}); err != nil {
		return err
	}
	return r.route(surplus, func(int, error) {})
}

// ruleKeys are the messages of policy rules in a form that a rule can be made of.
func ruleKeys(rules [][]byte) []string {
	keys := make([]string, len(rules))
	for i, m := range rules {
		all, err := split(m, unix.SizeofRtMsg)
		if err != nil {
			continue
		}
		if !all.has(unix.FRA_PRIORITY) { // it is 0, and would become another
			all = all.with(unix.FRA_PRIORITY, native(0))
		}
		all = all.without(unix.FRA_PAD)
		sortStable(all, func(a, b attr) int { return int(a.kind()) - int(b.kind()) })
		keys[i] = string(all.append(bytes.Clone(m[:unix.SizeofRtMsg])))
	}
	return keys
}

// rtaNexthop is RTA_NH_ID: the route's nexthop object.
const rtaNexthop = 30

// cleanRoute is the message of a route without what the kernel tells of its present state.
func cleanRoute(m []byte) []byte {
	all, err := split(m, unix.SizeofRtMsg)
	if err != nil {
		return m
	}
	head := bytes.Clone(m[:unix.SizeofRtMsg])
	const states = unix.RTNH_F_DEAD | unix.RTNH_F_LINKDOWN | unix.RTNH_F_OFFLOAD | unix.RTNH_F_TRAP |
		unix.RTNH_F_UNRESOLVED
	flags := host32(head[8:12]) & unix.RTNH_F_ONLINK
	copy(head[8:], native(flags))
	all = all.without(unix.RTA_CACHEINFO, unix.RTA_PAD)
	if all.has(rtaNexthop) { // what the object says is repeated
		all = all.without(unix.RTA_OIF, unix.RTA_GATEWAY, unix.RTA_VIA, unix.RTA_MULTIPATH, unix.RTA_ENCAP,
			unix.RTA_ENCAP_TYPE)
	}
	some := make(attrs, 0, len(all))
	for _, a := range all {
		if a.kind() == unix.RTA_MULTIPATH {
			a.data = bytes.Clone(a.data)
			for hops := a.data; len(hops) >= unix.SizeofRtNexthop; {
				hops[2] &^= byte(states)
				size := int(host32(hops[:2]))
				if size < unix.SizeofRtNexthop {
					break
				}
				hops = hops[min((size+3)&^3, len(hops)):]
			}
		}
		some = append(some, a)
	}
	sortStable(some, func(a, b attr) int { return int(a.kind()) - int(b.kind()) })
	return some.append(head)
}

// routeKeys are the cleaned messages of routes.
func routeKeys(routes [][]byte) []string {
	keys := make([]string, len(routes))
	for i, m := range routes {
		keys[i] = string(cleanRoute(m))
	}
	return keys
}

// lacks are the indexes of those that others have not, or not as often.
func lacks(some, others []string) []int {
	there := make(map[string]int, len(others))
	for _, o := range others {
		there[o]++
	}
	var lacking []int
	for i, s := range some {
		if there[s]--; there[s] < 0 {
			lacking = append(lacking, i)
		}
	}
	return lacking
}

// routeText is a route as ip(8) writes it, in short.
func (c *Snapshot) routeText(n int) string {
	r := c.Routes[n]
	text := fmt.Sprintf("%v table %d", r.Dst, r.Table)
	if name := routeTypes[r.Type]; name != "" && r.Type != unix.RTN_UNICAST {
		text = name + " " + text
	}
	for _, h := range r.Hops {
		if h.Gateway.IsValid() {
			text += " via " + h.Gateway.String()
		}
		if l := c.link(h.Index); l != nil {
			text += " dev " + l.Name
		}
	}
	if r.Metric != 0 {
		text += fmt.Sprintf(" metric %d", r.Metric)
	}
	return text
}

var routeTypes = map[uint8]string{
	unix.RTN_UNICAST: "unicast", unix.RTN_LOCAL: "local", unix.RTN_BROADCAST: "broadcast", unix.RTN_ANYCAST: "anycast",
	unix.RTN_MULTICAST: "multicast",
	unix.RTN_BLACKHOLE: "blackhole", unix.RTN_UNREACHABLE: "unreachable", unix.RTN_PROHIBIT: "prohibit",
	unix.RTN_THROW: "throw",
}

// ruleText is a policy rule as ip(8) writes it, in short.
func (c *Snapshot) ruleText(n int) string {
	r := c.PolicyRules[n]
	text := fmt.Sprintf("%d:", r.Priority)
	if r.Invert {
		text += " not"
	}
	if r.Src.IsValid() {
		text += " from " + r.Src.String()
	}
	if r.Dst.IsValid() {
		text += " to " + r.Dst.String()
	}
	if r.Mask != 0 {
		text += fmt.Sprintf(" fwmark 0x%x/0x%x", r.Mark, r.Mask)
	}
	if r.In != "" {
		text += " iif " + r.In
	}
	if r.Out != "" {
		text += " oif " + r.Out
	}
	if r.HasUIDs {
		text += fmt.Sprintf(" uidrange %d-%d", r.UIDFirst, r.UIDLast)
	}
	return text + fmt.Sprintf(" lookup %d", r.Table)
}
