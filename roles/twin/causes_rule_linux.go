package twin

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf/xt"
)

var onIP = regexp.MustCompile(`--on-ip \S+`)

// retarget leads a tproxy rule to an address.
func (d *doctor) retarget(h Hop, to netip.Addr) (change, bool) {
	s := d.c.spotOf(h)
	if s.legacy {
		x := change{command: fmt.Sprintf("%s -t %s -R %s %d %s", s.tool(), s.table, s.chain, s.number,
			onIP.ReplaceAllString(h.Rule, "--on-ip "+to.String()))}
		x.do = func(dump *Dump) error {
			return s.editLegacy(dump, func(t *LegacyTable, r legacyRule) error {
				if r.targetName() != "TPROXY" || len(r.data()) < 24 {
					return errGone
				}
				copy(r.data()[8:], to.AsSlice()) // laddr of both revisions
				return nil
			})
		}
		return x, true
	}
	if s.iptables {
		return s.rewrite(onIP.ReplaceAllString(h.Rule, "--on-ip "+to.String()), func(exprs attrs) (attrs, error) {
			data := xtData(exprs, "TPROXY")
			if len(data) < 24 {
				return nil, errGone
			}
			copy(data[8:], to.AsSlice())
			return exprs, nil
		}), true
	}
	family := map[bool]string{false: "ip", true: "ip6"}[to.Is6()]
	word := regexp.MustCompile(`tproxy( ip6?)? to \S+`)
	text := word.ReplaceAllStringFunc(h.Rule, func(old string) string {
		port := old[strings.LastIndexByte(old, ':'):]
		if s.family == "inet" {
			return "tproxy " + family + " to " + bracket(to) + port
		}
		return "tproxy to " + bracket(to) + port
	})
	return s.rewrite(text, func(exprs attrs) (attrs, error) {
		var all attrs
		for _, e := range exprs {
			about, err := split(e.data, 0)
			if err != nil {
				return nil, err
			}
			// its address in a register that nothing else uses
			if text := (nested{e.data}).get(unix.NFTA_EXPR_NAME).text(); text == "tproxy" {
				data, err := about.nest(unix.NFTA_EXPR_DATA)
				if err != nil {
					return nil, err
				}
				const register = unix.NFT_REG32_12
				all = append(all, nftExpr("immediate", attrs{{unix.NFTA_IMMEDIATE_DREG, be32(register)},
					dataValue(unix.NFTA_IMMEDIATE_DATA, to.AsSlice())}))
				number := uint32(unix.NFPROTO_IPV4)
				if to.Is6() {
					number = unix.NFPROTO_IPV6
				}
				e = nftExpr("tproxy", data.without(1, 2).with(1, be32(number)).with(2, be32(register)))
			}
			all = append(all, e)
		}
		return all, nil
	}), true
}

// except has a rule not take packets that have an added rule's mark.
func (s spot) except(h Hop, a added) change {
	a = added{UID: -1, HasMark: true, NotMark: true, Mark: a.Mark, Mask: a.Mask, IPv6: a.IPv6}
	words := strings.TrimSpace(strings.TrimSuffix(a.iptables(), "-j "))
	switch {
	case s.legacy:
		x := change{command: fmt.Sprintf("%s -t %s -R %s %d %s %s", s.tool(), s.table, s.chain, s.number, words,
			h.Rule)}
		take := s.remove()
		x.do = func(d *Dump) error {
			if err := s.editLegacy(d, func(t *LegacyTable, r legacyRule) error {
				at := xt.LayoutOf(t.IPv6)
				mark := a.legacy()
				mark = mark[at.Size:cstruct(mark).u16(at.Target)]
				entry := slices.Concat(r.entry[:at.Size], mark, r.entry[at.Size:])
				put16(entry, at.Target, uint16(r.target+len(mark)))
				put16(entry, at.Target+2, uint16(len(entry)))
				return t.insert(r.offset, entry)
			}); err != nil {
				return err
			}
			old := s
			old.number++
			take = old.remove()
			return take.do(d)
		}
		return x
	case s.iptables:
		return s.rewrite(words+" "+h.Rule, func(exprs attrs) (attrs,
			error) {
			return append(a.exprs(s.family), exprs...), nil
		})
	}
	return s.rewrite(strings.TrimSpace(a.nft(s.family))+" "+h.Rule,
		func(exprs attrs) (attrs, error) { return append(a.exprs(s.family), exprs...), nil })
}

