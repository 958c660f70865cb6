package twin

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf/xt"
)

// remedies are the possible causes of a suspect's symptom, the likely ones first.
func (d *doctor) remedies(s suspect) []remedy {
	switch s.symptom {
	case looped:
		return d.ofLoop(s)
	case captured:
		return d.ofCapture(s)
	case reachable:
		return d.ofReachable(s)
	case mistaken:
		return d.ofMistaken(s)
	case unrouted:
		return d.ofNoRoute(s)
	case hairpin:
		return d.ofHairpin(s)
	case undiverted:
		if s.end.mark == 0 {
			return d.ofSocketRule(s)
		}
	}
	var all []remedy
	if s.AnswerError != "" && strings.Contains(s.AnswerError, "in use") {
		all = append(all, d.ofPortTaken(s)...)
	}
	if s.key.Answer {
		return append(all, d.ofAnswer(s)...)
	}
	all = append(all, d.ofLaterPackets(s)...)
	switch s.end.stage {
	case inRules:
		if s.end.hop.tproxies() {
			all = append(all, d.ofListener(s)...)
		} else {
			all = append(all, d.ofDrop(s)...)
		}
	case atSocket:
		all = append(all, d.ofBridge(s)...)
		all = append(all, d.ofListener(s)...)
		all = append(all, d.ofLo(s)...)
		if !d.ownAddr(s.end.to.Addr()) {
			all = append(all, d.ofPolicy(s)...)
		}
	case inRouting:
		all = append(all, d.ofBridge(s)...)
		all = append(all, d.ofForwarding(s)...)
		all = append(all, d.ofTable(s)...)
		all = append(all, d.ofRouting(s)...)
		all = append(all, d.ofPolicy(s)...)
	case left, lostElsewhere:
		all = append(all, d.ofChainType(s)...)
		all = append(all, d.ofPolicy(s)...)
	}
	return all
}

// markRule is the policy rule that makes packets with a mark local, and false when there is none.
func (c *Snapshot) markRule(mark uint32, ipv6 bool) (PolicyRule, bool) {
	for _, r := range c.PolicyRules {
		if r.IPv6 == ipv6 && r.Mask != 0 && mark&r.Mask == r.Mark&r.Mask && !r.Invert && c.localTable(r.Table, ipv6) {
			return r, true
		}
	}
	return PolicyRule{}, false
}

// localTable reports whether a table makes all destinations local: by a default route, or by one
// for each half of all addresses.
func (c *Snapshot) localTable(table uint32, ipv6 bool) bool {
	halves := map[netip.Addr]bool{}
	for _, x := range c.Routes {
		if x.Table == table && x.Type == unix.RTN_LOCAL && x.Dst.IsValid() && x.Dst.Bits() <= 1 &&
			x.Dst.Addr().Is6() == ipv6 {
			if x.Dst.Bits() == 0 {
				return true
			}
			halves[x.Dst.Masked().Addr()] = true
		}
	}
	return len(halves) == 2
}

// exempt is a rule that lets a diverted packet pass a rule that drops it: by its mark, by its
// redirection, or by what it is for.
func (d *doctor) exemption(s suspect, do string) added {
	r := added{UID: -1, Do: do, IPv6: s.Flow.IPv6()}
	switch {
	case s.key.Answer:
		r.Reply = true
	case d.c.routesLocal(s.end.mark, s.Flow.IPv6()):
		r.HasMark, r.Mark, r.Mask = true, s.end.mark, 0xffffffff
		if p, ok := d.c.markRule(s.end.mark, s.Flow.IPv6()); ok {
			r.Mark, r.Mask = p.Mark, p.Mask
		}
	case s.end.to == s.key.To && s.redirectedAtOutput(): // the new destination is not in the trace
		r.DNATed, r.Proto = true, s.Flow.Proto
	case s.end.to != s.key.To && s.end.to.IsValid():
		r.DNATed, r.Proto, r.Port = true, s.Flow.Proto, s.end.to.Port()
		if s.end.to.Addr().IsLoopback() {
			r.To, r.In = netip.PrefixFrom(s.end.to.Addr(), s.end.to.Addr().BitLen()), s.end.in
		}
	default:
		r.Proto, r.Port = s.Flow.Proto, s.end.to.Port()
		r.To = netip.PrefixFrom(s.end.to.Addr(), s.end.to.Addr().BitLen())
	}
	return r
}

// redirectedAtOutput reports whether a rule redirected the host's own packet before it was dropped.
func (s suspect) redirectedAtOutput() bool {
	h, ok := s.key.diverter()
	return ok && h.redirects() && h.Hook == "output" && s.end.hop.Hook == "output"
}

// ofDrop are a rule or a policy that drops what was diverted.
func (d *doctor) ofDrop(s suspect) []remedy {
	h := s.end.hop
	spot := d.c.spotOf(h)
	r := remedy{
		cause: "dropped", check: h.lister(d.c),
		why: fmt.Sprintf("%s drops it", h.name(d.c)),
		fix: spot.insert(d.exemption(s, doAccept)),
	}
	if strings.Contains(h.Rule, "fib saddr") || strings.Contains(h.Rule, "rpfilter") ||
		strings.Contains(h.Chain, "rpfilter") {
		r.cause = "rpfilter"
		r.why = fmt.Sprintf("%s looks for a route to the sender with the packet's mark 0x%x, behind which every address is local", h.name(d.c), s.end.mark)
	}
	all := []remedy{r}
	// Where rules behind it divert, it must let the packet go on.
	if a := d.exemption(s, doAccept); h.Number > 0 && a.HasMark {
		r.fix = spot.except(h, a)
		all = append(all, r)
	}
	r.take, r.fix = spot.remove(), change{}
	return append(all, r)
}

