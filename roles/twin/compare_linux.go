package twin

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// compare reads the twin and returns what is not the same in it as on the host. What the kernel did
// not take is in Differences already.
func (t *Twin) compare(ctx context.Context) ([]Difference, error) {
	inside, err := t.Inside.Read(ctx)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(Compare(t.Config, inside), func(d Difference) bool {
		return slices.ContainsFunc(t.Differences, func(said Difference) bool { return said.What == d.What })
	}), nil
}

// Compare returns what is not the same in a twin, read from its namespace, as on the host. What a
// twin is meant to differ in is no difference: handles, counters, times, what it was said to lack
// already, and that it has no sockets.
func Compare(live, twin *Snapshot) []Difference {
	var all []Difference
	part := func(what string, live, twin []item) {
		key := func(items []item) []string {
			keys := make([]string, len(items))
			for i, it := range items {
				keys[i] = it.key
			}
			return keys
		}
		l, t := key(live), key(twin)
		for _, i := range lacks(l, t) {
			all = append(all, Difference{what, "the twin lacks " + live[i].text})
		}
		for _, i := range lacks(t, l) {
			all = append(all, Difference{what, "the twin has " + twin[i].text})
		}
	}
	part("device", live.linkItems(), twin.linkItems())
	part("address", live.addrItems(), twin.addrItems())
	part("nexthop object", nexthopItems(live.Nexthops), nexthopItems(twin.Nexthops))
	// While the host asks whether another has an address, its route is still to come.
	part("route", live.routeItems(), slices.DeleteFunc(twin.routeItems(), func(it item) bool {
		return slices.ContainsFunc(live.Addrs, func(a Addr) bool {
			return a.Flags&unix.IFA_F_TENTATIVE != 0 && !live.waits(a) &&
				strings.HasPrefix(it.text, fmt.Sprintf("local %v/128 ", a.Local))
		})
	}))
	part("policy rule", live.ruleItems(), twin.ruleItems())
	part("setting", live.settingItems(), twin.settingItems())
	part("nf_tables", live.nftItems(), twin.nftItems())
	part("ipset", live.ipsetItems(), twin.ipsetItems())
	part("iptables-legacy", live.legacyItems(), twin.legacyItems())
	return all
}

// item is something that the host and the twin have both. Two are the same if their keys are.
type item struct{ key, text string }

func (c *Snapshot) linkItems() []item {
	var all []item
	for _, l := range c.Links {
		mac := l.MAC
		if !l.ethernet() || l.Kind == "bridge" && !c.hasPorts(l) {
			mac = nil // it has none, or no one asks for it
		}
		const flags = unix.IFF_UP | unix.IFF_NOARP | unix.IFF_LOOPBACK | unix.IFF_MULTICAST
		text := fmt.Sprintf("device %s: index %d, flags 0x%x, carrier %v, MTU %d, MAC %x, group %d", l.Name, l.Index,
			l.Flags&flags,
			l.Carrier, l.MTU, mac, l.Group)
		if master := c.link(l.Master); master != nil && rank(*master) == 0 {
			text += ", of " + master.Name
		}
		all = append(all, item{text, text})
		raw := c.rawLink(l.Index)
		for _, family := range []struct {
			name  string
			names map[int]string
			conf  []byte
			first int
		}{{"ipv4", conf4, ipv4Conf(raw), 1}, {"ipv6", conf6, ipv6Conf(raw), 0}} {
			for id := range 64 {
				if name, at := family.names[id], 4*(id-family.first); name != "" && at >= 0 &&
					len(family.conf) >= at+4 {
					text := fmt.Sprintf("%s/conf/%s/%s = %d", family.name, l.Name, name,
						int32(host32(family.conf[at:at+4])))
					all = append(all, item{text, text})
				}
			}
		}
	}
	return all
}

func (c *Snapshot) addrItems() []item {
	all := make([]item, len(c.Addrs))
	for i, a := range c.Addrs {
		name := fmt.Sprint(a.Index)
		if l := c.link(a.Index); l != nil {
			name = l.Name
		}
		all[i] = item{string(c.newAddr(i)), fmt.Sprintf("%v dev %s", a.Prefix, name)}
	}
	return all
}

func nexthopItems(messages [][]byte) []item {
	var all []item
	for _, m := range messages {
		text := "a nexthop object"
		if about, err := split(m, unix.SizeofNhmsg); err == nil {
			text = fmt.Sprintf("nexthop object %d", host32(about.get(unix.NHA_ID)))
		}
		all = append(all, item{string(cleanNexthop(m)), text})
	}
	return all
}

func (c *Snapshot) routeItems() []item {
	all := make([]item, len(c.Routes))
	for i, key := range routeKeys(c.Dump.Routes) {
		all[i] = item{key, c.routeText(i)}
	}
	return all
}

func (c *Snapshot) ruleItems() []item {
	all := make([]item, len(c.PolicyRules))
	for i, key := range ruleKeys(c.Dump.Rules) {
		all[i] = item{key, c.ruleText(i)}
	}
	return all
}

func (c *Snapshot) settingItems() []item {
	var all []item
	for _, name := range slices.Compact(slices.Sorted(slices.Values(settings))) {
		if value, ok := c.Settings[name]; ok {
			text := name + " = " + value
			all = append(all, item{text, text})
		}
	}
	return all
}

