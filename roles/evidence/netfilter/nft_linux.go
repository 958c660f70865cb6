package netfilter

import (
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// families are those of IP's hooks, by NFPROTO_*; netdev's and bridge's have hooks of their own.
var families = map[byte]string{unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6", unix.NFPROTO_INET: "inet"}

// hooks by NF_INET_*.
var hooks = []string{"prerouting", "input", "forward", "output", "postrouting"}

// tableDormant is NFT_TABLE_F_DORMANT.
const tableDormant = 1

// nfTables reads the rules of nf_tables into the ruleset.
func (r *Ruleset) nfTables() error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return fmt.Errorf("netfilter socket: %w", err)
	}
	defer conn.Close()
	dump := func(message int, data []byte, f func(family string, n nested) error) error {
		messages, err := conn.Execute(netlink.Message{
			Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | message), Flags: netlink.Request | netlink.Dump}, Data: data,
		})
		if err != nil {
			return err
		}
		for _, m := range messages {
			if len(m.Data) < 4 {
				return fmt.Errorf("a message of %d bytes", len(m.Data))
			}
			if family := families[m.Data[0]]; family != "" { // struct nfgenmsg
				if err := f(family, nested{m.Data[4:]}); err != nil {
					return err
				}
			}
		}
		return nil
	}
	all := make([]byte, 4) // struct nfgenmsg: of all families
	dormant := map[string]bool{}
	if err := dump(unix.NFT_MSG_GETTABLE, all, func(family string, n nested) error {
		if n.get(unix.NFTA_TABLE_FLAGS).number()&tableDormant != 0 {
			dormant[family+" "+n.get(unix.NFTA_TABLE_NAME).text()] = true
		}
		return nil
	}); err != nil {
		return fmt.Errorf("list of tables: %w", err)
	}
	chains := map[[3]string]*Chain{}
	if err := dump(unix.NFT_MSG_GETCHAIN, all, func(family string, n nested) error {
		c := parseChain(family, n)
		c.Dormant = dormant[family+" "+c.Table]
		chains[[3]string{family, c.Table, c.Name}] = c
		r.Chains = append(r.Chains, c)
		return nil
	}); err != nil {
		return fmt.Errorf("list of chains: %w", err)
	}
	elements := func(family, table, set string) ([]element, error) {
		b, err := netlink.MarshalAttributes([]netlink.Attribute{
			{Type: unix.NFTA_SET_ELEM_LIST_TABLE, Data: []byte(table + "\x00")}, {Type: unix.NFTA_SET_ELEM_LIST_SET, Data: []byte(set + "\x00")},
		})
		if err != nil {
			return nil, err
		}
		number := byte(0)
		for k, name := range families {
			if name == family {
				number = k
			}
		}
		var all []element
		err = dump(unix.NFT_MSG_GETSETELEM, append([]byte{number, 0, 0, 0}, b...), func(_ string, n nested) error {
			return n.get(unix.NFTA_SET_ELEM_LIST_ELEMENTS).each(func(_ uint16, e nested) { all = append(all, parseElement(e)) })
		})
		return all, err
	}
	err = dump(unix.NFT_MSG_GETRULE, all, func(family string, n nested) error {
		table := n.get(unix.NFTA_RULE_TABLE).text()
		c := chains[[3]string{family, table, n.get(unix.NFTA_RULE_CHAIN).text()}]
		if c == nil {
			return nil // it was made meanwhile
		}
		rule, err := parseRule(c, n.get(unix.NFTA_RULE_EXPRESSIONS), func(set string) ([]element, error) { return elements(family, table, set) })
		if err != nil {
			return fmt.Errorf("%s: %w", rule.Where(), err)
		}
		c.Rules = append(c.Rules, rule)
		return nil
	})
	if err != nil {
		return fmt.Errorf("list of rules: %w", err)
	}
	return nil
}

func parseChain(family string, n nested) *Chain {
	c := &Chain{Family: family, Table: n.get(unix.NFTA_CHAIN_TABLE).text(), Name: n.get(unix.NFTA_CHAIN_NAME).text(), Type: n.get(unix.NFTA_CHAIN_TYPE).text()}
	if hook := n.get(unix.NFTA_CHAIN_HOOK); len(hook.b) > 0 {
		c.Hook = "another"
		if i := hook.get(unix.NFTA_HOOK_HOOKNUM).number(); int(i) < len(hooks) {
			c.Hook = hooks[i]
		}
		c.Priority = int(int32(hook.get(unix.NFTA_HOOK_PRIORITY).number()))
		c.Drops = n.get(unix.NFTA_CHAIN_POLICY).number() == 0 && len(n.get(unix.NFTA_CHAIN_POLICY).b) > 0 // NF_DROP
	}
	return c
}

// verdict is a statement that decides.
func verdict(n nested) Action {
	chain := n.get(unix.NFTA_VERDICT_CHAIN).text()
	switch code := int32(n.get(unix.NFTA_VERDICT_CODE).number()); code {
	case unix.NFT_JUMP:
		return Action{Does: Jump, Chain: chain, Text: "jump " + chain}
	case unix.NFT_GOTO:
		return Action{Does: Goto, Chain: chain, Text: "goto " + chain}
	case unix.NFT_RETURN:
		return Action{Does: Return, Text: "return"}
	case 0: // NF_DROP
		return Action{Does: Drop, Text: "drop"}
	case 1: // NF_ACCEPT
		return Action{Does: Accept, Text: "accept"}
	case unix.NFT_CONTINUE, unix.NFT_BREAK:
		return Action{Text: "continue"}
	default:
		return Action{Does: Ends, Text: fmt.Sprintf("verdict %d", code)}
	}
}