// ofRouting are settings that make the kernel refuse a packet's source or destination.
func (d *doctor) ofRouting(s suspect) []remedy {
	var all []remedy
	in, ipv6 := s.end.in, s.Flow.IPv6()
	if ipv6 {
		return nil
	}
	value := func(name string) uint32 {
		n := d.c.conf4Of(in, name)
		if d.c.Settings["ipv4/conf/all/"+name] != "0" && d.c.Settings["ipv4/conf/all/"+name] != "" {
			n = max(n, 1)
		}
		return n
	}
	conf := func(name, v string) change { return writeSysctl("ipv4/conf/"+in+"/"+name, v) }
	everywhere := func(name, v string) change { return writeSysctl("ipv4/conf/all/"+name, v) }
	if s.end.to.Addr().IsLoopback() && in != "" && in != "lo" {
		h, _ := s.key.diverter()
		all = append(all, remedy{
			cause: "route-localnet", check: fmt.Sprintf("sysctl net.ipv4.conf.%s.route_localnet", in),
			why:   fmt.Sprintf("%s sends it to %v, and the kernel drops packets for 127.0.0.0/8 that come by %s while its route_localnet is 0", h.name(d.c), s.end.to, in),
			fix:   conf("route_localnet", "1"),
			price: fmt.Sprintf("hosts beside %s can then send packets to 127.0.0.0/8 of this host, as far as INPUT lets them", in),
		})
	}
	if value("src_valid_mark") != 0 {
		r := remedy{
			cause: "src-valid-mark", check: "sysctl -a -r 'net.ipv4.conf.*.(src_valid_mark|rp_filter)'; " +
				d.routeCommand(s),
			why: fmt.Sprintf("src_valid_mark is 1, so the kernel looks for a route to the sender with the packet's mark 0x%x, behind which every address is local, and refuses the source", s.end.mark),
		}
		off := conf("src_valid_mark", "0")
		if d.c.Settings["ipv4/conf/all/src_valid_mark"] != "0" {
			off = everywhere("src_valid_mark", "0").and(off)
		}
		r.fix = off
		r.price = "wg-quick and tailscale set it, so that answers to their marked packets pass rp_filter 1"
		if p, ok := d.c.markRule(s.end.mark, false); ok {
			r.narrow = d.narrowRule(p, in)
		}
		all = append(all, r)
	}
	if value("rp_filter") != 0 {
		both := func(v string) change {
			x := conf("rp_filter", v)
			if d.c.Settings["ipv4/conf/all/rp_filter"] != "0" {
				x = everywhere("rp_filter", v).and(x)
			}
			return x
		}
		for _, v := range []string{"2", "0"} {
			r := remedy{
				cause: "rp-filter",
				check: "sysctl -a -r 'net.ipv4.conf.*.rp_filter'; nstat -az TcpExtIPReversePathFilter; " + d.routeCommand(s),
				why: fmt.Sprintf("rp_filter of %s asks for a route back to %v by %s, and there is none", in,
					s.key.From.Addr(), in), fix: both(v),
				price: "senders on " + in + " can then forge the addresses of other networks",
			}
			all = append(all, r)
		}
	}
	return all
}

// narrowRule restricts a mark's policy rule to packets that come by a device, so that the look-up
// of their senders, which comes by none, does not meet it.
func (d *doctor) narrowRule(p PolicyRule, in string) change {
	i := slices.Index(d.c.PolicyRules, p)
	if i < 0 {
		return change{}
	}
	q := p
	q.In = in
	q.Priority = max(p.Priority, 2) - 1
	return addPolicyRule(q).and(d.c.removePolicyRule(i))
}

// routeCommand asks the host where the packet would go.
func (d *doctor) routeCommand(s suspect) string {
	text := fmt.Sprintf("%s route get %v", ipCommand(s.Flow.IPv6()), s.end.to.Addr())
	if s.end.in != "" && s.end.in != "lo" {
		text += fmt.Sprintf(" from %v iif %s", s.key.From.Addr(), s.end.in)
	}
	text += fmt.Sprintf(" mark 0x%x ipproto %s dport %d", s.end.mark, s.key.Proto, s.end.to.Port())
	return text
}