// nftItems are the tables, chains, sets, elements, objects, flowtables and rules of nf_tables. The
// order of rules counts, that of others does not.
func (c *Snapshot) nftItems() []item {
	var all []item
	numbers := map[SetName]int{}
	partial := map[SetName]bool{}
	for _, p := range c.Partial {
		partial[p] = true
	}
	elements := map[SetName][]string{}
	for i, m := range slices.Concat(c.NFT, c.Asked) {
		about, err := split(m.Data, 4)
		if err != nil {
			continue // decode has refused it
		}
		where := fmt.Sprintf("table %s %s", families[m.Data[0]], text(about.get(unix.NFTA_TABLE_NAME)))
		name := func(kind uint16) SetName {
			return SetName{m.Data[0], text(about.get(unix.NFTA_TABLE_NAME)), text(about.get(kind))}
		}
		add := func(kind, text string, cleaned attrs) {
			all = append(all, item{kind + where + string(cleaned.bytes()), text + " of " + where})
		}
		switch m.Type & 0xff {
		case unix.NFT_MSG_NEWTABLE:
			all = append(all, item{"table" + where + string(cleanTable(about).bytes()), where})
		case unix.NFT_MSG_NEWCHAIN:
			add("chain", "chain "+name(unix.NFTA_CHAIN_NAME).Name, cleanChain(about))
		case unix.NFT_MSG_NEWOBJ:
			// What it counted is not compared.
			add("object", "object "+name(unix.NFTA_OBJ_NAME).Name, cleanObject(about).without(unix.NFTA_OBJ_DATA))
		case unix.NFT_MSG_NEWSET:
			add("set", "set "+name(unix.NFTA_SET_NAME).Name, cleanSet(about))
		case unix.NFT_MSG_NEWSETELEM:
			set := name(unix.NFTA_SET_ELEM_LIST_SET)
			if list, err := about.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS); err == nil &&
				(!partial[set] || i >= len(c.NFT)) {
				for _, e := range list {
					// Times and counters go on.
					elements[set] = append(elements[set], settled(e.data, unix.NFTA_SET_ELEM_EXPIRATION,
						unix.NFTA_SET_ELEM_EXPR,
						nftaSetElemExpressions, unix.NFTA_SET_ELEM_PAD))
				}
			}
		case unix.NFT_MSG_NEWFLOWTABLE:
			add("flowtable", "flowtable "+name(nftaFlowtableName).Name, cleanFlowtable(about))
		case unix.NFT_MSG_NEWRULE:
			chain := name(unix.NFTA_RULE_CHAIN)
			numbers[chain]++
			text := fmt.Sprintf("rule %d of chain %s", numbers[chain], chain.Name)
			if cleaned, _, err := cleanRule(about); err == nil {
				add(text, text, uncounted(cleaned))
			}
		}
	}
	for set, list := range elements {
		text := fmt.Sprintf("elements of set %s of table %s %s", set.Name, families[set.Family], set.Table)
		all = append(all, item{text + joined(list), "other " + text})
	}
	return all
}

// settled are the attributes of an element without those that change by themselves.
func settled(e []byte, changing ...uint16) string {
	all, err := split(e, 0)
	if err != nil || !slices.ContainsFunc(all, func(a attr) bool { return slices.Contains(changing, a.kind()) }) {
		return string(e)
	}
	return string(all.without(changing...).bytes())
}

// joined are elements in an order that does not depend on where the kernel keeps them.
func joined(list []string) string {
	slices.Sort(list)
	return strings.Join(list, "\x00")
}

// nftaSetElemExpressions is NFTA_SET_ELEM_EXPRESSIONS.
const nftaSetElemExpressions = 11

// uncounted is a rule without what its expressions count.
func uncounted(rule attrs) attrs {
	list, err := rule.nest(unix.NFTA_RULE_EXPRESSIONS)
	if err != nil {
		return rule
	}
	var some attrs
	for _, e := range list {
		about, err := split(e.data, 0)
		if err != nil {
			return rule
		}
		switch text(about.get(unix.NFTA_EXPR_NAME)) {
		case "counter", "quota", "limit", "connlimit", "last":
			e.data = about.without(unix.NFTA_EXPR_DATA).bytes()
		}
		some = append(some, e)
	}
	return rule.without(unix.NFTA_RULE_EXPRESSIONS).with(unix.NFTA_RULE_EXPRESSIONS, some.bytes())
}

func (c *Snapshot) ipsetItems() []item {
	var all []item
	elements := map[string][]string{}
	for _, m := range c.Sets {
		about, err := split(m.Data, 4)
		if err != nil {
			continue
		}
		name := text(about.get(ipsetAttrSetName))
		if about.has(ipsetAttrTypeName) {
			data, err := about.nest(ipsetAttrData)
			if err != nil {
				continue
			}
			head := about.without(ipsetAttrData, ipsetAttrADT, ipsetAttrProtocol).bytes()
			all = append(all, item{string(head) + string(cleanIPSet(data)), "set " + name})
		}
		if list, err := about.nest(ipsetAttrADT); err == nil {
			for _, e := range list {
				elements[name] = append(elements[name], settled(e.data, ipsetDataTimeout, ipsetDataBytes,
					ipsetDataPackets))
			}
		}
	}
	for name, list := range elements {
		all = append(all, item{name + joined(list), "other elements of set " + name})
	}
	return all
}

func (c *Snapshot) legacyItems() []item {
	var all []item
	for _, t := range c.Legacy {
		text := fmt.Sprintf("table %s of %s", t.Name, map[bool]string{false: "iptables-legacy",
			true: "ip6tables-legacy"}[t.IPv6])
		clean, err := t.clean()
		if err != nil {
			continue
		}
		// The sizes and hooks are those of the entries.
		all = append(all, item{t.Name + fmt.Sprint(t.IPv6) + string(bytes.TrimRight(t.Info[32:], "\x00")) +
			string(clean), text})
	}
	return all
}