// redirectTo makes a redirect one to an address: dnat.
func (d *doctor) redirectTo(h Hop, to netip.AddrPort) (change, bool) {
	s := d.c.spotOf(h)
	if s.legacy || to.Addr().IsLoopback() {
		return change{}, false
	}
	number := byte(unix.NFPROTO_IPV4)
	if to.Addr().Is6() {
		number = unix.NFPROTO_IPV6
	}
	text := regexp.MustCompile(`redirect( to \S+)?`).ReplaceAllString(h.Rule, "dnat to "+to.String())
	if s.family == "inet" {
		text = strings.Replace(text, "dnat to", map[bool]string{false: "dnat ip to",
			true: "dnat ip6 to"}[to.Addr().Is6()], 1)
	}
	if s.iptables {
		text = regexp.MustCompile(`-j REDIRECT.*`).ReplaceAllString(h.Rule, "-j DNAT --to-destination "+to.String())
	}
	return s.rewrite(text, func(exprs attrs) (attrs, error) {
		var all attrs
		for _, e := range exprs {
			n := nested{e.data}
			if n.get(unix.NFTA_EXPR_NAME).text() == "redir" || n.get(unix.NFTA_EXPR_DATA).get(1).text() == "REDIRECT" {
				all = append(all,
					nftExpr("immediate", attrs{{unix.NFTA_IMMEDIATE_DREG, be32(1)},
						dataValue(unix.NFTA_IMMEDIATE_DATA, to.Addr().AsSlice())}),
					nftExpr("immediate", attrs{{unix.NFTA_IMMEDIATE_DREG, be32(2)},
						dataValue(unix.NFTA_IMMEDIATE_DATA, be16(to.Port()))}),
					nftExpr("nat", attrs{
						{unix.NFTA_NAT_TYPE, be32(unix.NFT_NAT_DNAT)}, {unix.NFTA_NAT_FAMILY, be32(uint32(number))},
						{unix.NFTA_NAT_REG_ADDR_MIN, be32(1)}, {unix.NFTA_NAT_REG_PROTO_MIN, be32(2)},
					}))
				continue
			}
			all = append(all, e)
		}
		return all, nil
	}), true
}

// ofNoMark is a tproxy rule that gives packets no mark by which they are routed to the host itself.
func (d *doctor) ofNoMark(s suspect) []remedy {
	h, ok := s.key.diverter()
	if !ok || !h.tproxies() {
		return nil
	}
	ipv6 := s.Flow.IPv6()
	rule := PolicyRule{IPv6: ipv6, Priority: 99, Table: d.localTables(ipv6), Mark: 1, Mask: 0xffffffff}
	for _, r := range d.c.PolicyRules {
		if r.IPv6 == ipv6 && r.Mark != 0 && !r.Invert && d.c.localTable(r.Table, ipv6) {
			rule = r
			break
		}
	}
	r := remedy{
		cause: "no-mark", check: h.lister(d.c), fix: d.withMark(h, rule),
		why: fmt.Sprintf("%s gives it no mark, so no policy rule leads it to this host's sockets", h.name(d.c)),
	}
	if !slices.Contains(d.c.PolicyRules, rule) {
		r.fix = r.fix.and(addPolicyRule(rule))
		r.check += "; " + ipCommand(ipv6) + " rule"
	}
	if !d.c.localTable(rule.Table, ipv6) {
		r.fix = r.fix.and(addLocalRoute(rule.Table, ipv6))
	}
	return []remedy{r}
}

var tproxyMark = regexp.MustCompile(` --tproxy-mark \S+`)

// withMark has a tproxy rule give packets the mark of a policy rule.
func (d *doctor) withMark(h Hop, rule PolicyRule) change {
	s := d.c.spotOf(h)
	// struct xt_tproxy_target_info_v1: mark_mask, mark_value
	write := func(data []byte) error {
		if len(data) < 24 {
			return errGone
		}
		copy(data, slices.Concat(native(rule.Mask), native(rule.Mark)))
		return nil
	}
	text := tproxyMark.ReplaceAllString(h.Rule, "") + fmt.Sprintf(" --tproxy-mark 0x%x/0x%x", rule.Mark, rule.Mask)
	switch {
	case s.legacy:
		command := fmt.Sprintf("%s -t %s -R %s %d %s", s.tool(), s.table, s.chain, s.number, text)
		return change{command: command, do: func(x *Dump) error {
			return s.editLegacy(x, func(_ *LegacyTable, r legacyRule) error { return write(r.data()) })
		}}
	case s.iptables:
		return s.rewrite(text, func(exprs attrs) (attrs, error) {
			return exprs, write(xtData(exprs, "TPROXY"))
		})
	}
	text = strings.Replace(h.Rule, "tproxy", fmt.Sprintf("meta mark set 0x%x tproxy", rule.Mark), 1)
	return s.rewrite(text, func(exprs attrs) (attrs, error) {
		i := slices.IndexFunc(exprs, func(e attr) bool {
			return (nested{e.data}).get(unix.NFTA_EXPR_NAME).text() == "tproxy"
		})
		if i < 0 {
			return nil, errGone
		}
		const register = unix.NFT_REG32_12
		return slices.Insert(exprs, i,
			nftExpr("immediate", attrs{
				{unix.NFTA_IMMEDIATE_DREG, be32(register)}, dataValue(unix.NFTA_IMMEDIATE_DATA, native(rule.Mark)),
			}),
			nftExpr("meta", attrs{
				{unix.NFTA_META_KEY, be32(unix.NFT_META_MARK)}, {unix.NFTA_META_SREG, be32(register)},
			})), nil
	})
}