// ofPolicy are policy rules that lead a marked packet elsewhere, and one that is missing.
func (d *doctor) ofPolicy(s suspect) []remedy {
	var all []remedy
	ipv6, mark := s.Flow.IPv6(), s.end.mark
	own, has := d.c.markRule(mark, ipv6)
	check := ipCommand(ipv6) + " rule; " + d.routeCommand(s)
	lowest := uint32(32766)
	for i, r := range d.c.PolicyRules {
		if r.IPv6 != ipv6 || r.Priority == 0 || r.Priority >= 32766 || has && r == own {
			continue
		}
		lowest = min(lowest, r.Priority)
		one := remedy{
			cause: "policy-rule", check: check, take: d.c.removePolicyRule(i),
			why: fmt.Sprintf("the policy rule \"%d: %s\" comes before the one of mark 0x%x and leads it elsewhere",
				r.Priority, d.c.policyWords(i), mark),
		}
		if mark == 0 {
			one.why = fmt.Sprintf("the policy rule \"%d: %s\" leads it elsewhere", r.Priority, d.c.policyWords(i))
			if other := d.diverted(s.Flow); other != 0 && r.Proto == 0 && d.c.localTable(r.Table, ipv6) {
				of := r
				of.Proto, of.Priority = other, max(r.Priority, 2)-1
				one.why = fmt.Sprintf("the policy rule \"%d: %s\" leads it to this host too, where nothing takes it",
					r.Priority, d.c.policyWords(i))
				one.fix = addPolicyRule(of).and(d.c.removePolicyRule(i))
			}
		}
		if n, ok := d.c.networkOf(s.key.To.Addr()); ok && s.key.Answer && r.Priority > 1 {
			one.fix = addPolicyRule(PolicyRule{IPv6: ipv6, Priority: r.Priority - 1, Dst: n, Table: unix.RT_TABLE_MAIN})
		}
		if has && r.Priority > 1 {
			earlier := own
			earlier.Priority = r.Priority - 1
			one.fix = addPolicyRule(earlier)
		}
		all = append(all, one)
	}
	if mark == 0 {
		return append(all, d.ofNoMark(s)...)
	}
	// One that is there, and whose table has no local route.
	for _, r := range d.c.PolicyRules {
		if r.IPv6 == ipv6 && r.Mask != 0 && mark&r.Mask == r.Mark&r.Mask && r.Table < 253 &&
			!d.c.localTable(r.Table, ipv6) {
			all = append(all, remedy{
				cause: "no-local-route", check: fmt.Sprintf("%s route show table %d", ipCommand(ipv6), r.Table),
				fix: addLocalRoute(r.Table, ipv6),
				why: fmt.Sprintf("table %d, to which \"%d: %s\" leads, has no local route for all destinations",
					r.Table, r.Priority, r.words()),
			})
		}
	}
	table := d.localTables(ipv6)
	why := fmt.Sprintf("no policy rule leads mark 0x%x to a table that makes all destinations local", mark)
	rule := PolicyRule{IPv6: ipv6, Priority: max(lowest, 2) - 1, Table: table, Mark: mark, Mask: 0xffffffff}
	if has {
		rule = own
		rule.Proto, rule.In, rule.Out, rule.HasUIDs, rule.Src, rule.Dst = 0, "", "", false, netip.Prefix{},
			netip.Prefix{}
		rule.Priority = max(min(own.Priority, 32766), 2) - 1
		why = fmt.Sprintf("the policy rule \"%d: %s\" is not for such packets", own.Priority, own.words())
	}
	if has && own.Priority > 32766 {
		why = fmt.Sprintf("the policy rule \"%d: %s\" comes after the one of table main, which leads it elsewhere", own.Priority, own.words())
	}
	fix := addPolicyRule(rule)
	if !d.c.localTable(table, ipv6) {
		fix = fix.and(addLocalRoute(table, ipv6))
		why = fmt.Sprintf("no policy rule and no local route are there for mark 0x%x", mark)
	}
	all = append(all, remedy{cause: "no-policy-rule", check: check, why: why, fix: fix})
	return all
}

// diverted is the one protocol that rules divert where it is not a flow's, else 0.
func (d *doctor) diverted(f Flow) byte {
	var found byte
	for _, h := range d.hints.seen {
		if !h.redirect || h.hook != 0 || !h.of(f.IPv6()) {
			continue
		}
		for name, number := range protoNumbers {
			if h.takes(askProto, uint32(number)) && name == f.Proto {
				return 0
			} else if h.takes(askProto, uint32(number)) {
				found = number
			}
		}
	}
	return found
}

// networkOf is the network of a device of the host that an address is in.
func (c *Snapshot) networkOf(x netip.Addr) (netip.Prefix, bool) {
	for _, a := range c.Addrs {
		if a.Prefix.Contains(x) {
			return a.Prefix.Masked(), true
		}
	}
	return netip.Prefix{}, false
}

// localTables is a table with a local route for all destinations, or 100.
func (d *doctor) localTables(ipv6 bool) uint32 {
	for _, r := range d.c.Routes {
		if r.Table != 0 && r.Table < 253 && d.c.localTable(r.Table, ipv6) {
			return r.Table
		}
	}
	return 100
}

// ofChainType is a mark that is set in OUTPUT where it does not have the packet routed anew.
func (d *doctor) ofChainType(s suspect) []remedy {
	if !s.Flow.Local() || s.end.mark == 0 {
		return nil
	}
	h, ok := s.key.marker(s.end.mark)
	if !ok {
		return nil
	}
	spot := d.c.spotOf(h)
	var all []remedy
	// The rule is in a base chain, or in one that a base chain jumps to.
	for _, t := range d.c.Tables {
		if t.Family != h.Family || t.Name != h.Table || h.Legacy {
			continue
		}
		for _, chain := range t.Chains {
			if !chain.Base || chain.Hook != 3 || chain.Type != "filter" || chain.Name != h.Chain &&
				!slices.ContainsFunc(s.key.Hops, func(x Hop) bool {
					return x.Chain == chain.Name &&
						x.Table == t.Name
				}) {
				continue
			}
			if ofIptables(t) {
				break
			}
			from, to := "type filter hook output", "type route hook output"
			name := fmt.Sprintf("%s %s %s", t.Family, t.Name, chain.Name)
			one := remedy{
				cause: "chain-type", check: "nft list chain " + name,
				why: fmt.Sprintf(
					"chain %s of table %s %s is of type filter: a mark that it sets does not route the packet anew, as one of type route does", chain.Name, t.Family, t.Name),
				fix: change{
					command: fmt.Sprintf("{ echo 'delete chain %s'; nft list chain %s | sed 's/%s/%s/'; } | nft -f -",
						name, name, from, to),
					do: func(x *Dump) error {
						for i, m := range x.NFT {
							if about, ok := spot.hasMessage(m, unix.NFT_MSG_NEWCHAIN); ok &&
								text(about.get(unix.NFTA_CHAIN_NAME)) == chain.Name {
								about = about.without(unix.NFTA_CHAIN_TYPE).with(unix.NFTA_CHAIN_TYPE, zero("route"))
								x.NFT[i].Data = about.append(slices.Clone(m.Data[:4]))
								return nil
							}
						}
						return errGone
					},
				},
			}
			all = append(all, one)
			// Where nothing is left out the answers of the proxy would be diverted as well.
			if len(chain.Rules) > 0 {
				begin := spot
				begin.chain, begin.number, begin.handle = chain.Name, 1, chain.Rules[0].Handle
				one.fix = one.fix.and(begin.insert(added{UID: -1, Reply: true, Do: doReturn}))
				all = append(all, one)
			}
		}
	}
	if h.Table != "mangle" && (spot.iptables || spot.legacy) && h.Hook == "output" {
		fix := d.moveToMangle(h)
		all = append(all, remedy{
			cause: "chain-type", check: h.lister(d.c), fix: fix,
			why: fmt.Sprintf("%s sets the mark in table %s: only in table mangle does a mark in OUTPUT route the packet anew", h.name(d.c), h.Table),
		})
	}
	return all
}

