package twin

import (
	"encoding/binary"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// nftGroup is a part of nf_tables whose messages must be sent together.
type nftGroup struct {
	requests []request
	text     string // what it makes, for people
	// instead is sent where the kernel refuses the group: a rule that does nothing keeps the
	// others' numbers.
	instead []request
}

// nft copies all of nf_tables.
func (r *replay) nft() error {
	if len(r.NFT) == 0 {
		return nil
	}
	groups, err := r.nftGroups()
	if err != nil {
		return err
	}
	c, err := dial(unix.NETLINK_NETFILTER, 0)
	if err != nil {
		return err
	}
	defer c.Close()
	room, err := sendBuffer(c)
	if err != nil {
		return err
	}
	_ = c.SetReadBuffer(4 << 20) // an error comes with its whole message
	size, from := 0, 0
	for i, g := range groups {
		length := 0
		for _, q := range g.requests {
			length += unix.NLMSG_HDRLEN + len(q.data)
		}
		if size+length > room && i > from {
			if err := r.commit(c, groups[from:i]); err != nil {
				return err
			}
			size, from = 0, i
		}
		size += length
	}
	return r.commit(c, groups[from:])
}

// sendBuffer makes room for long batches and returns how long one may be.
func sendBuffer(c *netlink.Conn) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	const wanted = 8 << 20
	var refused error
	if err := raw.Control(func(fd uintptr) {
		refused = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET,
			unix.SO_SNDBUFFORCE, wanted)
	}); err != nil {
		return 0, err
	}
	if refused != nil { // in a user namespace: up to net.core.wmem_max
		if err := c.SetWriteBuffer(wanted); err != nil {
			return 0, err
		}
	}
	granted, err := c.WriteBuffer() // twice of what was asked
	return granted/2 - 4096, err
}

// commitTries is how often a batch is sent without what was refused.
const commitTries = 10

// commit sends the groups as one transaction. Those that the kernel refuses are left out and noted.
func (r *replay) commit(c *netlink.Conn, groups []nftGroup) error {
	mark := func(kind uint16) request {
		return request{kind, 0, []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES}}
	}
	for range commitTries {
		batch := []request{mark(unix.NFNL_MSG_BATCH_BEGIN)}
		var group []int // by the index of the request in the batch, less one
		for i, g := range groups {
			for _, q := range g.requests {
				batch, group = append(batch, q), append(group, i)
			}
		}
		if len(group) == 0 {
			return nil
		}
		failed, err := perform(c, append(batch, mark(unix.NFNL_MSG_BATCH_END)), true)
		if err != nil {
			return fmt.Errorf("nf_tables: %w", err)
		}
		if len(failed) == 0 {
			return nil
		}
		if err := failed[0]; err != nil {
			return fmt.Errorf("nf_tables: the kernel refuses the rules as a whole: %w", err)
		}
		without := make([]nftGroup, len(groups))
		copy(without, groups)
		told := map[int]bool{}
		for i, g := range group {
			if failed[i+1] == nil || told[g] {
				continue
			}
			told[g] = true
			r.lack("nf_tables", "%s: %v", groups[g].text, failed[i+1])
			without[g] = nftGroup{requests: groups[g].instead, text: groups[g].text}
		}
		groups = without
	}
	return fmt.Errorf("nf_tables: the kernel refuses the rules: %w", errChanges)
}

// nftName names a set or a chain.
type nftName = SetName

// nftParts are the messages of nf_tables, made ready to be sent.
type nftParts struct {
	first, sets, elements, flowtables []nftGroup
	rules                             []nftRule
	// Anonymous sets and chains are made together with the rule that uses them.
	hidden map[nftName][]request
	within map[nftName][]nftRule // rules of anonymous chains
}

// nftRule is a rule with what it needs.
type nftRule struct {
	uses []nftName
	nftGroup
}