// moveToMangle adds a rule of iptables' that sets a mark to table mangle, with those of OUTPUT
// before it, which leave packets out.
func (d *doctor) moveToMangle(h Hop) change {
	s := d.c.spotOf(h)
	from := h.Number
	if h.Chain == "OUTPUT" {
		from = 1
	}
	x := change{do: func(*Dump) error { return nil }}
	add := func(text string, do func(*Dump) error) {
		one := change{command: fmt.Sprintf("%s -t mangle -A OUTPUT %s", s.tool(), text), do: do}
		if x.command == "" {
			x = one
		} else {
			x = x.and(one)
		}
	}
	w := newWriter(d.c)
	if s.legacy {
		for _, t := range d.c.Legacy {
			all, err := t.rules()
			if err != nil || t.IPv6 != (s.family == "ip6") || t.Name != h.Table {
				continue
			}
			for _, r := range all {
				if r.chain == h.Chain && !r.head && !r.policy && r.number >= from && r.number <= h.Number &&
					r.jump < 0 {
					end := spot{family: s.family, table: "mangle", chain: "OUTPUT", legacy: true}
					add(w.legacyText(t, all, r), func(x *Dump) error {
						return end.editLegacy(x, func(t *LegacyTable,
							at legacyRule) error {
							return t.insert(at.offset, r.entry)
						})
					})
				}
			}
		}
		return x
	}
	mangle := spot{family: s.family, table: "mangle", chain: "OUTPUT"}
	for _, t := range d.c.Tables {
		for _, c := range t.Chains {
			if t.Family != h.Family || t.Name != h.Table || c.Name != h.Chain {
				continue
			}
			for n := from; n <= min(h.Number, len(c.Rules)); n++ {
				one := s
				one.handle, one.number = c.Rules[n-1].Handle, n
				add(w.rule(t, c.Rules[n-1]), func(x *Dump) error {
					_, about := one.index(x)
					exprs, err := split(about.get(unix.NFTA_RULE_EXPRESSIONS), 0)
					if err != nil || about == nil {
						return errGone
					}
					if !slices.ContainsFunc(x.NFT, func(m NetlinkMessage) bool {
						a, ok := mangle.hasMessage(m, unix.NFT_MSG_NEWCHAIN)
						return ok && text(a.get(unix.NFTA_CHAIN_NAME)) == "OUTPUT"
					}) {
						x.addChain(mangle, "route", 3, -150)
					}
					x.NFT = append(x.NFT, ruleMessage(s.family, "mangle", "OUTPUT", exprs))
					return nil
				})
			}
		}
	}
	return x
}

// ofLaterPackets are rules that let only the first packet of a connection be diverted.
func (d *doctor) ofLaterPackets(s suspect) []remedy {
	var first PacketPath
	for _, k := range s.path.Packets {
		if !k.Answer {
			first = k
			break
		}
	}
	mark := uint32(0)
	if h, ok := first.at("prerouting last"); ok {
		mark = h.Mark
	}
	if s.key.Flags == first.Flags || !d.c.routesLocal(mark, s.Flow.IPv6()) {
		return nil
	}
	later, _ := s.key.at("prerouting last")
	if later.Mark == mark {
		return nil
	}
	var all []remedy
	own, _ := d.c.markRule(mark, s.Flow.IPv6())
	// A rule that takes the mark from later packets.
	var before Hop
	for i, h := range s.key.Hops {
		if i > 0 && !h.own && h.Number > 0 && h.Hook == "prerouting" && before.Mark == mark && h.Mark != mark {
			all = append(all, remedy{
				cause: "later-packets", check: h.lister(d.c), take: d.c.spotOf(h).remove(),
				why: fmt.Sprintf("%s takes mark 0x%x from packets after the first, which are then not routed to the proxy", h.name(d.c), mark),
				fix: d.c.spotOf(h).insert(added{UID: -1, HasMark: true, Mark: own.Mark, Mask: own.Mask, Do: doReturn}),
			})
		}
		before = h
	}
	// Rules before the one that diverts let them pass, or it is for new connections.
	if h, ok := first.diverter(); ok {
		why := fmt.Sprintf("%s diverts the first packet of a connection and not those after it", h.name(d.c))
		r := remedy{cause: "later-packets", check: h.lister(d.c), why: why}
		base := h
		for _, x := range s.key.Hops { // the first rule that later packets meet in that table
			if !x.own && x.Table == h.Table && x.Family == h.Family && x.Hook == "prerouting" {
				base = x
				break
			}
		}
		chain := d.baseChain(h, 0)
		spot := d.c.spotOf(h)
		spot.chain, spot.number, spot.handle = chain, 1, d.firstHandle(h, chain)
		if base.Number > 0 && base.Table == h.Table {
			r.why += fmt.Sprintf(" (%s lets them pass)", base.name(d.c))
		}
		r.fix = spot.insert(added{UID: -1, Proto: s.Flow.Proto, Socket: true, Do: doMark, SetMark: mark})
		all = append(all, r)
		accept := spot.insert(added{UID: -1, Proto: s.Flow.Proto, Socket: true,
			Do: doAccept}).and(spot.insert(added{UID: -1, Proto: s.Flow.Proto, Socket: true, Do: doMark,
			SetMark: mark}))
		r.fix = accept
		all = append(all, r)
	}
	return all
}

// baseChain is the chain of a hook by which packets come to a rule.
func (d *doctor) baseChain(h Hop, hook int) string {
	if h.Legacy || slices.Contains(xtTables, h.Table) && slices.Contains(xt.Hooks, strings.ToUpper(hookNames[hook])) &&
		d.c.spotOf(h).iptables {
		return xt.Hooks[hook]
	}
	found := h.Chain
	for _, t := range d.c.Tables {
		if t.Family != h.Family || t.Name != h.Table {
			continue
		}
		for _, chain := range t.Chains {
			if chain.Base && chain.Hook == hook && (chain.Name == h.Chain || chain.Priority == h.priority) {
				found = chain.Name
			}
		}
	}
	return found
}

// firstHandle is the handle of a chain's first rule.
func (d *doctor) firstHandle(h Hop, chain string) uint64 {
	for _, t := range d.c.Tables {
		if t.Family != h.Family || t.Name != h.Table || h.Legacy {
			continue
		}
		for _, c := range t.Chains {
			if c.Name == chain && len(c.Rules) > 0 {
				return c.Rules[0].Handle
			}
		}
	}
	return 0
}

// ofBridge is a bridge whose packets come to the rules of IP before they are the host's.
func (d *doctor) ofBridge(s suspect) []remedy {
	name := "bridge/bridge-nf-call-iptables"
	if s.Flow.IPv6() {
		name = "bridge/bridge-nf-call-ip6tables"
	}
	bridges := slices.DeleteFunc(slices.Clone(d.c.Links), func(l Link) bool { return l.Kind != "bridge" })
	if d.c.Settings[name] != "1" && d.c.callsIptables(s.end.in, s.Flow.IPv6()) {
		return []remedy{{
			cause: "bridge-netfilter", check: "ip -d link show " + s.end.in,
			fix: callIptables(s.end.in, s.Flow.IPv6(), 0),
			why: "packets of a bridge go through the rules of IP while they are in the bridge (br_netfilter), and what tproxy finds there is lost on the way to the host's sockets",
		}}
	}
	if d.c.Settings[name] != "1" || len(bridges) == 0 {
		return nil
	}
	r := remedy{
		cause: "bridge-netfilter", check: "sysctl net." + strings.ReplaceAll(name, "/", "."),
		fix: writeSysctl(name, "0"),
		why: "packets of a bridge go through the rules of IP while they are in the bridge (br_netfilter), and what tproxy finds there is lost on the way to the host's sockets",
	}
	if len(bridges) > 1 {
		r.price = "rules of Docker or Kubernetes that filter between containers of one bridge no longer see their packets"
		r.narrow = writeSysctl(name, "0")
		for _, b := range bridges {
			if b.Name != s.end.in {
				r.narrow = r.narrow.and(callIptables(b.Name, s.Flow.IPv6(), 1))
			}
		}
	}
	return []remedy{r}
}

// ofLo is a rule for the host's own marked packets that is missing where they come back by lo.
func (d *doctor) ofLo(s suspect) []remedy {
	if s.end.in != "lo" || !d.c.routesLocal(s.end.mark, s.Flow.IPv6()) {
		return nil
	}
	var all []remedy
	own, _ := d.c.markRule(s.end.mark, s.Flow.IPv6())
	for _, t := range d.c.Tables {
		for _, chain := range t.Chains {
			for _, r := range chain.Rules {
				for _, e := range r.Exprs {
					n := nested{e.Data}
					if e.Name != "tproxy" && n.get(1).text() != "TPROXY" || t.Family == "ip6" && !s.Flow.IPv6() ||
						t.Family == "ip" && s.Flow.IPv6() {
						continue
					}
					all = append(all, d.tproxyForLo(t, chain, r, own))
				}
			}
		}
	}
	w := newWriter(d.c)
	for _, t := range d.c.Legacy {
		rules, err := t.rules()
		if err != nil || t.IPv6 != s.Flow.IPv6() {
			continue
		}
		for _, r := range rules {
			if r.targetName() != "TPROXY" {
				continue
			}
			a := added{UID: -1, In: "lo", HasMark: true, Mark: own.Mark, Mask: own.Mask, IPv6: t.IPv6,
				Proto: protoName(byte(cstruct(r.entry).u16(xt.LayoutOf(t.IPv6).Proto)))}
			if protoNumbers[a.Proto] == 0 {
				continue
			}
			entry := a.legacy()
			target := int(cstruct(entry).u16(xt.LayoutOf(t.IPv6).Target))
			entry = append(entry[:target:target], r.entry[r.target:]...)
			put16(entry, xt.LayoutOf(t.IPv6).Target+2, uint16(len(entry)))
			end := spot{family: map[bool]string{false: "ip", true: "ip6"}[t.IPv6], table: t.Name, chain: "PREROUTING",
				legacy: true}
			_, words, _ := strings.Cut(w.legacyText(t, rules, r), "-j TPROXY")
			all = append(all, remedy{
				cause: "lo-left-out", check: fmt.Sprintf("%s -t %s -nvL PREROUTING --line-numbers", end.tool(), t.Name),
				why: fmt.Sprintf("the host's own packets come back by lo with mark 0x%x, and no tproxy rule is for lo", own.Mark),
				fix: change{
					command: fmt.Sprintf("%s -t %s -A PREROUTING -i lo -p %s -m mark --mark 0x%x/0x%x -j TPROXY%s",
						end.tool(), t.Name, a.Proto, own.Mark, own.Mask, words),
					do: func(x *Dump) error {
						return end.editLegacy(x, func(t *LegacyTable,
							at legacyRule) error {
							return t.insert(at.offset, entry)
						})
					},
				},
			})
		}
	}
	return all
}