// nftGroups are all of nf_tables in an order that the kernel takes.
func (r *replay) nftGroups() ([]nftGroup, error) {
	p := nftParts{hidden: map[nftName][]request{}, within: map[nftName][]nftRule{}}
	chains := map[nftName]bool{}
	numbers := map[nftName]int{}
	partial := map[SetName]bool{}
	for _, s := range r.Partial {
		partial[s] = true
	}
	for i, m := range r.NFT {
		all, err := split(m.Data, 4)
		if err != nil {
			return nil, err
		}
		// NFTA_CHAIN_TABLE, NFTA_SET_TABLE, … are all 1, as is NFTA_TABLE_NAME.
		table := text(all.get(unix.NFTA_TABLE_NAME))
		where := fmt.Sprintf("table %s %s", families[m.Data[0]], table)
		name := func(kind uint16) nftName { return nftName{m.Data[0], table, text(all.get(kind))} }
		one := func(what string, cleaned attrs) nftGroup {
			return nftGroup{requests: []request{newNFT(m, cleaned)}, text: what}
		}
		switch m.Type & 0xff {
		case unix.NFT_MSG_NEWTABLE:
			p.first = append(p.first, one(where, cleanTable(all)))
		case unix.NFT_MSG_NEWCHAIN:
			n := name(unix.NFTA_CHAIN_NAME)
			g := one(fmt.Sprintf("chain %s of %s", n.Name, where), cleanChain(all))
			if net32(all.get(nftaChainFlags))&chainBinding != 0 {
				p.hidden[n], chains[n] = g.requests, true
			} else {
				p.first = append(p.first, g)
			}
		case unix.NFT_MSG_NEWOBJ:
			p.sets = append(p.sets, one(fmt.Sprintf("object %s of %s", text(all.get(unix.NFTA_OBJ_NAME)), where),
				cleanObject(all)))
		case unix.NFT_MSG_NEWSET:
			n := name(unix.NFTA_SET_NAME)
			g := one(fmt.Sprintf("set %s of %s", n.Name, where),
				cleanSet(all).with(unix.NFTA_SET_ID, binary.BigEndian.AppendUint32(nil, uint32(i+1))))
			if net32(all.get(unix.NFTA_SET_FLAGS))&setAnonymous != 0 {
				p.hidden[n] = g.requests
			} else {
				p.sets = append(p.sets, g)
			}
		case unix.NFT_MSG_NEWSETELEM:
			n := name(unix.NFTA_SET_ELEM_LIST_SET)
			if partial[n] {
				continue // those that were asked for follow
			}
			if all, err = cleanElements(all); err != nil {
				return nil, err
			}
			if p.hidden[n] != nil {
				p.hidden[n] = append(p.hidden[n], newNFT(m, all))
			} else {
				p.elements = append(p.elements, one(fmt.Sprintf("elements of set %s of %s", n.Name, where), all))
			}
		case unix.NFT_MSG_NEWFLOWTABLE:
			p.flowtables = append(p.flowtables, one(fmt.Sprintf("flowtable %s of %s", text(all.get(nftaFlowtableName)),
				where), cleanFlowtable(all)))
		case unix.NFT_MSG_NEWRULE:
			n := name(unix.NFTA_RULE_CHAIN)
			numbers[n]++
			rule, uses, err := cleanRule(all)
			if err != nil {
				return nil, err
			}
			g := one(fmt.Sprintf("rule %d of chain %s of %s", numbers[n], n.Name, where), rule)
			g.instead = []request{newNFT(m, attrs{
				{unix.NFTA_RULE_TABLE, all.get(unix.NFTA_RULE_TABLE)},
				{unix.NFTA_RULE_CHAIN, all.get(unix.NFTA_RULE_CHAIN)},
				{unix.NFTA_RULE_EXPRESSIONS | nestedFlag, nil},
			})}
			whole := nftRule{nftGroup: g}
			for _, u := range uses {
				whole.uses = append(whole.uses, nftName{n.Family, n.Table, u})
			}
			if chains[n] {
				p.within[n] = append(p.within[n], whole)
			} else {
				p.rules = append(p.rules, whole)
			}
		}
	}
	for _, m := range r.Asked {
		all, err := split(m.Data, 4)
		if err != nil {
			return nil, err
		}
		n := nftName{m.Data[0], text(all.get(unix.NFTA_SET_ELEM_LIST_TABLE)),
			text(all.get(unix.NFTA_SET_ELEM_LIST_SET))}
		if all, err = cleanElements(all); err != nil {
			return nil, err
		}
		if p.hidden[n] != nil {
			p.hidden[n] = append(p.hidden[n], newNFT(m, all))
		} else {
			p.elements = append(p.elements, nftGroup{
				requests: []request{newNFT(m, all)}, text: fmt.Sprintf("elements of set %s of table %s %s", n.Name,
					families[n.Family], n.Table),
			})
		}
	}
	groups := append(p.first, p.sets...)
	groups = append(append(groups, p.elements...), p.flowtables...)
	for _, rule := range p.rules {
		g := rule.nftGroup
		g.requests = p.whole(rule, 0)
		groups = append(groups, g)
	}
	return groups, nil
}

// newNFT is a message that makes what the one was read from.
func newNFT(m NetlinkMessage, all attrs) request {
	// The generation in the head (res_id) is that of the host.
	return request{m.Type, netlink.Create | unix.NLM_F_APPEND, all.append([]byte{m.Data[0], unix.NFNETLINK_V0, 0, 0})}
}

// whole are the messages of a rule behind those of what it needs. What is bound to a rule takes no
// more rules or elements, so the innermost come first.
func (p *nftParts) whole(rule nftRule, depth int) []request {
	var all []request
	for _, n := range rule.uses {
		all = append(all, p.hidden[n]...)
		if depth == maxDepth {
			continue // of a snapshot alone: the kernel allows 16 levels
		}
		for _, inner := range p.within[n] {
			all = append(all, p.whole(inner, depth+1)...)
		}
	}
	return append(all, rule.requests...)
}