// tproxyForLo adds a rule's tproxy for what comes by lo with a mark.
func (d *doctor) tproxyForLo(t *Table, chain *Chain, r *ChainRule, own PolicyRule) remedy {
	w := newWriter(d.c)
	full := w.rule(t, r)
	s := spot{family: t.Family, table: t.Name, chain: chain.Name, iptables: ofIptables(t)}
	asks := added{UID: -1, In: "lo", HasMark: true, Mark: own.Mark, Mask: own.Mask, IPv6: own.IPv6}
	var tail attrs
	keep := false
	var words string
	for i, e := range r.Exprs {
		n := nested{e.Data}
		if e.Name == "tproxy" || n.get(1).text() == "TPROXY" {
			keep = true
		}
		// The registers of its address and port are filled before it.
		if keep || e.Name == "immediate" && i+1 < len(r.Exprs) || e.Name == "meta" &&
			n.numberOf(unix.NFTA_META_KEY) == unix.NFT_META_L4PROTO || e.Name == "cmp" && i > 0 &&
			r.Exprs[i-1].Name == "meta" &&
			(nested{r.Exprs[i-1].Data}).get(unix.NFTA_META_KEY).number() == unix.NFT_META_L4PROTO {
			data, err := split(e.Data, 0)
			if err == nil {
				tail = append(tail, nftExpr(e.Name, data))
			}
		}
	}
	if s.iptables {
		_, target, _ := strings.Cut(full, "-j ")
		proto := ""
		if i := strings.Index(full, "-p "); i >= 0 {
			proto = strings.Join(strings.Fields(full[i:])[:2], " ") + " "
		}
		words = fmt.Sprintf("%s -t %s -A %s -i lo %s-m mark --mark 0x%x/0x%x -j %s", s.tool(), s.table, s.chain, proto,
			own.Mark, own.Mask, target)
	} else {
		i := strings.Index(full, "tproxy")
		proto := "meta l4proto { tcp, udp }"
		for _, p := range []string{"tcp", "udp"} {
			if strings.Contains(full, p+" ") && !strings.Contains(full, "{ tcp, udp }") &&
				!strings.Contains(full, "{ udp, tcp }") {
				proto = "meta l4proto " + p
			}
		}
		words = fmt.Sprintf("nft add rule %s %s %s %s", s.family, s.table, s.chain,
			shellQuote(fmt.Sprintf("iifname \"lo\" meta mark & 0x%x == 0x%x %s %s", own.Mask, own.Mark, proto,
				full[max(i, 0):])))
	}
	return remedy{
		cause: "lo-left-out", check: fmt.Sprintf("nft -a list chain %s %s %s", t.Family, t.Name, chain.Name),
		why: fmt.Sprintf("the host's own packets come back by lo with mark 0x%x, and no tproxy rule is for lo", own.Mark),
		fix: change{command: words, do: func(x *Dump) error {
			asks.Do = ""
			x.NFT = append(x.NFT, ruleMessage(s.family, s.table, s.chain, append(asks.exprs(s.family), tail...)))
			return nil
		}},
	}
}

// ofSocketRule is a rule that asks for a packet's socket and finds a listener of the host.
func (d *doctor) ofSocketRule(s suspect) []remedy {
	h, ok := d.socketRule(s.key)
	if !ok {
		return nil
	}
	spot := d.c.spotOf(h)
	r := remedy{
		cause: "socket-rule", check: h.lister(d.c), take: spot.remove(),
		why: fmt.Sprintf("%s finds the host's own listener on port %d, as socket does for packets to any address, and leaves the packet out", h.name(d.c), s.Flow.To.Port()),
	}
	if spot.iptables || spot.legacy {
		r.fix = spot.remove()
		r.price = "connections of the host's own services that are open are diverted as well"
		return []remedy{r}
	}
	r.fix = spot.rewrite("ct state != new "+strings.ReplaceAll(h.Rule, "counter ", "counter "),
		func(exprs attrs) (attrs, error) {
			return append(attrs{
				nftExpr("ct", attrs{{unix.NFTA_CT_KEY, be32(unix.NFT_CT_STATE)}, {unix.NFTA_CT_DREG, be32(1)}}),
				maskWith(native(8)), compare(unix.NFT_CMP_EQ, native(0)),
			}, exprs...), nil
		})
	return []remedy{r}
}

// ofLoop is a missing exemption of what the proxy sends.
func (d *doctor) ofLoop(s suspect) []remedy {
	h, ok := d.loopRule(s)
	if !ok {
		return nil
	}
	r := added{UID: -1, Do: doReturn}
	why := fmt.Sprintf("%s diverts it", h.name(d.c))
	x := remedy{cause: "own-traffic-diverted", check: h.lister(d.c), take: d.c.spotOf(h).remove()}
	switch {
	case s.Flow.Mark != 0:
		r.HasMark, r.Mark, r.Mask = true, s.Flow.Mark, s.Flow.Mark
		if now := d.markBefore(s.key, h); now != s.Flow.Mark {
			why += fmt.Sprintf(": its mark is 0x%x there and no longer 0x%x", now, s.Flow.Mark)
			for _, x := range s.key.Hops {
				if x.Mark == now && !x.own && x.Number > 0 {
					why += ", because of " + x.name(d.c)
					break
				}
			}
		}
	default:
		r.UID = int64(s.Flow.UID)
		// Another group beside the user of all programs: the group is what tells it apart.
		if uid, gid := (&planner{Snapshot: d.c, hints: d.hints}).ordinary(); s.Flow.UID == uid && s.Flow.GID != gid {
			r.UID, r.Group = int64(s.Flow.GID), true
		} else if s.Flow.UID == 0 {
			x.price, x.mark = "other programs of root are then not diverted either", 0xff
			x.narrow = d.c.spotOf(h).insert(added{UID: -1, HasMark: true, Mark: x.mark, Mask: x.mark, Do: doReturn})
			x.narrow.command += fmt.Sprintf("\nhave the proxy mark what it sends with 0x%x (SO_MARK; routing_mark or sockopt.mark in its configuration)", x.mark)
		}
	}
	x.why, x.fix = why, d.c.spotOf(h).insert(r)
	all := []remedy{x}
	if changer, ok := s.key.marker(d.markBefore(s.key, h)); ok && s.Flow.Mark != 0 && changer.Hook == "output" {
		r.Do, r.Mask = doAccept, 0xffffffff
		x.fix = d.c.spotOf(changer).insert(r)
		all = append(all, x)
	}
	return all
}

// loopRule is the rule of OUTPUT that diverts a packet: by its mark or by redirecting it.
func (d *doctor) loopRule(s suspect) (Hop, bool) {
	var before Hop
	for i, h := range s.key.Hops {
		if h.Hook == "output" && !h.own && h.Number > 0 {
			if i > 0 && h.Mark != before.Mark && d.c.routesLocal(h.Mark, s.Flow.IPv6()) &&
				!d.c.routesLocal(before.Mark, s.Flow.IPv6()) || h.redirects() {
				return h, true
			}
		}
		before = h
	}
	return Hop{}, false
}

func (d *doctor) markBefore(k PacketPath, h Hop) uint32 {
	var mark uint32
	for _, x := range k.Hops {
		if x.Chain == h.Chain && x.Table == h.Table && x.Number == h.Number && !x.own {
			return mark
		}
		mark = x.Mark
	}
	return mark
}

// ofCapture is a missing exemption of the host's own addresses.
func (d *doctor) ofCapture(s suspect) []remedy {
	h, ok := s.key.diverter()
	if !ok {
		if h, ok = s.key.marker(s.end.mark); !ok {
			return nil
		}
	}
	return []remedy{{
		cause: "service-diverted", check: h.lister(d.c), take: d.c.spotOf(h).remove(),
		why: fmt.Sprintf("%s diverts packets for the host's own addresses too", h.name(d.c)),
		fix: d.c.spotOf(h).insert(added{UID: -1, ToLocal: true, Do: doReturn, IPv6: s.Flow.IPv6()}),
	}}
}

// ofReachable is that nothing keeps clients from the proxy's own port.
func (d *doctor) ofReachable(s suspect) []remedy {
	// What tproxy takes has its own destination, which is no address of the host.
	r := added{UID: -1, Proto: s.Flow.Proto, Port: s.Flow.To.Port(), ToLocal: true, Do: doReject, IPv6: s.Flow.IPv6()}
	return []remedy{{
		cause: "listener-reachable", why: "nothing keeps clients from connecting to the proxy's port itself; it then takes its own address for the destination",
		check: fmt.Sprintf("ss -ln%sp 'sport = :%d'", s.Flow.Proto[:1], s.Flow.To.Port()),
		fix:   d.inputSpot(s.Flow.IPv6())(r),
	}}
}

// inputSpot is where a rule for what comes to the host can be added.
func (d *doctor) inputSpot(ipv6 bool) func(added) change {
	return d.hookSpot(ipv6, hookPlace{"filter", "INPUT", "filter", 1, 0, "proxy-port", "filter"})
}

// hookPlace is a chain of a hook: that of iptables, or one of nf_tables with a name of its own.
type hookPlace struct {
	table, chain string // of iptables
	kind         string // of the chain: filter, nat
	hook         uint32
	priority     int32
	own          string // name of a table of nf_tables
	order        string // name of the priority
}

// hookSpot is where a rule of a hook can be added: in the chain of iptables that is there, or in a
// table of its own.
func (d *doctor) hookSpot(ipv6 bool, at hookPlace) func(added) change {
	family := map[bool]string{false: "ip", true: "ip6"}[ipv6]
	for _, t := range d.c.Legacy {
		if t.IPv6 == ipv6 && t.Name == at.table {
			return spot{family: family, table: at.table, chain: at.chain, legacy: true, number: 1}.insert
		}
	}
	for _, t := range d.c.Tables {
		for _, c := range t.Chains {
			if t.Family == family && t.Name == at.table && c.Name == at.chain && ofIptables(t) {
				s := spot{family: family, table: at.table, chain: at.chain, iptables: true}
				if len(c.Rules) > 0 {
					s.number, s.handle = 1, c.Rules[0].Handle
				}
				return s.insert
			}
		}
	}
	own := slices.ContainsFunc(d.c.Tables, func(t *Table) bool { return t.Family == family && ofIptables(t) })
	s := spot{family: "inet", table: at.own, chain: strings.ToLower(at.chain)}
	if own {
		s = spot{family: family, table: at.table, chain: at.chain, iptables: true}
	}
	return func(r added) change {
		x := s.insert(r)
		add := x.do
		x.do = func(d *Dump) error {
			d.addChain(s, at.kind, at.hook, at.priority)
			return add(d)
		}
		if !own {
			x.command = fmt.Sprintf("nft add table inet %s\nnft add chain inet %s %s '{ type %s hook %s priority %s; }'\n%s",
				at.own, at.own, s.chain, at.kind, s.chain, at.order, x.command)
		}
		return x
	}
}

// addChain adds a spot's chain, and its table where it is not there.
func (d *Dump) addChain(s spot, kind string, hook uint32, priority int32) {
	number := byte(unix.NFPROTO_INET)
	for k, name := range families {
		if name == s.family {
			number = k
		}
	}
	message := func(kind int, all attrs) NetlinkMessage {
		return NetlinkMessage{uint16(unix.NFNL_SUBSYS_NFTABLES<<8 | kind),
			all.append([]byte{number, unix.NFNETLINK_V0, 0, 0})}
	}
	chain := message(unix.NFT_MSG_NEWCHAIN, attrs{
		{unix.NFTA_CHAIN_TABLE, zero(s.table)}, {unix.NFTA_CHAIN_NAME, zero(s.chain)},
		{unix.NFTA_CHAIN_HOOK | nestedFlag, attrs{{unix.NFTA_HOOK_HOOKNUM, be32(hook)},
			{unix.NFTA_HOOK_PRIORITY, be32(uint32(priority))}}.bytes()},
		{unix.NFTA_CHAIN_POLICY, be32(1)}, {unix.NFTA_CHAIN_TYPE, zero(kind)},
	})
	for i, m := range d.NFT {
		if _, ok := s.hasMessage(m, unix.NFT_MSG_NEWTABLE); ok {
			d.NFT = slices.Insert(d.NFT, i+1, chain)
			return
		}
	}
	table := message(unix.NFT_MSG_NEWTABLE, attrs{{unix.NFTA_TABLE_NAME, zero(s.table)},
		{unix.NFTA_TABLE_FLAGS, be32(0)}})
	d.NFT = slices.Concat([]NetlinkMessage{table, chain}, d.NFT)
}

// ofMistaken is a listener for tproxy that a rule redirects to.
func (d *doctor) ofMistaken(s suspect) []remedy {
	x := d.c.Sockets[s.Socket]
	words := fmt.Sprintf("have %s take redirected connections at port %d: its inbound of type redirect, not tproxy",
		cmp.Or(x.Comm, "the program"), x.Local.Port())
	return []remedy{{
		cause: "redirect-to-transparent", check: fmt.Sprintf("ss -lntpe 'sport = :%d'",
			d.c.Sockets[s.Socket].Local.Port()),
		fix: editSocket(s.Socket, words, func(q *BoundSocket) { q.Transparent = false }),
		why: "a transparent listener is made for tproxy, behind which its own address is the destination; redirect has rewritten that",
	}}
}

// ofNoRoute is a family without a default route. One that leads to the host itself is enough for
// what rules divert.
func (d *doctor) ofNoRoute(s suspect) []remedy {
	return []remedy{{
		cause: "no-route", check: fmt.Sprintf("%s route get %v", ipCommand(s.Flow.IPv6()), s.Flow.To.Addr()),
		why:   "the kernel looks for a route before OUTPUT, and this host has none to the internet in that family",
		fix:   addRouteToLo(s.Flow.IPv6()),
		price: "programs then use that family too, and what rules do not divert is refused and no longer without a route",
	}}
}

// divertedByRoute are those of a group without a route that come to the proxy with one.
func (d *doctor) divertedByRoute(g []suspect) ([]suspect, error) {
	var flows []Flow
	for _, s := range g {
		flows = append(flows, s.Flow)
	}
	results, err := d.run(flows, addRouteToLo(g[0].Flow.IPv6()))
	var some []suspect
	for i, r := range results {
		if r.Reached == AtSocket && d.isProxy(r.Socket) {
			some = append(some, g[i])
		}
	}
	return some, err
}

// ofPortTaken is a service that has the port from which the proxy must answer.
func (d *doctor) ofPortTaken(s suspect) []remedy {
	var all []remedy
	for i, x := range d.c.Sockets {
		if x.Proto != s.Flow.Proto || x.Local.Port() != s.Flow.To.Port() {
			continue
		}
		to := netip.Addr{}
		for _, a := range d.c.Addrs {
			if a.Local.Is6() == s.Flow.IPv6() && !a.Local.IsLoopback() && !a.Local.IsLinkLocalUnicast() &&
				(!to.IsValid() || d.c.linkName(a.Index) == s.Flow.In) {
				to = a.Local
			}
		}
		if !to.IsValid() {
			continue
		}
		name := cmp.Or(x.Comm, "the program")
		all = append(all, remedy{
			cause: "port-taken", check: fmt.Sprintf("ss -lnup 'sport = :%d'", x.Local.Port()),
			why: fmt.Sprintf(
				"the proxy answers from the original destination's port %d, and %s has that port on all addresses: %s", x.Local.Port(), name, s.AnswerError),
			fix: editSocket(i, fmt.Sprintf(
				"have %s listen on %v port %d alone, not on %v (dnsmasq: bind-interfaces and listen-address=%v)", name,
				to, x.Local.Port(), x.Local.Addr(), to), func(q *BoundSocket) {
				q.Local = netip.AddrPortFrom(to, q.Local.Port())
			}),
			socket: i + 1, price: fmt.Sprintf("%s is then not asked at the host's other addresses", name),
		})
	}
	return all
}

func (c *Snapshot) linkName(index int) string {
	if l := c.link(index); l != nil {
		return l.Name
	}
	return ""
}

// check is a command that shows a suspect's way.
func (d *doctor) check(s suspect) string {
	if s.end.stage == inRules {
		return s.end.hop.lister(d.c)
	}
	return d.routeCommand(s)
}
